//! What is taken of a field's value: the value, what metadata calls it, or what an id says of the record it points to.

use std::sync::Arc;

use crate::fault::Fault;
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::FieldKind;
use crate::model::value::Value;

use super::describe::{Describer, Description};
use super::labels;
use super::prefixes::Prefixes;

/// A selected field, and what of the value that is read for it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The field as it is selected.
    pub field: FieldName,
    /// What of the value.
    pub take: Take,
}

#[cfg(any(test, fuzzing))]
impl Taken {
    /// All of a field of the same name.
    pub fn whole(field: &str) -> Self {
        Self {
            field: FieldName::new(field),
            take: Take::Value,
        }
    }
}

/// What is taken of a value.
#[derive(Debug, Clone)]
pub enum Take {
    /// All of it.
    Value,
    /// `X@label`: what the value of this description's picklist is called.
    Label(Arc<Description>, FieldName),
    /// `X@type` of a reference that points to one object.
    Only(ObjectName),
    /// `X@type`: the object whose record the id is.
    Type(Arc<Prefixes>, Vec<ObjectName>),
    /// `X:Object`: the id if it is of a record of that object, else null.
    Of(Arc<Prefixes>, Vec<ObjectName>, ObjectName),
}

/// A step of a path, found in an object.
#[derive(Debug)]
pub struct Found {
    /// The object's own field whose value is read.
    pub base: FieldName,
    /// The kind of that value.
    pub kind: FieldKind,
    /// What is taken of it.
    pub take: Take,
}

impl Take {
    /// What is taken of `value`.
    #[must_use]
    pub fn of(&self, value: &Value) -> Value {
        let Some(text) = value.as_text() else {
            return match self {
                Self::Value => value.clone(),
                // A picklist's value is a text, as is an id.
                _ => Value::Null,
            };
        };
        match self {
            Self::Value => value.clone(),
            Self::Label(description, field) => {
                let schema = description.schema.fields.get(field);
                let several = schema.is_some_and(|of| of.kind == FieldKind::MultiPicklist);
                Value::text(labels::label(description.labels.get(field), text, several))
            }
            Self::Only(object) => Value::text(object.as_str()),
            Self::Type(prefixes, targets) => {
                let object = prefixes.object(text, targets);
                object.map_or(Value::Null, |object| Value::text(object.as_str()))
            }
            Self::Of(prefixes, targets, object) => {
                if prefixes.object(text, targets) == Some(object) {
                    value.clone()
                } else {
                    Value::Null
                }
            }
        }
    }
}

/// The own field of an object, and what of it, that a step without a point is: `Name`, `Industry@label`, `WhoId:Contact`.
/// `None` if the object has none such that the user sees.
///
/// # Errors
/// That of the call that asks for key prefixes.
pub async fn find(
    describer: &Describer,
    description: &Arc<Description>,
    step: &str,
) -> Result<Option<Found>, Fault> {
    let fields = &description.schema.fields;
    let in_any_spelling = || {
        let mut fields = fields.iter();
        fields.find(|(name, _)| name.as_str().eq_ignore_ascii_case(step))
    };
    let Some((name, schema)) = fields.get_key_value(step).or_else(in_any_spelling) else {
        return Ok(None);
    };
    let (base, rest) = split(name.as_str());
    let Some((base, own)) = description.schema.fields.get_key_value(base) else {
        return Ok(None);
    };
    let targets = || own.references.clone();
    let take = match (rest, own.references.as_slice()) {
        ("", _) => Take::Value,
        ("@label", _) => Take::Label(Arc::clone(description), base.clone()),
        ("@type", [only]) => Take::Only(only.clone()),
        ("@type", _) => Take::Type(describer.prefixes().await?, targets()),
        (_, [_]) => Take::Value,
        _ => {
            let Some(object) = schema.references.first() else {
                return Ok(None);
            };
            Take::Of(describer.prefixes().await?, targets(), object.clone())
        }
    };
    Ok(Some(Found {
        base: base.clone(),
        kind: own.kind,
        take,
    }))
}

/// A step's field, and what is behind it: `@label`, `@type` or `:Object`.
#[must_use]
pub fn split(step: &str) -> (&str, &str) {
    step.split_at(step.find(['@', ':']).unwrap_or(step.len()))
}

/// What is wrong with a step that asks of a field what it has not, and what to write; `None` where the field itself is
/// not there.
#[must_use]
pub fn misfit(description: &Description, step: &str) -> Option<(String, String)> {
    let (base, rest) = split(step);
    if rest.is_empty() {
        return None;
    }
    let object = &description.schema.name;
    let mut fields = description.schema.fields.iter();
    let Some((name, field)) = fields.find(|(name, _)| name.as_str().eq_ignore_ascii_case(base))
    else {
        let of = |name: &Option<String>| {
            let name = name.as_deref();
            name.is_some_and(|name| name.eq_ignore_ascii_case(base))
        };
        let mut fields = description.schema.fields.iter();
        let (id, _) = fields.find(|(_, field)| of(&field.relationship))?;
        let what = format!("`{base}` of {object} is a relationship, and `{rest}` is of a field");
        return Some((
            what,
            format!("write the field that has the id: `{id}{rest}`"),
        ));
    };
    let targets: Vec<&str> = field.references.iter().map(ObjectName::as_str).collect();
    let told = match (rest, field.kind) {
        ("@label", FieldKind::Reference) => {
            let remedy = match &field.relationship {
                Some(parent) => {
                    format!("write `{parent}.Name`, the name of the record that it points to")
                }
                None => "map the id itself".to_owned(),
            };
            (
                format!("`{name}` of {object} is a reference, which has no label"),
                remedy,
            )
        }
        ("@label", FieldKind::Boolean) => (
            format!("`{name}` of {object} is a checkbox, whose values have no labels in the org"),
            format!("write {{ from = \"{name}\", values = {{ true = \"Yes\", false = \"No\" }} }}"),
        ),
        ("@label", _) => (
            format!("`{name}` of {object} is no picklist: its values have no labels"),
            "map the field itself, without `@label`".to_owned(),
        ),
        (_, FieldKind::Reference) => (
            format!(
                "`{name}` of {object} points to {}, and to no {}",
                targets.join(" or "),
                rest.trim_start_matches(':')
            ),
            format!("write `{name}:{}`", targets.first().unwrap_or(&"Object")),
        ),
        _ => (
            format!("`{name}` of {object} is no reference: it points to no record"),
            format!("map the field itself, without `{rest}`"),
        ),
    };
    Some(told)
}
