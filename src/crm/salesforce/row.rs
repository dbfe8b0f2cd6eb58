//! Rows of REST answers: read without copying what nobody selected.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::http::raw_row::RawRow;
use crate::model::event::Row;
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;
use crate::model::schema::FieldKind;
use crate::model::value::{Fields, Value};

use super::take::Taken;
use super::{stamp, value};

/// An answer to a query (REST API Developer Guide, "Query").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryAnswer<'a> {
    /// Rows of the whole query.
    #[serde(default)]
    pub total_size: u64,
    /// Whether this is the last page.
    pub done: bool,
    /// The next page's path.
    pub next_records_url: Option<String>,
    /// This page's rows.
    #[serde(borrow)]
    pub records: Vec<RawRow<'a>>,
}

/// What is taken out of a row.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    own: HashMap<FieldName, Read>,
    nested: Vec<(FieldName, Read)>,
    stamp: Option<FieldName>,
}

/// A value that is read, and what is taken of it.
#[derive(Debug, Clone)]
struct Read {
    kind: FieldKind,
    taken: Vec<Taken>,
}

impl Read {
    fn put(&self, value: &Value, fields: &mut Fields) {
        for taken in &self.taken {
            fields.insert(taken.field.clone(), taken.take.of(value));
        }
    }
}

impl Columns {
    /// Columns of an object whose changes are found by `stamp`.
    #[must_use]
    pub fn new(stamp: Option<FieldName>) -> Self {
        Self {
            stamp,
            ..Self::default()
        }
    }

    /// Takes something of a field of the object itself; whether nothing else takes of that field.
    pub fn own(&mut self, name: FieldName, kind: FieldKind, taken: Taken) -> bool {
        if let Some(read) = self.own.get_mut(&name) {
            read.taken.push(taken);
            return false;
        }
        let taken = vec![taken];
        self.own.insert(name, Read { kind, taken });
        true
    }

    /// Takes something of a parent's field, named by its path; whether nothing else takes of that field.
    pub fn nested(&mut self, path: FieldName, kind: FieldKind, taken: Taken) -> bool {
        let same = |(known, _): &&mut (FieldName, Read)| {
            known.as_str().eq_ignore_ascii_case(path.as_str())
        };
        if let Some((_, read)) = self.nested.iter_mut().find(same) {
            read.taken.push(taken);
            return false;
        }
        let taken = vec![taken];
        self.nested.push((path, Read { kind, taken }));
        true
    }

    /// Reads a row that has an `Id`.
    ///
    /// # Errors
    /// `Protocol` for a row without a readable id.
    pub fn row(&self, raw: &RawRow<'_>) -> Result<Row, Fault> {
        let id = raw
            .get("Id")
            .and_then(|id| serde_json::from_str::<Cow<'_, str>>(id.get()).ok())
            .and_then(|id| RecordId::salesforce(&id).ok());
        let Some(record) = id else {
            return Err(Fault::new(
                FaultKind::Protocol,
                "a row of the answer has no readable `Id`",
            ));
        };
        let mut fields = Fields::new();
        let mut modified_at = None;
        for (name, json) in &raw.0 {
            if let Some(read) = self.own.get(name.as_ref()) {
                read.put(&value::read_row(read.kind, json.get()), &mut fields);
            }
            if self
                .stamp
                .as_ref()
                .is_some_and(|stamp| stamp.as_str() == name.as_ref())
            {
                modified_at = instant(json.get());
            }
        }
        for (path, read) in &self.nested {
            if let Some(value) = parent_value(raw, path.as_str(), read.kind) {
                read.put(&value, &mut fields);
            }
        }
        Ok(Row {
            record,
            fields,
            modified_at,
            version: None,
        })
    }
}

/// Columns and where a table has them.
#[derive(Debug)]
pub struct Bound {
    width: usize,
    id: usize,
    stamp: Option<usize>,
    fields: Vec<(Read, usize)>,
}

impl Columns {
    /// Finds the columns under a table's heading.
    ///
    /// # Errors
    /// `Protocol`, naming a column that it lacks.
    pub fn bind(&self, heading: &[&str]) -> Result<Bound, Fault> {
        let place = |name: &str| {
            heading
                .iter()
                .position(|other| other.eq_ignore_ascii_case(name))
                .ok_or_else(|| {
                    let what = format!("a job's results have no column `{name}`");
                    Fault::new(FaultKind::Protocol, what)
                })
        };
        let fields = self
            .own
            .iter()
            .chain(self.nested.iter().map(|(name, read)| (name, read)))
            .map(|(name, read)| Ok((read.clone(), place(name.as_str())?)))
            .collect::<Result<_, Fault>>()?;
        Ok(Bound {
            width: heading.len(),
            id: place("Id")?,
            stamp: self.stamp.as_ref().map(|s| place(s.as_str())).transpose()?,
            fields,
        })
    }
}

impl Bound {
    /// How many columns the table has.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Reads a row whose values `cell` gives.
    ///
    /// # Errors
    /// `Protocol` for a row without a readable id.
    pub fn row<'a>(&self, cell: impl Fn(usize) -> &'a str) -> Result<Row, Fault> {
        let record = RecordId::salesforce(cell(self.id)).map_err(|error| {
            Fault::new(
                FaultKind::Protocol,
                "a row of a job's results has no readable `Id`",
            )
            .source(error)
        })?;
        let mut fields = Fields::new();
        for (read, place) in &self.fields {
            read.put(&value::read_cell(read.kind, cell(*place)), &mut fields);
        }
        Ok(Row {
            record,
            fields,
            modified_at: self.stamp.and_then(|place| stamp::instant(cell(place))),
            version: None,
        })
    }
}

