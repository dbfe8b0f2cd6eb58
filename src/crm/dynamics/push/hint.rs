//! A pushed `RemoteExecutionContext`, and the little of it that is believed: which record to read.

use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;

/// "Something happened to this record."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The table's logical name (`PrimaryEntityName`).
    pub table: ObjectName,
    /// The record (`PrimaryEntityId`).
    pub record: RecordId,
    /// `Create`, `Update`, `Delete`, or another message that names a record.
    pub message: String,
    /// `CorrelationId`, for logs: it finds the operation in the environment.
    pub correlation: Option<String>,
    /// Members were left out for size (`x-ms-dynamics-msg-size-exceeded`, `MessageMaxSizeExceeded`); the record is
    /// read all the same, so it makes no difference but in logs.
    pub is_cut: bool,
}

/// Why a body is no hint.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// .NET Binary XML, the default of a service endpoint.
    #[error("the message is .NET binary (`application/msbin1`), which only .NET reads")]
    Binary,
    /// Text XML.
    #[error("the message is XML")]
    Xml,
    /// Not JSON, or not of the form.
    #[error("the message is no RemoteExecutionContext in JSON")]
    Unreadable(#[source] Option<serde_json::Error>),
    /// It names no record.
    #[error("the message `{message}` of table `{table}` names no record")]
    NoRecord {
        /// `MessageName`.
        message: String,
        /// `PrimaryEntityName`.
        table: String,
    },
}

impl Refusal {
    /// Every label, for metrics.
    pub const LABELS: [&str; 4] = ["binary", "xml", "unreadable", "no_record"];

    /// Its label in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Xml => "xml",
            Self::Unreadable(_) => "unreadable",
            Self::NoRecord { .. } => "no_record",
        }
    }

    const fn remedy(&self) -> &'static str {
        match self {
            Self::Binary | Self::Xml => {
                "set the service endpoint's message format to JSON (`messageformat` 2)"
            }
            Self::Unreadable(_) => {
                "let nothing but the environment's own service endpoint post here"
            }
            Self::NoRecord { .. } => "register steps for Create, Update and Delete only",
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let remedy = refusal.remedy();
        let fault = Self::new(FaultKind::Record, refusal.to_string()).remedy(remedy);
        match refusal {
            Refusal::Unreadable(Some(error)) => fault.source(error),
            _ => fault,
        }
    }
}

/// The members that are read; the others may be cut, missing or new.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    message_name: String,
    primary_entity_name: String,
    primary_entity_id: Option<String>,
    correlation_id: Option<String>,
}

/// Reads a body. `content_type` is what the sender calls it, if it does; `is_cut` whether it says that members were
/// left out.
///
/// The form is that of a `RemoteExecutionContext` in DataContract JSON
/// (<https://learn.microsoft.com/power-apps/developer/data-platform/azure-integration>).
///
/// # Errors
/// [`Refusal`] for another form, and for a message without a record.
pub fn parse(content_type: Option<&str>, body: &[u8], is_cut: bool) -> Result<Hint, Refusal> {
    match content_type.map(essence).as_deref() {
        Some("application/msbin1") => return Err(Refusal::Binary),
        Some("application/xml" | "text/xml") => return Err(Refusal::Xml),
        _ => {}
    }
    let context = context(body)?;
    let no_record = || Refusal::NoRecord {
        message: shown(&context.message_name),
        table: shown(&context.primary_entity_name),
    };
    let id = context.primary_entity_id.as_deref().unwrap_or_default();
    let record = RecordId::guid(id).map_err(|_| no_record())?;
    if record.as_str() == NIL || context.primary_entity_name.is_empty() {
        return Err(no_record());
    }
    Ok(Hint {
        table: ObjectName::new(context.primary_entity_name.to_ascii_lowercase()),
        record,
        message: shown(&context.message_name),
        correlation: context.correlation_id.as_deref().map(shown),
        is_cut,
    })
}

/// `PrimaryEntityId` of a message that concerns no record.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// A queue's client may have put a byte order mark or the frame of a serialised string before the JSON, and a byte
/// after it.
fn context(body: &[u8]) -> Result<Context, Refusal> {
    let Some(start) = body.iter().position(|byte| *byte == b'{') else {
        return Err(other_form(body));
    };
    let (before, json) = body.split_at(start);
    if is_xml(before) {
        return Err(Refusal::Xml);
    }
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<Context>();
    match values.next() {
        Some(Ok(context)) => Ok(context),
        Some(Err(_)) if is_binary(before) => Err(Refusal::Binary),
        Some(Err(error)) => Err(Refusal::Unreadable(Some(error))),
        None => Err(Refusal::Unreadable(None)),
    }
}

