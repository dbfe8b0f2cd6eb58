//! Source paths that need a connector's help, where a connector does not give it yet.

use crate::config::document::Report;
use crate::config::job::DestinationConfig;
use crate::config::problem::{Located, Problem};
use crate::config::reader::shown;

/// Reports paths by table (`WhatId:Account`), of labels and of types: the Salesforce connector reads fields and parents'
/// fields, and events carry API values alone.
pub(super) fn without_metadata(
    filter: Option<&Located<String>>,
    destinations: &[DestinationConfig],
    report: &Report,
) {
    let refuse = |path: &Located<String>, what: &str| {
        let remedy = "map the field itself, with `values` where its values need other names";
        report.add(Problem::new(&path.spot, what, remedy).value(shown(&path.value)));
    };
    for destination in destinations {
        for path in destination.source_paths() {
            if path.value.contains('@') {
                refuse(
                    path,
                    "labels and types are not read from Salesforce in this version",
                );
            } else if path.value.contains(':') {
                refuse(
                    path,
                    "look-ups by table are not read from Salesforce in this version",
                );
            }
        }
    }
    let filters = destinations.iter().map(|destination| &destination.filter);
    for filter in filters.filter_map(Option::as_ref).chain(filter) {
        if names_a_table(&filter.value) {
            refuse(
                filter,
                "look-ups by table are not read from Salesforce in this version",
            );
        }
    }
}

/// Whether a filter has `lookup:table`. Date literals (`LAST_N_DAYS:30`) have a number there, times stand in digits,
/// and what stands in quotes is a text.
fn names_a_table(filter: &str) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    let mut after_colon = false;
    for c in filter.chars() {
        if quoted {
            quoted = escaped || c != '\'';
            escaped = !escaped && c == '\\';
            continue;
        }
        if after_colon && c.is_ascii_alphabetic() {
            return true;
        }
        after_colon = c == ':';
        quoted = c == '\'';
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_in_filters() {
        for (filter, expected) in [
            ("WhatId:Account != null", true),
            ("a = 'x' AND parent:account.name = 'y'", true),
            ("CreatedDate = LAST_N_DAYS:30", false),
            ("CreatedDate > 2026-01-05T10:11:12Z", false),
            ("Name = 'a:b'", false),
            ("Name = 'it\\'s:b'", false),
            ("Name = 'x\\\\' AND a:b = 1", true),
        ] {
            assert_eq!(names_a_table(filter), expected, "{filter}");
        }
    }
}
