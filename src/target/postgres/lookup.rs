//! How a look-up finds rows: by `@id` and siblings through the crosswalk, by columns in the table itself.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Schemas;
use super::value::{Array, Class, Value, fold, folded};
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{
    Cell, DeriveBy, DerivePlan, IdentifierPlan, MatchKey, PlanColumn, Reference,
};
use crate::model::record_id::RecordId;
use crate::target::port::Batch;

/// Candidates that a message names at most.
pub(super) const NAMED: usize = 5;

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
    Exact(String, Class),
    /// A column's text without blanks at its ends.
    Trimmed(String),
    /// The same in lower case.
    Lower(String),
}

/// The values of a key, one after the other.
pub(super) type Key<'a> = Vec<Value<'a>>;

/// What was found; GSIDs ascend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    None,
    One(Uuid),
    Several(Vec<Uuid>),
}

impl Found {
    /// From GSIDs in any order.
    pub(super) fn of(mut gsids: Vec<Uuid>) -> Self {
        gsids.sort_unstable();
        gsids.dedup();
        match gsids[..] {
            [] => Self::None,
            [one] => Self::One(one),
            _ => Self::Several(gsids),
        }
    }

    /// Takes the lowest where any of several will do.
    pub(super) fn any(self, any: bool) -> Self {
        match self {
            Self::Several(gsids) if any => Self::One(gsids[0]),
            other => other,
        }
    }
}

impl Part {
    /// A column of a type, compared as matches and identifiers are.
    fn column(name: &str, class: Class, case_blind: bool) -> Self {
        match (class, case_blind) {
            (Class::Text, true) => Self::Lower(name.to_owned()),
            (Class::Text, false) => Self::Trimmed(name.to_owned()),
            _ => Self::Exact(name.to_owned(), class),
        }
    }

    pub(super) fn column_name(&self) -> Option<&str> {
        match self {
            Self::Id | Self::Sibling => None,
            Self::Exact(name, _) | Self::Trimmed(name) | Self::Lower(name) => Some(name),
        }
    }

    /// The classes of its values.
    fn classes(&self) -> &'static [Class] {
        match self {
            Self::Id => &[Class::Text, Class::Text],
            Self::Sibling => &[Class::Text, Class::Text, Class::Text],
            Self::Trimmed(_) | Self::Lower(_) => &[Class::Text],
            Self::Exact(_, class) => match class {
                Class::Text => &[Class::Text],
                Class::Number => &[Class::Number],
                Class::Boolean => &[Class::Boolean],
                Class::Date => &[Class::Date],
                Class::DateTime => &[Class::DateTime],
                Class::Gsid => &[Class::Gsid],
            },
        }
    }

    /// The class of its column.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Exact(_, class) => *class,
            _ => Class::Text,
        }
    }

    /// The indexed expression; `of` is `t.` or nothing.
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
    pub(super) fn value<'a>(&self, cell: &'a Cell) -> Option<Value<'a>> {
        match (cell, self) {
            (Cell::Text(text), Self::Trimmed(_) | Self::Lower(_) | Self::Id) => {
                fold(text, matches!(self, Self::Lower(_))).map(Value::Text)
            }
            _ => Value::exact(cell),
        }
    }
}

