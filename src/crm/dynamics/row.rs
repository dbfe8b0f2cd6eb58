//! Rows and tombstones of Web API answers.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::http::raw_row::RawRow;
use crate::model::event::{Row, RowVersion};
use crate::model::record_id::RecordId;
use crate::model::schema::FieldKind;
use crate::model::value::{Fields, Value};

use super::describe::{MODIFIED, VERSION};
use super::plan::{Column, Plan, Take};

/// A page of an answer.
#[derive(Debug, Deserialize)]
pub struct PageAnswer<'a> {
    /// Its rows.
    #[serde(borrow)]
    value: Vec<RawRow<'a>>,
    /// The next page.
    #[serde(rename = "@odata.nextLink")]
    pub next: Option<String>,
    /// Where changes from here on are told; on the last page.
    #[serde(rename = "@odata.deltaLink")]
    pub delta: Option<String>,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A row as it is now.
    Row(Row),
    /// The record was deleted.
    Gone(RecordId),
}

impl<'a> PageAnswer<'a> {
    /// Reads a page.
    ///
    /// # Errors
    /// `Protocol` for anything else.
    pub fn parse(plan: &Plan, json: &'a [u8]) -> Result<Self, Fault> {
        serde_json::from_slice(json).map_err(|error| {
            let what = format!("a page of {} can't be read", plan.table());
            Fault::new(FaultKind::Protocol, what).source(error)
        })
    }

    /// Its entries, rows as of `incarnation`.
    ///
    /// # Errors
    /// `Protocol` for an entry without a readable key.
    pub fn items(&self, plan: &Plan, incarnation: u32) -> Result<Vec<Item>, Fault> {
        let item = |raw: &RawRow<'_>| match gone(raw) {
            Some(id) => Ok(Item::Gone(guid(plan, &id)?)),
            None => row(plan, raw, incarnation).map(Item::Row),
        };
        self.value.iter().map(item).collect()
    }

    /// Its rows, where nothing else can come.
    ///
    /// # Errors
    /// `Protocol` for an entry that is no row.
    pub fn rows(&self, plan: &Plan, incarnation: u32) -> Result<Vec<Row>, Fault> {
        let row = |raw: &RawRow<'_>| row(plan, raw, incarnation);
        self.value.iter().map(row).collect()
    }
}

/// The id of a tombstone: `{"@odata.context": "…/$deletedEntity", "id": "…", "reason": "deleted"}`. The context may
/// name another API version than the page's, or be missing.
fn gone<'a>(raw: &RawRow<'a>) -> Option<Cow<'a, str>> {
    let says = |name: &str, word: &str| text(raw, name).is_some_and(|text| text.ends_with(word));
    let is_tombstone = says("@odata.context", "$deletedEntity") || raw.get("reason").is_some();
    if is_tombstone { text(raw, "id") } else { None }
}

fn text<'a>(raw: &RawRow<'a>, name: &str) -> Option<Cow<'a, str>> {
    serde_json::from_str(raw.get(name)?.get()).ok()
}

/// A key, alone or at the end of an entity's address.
fn guid(plan: &Plan, text: &str) -> Result<RecordId, Fault> {
    let inner = text
        .rsplit_once('(')
        .map_or(text, |(_, rest)| rest.trim_end_matches(')'));
    RecordId::guid(inner).map_err(|_| unreadable(plan))
}

fn unreadable(plan: &Plan) -> Fault {
    let what = format!(
        "a row of {} has no readable `{}`",
        plan.table(),
        plan.description.key
    );
    Fault::new(FaultKind::Protocol, what)
}

fn row(plan: &Plan, raw: &RawRow<'_>, incarnation: u32) -> Result<Row, Fault> {
    let id = text(raw, &plan.description.key).ok_or_else(|| unreadable(plan))?;
    let mut fields = Fields::new();
    for column in &plan.columns {
        if let Some(value) = taken(plan, raw, column) {
            fields.insert(column.field.clone(), value);
        }
    }
    Ok(Row {
        record: guid(plan, &id)?,
        fields,
        modified_at: text(raw, MODIFIED).and_then(|text| instant(&text)),
        version: version(raw).map(|number| RowVersion {
            incarnation,
            number,
        }),
    })
}

