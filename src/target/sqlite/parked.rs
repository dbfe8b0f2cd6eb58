//! What waits for rows: references (the column is null meanwhile) and whole changes.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};

use super::ledger::{parse_version, signed};
use super::lookup::{Key, Lookup};
use super::review::{Ambiguity, IN_REVIEW};
use super::rows::Prepared;
use crate::fault::Fault;
use crate::mapping::plan::{DerivePlan, DestinationPlan, MappedRow};
use crate::model::policy::OnMultiple;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::sqlite::error::JobError;
use crate::target::port::Batch;

/// A look-up that waits for its row.
pub(super) struct Wait<'a> {
    pub plan: &'a DestinationPlan,
    pub derive: &'a DerivePlan,
    pub lookup: &'a Lookup,
    pub key: &'a Key<'a>,
}

impl Wait<'_> {
    fn any(&self) -> bool {
        self.derive.on_multiple == OnMultiple::Any
    }

    /// As JSON.
    fn owners(&self) -> String {
        let owners = self.plan.owners_of(&self.derive.column);
        serde_json::Value::from(owners).to_string()
    }
}

/// `json_array(?from, …)`: both what waits and what comes is put into JSON by SQLite, so that equal keys are
/// equal texts.
fn key_sql(from: usize, key: &Key<'_>) -> String {
    let values: Vec<_> = (from..from + key.len())
        .map(|index| format!("?{index}"))
        .collect();
    format!("json_array({})", values.join(", "))
}

/// The parked references of one job and destination.
pub(super) struct References<'tx> {
    transaction: &'tx Transaction<'tx>,
    batch: &'tx Batch,
    destination: &'tx str,
    /// Whether anything waited when the destination began: no row has to look otherwise.
    any: bool,
    list: Prepared<'tx>,
    delete: Prepared<'tx>,
    carry: Prepared<'tx>,
}

impl<'tx> References<'tx> {
    pub(super) fn new(
        transaction: &'tx Transaction<'tx>,
        batch: &'tx Batch,
        destination: &'tx str,
    ) -> Result<Self, JobError> {
        const OWN: &str = "connection = ?1 AND job = ?2 AND destination = ?3";
        let any = transaction
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM tributary_parked_reference WHERE {OWN})"
            ))?
            .query_row(
                params![
                    batch.reader.connection.as_str(),
                    batch.reader.job.as_str(),
                    destination
                ],
                |row| row.get(0),
            )?;
        let prepared =
            |sql: &str| Prepared::new(transaction, format!("{sql} WHERE {OWN} AND record = ?4"));
        let one = |sql: &str| {
            Prepared::new(
                transaction,
                format!("{sql} WHERE {OWN} AND record = ?4 AND \"column\" = ?5"),
            )
        };
        Ok(Self {
            transaction,
            batch,
            destination,
            any,
            list: prepared("SELECT \"column\" FROM tributary_parked_reference"),
            delete: one("DELETE FROM tributary_parked_reference"),
            carry: one("UPDATE tributary_parked_reference SET version = ?6"),
        })
    }

    /// The columns of a record that wait.
    pub(super) fn of(&mut self, record: &RecordId) -> Result<Vec<String>, JobError> {
        if !self.any {
            return Ok(Vec::new());
        }
        let [connection, job, destination] = self.own();
        let rows = self.list.get()?.query_map(
            params![connection, job, destination, record.as_str()],
            |row| row.get(0),
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn delete(&mut self, record: &RecordId, column: &str) -> Result<(), JobError> {
        let [connection, job, destination] = self.own();
        self.delete.get()?.execute(params![
            connection,
            job,
            destination,
            record.as_str(),
            column
        ])?;
        Ok(())
    }

    /// Goes on waiting at a later version.
    pub(super) fn carry(
        &mut self,
        record: &RecordId,
        column: &str,
        version: Version,
    ) -> Result<(), JobError> {
        let [connection, job, destination] = self.own();
        self.carry.get()?.execute(params![
            connection,
            job,
            destination,
            record.as_str(),
            column,
            version.to_string()
        ])?;
        Ok(())
    }

    /// Parks a reference, in place of what the column waited for; its time to live goes on at the same version.
    pub(super) fn put(&mut self, row: &MappedRow, wait: &Wait<'_>) -> Result<(), JobError> {
        let [connection, job, destination] = self.own();
        let mut put = self.transaction.prepare_cached(&format!(
            "INSERT INTO tributary_parked_reference (connection, job, destination, record, \"column\", object,
                version, partition, \"offset\", any, lookup, looked_up, since, owners, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, {})
             ON CONFLICT DO UPDATE SET object = excluded.object, partition = excluded.partition,
                \"offset\" = excluded.\"offset\", any = excluded.any, lookup = excluded.lookup,
                looked_up = excluded.looked_up, owners = excluded.owners, key = excluded.key, ready = 0, version = excluded.version,
                since = iif(version = excluded.version, since, excluded.since)",
            key_sql(15, wait.key)
        ))?;
        put.raw_bind_parameter(1, connection)?;
        put.raw_bind_parameter(2, job)?;
        put.raw_bind_parameter(3, destination)?;
        put.raw_bind_parameter(4, row.record.as_str())?;
        put.raw_bind_parameter(5, wait.derive.column.as_str())?;
        put.raw_bind_parameter(6, self.batch.object.as_str())?;
        put.raw_bind_parameter(7, row.version.to_string())?;
        put.raw_bind_parameter(8, row.place.0)?;
        put.raw_bind_parameter(9, signed(row.place.1))?;
        put.raw_bind_parameter(10, wait.any())?;
        put.raw_bind_parameter(11, wait.lookup.shape()?)?;
        put.raw_bind_parameter(12, wait.lookup.table.as_str())?;
        put.raw_bind_parameter(13, self.batch.now.timestamp_micros())?;
        put.raw_bind_parameter(14, wait.owners())?;
        for (index, value) in wait.key.iter().enumerate() {
            put.raw_bind_parameter(index + 15, value)?;
        }
        put.raw_execute()?;
        Ok(())
    }

    fn own(&self) -> [&'tx str; 3] {
        let reader = &self.batch.reader;
        [
            reader.connection.as_str(),
            reader.job.as_str(),
            self.destination,
        ]
    }
}

/// The parked changes of one job.
pub(super) struct Changes<'tx> {
    transaction: &'tx Transaction<'tx>,
    batch: &'tx Batch,
    /// Whether anything waits: no row has to look otherwise.
    any: bool,
    get: Prepared<'tx>,
    delete: Prepared<'tx>,
    /// Version and date of the changes that waited before this batch.
    waited: HashMap<&'tx RecordId, (Version, i64)>,
}

