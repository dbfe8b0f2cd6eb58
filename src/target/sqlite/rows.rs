//! The rows of one destination: inserted, changed where they differ, marked, deleted.

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Transaction};

use super::cell::Stored;
use super::schema::quote;
use crate::mapping::plan::DestinationPlan;
use crate::sqlite::error::JobError;

/// What a write of an existing row came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Changed,
    /// And a mapped column lost its value.
    Emptied,
    Same,
    /// There is no such row.
    Missing,
}

/// A row's values: the plan's columns, then its derived ones; `None` leaves a column as it is.
pub(super) type Values<'a> = Vec<Option<Stored<'a>>>;

/// The statements on one table, each prepared when it is first needed. Their number does not depend on
/// which columns a row lacks: what it leaves alone is read and written back.
pub(super) struct Rows<'tx> {
    now: &'tx str,
    /// Which columns lose their value when null is written; none, if nobody asks.
    loses: Vec<bool>,
    insert: Prepared<'tx>,
    update: Prepared<'tx>,
    select: Prepared<'tx>,
    delete: Prepared<'tx>,
    mark: Prepared<'tx>,
    links: Vec<Prepared<'tx>>,
    /// Places of columns by which others find rows, and whether a null leaves them.
    keys: Vec<(usize, bool)>,
}

/// A statement and its text.
pub(super) struct Prepared<'tx> {
    transaction: &'tx Transaction<'tx>,
    sql: String,
    statement: Option<CachedStatement<'tx>>,
}

impl<'tx> Prepared<'tx> {
    pub(super) const fn new(transaction: &'tx Transaction<'tx>, sql: String) -> Self {
        Self {
            transaction,
            sql,
            statement: None,
        }
    }

    pub(super) fn get(&mut self) -> Result<&mut CachedStatement<'tx>, JobError> {
        match &mut self.statement {
            Some(statement) => Ok(statement),
            none => Ok(none.insert(self.transaction.prepare_cached(&self.sql)?)),
        }
    }
}

impl<'tx> Rows<'tx> {
    pub(super) fn new(
        transaction: &'tx Transaction<'tx>,
        plan: &DestinationPlan,
        now: &'tx str,
        asks_for_emptied: bool,
    ) -> Self {
        let table = quote(&plan.table);
        let derived = plan.derives.iter().map(|derive| &derive.column);
        let names: Vec<String> = plan
            .columns
            .iter()
            .map(|column| &column.name)
            .chain(derived)
            .map(|name| quote(name))
            .collect();
        let selected: String = names.iter().map(|name| format!(", t.{name}")).collect();
        let prepared = |sql| Prepared::new(transaction, sql);
        let link = |column: &str| prepared(link_sql(&plan.table, column));
        let columns = plan.columns.iter();
        let loses = columns.map(|column| !column.insert_only && !column.keep_on_null);
        Self {
            now,
            loses: loses.filter(|_| asks_for_emptied).collect(),
            insert: prepared(insert_sql(&table, &names)),
            update: prepared(update_sql(&table, &names, plan)),
            select: prepared(format!("SELECT 1{selected} FROM {table} t WHERE t.\"gsid\" = ?1")),
            delete: prepared(format!("DELETE FROM {table} WHERE \"gsid\" = ?1")),
            mark: prepared(format!(
                "UPDATE {table} AS t SET \"crm_state\" = ?2, \"crm_state_at\" = ?3, \"modified_date\" = ?4
                 WHERE t.\"gsid\" = ?1 AND (t.\"crm_state\" IS NOT ?2 OR t.\"crm_state_at\" IS NOT ?3)"
            )),
            links: plan.derives.iter().map(|derive| link(&derive.column)).collect(),
            keys: keys(plan),
        }
    }

    pub(super) fn insert(&mut self, gsid: &str, values: &Values<'_>) -> Result<(), JobError> {
        let statement = self.insert.get()?;
        bind(statement, gsid, self.now, values)?;
        statement.raw_execute()?;
        Ok(())
    }

    /// Writes what differs; a mark goes.
    pub(super) fn update(
        &mut self,
        gsid: &str,
        values: &mut Values<'_>,
    ) -> Result<Written, JobError> {
        if values.iter().any(Option::is_none) && !self.fill(gsid, values)? {
            return Ok(Written::Missing);
        }
        let empties = self.empties(gsid, values)?;
        let statement = self.update.get()?;
        bind(statement, gsid, self.now, values)?;
        if statement.raw_execute()? > 0 {
            return Ok(if empties {
                Written::Emptied
            } else {
                Written::Changed
            });
        }
        Ok(if self.has(gsid)? {
            Written::Same
        } else {
            Written::Missing
        })
    }