fn other_form(body: &[u8]) -> Refusal {
    if is_xml(body) {
        Refusal::Xml
    } else if is_binary(body) {
        Refusal::Binary
    } else {
        Refusal::Unreadable(None)
    }
}

fn is_xml(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().starts_with(b"<")
}

/// .NET Binary XML begins with an element record: 0x40 to 0x43, or a letter's prefix from 0x44 to 0x77
/// (MS-NBFX, section 2.2).
fn is_binary(body: &[u8]) -> bool {
    matches!(body.first(), Some(0x40..=0x77)) && body.iter().any(|byte| *byte < 0x20)
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "11111111-2222-3333-4444-555555555555";

    fn body() -> Value {
        json!({
            "MessageName": "Update", "PrimaryEntityName": "contact", "PrimaryEntityId": ID,
            "CorrelationId": "c0ffee00-0000-4000-8000-000000000000", "Depth": 1, "Stage": 40, "Mode": 1,
            "OperationCreatedOn": "/Date(1767633073000-0700)/",
            "InputParameters": [{"key": "Target", "value": {
                "__type": "Entity:http://schemas.microsoft.com/xrm/2011/Contracts",
                "Attributes": [{"key": "MessageName", "value": "not this one"}]}}],
            "ParentContext": {"MessageName": "Create", "PrimaryEntityId": null},
            "SomethingNew": [1, 2],
        })
    }

    fn read(body: &Value) -> Result<Hint, Refusal> {
        parse(Some("application/json"), body.to_string().as_bytes(), false)
    }

    #[test]
    fn a_context_names_its_record_and_nothing_else_is_believed() {
        let hint = read(&body()).unwrap();
        assert_eq!(hint.table.as_str(), "contact");
        assert_eq!(hint.record.as_str(), ID);
        assert_eq!(hint.message, "Update");
        assert!(hint.correlation.is_some() && !hint.is_cut);
    }

    #[test]
    fn a_cut_context_is_enough() {
        let cut = json!({"MessageName": "Create", "PrimaryEntityName": "account",
            "PrimaryEntityId": format!("{{{}}}", ID.to_uppercase())});
        let text = cut.to_string();
        let hint = parse(None, text.as_bytes(), true).unwrap();
        assert_eq!(hint.record.as_str(), ID);
        assert!(hint.is_cut && hint.correlation.is_none());
    }

    #[test]
    fn a_mark_or_a_strings_frame_around_the_json_is_passed_over() {
        let json = body().to_string();
        let framed = |before: &[u8], after: &[u8]| [before, json.as_bytes(), after].concat();
        let frame = b"@\x06string\x083http://schemas.microsoft.com/2003/10/Serialization/\x9a\x05";
        for bytes in [framed(b"\xef\xbb\xbf", b""), framed(frame, b"\x01")] {
            assert_eq!(parse(None, &bytes, false).unwrap().record.as_str(), ID);
        }
    }

    #[test]
    fn another_form_is_refused_with_the_remedy() {
        let binary =
            b"@\x16RemoteExecutionContext\x08<http://schemas.microsoft.com/xrm/2011/Contracts{";
        let xml = b"\xef\xbb\xbf <RemoteExecutionContext>{</RemoteExecutionContext>";
        let json = body().to_string();
        let cases: [(Option<&str>, &[u8], &str); 7] = [
            (Some("application/msbin1"), json.as_bytes(), "binary"),
            (None, binary, "binary"),
            (
                Some("Application/XML; charset=utf-8"),
                json.as_bytes(),
                "xml",
            ),
            (None, xml, "xml"),
            (None, b"", "unreadable"),
            (Some("application/json"), b"{\"MessageName\":", "unreadable"),
            (Some("application/json"), b"[]", "unreadable"),
        ];
        for (content_type, bytes, label) in cases {
            let refusal = parse(content_type, bytes, false).unwrap_err();
            assert_eq!(refusal.label(), label);
            assert!(Refusal::LABELS.contains(&label));
            let fault = Fault::from(refusal);
            assert_eq!(fault.kind(), FaultKind::Record);
            assert!(fault.remedy_text().is_some());
        }
        let fault = Fault::from(parse(None, binary, false).unwrap_err());
        assert!(fault.remedy_text().unwrap().contains("JSON"));
    }

    #[test]
    fn a_message_without_a_record_is_refused() {
        for id in [Value::Null, json!(NIL), json!("x"), json!("")] {
            let mut body = body();
            body["PrimaryEntityId"] = id;
            assert_eq!(read(&body).unwrap_err().label(), "no_record");
        }
    }
}
