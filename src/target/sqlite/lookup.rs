//! How a look-up finds rows: by `@id` and siblings through the crosswalk, by columns in the table itself.

use std::borrow::Cow;

use rusqlite::{CachedStatement, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::cell::{Class, Stored, encode, fold, folded};
use super::schema::quote;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{
    Cell, DeriveBy, DerivePlan, IdentifierPlan, MatchKey, PlanColumn, Reference,
};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::Batch;

/// Candidates that a message names at most.
const NAMED: usize = 5;

/// A table and the shape of the key by which its rows are found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lookup {
    pub table: String,
    pub parts: Vec<Part>,
}

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    /// Connection and record: a record of any object.
    Id,
    /// Connection, record and object: the record's own row.
    Sibling,
    /// A column's value as it is stored.
    Exact(String),
    /// A column's text without blanks at its ends.
    Trimmed(String),
    /// The same in lower case.
    Lower(String),
}

/// The values of a key, one after the other.
pub(super) type Key<'a> = Vec<Stored<'a>>;

/// What was found; GSIDs ascend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    None,
    One(String),
    Several(Vec<String>),
}

impl Part {
    /// A column of a type, compared as matches and identifiers are.
    pub(super) fn column(name: &str, class: Class, case_blind: bool) -> Self {
        match (class, case_blind) {
            (Class::Text, true) => Self::Lower(name.to_owned()),
            (Class::Text, false) => Self::Trimmed(name.to_owned()),
            _ => Self::Exact(name.to_owned()),
        }
    }

    pub(super) fn column_name(&self) -> Option<&str> {
        match self {
            Self::Id | Self::Sibling => None,
            Self::Exact(name) | Self::Trimmed(name) | Self::Lower(name) => Some(name),
        }
    }

    /// The indexed expression. `of` is `t.` where a table's alias is wanted: a bare quoted name that is no
    /// column would be taken as a text.
    pub(super) fn expression(&self, of: &str) -> Option<String> {
        let column = format!("{of}{}", quote(self.column_name()?));
        Some(match self {
            Self::Trimmed(_) => folded(&column, false),
            Self::Lower(_) => folded(&column, true),
            _ => column,
        })
    }

    /// The SQL of each of its values, on the crosswalk `x` and the table `t`.
    fn values(&self) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|name| format!("x.{name}")).collect();
        match self {
            Self::Id => own(&["connection", "record"]),
            Self::Sibling => own(&["connection", "record", "object"]),
            _ => self.expression("t.").into_iter().collect(),
        }
    }

    /// A cell as the value of this part; `None` if it is empty.
    pub(super) fn value<'a>(&self, cell: &'a Cell) -> Option<Stored<'a>> {
        match cell {
            Cell::Null => None,
            Cell::Text(text) => match self {
                Self::Exact(_) if text.is_empty() => None,
                Self::Exact(_) => Some(Stored::Text(Cow::Borrowed(text))),
                _ => fold(text, matches!(self, Self::Lower(_))).map(Stored::Text),
            },
            other => Some(encode(other)),
        }
    }
}

impl Lookup {
    pub(super) fn of_derive(derive: &DerivePlan) -> Self {
        let parts = match &derive.by {
            DeriveBy::Sibling(_) => vec![Part::Sibling],
            DeriveBy::Match(keys) => keys.iter().map(part).collect(),
        };
        let table = match &derive.by {
            DeriveBy::Sibling(table) => table,
            DeriveBy::Match(_) => &derive.table,
        };
        Self {
            table: table.clone(),
            parts,
        }
    }

    /// Rows of `table` by its identifiers; a column that is not mapped is derived, a GSID.
    pub(super) fn of_identifiers(
        table: &str,
        identifiers: &[IdentifierPlan],
        columns: &[PlanColumn],
    ) -> Self {
        let part = |identifier: &IdentifierPlan| {
            let mapped = columns
                .iter()
                .find(|column| column.name == identifier.column);
            let class = mapped.map_or(Class::Gsid, |column| Class::of(column.ty));
            Part::column(&identifier.column, class, identifier.case_blind)
        };
        Self {
            table: table.to_owned(),
            parts: identifiers.iter().map(part).collect(),
        }
    }

