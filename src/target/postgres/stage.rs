//! Rows on their way into a table: arrays, column by column, one statement for any number of rows.
//!
//! A binary COPY into a temporary table first was measured beside it, from 100 to 5,000 rows of 19 columns: the
//! server's time per row is the same from 500 rows on and half as much again at 100, the client's is a tenth more.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::layout::Layout;
use super::lookup::quote;
use super::value::{Array, Class};
use super::view;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;

/// Columns of a mask that one number holds.
const MASK: usize = 62;

/// What is done with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Insert,
    Update {
        /// Whether a changed row tells if a mapped column of it lost its value.
        tells_emptied: bool,
    },
}

/// Rows of one kind of write, column by column.
pub(super) struct Stage<'l, 'v> {
    layout: &'l Layout<'l>,
    table: &'l str,
    kind: Kind,
    gsids: Vec<Uuid>,
    states: Vec<Option<&'static str>>,
    at: Vec<Option<DateTime<Utc>>>,
    /// Which columns are written; of those that are not, the value is null.
    masks: Vec<Vec<i64>>,
    columns: Vec<Array<'v>>,
}

impl<'l, 'v> Stage<'l, 'v> {
    pub(super) fn new(layout: &'l Layout<'l>, table: &'l str, kind: Kind, capacity: usize) -> Self {
        let masks = match kind {
            Kind::Insert => 0,
            Kind::Update { .. } => layout.written.div_ceil(MASK),
        };
        let columns = layout.columns.iter().take(layout.written);
        Self {
            layout,
            table,
            kind,
            gsids: Vec::with_capacity(capacity),
            states: Vec::with_capacity(capacity),
            at: Vec::with_capacity(capacity),
            masks: vec![Vec::with_capacity(capacity); masks],
            columns: columns
                .map(|column| Array::new(column.class, capacity))
                .collect(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.gsids.len()
    }

    pub(super) fn push(&mut self, gsid: Uuid, row: &view::Row<'v>) {
        self.gsids.push(gsid);
        let mark = row.mark.flatten();
        self.states.push(mark.map(|mark| mark.state.as_str()));
        self.at.push(mark.map(|mark| mark.at));
        for (mask, places) in self.masks.iter_mut().zip(row.values.chunks(MASK)) {
            let bits = places.iter().enumerate();
            let bits = bits.filter(|(_, value)| value.is_some());
            mask.push(bits.map(|(bit, _)| 1_i64 << bit).sum());
        }
        for (array, value) in self.columns.iter_mut().zip(&row.values) {
            match value {
                Some(value) => array.push(*value),
                None => array.push_null(),
            }
        }
    }

    /// Writes the rows; the GSIDs of those that were inserted or changed, and of the latter whether a column lost its value
    /// and whether others may find the row no more.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        now: DateTime<Utc>,
    ) -> Result<Vec<Row>, OrderError> {
        if self.gsids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = self.sql(&self.arrays());
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&now, &self.gsids, &self.states, &self.at];
        params.extend(self.masks.iter().map(|mask| mask as &(dyn ToSql + Sync)));
        params.extend(self.columns.iter().map(Array::param));
        session.query(&sql, &params).await
    }

    /// `$2` and on as a table.
    fn arrays(&self) -> String {
        let own = [("g", "uuid"), ("state", "text"), ("at", "timestamptz")];
        let own = own.map(|(name, ty)| (name.to_owned(), ty));
        let masks = (0..self.masks.len()).map(|mask| (format!("m{mask}"), "bigint"));
        let columns = self
            .classes()
            .map(|(place, _, class)| (format!("c{place}"), class.travels_as()));
        let (mut arrays, mut names) = (Vec::new(), Vec::new());
        for (place, (name, ty)) in own.into_iter().chain(masks).chain(columns).enumerate() {
            arrays.push(format!("${}::{ty}[]", place + 2));
            names.push(name);
        }
        format!("unnest({}) s({})", arrays.join(", "), names.join(", "))
    }