    /// Whether a mapped column that has a value is to be null.
    fn empties(&mut self, gsid: &str, values: &Values<'_>) -> Result<bool, JobError> {
        let places = self.loses.iter().zip(values).enumerate();
        let nulls = places.filter(|(_, (loses, value))| **loses && **value == Some(Stored::Null));
        let nulls: Vec<usize> = nulls.map(|(place, _)| place).collect();
        if nulls.is_empty() {
            return Ok(false);
        }
        let mut rows = self.select.get()?.query([gsid])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        for place in nulls {
            if row.get_ref(place + 1)? != ValueRef::Null {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether values that are to be written change a column by which others find the row.
    pub(super) fn moves(&mut self, gsid: &str, values: &Values<'_>) -> Result<bool, JobError> {
        if self.keys.is_empty() {
            return Ok(false);
        }
        let mut rows = self.select.get()?.query([gsid])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        for (index, kept) in &self.keys {
            let Some(value) = &values[*index] else {
                continue;
            };
            let held: Stored<'_> = row.get_ref(index + 1)?.into();
            if held != *value && !(*kept && *value == Stored::Null) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is such a row.
    pub(super) fn has(&mut self, gsid: &str) -> Result<bool, JobError> {
        Ok(self.select.get()?.exists([gsid])?)
    }

    /// Reads the values that are to stay; false if there is no row.
    fn fill(&mut self, gsid: &str, values: &mut Values<'_>) -> Result<bool, JobError> {
        let mut rows = self.select.get()?.query([gsid])?;
        let Some(row) = rows.next()? else {
            return Ok(false);
        };
        for (index, value) in values.iter_mut().enumerate() {
            if value.is_none() {
                *value = Some(row.get_ref(index + 1)?.into());
            }
        }
        Ok(true)
    }

    /// Sets one derived column; whether that changed it.
    pub(super) fn link(
        &mut self,
        derive: usize,
        gsid: &str,
        value: &Stored<'_>,
    ) -> Result<bool, JobError> {
        let Some(link) = self.links.get_mut(derive) else {
            return Ok(false);
        };
        let changed = link
            .get()?
            .execute(rusqlite::params![gsid, value, self.now])?;
        Ok(changed > 0)
    }

    /// Sets `crm_state` and `crm_state_at` where they differ.
    pub(super) fn mark(
        &mut self,
        gsid: &str,
        mark: Option<&(String, String)>,
    ) -> Result<(), JobError> {
        let (state, at) = mark.map(|(state, at)| (state, at)).unzip();
        self.mark
            .get()?
            .execute(rusqlite::params![gsid, state, at, self.now])?;
        Ok(())
    }

    pub(super) fn delete(&mut self, gsid: &str) -> Result<(), JobError> {
        self.delete.get()?.execute([gsid])?;
        Ok(())
    }
}

fn keys(plan: &DestinationPlan) -> Vec<(usize, bool)> {
    let columns = plan.columns.iter();
    let columns = columns.map(|one| (&one.name, one.insert_only, one.keep_on_null));
    let derives = plan.derives.iter().map(|one| (&one.column, false, false));
    let written = columns.chain(derives).enumerate();
    let keys = written.filter(|(_, (name, once, _))| plan.keys.contains(*name) && !once);
    keys.map(|(place, (_, _, kept))| (place, kept)).collect()
}

/// Binds `?1` gsid, `?2` now, and the values from `?3` on.
fn bind(
    statement: &mut CachedStatement<'_>,
    gsid: &str,
    now: &str,
    values: &Values<'_>,
) -> Result<(), JobError> {
    statement.raw_bind_parameter(1, gsid)?;
    statement.raw_bind_parameter(2, now)?;
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 3, value.as_ref().unwrap_or(&Stored::Null))?;
    }
    Ok(())
}

fn insert_sql(table: &str, names: &[String]) -> String {
    let columns: String = names.iter().map(|name| format!(", {name}")).collect();
    let values: String = (0..names.len())
        .map(|index| format!(", ?{}", index + 3))
        .collect();
    format!(
        "INSERT INTO {table} (\"gsid\", \"created_date\", \"modified_date\"{columns})
         VALUES (?1, ?2, ?2{values})"
    )
}

fn update_sql(table: &str, names: &[String], plan: &DestinationPlan) -> String {
    let mut set = String::new();
    let mut differs = String::new();
    for (index, name) in names.iter().enumerate() {
        let (column, value) = (plan.columns.get(index), index + 3);
        if column.is_some_and(|column| column.insert_only) {
            continue;
        }
        if column.is_some_and(|column| column.keep_on_null) {
            set.push_str(&format!(", {name} = coalesce(?{value}, t.{name})"));
            differs.push_str(&format!(
                " OR (?{value} IS NOT NULL AND t.{name} IS NOT ?{value})"
            ));
        } else {
            set.push_str(&format!(", {name} = ?{value}"));
            differs.push_str(&format!(" OR t.{name} IS NOT ?{value}"));
        }
    }
    // Every parameter has to be named, the last ones too.
    format!(
        "UPDATE {table} AS t SET \"modified_date\" = ?2, \"crm_state\" = NULL, \"crm_state_at\" = NULL{set}
         WHERE t.\"gsid\" = ?1 AND (t.\"crm_state\" IS NOT NULL OR t.\"crm_state_at\" IS NOT NULL{differs}
         OR (?{} IS NULL AND 0))",
        names.len() + 2
    )
}

/// Sets a column to a GSID where it differs.
pub(super) fn link_sql(table: &str, column: &str) -> String {
    let (table, column) = (quote(table), quote(column));
    format!(
        "UPDATE {table} AS t SET {column} = ?2, \"modified_date\" = ?3
         WHERE t.\"gsid\" = ?1 AND t.{column} IS NOT ?2"
    )
}
