//! Labels of picklists, as describe tells them: in the language of the connection's user.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde::Deserialize;

/// What values of one picklist are called, of those that are called otherwise than they are.
pub type Labels = BTreeMap<String, String>;

/// An entry of `picklistValues` (SOAP API Developer Guide, "PicklistEntry").
#[derive(Debug, Clone, Deserialize)]
pub struct Choice {
    value: Option<String>,
    label: Option<String>,
    #[serde(default = "yes")]
    active: bool,
}

const fn yes() -> bool {
    true
}

/// The labels of a picklist's values. Of two entries with one value the active one counts.
#[must_use]
pub fn of(mut choices: Vec<Choice>) -> Labels {
    choices.sort_by_key(|choice| choice.active);
    let mut labels = Labels::new();
    for choice in choices {
        let (Some(value), Some(label)) = (choice.value, choice.label) else {
            continue;
        };
        labels.insert(value, label);
    }
    labels.retain(|value, label| value != label);
    labels
}

/// A short text that differs where labels do.
#[must_use]
pub fn edition(labels: &Labels) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in labels.iter().flat_map(|(value, label)| [value, label]) {
        context.update(text.as_bytes());
        context.update(&[0]);
    }
    let hash = context.finish();
    let hash = hash.as_ref().iter().take(8);
    hash.map(|byte| format!("{byte:02x}")).collect()
}

/// What a value is called; of `several` with `;` between, each. One that has no label is told as it is.
#[must_use]
pub fn label(labels: Option<&Labels>, value: &str, several: bool) -> String {
    let one = |value: &str| {
        let label = labels.and_then(|labels| labels.get(value));
        label.map_or_else(|| value.to_owned(), Clone::clone)
    };
    if !several {
        return one(value);
    }
    let all: Vec<String> = value.split(';').map(str::trim).map(one).collect();
    all.join(";")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(entries: serde_json::Value) -> Labels {
        of(serde_json::from_value(entries).unwrap())
    }

    #[test]
    fn values_are_called_what_the_active_entry_says() {
        let labels = labels(json!([
            {"value": "hot", "label": "Heiß", "active": true, "defaultValue": false},
            {"value": "hot", "label": "Old", "active": false},
            {"value": "cold", "label": "Kalt", "active": false},
            {"value": "Warm", "label": "Warm", "active": true},
            {"value": "bare", "label": null},
        ]));
        for (value, several, expected) in [
            ("hot", false, "Heiß"),
            ("cold", false, "Kalt"),
            ("Warm", false, "Warm"),
            ("bare", false, "bare"),
            ("retired", false, "retired"),
            ("hot;cold", false, "hot;cold"),
            ("hot; cold;retired", true, "Heiß;Kalt;retired"),
        ] {
            assert_eq!(label(Some(&labels), value, several), expected);
        }
        assert_eq!(labels.len(), 2);
        assert_eq!(label(None, "hot", false), "hot");
    }

    #[test]
    fn an_edition_moves_with_any_label_and_with_nothing_else() {
        let one = labels(json!([{"value": "a", "label": "A"}, {"value": "b", "label": "B"}]));
        let same = labels(
            json!([{"value": "b", "label": "B"}, {"value": "a", "label": "A"}, {"value": "c", "label": "c"}]),
        );
        let another = labels(json!([{"value": "a", "label": "A"}, {"value": "b", "label": "Z"}]));
        assert_eq!(edition(&one), edition(&same));
        assert_ne!(edition(&one), edition(&another));
        assert_ne!(edition(&one), edition(&Labels::new()));
        assert_eq!(edition(&one).len(), 16);
    }
}