    fn classes(&self) -> impl Iterator<Item = (usize, &'l str, Class)> {
        let columns = self
            .layout
            .columns
            .iter()
            .take(self.layout.written)
            .enumerate();
        columns.map(|(place, column)| (place, column.name, column.class))
    }

    /// Writes what `source` holds, under the date `$1`.
    fn sql(&self, source: &str) -> String {
        match self.kind {
            Kind::Insert => self.insert_sql(source),
            Kind::Update { tells_emptied } => self.update_sql(source, tells_emptied),
        }
    }

    fn insert_sql(&self, source: &str) -> String {
        let (mut names, mut values) = (String::new(), String::new());
        for (place, name, class) in self.classes() {
            names.push_str(&format!(", {}", quote(name)));
            values.push_str(&format!(", {}", class.arrived(&format!("s.c{place}"))));
        }
        format!(
            "INSERT INTO {} (\"gsid\", \"created_date\", \"modified_date\", \"crm_state\", \"crm_state_at\"{names})
             SELECT s.g, $1, $1, s.state, s.at{values} FROM {source}
             ON CONFLICT (\"gsid\") DO NOTHING RETURNING \"gsid\"",
            self.table
        )
    }

    /// `ANY` of one GSID leaves the planner one way to go: from GSIDs to rows. By a plain `=` it may read all rows of
    /// a table that it believes to be small.
    fn update_sql(&self, source: &str, tells_emptied: bool) -> String {
        let (mut set, mut differs) = (String::new(), String::new());
        let mut nulls = Vec::new();
        for (place, name, class) in self.classes() {
            let (name, value) = (quote(name), class.arrived(&format!("s.c{place}")));
            let given = format!("s.m{} & {} <> 0", place / MASK, 1_i64 << (place % MASK));
            set.push_str(&format!(
                ", {name} = CASE WHEN {given} THEN {value} ELSE t.{name} END"
            ));
            differs.push_str(&format!(
                " OR ({given} AND t.{name} IS DISTINCT FROM {value})"
            ));
            if tells_emptied && place < self.layout.plan.columns.len() {
                nulls.push((format!("({given} AND s.c{place} IS NULL)"), name));
            }
        }
        format!(
            "UPDATE {} t SET \"modified_date\" = $1, \"crm_state\" = s.state, \"crm_state_at\" = s.at{set}
             FROM {source}
             WHERE t.\"gsid\" = ANY(ARRAY[s.g]) AND (t.\"crm_state\" IS DISTINCT FROM s.state
                OR t.\"crm_state_at\" IS DISTINCT FROM s.at{differs})
             RETURNING t.\"gsid\", {}, {}",
            self.table,
            self.emptied_sql(&nulls),
            self.moved_sql()
        )
    }

    /// Whether a column lost its value, of those that are given as null. A query in `RETURNING` reads the row as it was before
    /// the statement.
    fn emptied_sql(&self, nulls: &[(String, String)]) -> String {
        if nulls.is_empty() {
            return "false".to_owned();
        }
        let any: Vec<&str> = nulls.iter().map(|(is_null, _)| is_null.as_str()).collect();
        let had = nulls
            .iter()
            .map(|(is_null, name)| format!("({is_null} AND o.{name} IS NOT NULL)"));
        let had: Vec<String> = had.collect();
        format!(
            "CASE WHEN {} THEN coalesce((SELECT {} FROM {} o WHERE o.\"gsid\" = ANY(ARRAY[s.g])), false) ELSE false END",
            any.join(" OR "),
            had.join(" OR "),
            self.table
        )
    }

    /// Whether a column has changed by which others find the row.
    fn moved_sql(&self) -> String {
        let keys = self.layout.plan.keys.iter().map(|key| {
            let key = quote(key);
            format!("o.{key} IS DISTINCT FROM t.{key}")
        });
        let keys: Vec<String> = keys.collect();
        if keys.is_empty() {
            return "false".to_owned();
        }
        format!(
            "EXISTS (SELECT 1 FROM {} o WHERE o.\"gsid\" = ANY(ARRAY[s.g]) AND ({}))",
            self.table,
            keys.join(" OR ")
        )
    }
}