impl<'tx> Changes<'tx> {
    pub(super) fn new(
        transaction: &'tx Transaction<'tx>,
        batch: &'tx Batch,
    ) -> Result<Self, JobError> {
        const OWN: &str = "connection = ?1 AND job = ?2";
        let reader = &batch.reader;
        let any = transaction
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM tributary_parked_change WHERE {OWN})"
            ))?
            .query_row([reader.connection.as_str(), reader.job.as_str()], |row| {
                row.get(0)
            })?;
        let prepared = |sql: &str| {
            let sql = format!("{sql} FROM tributary_parked_change WHERE {OWN} AND record = ?3");
            Prepared::new(transaction, sql)
        };
        Ok(Self {
            transaction,
            batch,
            any,
            get: prepared("SELECT version, since"),
            delete: prepared("DELETE"),
            waited: HashMap::new(),
        })
    }

    /// The version of a record's change that waits.
    pub(super) fn version(&mut self, record: &'tx RecordId) -> Result<Option<Version>, JobError> {
        if !self.any {
            return Ok(None);
        }
        let key = self.key(record);
        let found: Option<(String, i64)> = self
            .get
            .get()?
            .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((version, since)) = found else {
            return Ok(None);
        };
        let version = parse_version(&version)?;
        self.waited.entry(record).or_insert((version, since));
        Ok(Some(version))
    }

    pub(super) fn delete(&mut self, record: &RecordId) -> Result<(), JobError> {
        let key = self.key(record);
        self.delete.get()?.execute(key)?;
        Ok(())
    }

    /// Parks a change until a person says which row it is.
    pub(super) fn put_review(
        &mut self,
        destination: &str,
        row: &MappedRow,
        image: &[u8],
        ambiguity: &Ambiguity,
    ) -> Result<(), JobError> {
        let change = self.insert(destination, row, image, IN_REVIEW)?;
        ambiguity.write(self.transaction, change)
    }

    /// Parks a change, of which [`Changes::version`] was asked and none is parked now.
    pub(super) fn put(
        &mut self,
        destination: &str,
        row: &MappedRow,
        image: &[u8],
        waits: &[Wait<'_>],
    ) -> Result<(), JobError> {
        let change = self.insert(destination, row, image, 0)?;
        for wait in waits {
            let mut put = self.transaction.prepare_cached(&format!(
                "INSERT INTO tributary_parked_wait (change, \"column\", any, lookup, looked_up, key)
                 VALUES (?1, ?2, ?3, ?4, ?5, {})",
                key_sql(6, wait.key)
            ))?;
            put.raw_bind_parameter(1, change)?;
            put.raw_bind_parameter(2, wait.derive.column.as_str())?;
            put.raw_bind_parameter(3, wait.any())?;
            put.raw_bind_parameter(4, wait.lookup.shape()?)?;
            put.raw_bind_parameter(5, wait.lookup.table.as_str())?;
            for (index, value) in wait.key.iter().enumerate() {
                put.raw_bind_parameter(index + 6, value)?;
            }
            put.raw_execute()?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        destination: &str,
        row: &MappedRow,
        image: &[u8],
        ready: i64,
    ) -> Result<i64, JobError> {
        let before = self.waited.get(&row.record);
        let before = before.filter(|(version, _)| *version == row.version);
        let since = before.map_or(self.batch.now.timestamp_micros(), |(_, since)| *since);
        let [connection, job, record] = self.key(&row.record);
        self.transaction
            .prepare_cached(
                "INSERT INTO tributary_parked_change (connection, job, destination, record, object, version,
                    partition, \"offset\", image, since, ready)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                connection,
                job,
                destination,
                record,
                self.batch.object.as_str(),
                row.version.to_string(),
                row.place.0,
                signed(row.place.1),
                image,
                since,
                ready
            ])?;
        self.any = true;
        Ok(self.transaction.last_insert_rowid())
    }

    fn key<'a>(&self, record: &'a RecordId) -> [&'a str; 3]
    where
        'tx: 'a,
    {
        let reader = &self.batch.reader;
        [
            reader.connection.as_str(),
            reader.job.as_str(),
            record.as_str(),
        ]
    }
}

