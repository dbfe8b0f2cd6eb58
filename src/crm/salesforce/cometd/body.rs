//! An event's fields: flattened to columns, each in the one spelling of its kind.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use crate::model::name::FieldName;
use crate::model::schema::FieldKind;
use crate::model::value::{Fields, Value};

use super::super::describe::Description;
use super::super::{compound, value};
use super::decode::is_carried;
use crate::http::raw_row::RawRow;

const HEADER: &str = "ChangeEventHeader";

/// What an event tells of fields.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    /// Values by column.
    pub fields: Fields,
    /// Columns that changed.
    pub changed: BTreeSet<FieldName>,
    /// Whether parts changed that the CRM puts together to one text.
    pub composed: bool,
}

/// Why an event does not tell what changed.
#[derive(Debug, thiserror::Error)]
pub enum Unclear {
    /// A gap, or a kind of change that is not known.
    #[error("it names records only")]
    Kind,
    /// A text's difference to what it was.
    #[error("it tells the difference of a long text")]
    Diff,
    /// Names that are none.
    #[error("its names of changed fields can't be read")]
    Names,
    /// A changed field without a value.
    #[error("it says that `{0}` changed, and not to what")]
    NoValue(String),
    /// A value that does not fit.
    #[error("`{field}` can't be read: {unfit}")]
    Unfit {
        /// The field.
        field: String,
        /// Why.
        unfit: value::Unfit,
    },
}

/// The body of an event of a described object.
pub struct Body<'a> {
    description: &'a Description,
    row: &'a RawRow<'a>,
    told: Told,
}

impl<'a> Body<'a> {
    /// A body, header included.
    #[must_use]
    pub fn new(description: &'a Description, row: &'a RawRow<'a>) -> Self {
        Self {
            description,
            row,
            told: Told::default(),
        }
    }

