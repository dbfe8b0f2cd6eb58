//! SOQL texts: identifiers checked, literals escaped, keyset conditions, and lengths that a URL bears.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent_len;
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;

use super::stamp;

/// The longest encoded query. URI and headers together may have 16,384 bytes (REST API Developer Guide, "Status
/// Codes and Error Responses", 414 and 431); what is left is for host, path and a long token.
pub const MAX_QUERY: usize = 11_000;

/// Where a read in key order stands: after this stamp, and after this id among rows of an equal stamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The stamp's text; rows without one come first.
    pub stamp: Option<String>,
    /// The id.
    pub id: RecordId,
}

/// Which rows a read is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every row.
    All,
    /// Rows whose stamp lies in `[from, to)`.
    Window(DateTime<Utc>, DateTime<Utc>),
    /// Rows by id.
    Ids(Vec<RecordId>),
}

/// An identifier or a path of them (`Account`, `Owner.Email`), if it is one: it can't be escaped, only refused.
///
/// # Errors
/// `Missing`, naming it.
pub fn identifier(name: &str) -> Result<&str, Fault> {
    let well_formed = name.len() <= 255
        && name.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
    if well_formed {
        return Ok(name);
    }
    let shown: String = name.chars().take(60).collect();
    Err(
        Fault::new(FaultKind::Missing, format!("`{shown}` is no API name")).remedy(
            "API names have letters, digits and underscores; a parent's field follows after a dot",
        ),
    )
}