fn instant(json: &str) -> Option<DateTime<Utc>> {
    match value::read(FieldKind::DateTime, json).ok()? {
        Value::Text(text) => stamp::instant(&text),
        _ => None,
    }
}

/// A parent's field: null if there is no parent, absent if the answer does not speak of it.
fn parent_value(raw: &RawRow<'_>, path: &str, kind: FieldKind) -> Option<Value> {
    let (first, rest) = path.split_once('.')?;
    let json = raw.get_any_case(first)?.get();
    if json == "null" {
        return Some(Value::Null);
    }
    let parent: RawRow<'_> = serde_json::from_str(json).ok()?;
    if rest.contains('.') {
        return parent_value(&parent, rest, kind);
    }
    parent
        .get_any_case(rest)
        .map(|json| value::read_row(kind, json.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_selected_and_nothing_else() {
        let mut columns = Columns::new(Some(FieldName::new("SystemModstamp")));
        for (name, kind) in [("Name", FieldKind::Text), ("Amount", FieldKind::Decimal)] {
            columns.own(name.into(), kind, Taken::whole(name));
        }
        for (path, kind) in [
            ("owner.Email", FieldKind::Text),
            ("Parent.Owner.CreatedDate", FieldKind::DateTime),
            ("Gone.Name", FieldKind::Text),
        ] {
            columns.nested(path.into(), kind, Taken::whole(path));
        }
        let json = r#"{"attributes":{"type":"Account","url":"/x"},"Id":"001A0000006Vm9u","N\u0061me":"A",
            "Amount":1.50,"SystemModstamp":"2024-04-09T20:26:27.000+0000","Other":"x",
            "Owner":{"attributes":{},"Email":"a@b.c"},
            "Parent":{"Owner":{"CreatedDate":"2024-04-09T20:26:27.000+0000"}},"Gone":null}"#;
        let raw: RawRow<'_> = serde_json::from_str(json).unwrap();
        let row = columns.row(&raw).unwrap();
        assert_eq!(row.record.as_str(), "001A0000006Vm9uIAC");
        assert_eq!(
            row.modified_at.unwrap().to_rfc3339(),
            "2024-04-09T20:26:27+00:00"
        );
        assert_eq!(
            serde_json::to_string(&row.fields).unwrap(),
            r#"{"Amount":1.50,"Gone.Name":null,"Name":"A","Parent.Owner.CreatedDate":"2024-04-09T20:26:27.000Z","owner.Email":"a@b.c"}"#
        );
    }

    #[test]
    fn a_row_without_an_id_is_refused() {
        for json in [r"{}", r#"{"Id":null}"#, r#"{"Id":"short"}"#, r#"{"Id":5}"#] {
            let raw: RawRow<'_> = serde_json::from_str(json).unwrap();
            let fault = Columns::default().row(&raw).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Protocol);
        }
    }
}