    /// Everything that is there: a create tells the fields that are not empty.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn whole(mut self) -> Result<Told, Unclear> {
        for (name, json) in &self.row.0 {
            if name != HEADER {
                self.take(name, json)?;
            }
        }
        Ok(self.told)
    }

    /// Everything that is there, and what is said to be empty now: an update without a list of changes.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn present(mut self, emptied: &[String]) -> Result<Told, Unclear> {
        for (name, json) in &self.row.0 {
            if name != HEADER {
                self.take(name, json)?;
            }
        }
        self.empty(emptied)?;
        Ok(self.told)
    }

    /// What the list names, whatever else is there: fields may be added that did not change.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn changed(mut self, names: &[String], emptied: &[String]) -> Result<Told, Unclear> {
        for name in names {
            // Bitmaps belong to another transport.
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return Err(Unclear::Names);
            }
            if emptied.contains(name) {
                continue;
            }
            match name.split_once('.') {
                Some((whole, part)) => self.take_part(name, whole, part)?,
                None => self.take_named(name)?,
            }
        }
        self.empty(emptied)?;
        Ok(self.told)
    }

    /// A changed field by its name.
    fn take_named(&mut self, name: &str) -> Result<(), Unclear> {
        let Some(json) = self.row.get(name) else {
            let is_ours = self.column(name).is_some() || !self.parts(name).is_empty();
            // What the user may not read is not described, and not sent.
            return if is_ours { Err(no_value(name)) } else { Ok(()) };
        };
        let parts = self.parts(name).len();
        let before = self.told.fields.len();
        self.take(name, json)?;
        let is_object = json.get().starts_with('{');
        if is_object && parts > self.told.fields.len() - before {
            // The whole changed, and parts are missing: empty, or as they were?
            return Err(no_value(name));
        }
        Ok(())
    }

    /// A changed part of a compound field.
    fn take_part(&mut self, name: &str, whole: &str, part: &str) -> Result<(), Unclear> {
        self.note_composed(whole);
        let Some(column) = compound::column(self.description, whole, part).cloned() else {
            return Ok(());
        };
        let json = self.row.get(whole).ok_or_else(|| no_value(name))?;
        if json.get() == "null" {
            self.put(column, Value::Null);
            return Ok(());
        }
        let parts = object(name, json)?;
        let json = parts.get(part).ok_or_else(|| no_value(name))?;
        self.read(column, json)
    }

    /// A top-level field, as it is there.
    fn take(&mut self, name: &str, json: &RawValue) -> Result<(), Unclear> {
        let own = self.column(name).filter(|(_, kind)| is_carried(*kind));
        let parts = self.parts(name).to_vec();
        if json.get().starts_with('{') {
            if !parts.is_empty() {
                return self.take_parts(name, json);
            }
            // A described field with an object for a value is a text's difference; what is not described nobody
            // could select.
            return own.map_or(Ok(()), |_| Err(Unclear::Diff));
        }
        self.note_composed(name);
        if json.get() == "null" {
            for column in parts.into_iter().chain(own.map(|(column, _)| column)) {
                self.put(column, Value::Null);
            }
            return Ok(());
        }
        match own {
            Some((column, _)) => self.read(column, json),
            None if parts.is_empty() => Ok(()),
            None => Err(no_value(name)),
        }
    }

    fn take_parts(&mut self, name: &str, json: &RawValue) -> Result<(), Unclear> {
        self.note_composed(name);
        for (part, json) in &object(name, json)?.0 {
            if let Some(column) = compound::column(self.description, name, part).cloned() {
                self.read(column, json)?;
            }
        }
        Ok(())
    }

    /// Fields that are listed as empty now.
    fn empty(&mut self, names: &[String]) -> Result<(), Unclear> {
        for name in names {
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return Err(Unclear::Names);
            }
            let columns = match name.split_once('.') {
                Some((whole, part)) => {
                    self.note_composed(whole);
                    compound::column(self.description, whole, part)
                        .cloned()
                        .into_iter()
                        .collect()
                }
                None => {
                    self.note_composed(name);
                    let own = self.column(name).filter(|(_, kind)| is_carried(*kind));
                    match own {
                        Some((column, _)) => vec![column],
                        None => self.parts(name).to_vec(),
                    }
                }
            };
            for column in columns {
                self.put(column, Value::Null);
            }
        }
        Ok(())
    }

    fn read(&mut self, column: FieldName, json: &RawValue) -> Result<(), Unclear> {
        let kind = self
            .description
            .schema
            .fields
            .get(&column)
            .map_or(FieldKind::Text, |field| field.kind);
        if json.get().starts_with('{') {
            return Err(Unclear::Diff);
        }
        let value = value::read(kind, json.get()).map_err(|unfit| Unclear::Unfit {
            field: column.as_str().to_owned(),
            unfit,
        })?;
        if value.as_text().is_some_and(is_diff) {
            return Err(Unclear::Diff);
        }
        self.put(column, value);
        Ok(())
    }

    fn put(&mut self, column: FieldName, value: Value) {
        self.told.changed.insert(column.clone());
        self.told.fields.insert(column, value);
    }

    fn column(&self, name: &str) -> Option<(FieldName, FieldKind)> {
        let (column, field) = self.description.schema.fields.get_key_value(name)?;
        Some((column.clone(), field.kind))
    }

    fn parts(&self, whole: &str) -> &[FieldName] {
        compound::columns(self.description, whole)
    }

    fn note_composed(&mut self, whole: &str) {
        self.told.composed |= self.description.is_composed(whole);
    }
}

fn object<'a>(name: &str, json: &'a RawValue) -> Result<RawRow<'a>, Unclear> {
    serde_json::from_str(json.get()).map_err(|_| no_value(name))
}

fn no_value(name: &str) -> Unclear {
    Unclear::NoValue(name.to_owned())
}

/// Whether a text is the difference to another: a unified diff whose second line is the SHA-256 of the whole
/// (CDC Developer Guide, "Change Events for Large Text Fields").
fn is_diff(text: &str) -> bool {
    text.strip_prefix("--- ")
        .map(|rest| rest.trim_start_matches(['\r', '\n']))
        .and_then(|rest| rest.strip_prefix("+++ "))
        .and_then(|rest| rest.get(..64))
        .is_some_and(|hash| hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diffs_are_known_by_their_hash() {
        let hash = "0123456789abcdef".repeat(4);
        assert!(is_diff(&format!("--- \n+++ {hash}\n@@ -1 +1 @@\n-a\n+b")));
        assert!(is_diff(&format!("--- \r\n+++ {hash}")));
        for text in ["", "--- ", "--- \n+++ short", "--- a\n+++ b", "-- "] {
            assert!(!is_diff(text), "{text:?}");
        }
        assert!(!is_diff(&format!("--- \n+++ {}", "ü".repeat(40))));
    }
}