/// A field's value; absent if the row does not tell it.
fn taken(plan: &Plan, raw: &RawRow<'_>, column: &Column) -> Option<Value> {
    let value = value(column.kind, raw.get(&column.property)?.get());
    if value.is_null() {
        return Some(Value::Null);
    }
    match &column.take {
        Take::Value => Some(value),
        Take::Label(choice) => Some(plan.labels.as_ref()?.of(choice, &value)),
        Take::Type(only) => points_to(raw, column)
            .map(|table| Value::text(table.as_ref()))
            .or_else(|| only.as_deref().map(Value::text)),
        Take::Of { table, alone } => match points_to(raw, column) {
            Some(to) if to == *table => Some(value),
            Some(_) => Some(Value::Null),
            None => alone.then_some(value),
        },
    }
}

/// The table that a look-up points to, by the annotation that stands beside it.
fn points_to<'a>(raw: &RawRow<'a>, column: &Column) -> Option<Cow<'a, str>> {
    let name = format!(
        "{}@Microsoft.Dynamics.CRM.lookuplogicalname",
        column.property
    );
    text(raw, &name)
}

/// The row's number: its own column, else the digits of its ETag, which are the same number.
fn version(raw: &RawRow<'_>) -> Option<u64> {
    if let Some(json) = raw.get(VERSION)
        && let Ok(number) = json.get().trim_matches('"').parse()
    {
        return Some(number);
    }
    let etag = text(raw, "@odata.etag")?;
    let digits = etag.trim_start_matches("W/").trim_matches('"');
    digits.parse().ok()
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text).ok()?;
    Some(parsed.with_timezone(&Utc))
}

