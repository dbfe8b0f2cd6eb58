//! An event's fields: flattened to columns, each in the one spelling of its kind.

use std::borrow::Cow;

use crate::model::name::FieldName;
use crate::model::schema::FieldKind;
use crate::model::value::{Fields, Value};

use super::super::describe::Description;
use super::super::text_diff::TextDiff;
use super::super::{compound, value};
use super::cell::{Cell, Cells};

/// What an event tells of fields.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    /// Values by column; a long text of an update may be the difference to its former value.
    pub fields: Fields,
    /// Whether parts changed that the CRM puts together to one text.
    pub composed: bool,
}

/// Why an event does not tell what changed.
#[derive(Debug, thiserror::Error)]
pub enum Unclear {
    /// A gap, or a kind of change that is not known.
    #[error("it names records only")]
    Kind,
    /// A text's difference to what it was, in a form that is not known.
    #[error("it tells the difference of a long text in a form that is not known")]
    Diff,
    /// The body is not what its schema says.
    #[error("its body can't be decoded: {0}")]
    Malformed(Cow<'static, str>),
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
    cells: &'a Cells<'a>,
    /// Where the next cell is looked for first: lists have the order of what they list, as a rule.
    next: usize,
    told: Told,
}

impl<'a> Body<'a> {
    /// A body without its header.
    #[must_use]
    pub fn new(description: &'a Description, cells: &'a Cells<'a>) -> Self {
        Self {
            description,
            cells,
            next: 0,
            told: Told::default(),
        }
    }

    /// Everything that is there: a create tells the fields that are not empty.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn whole(mut self) -> Result<Told, Unclear> {
        for (name, cell) in &self.cells.0 {
            self.take(name, cell)?;
        }
        // A new record has nothing that could differ.
        if self.told.fields.values().any(is_diff) {
            return Err(Unclear::Diff);
        }
        Ok(self.told)
    }

    /// Everything that is there, and what is said to be empty now: an update without a list of changes.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn present(mut self, emptied: &[Cow<'_, str>]) -> Result<Told, Unclear> {
        for (name, cell) in &self.cells.0 {
            self.take(name, cell)?;
        }
        self.empty(emptied)?;
        Ok(self.told)
    }

    /// What the list names, whatever else is there: fields may be added that did not change.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn changed(
        mut self,
        names: &[Cow<'_, str>],
        emptied: &[Cow<'_, str>],
    ) -> Result<Told, Unclear> {
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
        let Some(cell) = self.cells.get_from(name, &mut self.next) else {
            let is_ours = self.column(name).is_some() || !self.parts(name).is_empty();
            // What the user may not read is not described, and not sent.
            return if is_ours { Err(no_value(name)) } else { Ok(()) };
        };
        let before = self.told.fields.len();
        self.take(name, cell)?;
        if matches!(cell, Cell::Parts(_))
            && self.parts(name).len() > self.told.fields.len() - before
        {
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
        match self.cells.get_from(whole, &mut self.next) {
            Some(Cell::Null) => {
                self.put(column, Value::Null);
                Ok(())
            }
            Some(Cell::Parts(parts)) => {
                let cell = parts.get(part).ok_or_else(|| no_value(name))?;
                self.read(column, cell)
            }
            _ => Err(no_value(name)),
        }
    }

    /// A top-level field, as it is there.
    fn take(&mut self, name: &str, cell: &Cell<'_>) -> Result<(), Unclear> {
        let own = self.column(name).filter(|(_, kind)| kind.is_selectable());
        let parts = self.parts(name);
        if let Cell::Parts(told) = cell {
            if !parts.is_empty() {
                return self.take_parts(name, told);
            }
            // A described field with an object for a value is a text's difference; what is not described nobody
            // could select.
            return own.map_or(Ok(()), |(column, kind)| self.read_as(column, kind, cell));
        }
        if !parts.is_empty() {
            self.note_composed(name);
        }
        if matches!(cell, Cell::Null) {
            for column in parts.iter().cloned().chain(own.map(|(column, _)| column)) {
                self.put(column, Value::Null);
            }
            return Ok(());
        }
        match own {
            Some((column, kind)) => self.read_as(column, kind, cell),
            None if parts.is_empty() => Ok(()),
            None => Err(no_value(name)),
        }
    }

    fn take_parts(&mut self, name: &str, told: &Cells<'_>) -> Result<(), Unclear> {
        self.note_composed(name);
        for (part, cell) in &told.0 {
            if let Some(column) = compound::column(self.description, name, part).cloned() {
                self.read(column, cell)?;
            }
        }
        Ok(())
    }

    /// Fields that are listed as empty now.
    fn empty(&mut self, names: &[Cow<'_, str>]) -> Result<(), Unclear> {
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
                    let own = self.column(name).filter(|(_, kind)| kind.is_selectable());
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

    fn read(&mut self, column: FieldName, cell: &Cell<'_>) -> Result<(), Unclear> {
        let kind = self
            .description
            .schema
            .fields
            .get(&column)
            .map_or(FieldKind::Text, |field| field.kind);
        self.read_as(column, kind, cell)
    }

    fn read_as(
        &mut self,
        column: FieldName,
        kind: FieldKind,
        cell: &Cell<'_>,
    ) -> Result<(), Unclear> {
        if let Cell::Parts(parts) = cell {
            // Over CometD, a text's difference to what it was.
            return match parts.get("diff").map(|diff| diff.value(FieldKind::Text)) {
                Some(Ok(diff)) if is_diff(&diff) => {
                    self.put(column, diff);
                    Ok(())
                }
                _ => Err(Unclear::Diff),
            };
        }
        let value = cell.value(kind).map_err(|unfit| Unclear::Unfit {
            field: column.as_str().to_owned(),
            unfit,
        })?;
        self.put(column, value);
        Ok(())
    }

    fn put(&mut self, column: FieldName, value: Value) {
        self.told.fields.insert(column, value);
    }

    fn column(&self, name: &str) -> Option<(FieldName, FieldKind)> {
        let (column, field) = self.description.schema.fields.get_key_value(name)?;
        Some((column.clone(), field.kind))
    }

    fn parts(&self, whole: &str) -> &'a [FieldName] {
        compound::columns(self.description, whole)
    }

    fn note_composed(&mut self, whole: &str) {
        self.told.composed |= self.description.is_composed(whole);
    }
}

fn is_diff(value: &Value) -> bool {
    value.as_text().and_then(TextDiff::parse).is_some()
}

fn no_value(name: &str) -> Unclear {
    Unclear::NoValue(name.to_owned())
}