impl Lookup {
    pub(super) fn of_derive(derive: &DerivePlan) -> Self {
        let (table, parts) = match &derive.by {
            DeriveBy::Sibling(table) => (table, vec![Part::Sibling]),
            DeriveBy::Match(keys) => (&derive.table, keys.iter().map(part).collect()),
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

    /// Whether it goes through the crosswalk.
    pub(super) fn has_ledger(&self) -> bool {
        self.parts.iter().any(|part| part.column_name().is_none())
    }

    /// The key of a record's reference; `None` if it is no reference.
    pub(super) fn key<'a>(
        &self,
        batch: &'a Batch,
        record: &'a RecordId,
        reference: &'a Reference,
    ) -> Result<Option<Key<'a>>, Fault> {
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
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
            let what = format!("reading parked look-up `{shape}`");
            Fault::new(FaultKind::Corrupt, what).source(error)
        })?;
        Ok(Self { table, parts })
    }

    /// A key that was parked.
    pub(super) fn parse_key(&self, json: &str) -> Result<Key<'static>, Fault> {
        let unreadable = || Fault::new(FaultKind::Corrupt, format!("reading parked key `{json}`"));
        let texts: Vec<String> =
            serde_json::from_str(json).map_err(|error| unreadable().source(error))?;
        let classes: Vec<Class> = self.classes().collect();
        if texts.len() != classes.len() {
            return Err(unreadable());
        }
        let values = classes.into_iter().zip(texts);
        values
            .map(|(class, text)| Value::parse(class, text))
            .collect::<Option<_>>()
            .ok_or_else(unreadable)
    }

    fn classes(&self) -> impl Iterator<Item = Class> {
        self.parts
            .iter()
            .flat_map(|part| part.classes().iter().copied())
    }

    /// Columns with their values of a key, for people.
    pub(super) fn pairs(&self, key: &Key<'_>) -> Vec<(String, String)> {
        let columns = self.parts.iter().filter_map(Part::column_name);
        columns
            .zip(key)
            .map(|(column, value)| (column.to_owned(), value.spelled().into_owned()))
            .collect()
    }

    /// What a key means, for messages.
    pub(super) fn describe(&self, key: &Key<'_>) -> String {
        let mut values = key.iter();
        let mut pairs = Vec::with_capacity(self.parts.len());
        let shown = |value: Option<&Value<'_>>| {
            value.map_or_else(String::new, |value| value.spelled().into_owned())
        };
        for part in &self.parts {
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
    fn sources(&self, schemas: &Schemas) -> (&'static str, String, String) {
        let table = schemas.table(&self.table);
        let crosswalk = schemas.ledger("crosswalk");
        let columns = self.parts.iter().any(|part| part.column_name().is_some());
        let held = format!("x.destination = {} AND NOT x.gone", quote_text(&self.table));
        match (self.has_ledger(), columns) {
            (true, false) => ("x", format!("{crosswalk} x"), held),
            (true, true) => (
                "t",
                format!("{crosswalk} x JOIN {table} t ON t.\"gsid\" = ANY(ARRAY[x.gsid])"),
                held,
            ),
            (false, _) => ("t", format!("{table} t"), "true".to_owned()),
        }
    }

    /// Finds by many keys at once: `$1` how many rows of each are wanted, then an array for each value. Yields the
    /// key's place, from 1, and a GSID. The inner query is planned by itself: that its result is to be sorted must not
    /// bring the planner to walk all rows in the order of their GSIDs.
    pub(super) fn sql(&self, schemas: &Schemas) -> String {
        let (alias, from, mut condition) = self.sources(schemas);
        let (mut arrays, mut names) = (Vec::new(), Vec::new());
        let values = self.parts.iter().flat_map(Part::values);
        for (place, (class, value)) in self.classes().zip(values).enumerate() {
            arrays.push(format!("${}::{}[]", place + 2, class.travels_as()));
            names.push(format!("k{place}"));
            let key = class.arrived(&format!("k.k{place}"));
            condition.push_str(&format!(" AND {value} = {key}"));
        }
        format!(
            "SELECT k.n::int4, m.g FROM unnest({}) WITH ORDINALITY k({}, n) CROSS JOIN LATERAL (\
             SELECT DISTINCT s.g FROM (SELECT {alias}.\"gsid\" AS g FROM {from} WHERE {condition} OFFSET 0) s \
             ORDER BY 1 LIMIT $1) m",
            arrays.join(", "),
            names.join(", ")
        )
    }

    /// The keys of [`Lookup::sql`], value by value.
    pub(super) fn arrays<'k>(&self, keys: &[&Key<'k>]) -> Vec<Array<'k>> {
        let mut arrays: Vec<_> = self
            .classes()
            .map(|class| Array::new(class, keys.len()))
            .collect();
        for key in keys {
            for (array, value) in arrays.iter_mut().zip(key.iter()) {
                array.push_part(value);
            }
        }
        arrays
    }

    /// The keys of the rows whose GSIDs are in the array `$1`, as texts.
    pub(super) fn keys_of_rows(&self, schemas: &Schemas) -> String {
        let (alias, from, mut condition) = self.sources(schemas);
        if self.has_ledger() && alias == "t" {
            condition.push_str(" AND x.gsid = g.g");
        }
        let values = self.parts.iter().flat_map(Part::values);
        let texts = self
            .classes()
            .zip(values)
            .map(|(class, value)| match class {
                // As `Value::spelled` has it.
                Class::DateTime => format!(
                    "to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
                ),
                _ => format!("({value})::text"),
            });
        let texts: Vec<_> = texts
            .enumerate()
            .map(|(place, text)| format!("{text} AS v{place}"))
            .collect();
        format!(
            "SELECT m.* FROM unnest($1::uuid[]) g JOIN LATERAL (SELECT {} FROM {from} \
             WHERE {alias}.\"gsid\" = g.g AND {condition} OFFSET 0) m ON true",
            texts.join(", ")
        )
    }

    /// A key from a row of [`Lookup::keys_of_rows`]; `None` where a value is null or empty.
    pub(super) fn key_of_row(&self, texts: Vec<Option<String>>) -> Option<Key<'static>> {
        let values = self.classes().zip(texts);
        values
            .map(|(class, text)| {
                let text = text.filter(|text| class != Class::Text || !text.is_empty())?;
                Value::parse(class, text)
            })
            .collect()
    }
}

/// A key as it is parked.
pub(super) fn spelled(key: &Key<'_>) -> Result<String, Fault> {
    let texts: Vec<_> = key.iter().map(Value::spelled).collect();
    serde_json::to_string(&texts)
        .map_err(|error| Fault::new(FaultKind::Corrupt, "encoding a key").source(error))
}

/// What stands for a text in an index: keys may be longer than an index takes.
pub(super) fn digest(text: &str) -> Uuid {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    for (byte, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *byte = *from;
    }
    Uuid::from_bytes(bytes)
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

/// A name as SQL takes it, whatever it is.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Candidates in a message.
pub(super) fn named(gsids: &[Uuid]) -> String {
    let more = if gsids.len() > NAMED { " and more" } else { "" };
    let shown: Vec<_> = gsids.iter().take(NAMED).map(Uuid::to_string).collect();
    format!("{}{more}", shown.join(", "))
}