    /// The key of a record's reference; `None` if it is no reference.
    pub(super) fn key<'a>(
        &self,
        batch: &'a Batch,
        record: &'a RecordId,
        reference: &'a Reference,
    ) -> Result<Option<Key<'a>>, Fault> {
        let text = |text: &'a str| Stored::Text(Cow::Borrowed(text));
        let connection = || text(batch.reader.connection.as_str());
        match reference {
            Reference::Empty => Ok(None),
            Reference::Sibling if self.parts == [Part::Sibling] => Ok(Some(vec![
                connection(),
                text(record.as_str()),
                text(batch.object.as_str()),
            ])),
            Reference::Values(cells) if !cells.is_empty() && cells.len() == self.parts.len() => {
                let mut key = Key::with_capacity(cells.len() + 1);
                for (part, cell) in self.parts.iter().zip(cells) {
                    let Some(value) = part.value(cell) else {
                        return Ok(None);
                    };
                    if *part == Part::Id {
                        key.push(connection());
                    }
                    key.push(value);
                }
                Ok(Some(key))
            }
            _ => Err(Fault::new(
                FaultKind::Corrupt,
                format!(
                    "look-up in `{}` by {:?} got {reference:?}",
                    self.table, self.parts
                ),
            )),
        }
    }

    /// The shape as text, the same for all look-ups of one shape, so that what is parked can be woken a shape
    /// at a time.
    pub(super) fn shape(&self) -> Result<String, Fault> {
        serde_json::to_string(&self.parts)
            .map_err(|error| Fault::new(FaultKind::Corrupt, "encoding look-up").source(error))
    }

    /// A look-up that was parked.
    pub(super) fn parse(table: String, shape: &str) -> Result<Self, Fault> {
        let parts = serde_json::from_str(shape).map_err(|error| {
            Fault::new(
                FaultKind::Corrupt,
                format!("reading parked look-up `{shape}`"),
            )
            .source(error)
        })?;
        Ok(Self { table, parts })
    }

    /// A key that was parked, from its JSON array.
    pub(super) fn parse_key(json: &str) -> Result<Key<'static>, Fault> {
        let unreadable = |error: serde_json::Error| {
            Fault::new(FaultKind::Corrupt, format!("reading parked key `{json}`")).source(error)
        };
        let values: Vec<&RawValue> = serde_json::from_str(json).map_err(unreadable)?;
        let value = |raw: &&RawValue| match raw.get() {
            text if text.starts_with('"') => {
                serde_json::from_str(text).map(|text: String| Stored::text(text))
            }
            // The standard parser, which is exact, reads what SQLite wrote with all its digits.
            number => Ok(match (number.parse(), number.parse()) {
                (Ok(whole), _) => Stored::Integer(whole),
                (_, Ok(real)) => Stored::Real(real),
                _ => Stored::text(number),
            }),
        };
        values
            .iter()
            .map(value)
            .collect::<Result<_, _>>()
            .map_err(unreadable)
    }

    /// Columns with their values of a key, for people.
    pub(super) fn pairs(&self, key: &Key<'_>) -> Vec<(String, String)> {
        let columns = self.parts.iter().filter_map(Part::column_name);
        columns
            .zip(key)
            .map(|(column, value)| (column.to_owned(), shown(value)))
            .collect()
    }

    /// What a key means, for messages.
    pub(super) fn describe(&self, key: &Key<'_>) -> String {
        let mut values = key.iter();
        let mut pairs = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let shown = |value: Option<&Stored<'_>>| value.map_or_else(String::new, shown);
            match part {
                Part::Sibling => return format!("its own row in `{}`", self.table),
                Part::Id => pairs.push(format!("@id = `{}`", shown(values.nth(1)))),
                other => pairs.push(format!(
                    "{} = `{}`",
                    other.column_name().unwrap_or_default(),
                    shown(values.next())
                )),
            }
        }
        format!("a row of `{}` with {}", self.table, pairs.join(" and "))
    }

    /// `FROM` and `WHERE` without the key: the crosswalk as `x`, the table as `t`, where parts need them.
    fn sources(&self) -> (&'static str, String, String) {
        let table = quote(&self.table);
        let ledger = self.parts.iter().any(|part| part.column_name().is_none());
        let columns = self.parts.iter().any(|part| part.column_name().is_some());
        let held = format!("x.destination = {} AND x.gone = 0", quote_text(&self.table));
        match (ledger, columns) {
            (true, false) => ("x", "tributary_crosswalk x".to_owned(), held),
            (true, true) => (
                "t",
                format!("tributary_crosswalk x JOIN {table} t ON t.\"gsid\" = x.gsid"),
                held,
            ),
            (false, _) => ("t", format!("{table} t"), "1".to_owned()),
        }
    }

    /// Finds by a key that is bound from `?1` on.
    pub(super) fn sql(&self) -> String {
        let (alias, from, mut condition) = self.sources();
        let values = self.parts.iter().flat_map(Part::values);
        for (index, value) in values.enumerate() {
            condition.push_str(&format!(" AND {value} = ?{}", index + 1));
        }
        format!(
            "SELECT DISTINCT {alias}.\"gsid\" FROM {from} WHERE {condition} ORDER BY 1 LIMIT {}",
            NAMED + 1
        )
    }

    /// The keys, as JSON arrays, of the rows whose GSIDs are in the JSON array `?1`.
    pub(super) fn keys_of_rows(&self) -> String {
        let (alias, from, condition) = self.sources();
        let values: Vec<_> = self.parts.iter().flat_map(Part::values).collect();
        format!(
            "SELECT json_array({}) FROM json_each(?1) g CROSS JOIN {from} \
             WHERE {alias}.\"gsid\" = g.value AND {condition}",
            values.join(", ")
        )
    }
}

