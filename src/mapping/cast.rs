//! Casts: a source value to a cell of a column's type, or the reason why not; nothing is rounded or guessed.

use uuid::Uuid;

use crate::mapping::decimal::{self, MAX_DIGITS, NotDecimal};
use crate::mapping::instant;
use crate::mapping::plan::Cell;
use crate::model::stored::StoredType;
use crate::model::value::Scalar;

/// How much of a value a message shows.
const SHOWN: usize = 60;

/// A value that its column can't take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {wanted}")]
pub struct Uncastable {
    /// The value, shortened.
    pub value: String,
    /// What the column takes.
    pub wanted: &'static str,
}

/// Casts a value. Null and empty text become [`Cell::Null`] for every type.
///
/// | | boolean | number | text |
/// |---|---|---|---|
/// | string, rich text, picklist | `true`, `false` | its digits | as it is (picklist: trimmed) |
/// | multi-select | `true`, `false` | its digits | parts at `;`, trimmed, empty ones dropped |
/// | number, currency, percentage | – | plain notation | a number, trimmed |
/// | boolean | as it is | 1, 0 | true, false, 1, 0, yes, no in any case |
/// | date | – | milliseconds since 1970, UTC | a day, or an instant's day in UTC |
/// | datetime | – | milliseconds since 1970 | an instant, or a day's beginning in UTC |
/// | e-mail | – | – | trimmed; something, `@`, something, no blanks |
/// | URL | – | – | trimmed |
/// | GSID | – | – | a UUID |
///
/// # Errors
/// [`Uncastable`], for the dead letters.
pub fn cast<'a>(value: impl Into<Scalar<'a>>, ty: StoredType) -> Result<Cell, Uncastable> {
    let value = value.into();
    if is_empty(value, ty) {
        return Ok(Cell::Null);
    }
    let refuse = |wanted| Uncastable {
        value: shorten(&value.to_string()),
        wanted,
    };
    match ty {
        StoredType::String | StoredType::RichText => Ok(text(value)),
        StoredType::Picklist => Ok(trimmed(text(value))),
        StoredType::MultiSelect => Ok(choices(value)),
        StoredType::Number | StoredType::Currency | StoredType::Percentage => {
            number(value).map_err(refuse)
        }
        StoredType::Boolean => boolean(value)
            .map(Cell::Boolean)
            .ok_or_else(|| refuse("true or false")),
        StoredType::Date => instant::moment(value)
            .map(|moment| Cell::Date(moment.day()))
            .ok_or_else(|| refuse("a date (YYYY-MM-DD, or a date and time with an offset)")),
        StoredType::DateTime => instant::moment(value)
            .map(|moment| Cell::DateTime(moment.instant()))
            .ok_or_else(|| refuse("a date and time with an offset, nor a date")),
        StoredType::Email => email(value).ok_or_else(|| refuse("an e-mail address")),
        StoredType::Url => match value {
            Scalar::Text(text) => Ok(Cell::Text(text.trim().into())),
            _ => Err(refuse("a URL")),
        },
        StoredType::Gsid => value
            .as_text()
            .and_then(|text| Uuid::try_parse(text.trim()).ok())
            .map(Cell::Gsid)
            .ok_or_else(|| refuse("a GSID (a UUID)")),
    }
}

/// A type's name as configs write it.
#[must_use]
pub const fn type_name(ty: StoredType) -> &'static str {
    match ty {
        StoredType::String => "string",
        StoredType::Number => "number",
        StoredType::Currency => "currency",
        StoredType::Percentage => "percentage",
        StoredType::Boolean => "boolean",
        StoredType::Date => "date",
        StoredType::DateTime => "datetime",
        StoredType::Picklist => "picklist",
        StoredType::MultiSelect => "multi_select",
        StoredType::Gsid => "gsid",
        StoredType::Email => "email",
        StoredType::Url => "url",
        StoredType::RichText => "rich_text",
    }
}

/// Whether a value says nothing to a column: null, empty text, and blank text but where text is kept as it is.
fn is_empty(value: Scalar<'_>, ty: StoredType) -> bool {
    match value {
        Scalar::Null => true,
        Scalar::Text(text) => match ty {
            StoredType::String | StoredType::RichText => text.is_empty(),
            _ => text.trim().is_empty(),
        },
        Scalar::Bool(_) | Scalar::Number(_) => false,
    }
}

/// Reads a truth value.
#[must_use]
pub fn boolean<'a>(value: impl Into<Scalar<'a>>) -> Option<bool> {
    match value.into() {
        Scalar::Null => None,
        Scalar::Bool(value) => Some(value),
        Scalar::Number(number) => match decimal::plain(number).ok()? {
            digits if decimal::compare(&digits, "1").is_eq() => Some(true),
            digits if decimal::compare(&digits, "0").is_eq() => Some(false),
            _ => None,
        },
        Scalar::Text(text) => {
            let is = |word: &str| text.trim().eq_ignore_ascii_case(word);
            if is("true") || is("1") || is("yes") {
                Some(true)
            } else if is("false") || is("0") || is("no") {
                Some(false)
            } else {
                None
            }
        }
    }
}

/// The first characters of a value, for a message.
#[must_use]
pub fn shorten(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn text(value: Scalar<'_>) -> Cell {
    match value {
        Scalar::Null => Cell::Null,
        Scalar::Bool(true) => Cell::Text("true".into()),
        Scalar::Bool(false) => Cell::Text("false".into()),
        Scalar::Number(number) => Cell::Text(number.into()),
        Scalar::Text(text) => Cell::Text(text.into()),
    }
}

/// A text cell without outer blanks, null if nothing is left; other cells as they are.
#[must_use]
pub fn trimmed(cell: Cell) -> Cell {
    match cell {
        Cell::Text(text) => match text.trim() {
            "" => Cell::Null,
            inner if inner.len() == text.len() => Cell::Text(text),
            inner => Cell::Text(inner.into()),
        },
        cell => cell,
    }
}

fn choices(value: Scalar<'_>) -> Cell {
    let Scalar::Text(joined) = value else {
        return text(value);
    };
    let mut out = String::with_capacity(joined.len());
    for choice in joined
        .split(';')
        .map(str::trim)
        .filter(|choice| !choice.is_empty())
    {
        if !out.is_empty() {
            out.push(';');
        }
        out.push_str(choice);
    }
    if out.is_empty() {
        Cell::Null
    } else {
        Cell::Text(out.into())
    }
}

fn number(value: Scalar<'_>) -> Result<Cell, &'static str> {
    let digits = match value {
        Scalar::Number(number) => number,
        Scalar::Text(text) => text.trim(),
        Scalar::Null | Scalar::Bool(_) => return Err("a number"),
    };
    match decimal::plain(digits) {
        Ok(plain) => Ok(Cell::Number(plain.into())),
        Err(NotDecimal::Syntax) => Err("a number"),
        Err(NotDecimal::TooLong) => {
            const { assert!(MAX_DIGITS == 400, "the text below says so") };
            Err("a number of at most 400 digits")
        }
    }
}

/// Not the grammar of RFC 5322: only what keeps `n/a` and `none` from making many people one.
fn email(value: Scalar<'_>) -> Option<Cell> {
    let text = value.as_text()?.trim();
    let (local, domain) = text.rsplit_once('@')?;
    let sound = !local.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace);
    sound.then(|| Cell::Text(text.into()))
}

#[cfg(test)]
mod tests;
