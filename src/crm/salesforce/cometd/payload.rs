//! An event's payload as CometD sends it: JSON, with the names of the fields that changed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::decode::cell::{Cell, Cells};
use super::super::decode::{Header, Names, Payload};
use super::super::stamp;
use crate::http::raw_row::RawRow;

const HEADER: &str = "ChangeEventHeader";

/// Reads a payload; `None` if it has no header.
#[must_use]
pub fn read(json: &RawValue) -> Option<Payload<'_>> {
    let row: RawRow<'_> = serde_json::from_str(json.get()).ok()?;
    let header = row.get(HEADER)?;
    let header: RawRow<'_> = serde_json::from_str(header.get()).ok()?;
    let cells = row
        .0
        .into_iter()
        .filter(|(name, _)| name != HEADER)
        .map(|(name, json)| (name, cell(json)));
    Some(Payload {
        body: Some(Cells(cells.collect())),
        header: Header {
            entity: text(&header, "entityName"),
            records: texts(&header, "recordIds"),
            change: text(&header, "changeType"),
            origin: text(&header, "changeOrigin"),
            key: text(&header, "transactionKey"),
            sequence: number(&header, "sequenceNumber"),
            committed_at: match number(&header, "commitTimestamp") {
                Some(millis) => stamp::from_millis(millis),
                None => text(&header, "commitTimestamp").and_then(|text| stamp::instant(&text)),
            },
            user: text(&header, "commitUser"),
            changed: match (header.get("changedFields"), texts(&header, "changedFields")) {
                (None, _) => Names::Absent,
                (Some(_), None) => Names::Unreadable,
                (Some(_), Some(names)) => Names::Listed(names),
            },
            nulled: texts(&header, "nulledFields").unwrap_or_default(),
            differs: texts(&header, "diffFields").is_some_and(|diffs| !diffs.is_empty()),
        },
        unclear: None,
    })
}

fn cell(json: &RawValue) -> Cell<'_> {
    let text = json.get();
    if text.starts_with('{')
        && let Ok(parts) = serde_json::from_str::<RawRow<'_>>(text)
    {
        // A part has no parts: whoever nests without end does not take the stack.
        let parts = parts.0.into_iter().map(|(name, json)| (name, plain(json)));
        return Cell::Parts(Cells(parts.collect()));
    }
    plain(json)
}

fn plain(json: &RawValue) -> Cell<'_> {
    match json.get() {
        "null" => Cell::Null,
        text => Cell::Json(text),
    }
}

fn text<'a>(row: &RawRow<'a>, name: &str) -> Option<Cow<'a, str>> {
    let text: Text<'a> = serde_json::from_str(row.get(name)?.get()).ok()?;
    Some(text.0)
}

fn texts<'a>(row: &RawRow<'a>, name: &str) -> Option<Vec<Cow<'a, str>>> {
    let texts: Vec<Text<'a>> = serde_json::from_str(row.get(name)?.get()).ok()?;
    Some(texts.into_iter().map(|text| text.0).collect())
}

/// Text, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn number(row: &RawRow<'_>, name: &str) -> Option<i64> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number<'a> {
        Number(i64),
        Text(#[serde(borrow)] Cow<'a, str>),
    }
    match serde_json::from_str(row.get(name)?.get()).ok()? {
        Number::Number(number) => Some(number),
        Number::Text(text) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_nests_without_end_does_not_take_the_stack() {
        let depth = 200_000;
        let nested = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        let json = format!(
            r#"{{"ChangeEventHeader":{{"entityName":"Account"}},"Name":{{"FirstName":{nested}}},"Odd__c":{nested}}}"#
        );
        let json: &RawValue = serde_json::from_str(&json).unwrap();
        let payload = read(json).unwrap();
        assert_eq!(payload.header.entity.as_deref(), Some("Account"));
        assert_eq!(payload.body.unwrap().0.len(), 2);
    }
}