/// A text literal, quotes included (SOQL and SOSL Reference, "Quoted String Escape Sequences").
#[must_use]
pub fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\'' => quoted.push_str("\\'"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// A query over every row of `object` in no order, which lets the org split it (Bulk API 2.0 and Bulk API Developer
/// Guide, "PK Chunking").
#[must_use]
pub fn unordered(object: &str, fields: &[&str]) -> String {
    format!("SELECT {} FROM {object}", fields.join(","))
}

/// A query over `object`, in key order: by `stamp` and id, or by id alone where there is no stamp.
#[must_use]
pub fn query(
    object: &str,
    fields: &[&str],
    stamp: Option<&FieldName>,
    filter: &Filter,
    after: Option<&Key>,
) -> String {
    let mut text = format!("SELECT {} FROM {object}", fields.join(","));
    let mut conditions = Vec::new();
    match (filter, stamp) {
        (Filter::Window(from, to), Some(stamp)) => conditions.push(format!(
            "{stamp} >= {} AND {stamp} < {}",
            stamp::render(*from),
            stamp::render(*to)
        )),
        (Filter::Ids(ids), _) => {
            let ids: Vec<String> = ids.iter().map(|id| literal(id.as_str())).collect();
            conditions.push(format!("Id IN ({})", ids.join(",")));
        }
        // Without a stamp nothing tells what changed: everything is read.
        (Filter::Window(..), None) | (Filter::All, _) => {}
    }
    if let Some(after) = after {
        conditions.push(condition(stamp, after));
    }
    if !conditions.is_empty() {
        text.push_str(" WHERE ");
        text.push_str(&conditions.join(" AND "));
    }
    if !matches!(filter, Filter::Ids(_)) {
        text.push_str(" ORDER BY ");
        if let Some(stamp) = stamp {
            text.push_str(stamp.as_str());
            // Rows without a stamp come first: the default of ascending order.
            text.push_str(", ");
        }
        text.push_str("Id");
    }
    text
}

fn condition(stamp: Option<&FieldName>, after: &Key) -> String {
    let id = literal(after.id.as_str());
    match (stamp, &after.stamp) {
        (None, _) => format!("Id > {id}"),
        (Some(stamp), Some(at)) => {
            format!("({stamp} > {at} OR ({stamp} = {at} AND Id > {id}))")
        }
        (Some(stamp), None) => {
            format!("({stamp} != null OR ({stamp} = null AND Id > {id}))")
        }
    }
}

/// How many of `fields` fit a query that has `taken` encoded bytes without them; at least one, so that a
/// read makes headway.
#[must_use]
pub fn fitting(fields: &[&str], taken: usize) -> usize {
    let mut length = taken;
    let mut count = 0;
    for field in fields {
        length += percent_len(field) + 1;
        if length > MAX_QUERY && count > 0 {
            break;
        }
        count += 1;
    }
    count
}

/// Encoded bytes of one id in a list of ids.
pub const ID_LENGTH: usize = 18 + 2 * 3 + 1;

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn key(stamp: Option<&str>) -> Key {
        Key {
            stamp: stamp.map(str::to_owned),
            id: RecordId::stored("001A0000006Vm9uIAC"),
        }
    }

    #[test]
    fn keyset_conditions_are_exact() {
        let stamp = FieldName::new("SystemModstamp");
        let text = query("Account", &["Id", "Name"], Some(&stamp), &Filter::All, None);
        assert_eq!(
            text,
            "SELECT Id,Name FROM Account ORDER BY SystemModstamp, Id"
        );
        let after = key(Some("2024-04-09T20:26:27.000Z"));
        let text = query("Account", &["Id"], Some(&stamp), &Filter::All, Some(&after));
        assert_eq!(
            text,
            "SELECT Id FROM Account WHERE (SystemModstamp > 2024-04-09T20:26:27.000Z OR \
             (SystemModstamp = 2024-04-09T20:26:27.000Z AND Id > '001A0000006Vm9uIAC')) \
             ORDER BY SystemModstamp, Id"
        );
        let text = query(
            "Account",
            &["Id"],
            Some(&stamp),
            &Filter::All,
            Some(&key(None)),
        );
        assert!(text.contains(
            "(SystemModstamp != null OR (SystemModstamp = null AND Id > '001A0000006Vm9uIAC'))"
        ));
        let text = query("Account", &["Id"], None, &Filter::All, Some(&key(None)));
        assert!(text.ends_with("WHERE Id > '001A0000006Vm9uIAC' ORDER BY Id"));
    }

    #[test]
    fn windows_are_closed_at_their_start_and_open_at_their_end() {
        let at = |seconds: i64| Utc.timestamp_opt(1_700_000_000 + seconds, 0).unwrap();
        let filter = Filter::Window(at(0), at(60));
        let stamp = FieldName::new("LastModifiedDate");
        let after = key(Some("2023-11-14T22:13:25.000Z"));
        let text = query("Lead", &["Id"], Some(&stamp), &filter, Some(&after));
        assert!(text.contains(
            "WHERE LastModifiedDate >= 2023-11-14T22:13:20.000Z AND LastModifiedDate < 2023-11-14T22:14:20.000Z \
             AND (LastModifiedDate > 2023-11-14T22:13:25.000Z OR "
        ));
    }

    #[test]
    fn identifiers_are_refused_not_escaped() {
        for name in ["Account", "My__c", "Owner.Email", "A.B.C__r"] {
            assert_eq!(identifier(name).unwrap(), name);
        }
        for name in [
            "",
            "1st",
            "Name FROM User",
            "Owner.",
            ".x",
            "a-b",
            "Näme",
            "x'",
        ] {
            assert_eq!(
                identifier(name).unwrap_err().kind(),
                FaultKind::Missing,
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_literal_never_ends_early(text in any::<String>()) {
            let quoted = literal(&text);
            let inner = &quoted[1..quoted.len() - 1];
            let mut escaped = false;
            let mut read = String::new();
            for c in inner.chars() {
                if escaped {
                    read.push(match c { 'n' => '\n', 'r' => '\r', 't' => '\t', 'b' => '\u{8}', 'f' => '\u{c}', c => c });
                    escaped = false;
                } else if c == '\\' {
                    escaped = true;
                } else {
                    prop_assert!(c != '\'', "a bare quote in {}", quoted);
                    read.push(c);
                }
            }
            prop_assert!(!escaped);
            prop_assert_eq!(read, text);
        }

        #[test]
        fn what_fits_stays_within_the_limit(count in 1_usize..2000, taken in 0_usize..5000) {
            let names: Vec<String> = (0..count).map(|n| format!("Some_Long_Field_Name_{n}__c")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let fit = fitting(&names, taken);
            prop_assert!((1..=count).contains(&fit));
            let length: usize = names[..fit].iter().map(|n| n.len() + 1).sum();
            prop_assert!(taken + length <= MAX_QUERY || fit == 1);
        }
    }
}
