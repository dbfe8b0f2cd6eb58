//! Labels of choices, from the metadata and in the connection's language: a row's own formatted values are in the
//! caller's language and may change with it.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::model::value::Value;

use super::describe::{Description, Label};
use super::rest::Rest;

/// Labels by column and by the choice's value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Labels(HashMap<String, HashMap<String, String>>);

/// What a choice column is, which decides where its options are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Choice {
    /// One of a list.
    Picklist,
    /// The state of a record.
    State,
    /// The reason of its state.
    Status,
    /// Several of a list.
    Several,
    /// Yes or no.
    Boolean,
}

#[derive(Deserialize)]
struct Answer {
    value: Vec<WireColumn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireColumn {
    logical_name: String,
    option_set: Option<OptionSet>,
    global_option_set: Option<OptionSet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OptionSet {
    #[serde(default)]
    options: Vec<WireOption>,
    true_option: Option<WireOption>,
    false_option: Option<WireOption>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireOption {
    value: i64,
    label: Option<Label>,
}

impl Choice {
    /// The metadata's name for it (Web API metadata, one query per kind of column).
    const fn cast(self) -> &'static str {
        match self {
            Self::Picklist => "PicklistAttributeMetadata",
            Self::State => "StateAttributeMetadata",
            Self::Status => "StatusAttributeMetadata",
            Self::Several => "MultiSelectPicklistAttributeMetadata",
            Self::Boolean => "BooleanAttributeMetadata",
        }
    }
}

impl Labels {
    /// Reads the labels of a table's choices of the kinds that `columns` are of.
    ///
    /// # Errors
    /// The fault of a call, or `Protocol` for an answer that can't be read.
    pub async fn read(rest: &Rest, table: &Description, columns: &[String]) -> Result<Self, Fault> {
        let kinds: BTreeSet<Choice> = columns
            .iter()
            .filter_map(|column| table.choices.get(column).copied())
            .collect();
        let mut labels = Self::default();
        for kind in kinds {
            let path = format!(
                "/EntityDefinitions(LogicalName='{}')/Attributes/Microsoft.Dynamics.CRM.{}\
                 ?$select=LogicalName&$expand=OptionSet,GlobalOptionSet",
                table.schema.name,
                kind.cast()
            );
            let answer = rest.get(&path, None).await?;
            labels.take(answer.body(), rest.settings().language)?;
        }
        Ok(labels)
    }

    fn take(&mut self, json: &[u8], language: u32) -> Result<(), Fault> {
        let answer: Answer = serde_json::from_slice(json).map_err(|error| {
            Fault::new(FaultKind::Protocol, "labels of choices can't be read").source(error)
        })?;
        for column in answer.value {
            let Some(set) = column.option_set.or(column.global_option_set) else {
                continue;
            };
            let own = self.0.entry(column.logical_name).or_default();
            let text = |option: &WireOption| {
                let label = option.label.as_ref()?.text(language)?;
                Some(label.to_owned())
            };
            for option in &set.options {
                own.extend(text(option).map(|text| (option.value.to_string(), text)));
            }
            for (value, option) in [("true", &set.true_option), ("false", &set.false_option)] {
                let text = option.as_ref().and_then(text);
                own.extend(text.map(|text| (value.to_owned(), text)));
            }
        }
        Ok(())
    }

    /// The label of a column's value; of several values, their labels with `;` between. A value without a label is
    /// told as it is.
    #[must_use]
    pub fn of(&self, column: &str, value: &Value) -> Value {
        if value.is_null() {
            return Value::Null;
        }
        let text = value.to_string();
        let known = self.0.get(column);
        let label = |one: &str| {
            let label = known.and_then(|known| known.get(one));
            label.map_or_else(|| one.to_owned(), Clone::clone)
        };
        let all: Vec<String> = text.split(',').map(str::trim).map(label).collect();
        Value::text(all.join(";"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn label(english: &str, german: &str) -> serde_json::Value {
        json!({
            "UserLocalizedLabel": {"Label": english, "LanguageCode": 1033},
            "LocalizedLabels": [
                {"Label": english, "LanguageCode": 1033}, {"Label": german, "LanguageCode": 1031}]
        })
    }

    fn labels(language: u32) -> Labels {
        let json = json!({"value": [
            {"LogicalName": "industrycode", "OptionSet": {"Options": [
                {"Value": 1, "Label": label("Accounting", "Buchhaltung")},
                {"Value": 5, "Label": label("Banking", "Banken")}]}},
            {"LogicalName": "shared", "OptionSet": null, "GlobalOptionSet": {"Options": [
                {"Value": 7, "Label": label("Seven", "Sieben")}]}},
            {"LogicalName": "donotemail", "OptionSet": {
                "TrueOption": {"Value": 1, "Label": label("Do Not Allow", "Nicht erlauben")},
                "FalseOption": {"Value": 0, "Label": label("Allow", "Erlauben")}}}
        ]});
        let mut labels = Labels::default();
        labels.take(json.to_string().as_bytes(), language).unwrap();
        labels
    }

    #[test]
    fn labels_are_of_the_connections_language() {
        for (language, expected) in [(1031, "Banken"), (1033, "Banking"), (1036, "Banking")] {
            let found = labels(language).of("industrycode", &Value::from(5));
            assert_eq!(found, Value::from(expected));
        }
        let own = labels(1031);
        assert_eq!(own.of("shared", &Value::from(7)), Value::from("Sieben"));
        assert_eq!(
            own.of("donotemail", &Value::from(false)),
            Value::from("Erlauben")
        );
        assert_eq!(
            own.of("industrycode", &Value::from("1,5")),
            Value::from("Buchhaltung;Banken")
        );
    }

    #[test]
    fn what_has_no_label_is_told_as_it_is() {
        let own = labels(1033);
        assert_eq!(own.of("industrycode", &Value::Null), Value::Null);
        assert_eq!(own.of("industrycode", &Value::from(9)), Value::from("9"));
        assert_eq!(own.of("unknown", &Value::from(9)), Value::from("9"));
    }
}