fn shown(value: &Stored<'_>) -> String {
    match value {
        Stored::Integer(value) => value.to_string(),
        Stored::Real(value) => value.to_string(),
        Stored::Text(text) => text.to_string(),
        Stored::Null => String::new(),
    }
}

fn part(key: &MatchKey) -> Part {
    match key {
        MatchKey::RecordId => Part::Id,
        MatchKey::Column {
            name,
            ty,
            case_blind,
        } => Part::column(name, Class::of(*ty), *case_blind),
    }
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A look-up's statement, prepared when it is first run.
pub(super) struct Finder<'tx> {
    transaction: &'tx Transaction<'tx>,
    lookup: Lookup,
    statement: Option<CachedStatement<'tx>>,
}

impl<'tx> Finder<'tx> {
    pub(super) const fn new(transaction: &'tx Transaction<'tx>, lookup: Lookup) -> Self {
        Self {
            transaction,
            lookup,
            statement: None,
        }
    }

    pub(super) const fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    pub(super) fn find(&mut self, key: &Key<'_>) -> Result<Found, JobError> {
        let statement = match &mut self.statement {
            Some(statement) => statement,
            none => none.insert(self.transaction.prepare_cached(&self.lookup.sql())?),
        };
        let mut rows = statement.query(rusqlite::params_from_iter(key))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(row.get(0)?);
        }
        Ok(match found.len() {
            0 => Found::None,
            1 => Found::One(found.remove(0)),
            _ => Found::Several(found),
        })
    }
}

/// Candidates in a message.
pub(super) fn named(gsids: &[String]) -> String {
    let more = if gsids.len() > NAMED { " and more" } else { "" };
    format!("{}{more}", gsids[..gsids.len().min(NAMED)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_sqlite() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for value in [
            Stored::Integer(i64::MAX),
            Stored::Integer(-7),
            Stored::Real(0.1),
            Stored::Real(-1.0e-7),
            Stored::Real(123_456_789.123_456_79),
            Stored::Real(1e300),
            Stored::text("007"),
            Stored::text("1e5"),
            Stored::text("a \"quoted\"\n\u{1}é\u{1f600}"),
        ] {
            let json: String = connection
                .query_row("SELECT json_array(?1, 'x')", [&value], |row| row.get(0))
                .unwrap();
            let key = Lookup::parse_key(&json).unwrap();
            assert_eq!(key, [value, Stored::text("x")], "{json}");
        }
    }
}