/// Wakes what waits for rows of a table as these are now. There is one writer: whoever comes second, parent or
/// child, sees the first, so no other row can be the awaited one.
pub(super) fn wake(
    transaction: &Transaction<'_>,
    table: &str,
    gsids: &[String],
) -> Result<(), JobError> {
    if gsids.is_empty() {
        return Ok(());
    }
    let mut rows = None;
    for (waiting, woken) in [
        ("tributary_parked_reference", REFERENCES),
        ("tributary_parked_wait", CHANGES),
    ] {
        for shape in shapes(transaction, waiting, table)? {
            let lookup = Lookup::parse(table.to_owned(), &shape)?;
            let rows = match &rows {
                Some(rows) => rows,
                None => rows.insert(json(gsids)?),
            };
            transaction
                .prepare_cached(&woken.replace("{keys}", &lookup.keys_of_rows()))?
                .execute(params![rows, table, shape])?;
        }
    }
    // Of several rows one may have left.
    for several in [
        "UPDATE tributary_parked_reference SET ready = 1 WHERE ready = 2 AND looked_up = ?1",
        "UPDATE tributary_parked_change SET ready = 1 WHERE ready = 2
         AND EXISTS (SELECT 1 FROM tributary_parked_wait WHERE change = id AND looked_up = ?1)",
    ] {
        transaction.prepare_cached(several)?.execute([table])?;
    }
    Ok(())
}

const REFERENCES: &str = "UPDATE tributary_parked_reference SET ready = 1
    WHERE looked_up = ?2 AND lookup = ?3 AND ready <> 1 AND key IN ({keys})";
const CHANGES: &str = "UPDATE tributary_parked_change SET ready = 1 WHERE ready <> 1 AND id IN (
    SELECT change FROM tributary_parked_wait WHERE looked_up = ?2 AND lookup = ?3 AND key IN ({keys}))";

/// The shapes by which a table's rows are awaited: one step in the index for each.
fn shapes(
    transaction: &Transaction<'_>,
    waiting: &str,
    table: &str,
) -> Result<Vec<String>, JobError> {
    let mut next = transaction.prepare_cached(&format!(
        "SELECT min(lookup) FROM {waiting} WHERE looked_up = ?1 AND lookup > ?2"
    ))?;
    let mut shapes: Vec<String> = Vec::new();
    loop {
        let last = shapes.last().map_or("", String::as_str);
        match next.query_row([table, last], |row| row.get(0))? {
            Some(shape) => shapes.push(shape),
            None => return Ok(shapes),
        }
    }
}

fn json(gsids: &[String]) -> Result<String, Fault> {
    serde_json::to_string(gsids).map_err(|error| {
        Fault::new(crate::fault::FaultKind::Corrupt, "encoding GSIDs").source(error)
    })
}