/// The value of a column: empty text is null, ids are lower case, numbers keep their digits. What doesn't fit its kind
/// is kept as the CRM said it, for a mapping to judge.
fn value(kind: FieldKind, json: &str) -> Value {
    let value = Value::from_json(json).unwrap_or_else(|_| Value::text(json));
    match (kind, value) {
        (_, Value::Text(text)) if text.is_empty() => Value::Null,
        (FieldKind::Reference | FieldKind::Id, Value::Text(text)) => {
            RecordId::guid(&text).map_or_else(|_| Value::Text(text), |id| Value::text(id.as_str()))
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::planned;
    use super::*;

    const ID: &str = "11111111-0000-4000-8000-00000000000a";

    fn plan() -> Plan {
        planned(
            &[
                ("contactid", "Uniqueidentifier"),
                ("fullname", "String"),
                ("creditlimit", "Money"),
                ("parentcustomerid", "Customer"),
                ("statecode", "State"),
                ("modifiedon", "DateTime"),
                ("versionnumber", "BigInt"),
            ],
            &[
                "contactid",
                "creditlimit",
                "fullname",
                "parentcustomerid",
                "statecode",
            ],
        )
        .unwrap()
    }

    fn items(json: &str) -> Result<Vec<Item>, Fault> {
        let plan = plan();
        PageAnswer::parse(&plan, json.as_bytes())?.items(&plan, 3)
    }

    #[test]
    fn rows_keep_digits_and_take_what_is_selected() {
        let json = format!(
            r#"{{"value":[{{"@odata.etag":"W/\"5512345\"","fullname":"Ada","contactid":"{}","creditlimit":12345678901234567890.10,
            "_parentcustomerid_value":"22222222-0000-4000-8000-00000000000B",
            "_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname":"account","statecode":0,
            "_transactioncurrencyid_value":"x","modifiedon":"2026-01-05T10:11:12Z","versionnumber":5512346}}]}}"#,
            ID.to_uppercase()
        );
        let found = items(&json).unwrap();
        let [Item::Row(row)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(row.record.as_str(), ID);
        assert_eq!(
            serde_json::to_string(&row.fields).unwrap(),
            format!(
                r#"{{"contactid":"{ID}","creditlimit":12345678901234567890.10,"fullname":"Ada","parentcustomerid":"22222222-0000-4000-8000-00000000000b","statecode":0}}"#
            )
        );
        assert_eq!(row.modified_at.unwrap().timestamp(), 1_767_607_872);
        let version = row.version.unwrap();
        assert_eq!((version.incarnation, version.number), (3, 5_512_346));
    }

    #[test]
    fn a_polymorphic_look_up_is_told_apart_by_its_table() {
        let fields = [
            "parentcustomerid",
            "parentcustomerid:account",
            "parentcustomerid:contact",
            "parentcustomerid@type",
        ];
        let columns = [
            ("contactid", "Uniqueidentifier"),
            ("parentcustomerid", "Customer"),
        ];
        let plan = planned(&columns, &fields).unwrap();
        assert_eq!(
            plan.path(),
            "/contacts?$select=contactid,_parentcustomerid_value"
        );
        let parent = "22222222-0000-4000-8000-00000000000b";
        let read = |rest: &str| {
            let json =
                format!(r#"{{"value":[{{"@odata.etag":"W/\"7\"","contactid":"{ID}"{rest}}}]}}"#);
            let page = PageAnswer::parse(&plan, json.as_bytes()).unwrap();
            let rows = page.rows(&plan, 0).unwrap();
            serde_json::to_value(&rows[0].fields).unwrap()
        };
        let value = format!(r#","_parentcustomerid_value":"{parent}""#);
        let table =
            r#","_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname":"account""#;
        assert_eq!(
            read(&format!("{value}{table}")),
            serde_json::json!({"parentcustomerid": parent, "parentcustomerid:account": parent,
                "parentcustomerid:contact": null, "parentcustomerid@type": "account"})
        );
        // Without the annotation nothing is guessed.
        assert_eq!(
            read(&value),
            serde_json::json!({"parentcustomerid": parent})
        );
        let empty = read(r#","_parentcustomerid_value":null"#);
        assert_eq!(
            empty,
            serde_json::json!({"parentcustomerid": null, "parentcustomerid:account": null,
                "parentcustomerid:contact": null, "parentcustomerid@type": null})
        );
        assert_eq!(read(""), serde_json::json!({}));
    }

    #[test]
    fn absent_columns_stay_absent_and_null_is_empty() {
        let json = format!(
            r#"{{"value":[{{"@odata.etag":"W/\"7\"","contactid":"{ID}","fullname":null,"creditlimit":""}}]}}"#
        );
        let found = items(&json).unwrap();
        let Item::Row(row) = &found[0] else {
            panic!("{found:?}");
        };
        assert_eq!(row.fields["fullname"], Value::Null);
        assert!(!row.fields.contains_key("statecode"));
        assert_eq!(row.version.unwrap().number, 7);
        assert!(row.modified_at.is_none());
    }

    #[test]
    fn tombstones_have_several_forms() {
        for gone in [
            format!(
                r#"{{"@odata.context":"https://x/api/data/v9.2/$metadata#contacts/$deletedEntity","id":"{ID}","reason":"deleted"}}"#
            ),
            format!(
                r#"{{"@odata.context":"https://x/api/data/v9.0/$metadata#contacts/$deletedEntity","id":"{ID}"}}"#
            ),
            format!(r#"{{"id":"{}","reason":"deleted"}}"#, ID.to_uppercase()),
            format!(r#"{{"id":"https://x/api/data/v9.2/contacts({ID})","reason":"changed"}}"#),
        ] {
            let found = items(&format!(r#"{{"value":[{gone}]}}"#)).unwrap();
            assert_eq!(found, [Item::Gone(RecordId::stored(ID))], "{gone}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for json in [
            r#"{"value":[{"fullname":"x"}]}"#,
            r#"{"value":[{"contactid":"short"}]}"#,
            r#"{"value":[{"id":"short","reason":"deleted"}]}"#,
            r#"{"value":{}}"#,
            "{}",
            "<html>",
        ] {
            assert_eq!(
                items(json).unwrap_err().kind(),
                FaultKind::Protocol,
                "{json}"
            );
        }
    }
}
