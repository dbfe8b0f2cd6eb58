//! A value in an event's body, as either transport tells it.

use std::borrow::Cow;

use crate::model::schema::FieldKind;
use crate::model::value::Value;

use super::super::{stamp, value};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// Empty.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number: a count, or milliseconds where the field is a time.
    Whole(i64),
    /// A binary fraction.
    Double(f64),
    /// Text.
    Text(&'a str),
    /// JSON of anything but an object.
    Json(&'a str),
    /// The parts of a compound field.
    Parts(Cells<'a>),
    /// A list, which no field is.
    List(Vec<Cell<'a>>),
}

/// Values by name, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cells<'a>(pub Vec<(Cow<'a, str>, Cell<'a>)>);

impl<'a> Cells<'a> {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cell<'a>> {
        let (_, cell) = self.0.iter().find(|(own, _)| own == name)?;
        Some(cell)
    }

    /// As [`Cells::get`], looking from `next` on first, which then stands behind what was found.
    #[must_use]
    pub fn get_from<'s>(&'s self, name: &str, next: &mut usize) -> Option<&'s Cell<'a>> {
        let (before, from) = self.0.split_at_checked(*next).unwrap_or((&[], &self.0));
        let start = before.len();
        let ahead = from.iter().position(|(own, _)| own == name);
        let at = match ahead {
            Some(at) => start + at,
            None => before.iter().position(|(own, _)| own == name)?,
        };
        *next = at + 1;
        self.0.get(at).map(|(_, cell)| cell)
    }
}

impl Cell<'_> {
    /// The value of a field of `kind`, in the one spelling of its kind.
    ///
    /// # Errors
    /// [`value::Unfit`] for what the kind can't be read from.
    pub fn value(&self, kind: FieldKind) -> Result<Value, value::Unfit> {
        let fitted = match self {
            Self::Json(json) => return value::read(kind, json),
            Self::Null => Some(Value::Null),
            Self::Bool(flag) => value::fit(kind, Value::Bool(*flag)),
            Self::Whole(number) => whole(kind, *number),
            // The shortest digits that give the number back, as JSON of the same number has them.
            Self::Double(number) => serde_json::Number::from_f64(*number)
                .and_then(|number| Value::number(&number.to_string()))
                .and_then(|number| value::fit(kind, number)),
            Self::Text(text) => value::fit(kind, Value::text(*text)),
            Self::Parts(_) | Self::List(_) => None,
        };
        fitted.ok_or_else(|| value::Unfit::new(kind, &self.shown()))
    }

    fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) | Self::Json(text) => Cow::Borrowed(text),
            Self::Null => Cow::Borrowed("null"),
            Self::Bool(flag) => Cow::Owned(flag.to_string()),
            Self::Whole(number) => Cow::Owned(number.to_string()),
            Self::Double(number) => Cow::Owned(number.to_string()),
            Self::Parts(_) => Cow::Borrowed("{…}"),
            Self::List(_) => Cow::Borrowed("[…]"),
        }
    }
}

/// Times count milliseconds; everything else is the number itself.
fn whole(kind: FieldKind, number: i64) -> Option<Value> {
    match kind {
        FieldKind::DateTime => stamp::from_millis(number).map(|at| Value::text(stamp::render(at))),
        FieldKind::Date => {
            stamp::from_millis(number).map(|at| Value::text(at.date_naive().to_string()))
        }
        FieldKind::Time => stamp::time_from_millis(number).map(Value::text),
        _ => value::fit(kind, Value::from(number)),
    }
}
