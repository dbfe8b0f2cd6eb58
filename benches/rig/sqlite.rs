//! SQLite: the file that the daemon's target made, written by one prepared statement a row, from values made before.
//!
//! * `Ledgered`: what a batch has to leave behind (offset, crosswalk, rows), one statement for each of them.
//! * `Rows`: the rows alone, by the same upsert.
//!
//! Both have the target's settings (`sqlite/database.rs`), tables and indexes, and give GSIDs in the order in which they
//! write, as the target does. They read nothing and decide nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params, params_from_iter};
use tributary::mapping::compile::Mapped;
use tributary::mapping::plan::Cell;
use tributary::runtime::clock::SystemClock;
use tributary::target::port::Target;
use tributary::target::sqlite::SqliteTarget;

use super::load::{self, Parents, Plan};
use super::machine::Reading;
use super::records::{Step, batches};
use super::report::Run;

/// What of a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Ledgered,
    Rows,
}

/// A connection that writes values.
pub struct Loop {
    connection: Connection,
    path: PathBuf,
    plan: Plan,
    upsert: String,
    what: What,
    /// The GSIDs of the records, by number.
    gsids: Vec<Option<String>>,
    given: u128,
    next: [i64; 8],
}

/// A row on its way.
struct Row {
    record: String,
    version: String,
    gsid: String,
    values: Vec<Value>,
}

impl Loop {
    pub async fn new(path: &Path, what: What) -> Self {
        let plan = load::plan(Parents::None);
        let target = SqliteTarget::open(path, Arc::new(SystemClock))
            .await
            .unwrap();
        target.ensure(&plan.objects).await.unwrap();
        target.prepare(plan.mapping.plan()).await.unwrap();
        target.close().await.unwrap();
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384;",
            )
            .unwrap();
        Self {
            connection,
            path: path.to_owned(),
            upsert: upsert(&plan),
            plan,
            what,
            gsids: Vec::new(),
            given: 0,
            next: [0; 8],
        }
    }

    /// Writes changes, a transaction a batch.
    pub async fn run(&mut self, steps: &[Step], size: usize) -> Run {
        // Partitions take turns, as they do in the job.
        let mut turns = [0; 8];
        let parts = batches(steps, size).into_iter();
        let mut parts: Vec<_> = parts
            .map(|(partition, steps)| {
                let turn = &mut turns[partition as usize];
                *turn += 1;
                (*turn, partition, steps)
            })
            .collect();
        parts.sort_by_key(|(turn, partition, _)| (*turn, *partition));
        let parts = parts.into_iter();
        let work: Vec<_> = parts
            .map(|(_, partition, steps)| (partition, self.rows(&steps)))
            .collect();
        let before = Reading::now(None);
        for (partition, rows) in &work {
            self.write(*partition, rows);
        }
        let used = before.until(Reading::now(None));
        checkpointed(&self.path, Some(&self.connection)).await;
        Run {
            changes: steps.len() as u64,
            used,
        }
    }

    fn rows(&mut self, steps: &[Step]) -> Vec<Row> {
        let at = DateTime::from_timestamp(1_767_607_872, 0).unwrap_or_default();
        let mapping = Arc::clone(&self.plan.mapping);
        let row = |(number, state, version): &Step| {
            let change = load::change(*number, *state, *version, Parents::None, at);
            let Mapped::Rows(rows) = mapping.map(&change, (0, 0), at) else {
                panic!("a change was not mapped");
            };
            let row = rows.into_iter().next().unwrap();
            let cells = row
                .cells
                .iter()
                .map(|cell| value(cell.as_ref().unwrap_or(&Cell::Null)));
            Row {
                record: row.record.to_string(),
                version: row.version.to_string(),
                gsid: self.gsid(*number),
                values: cells.collect(),
            }
        };
        steps.iter().map(row).collect()
    }

    fn gsid(&mut self, number: usize) -> String {
        if self.gsids.len() <= number {
            self.gsids.resize(number + 1, None);
        }
        let given = &mut self.given;
        self.gsids[number]
            .get_or_insert_with(|| {
                *given += 1;
                let gsid = 0x0199_0000_0000_7000_8000_0000_0000_0000 | *given;
                uuid::Uuid::from_u128(gsid).hyphenated().to_string()
            })
            .clone()
    }

    fn write(&mut self, partition: u32, rows: &[Row]) {
        let now = Value::Text(instant(Utc::now()));
        let next = &mut self.next[partition as usize];
        *next += rows.len() as i64;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        {
            let mut upsert = transaction.prepare_cached(&self.upsert).unwrap();
            let mut crosswalk = transaction.prepare_cached(CROSSWALK).unwrap();
            if self.what == What::Ledgered {
                let mut offset = transaction.prepare_cached(OFFSET).unwrap();
                offset.execute(params![partition, *next]).unwrap();
            }
            for row in rows {
                upsert.raw_bind_parameter(1, &row.gsid).unwrap();
                upsert.raw_bind_parameter(2, &now).unwrap();
                for (place, value) in row.values.iter().enumerate() {
                    upsert.raw_bind_parameter(place + 3, value).unwrap();
                }
                upsert.raw_execute().unwrap();
                if self.what == What::Ledgered {
                    let entry = [&row.record, &row.gsid, &row.version];
                    crosswalk.execute(params_from_iter(entry)).unwrap();
                }
            }
        }
        transaction.commit().unwrap();
    }
}

const OFFSET: &str =
    "INSERT INTO tributary_offset VALUES ('acme', 'opponent', 'live', 'one', ?1, ?2, 1)
     ON CONFLICT DO UPDATE SET next = excluded.next";

const CROSSWALK: &str =
    "INSERT INTO tributary_crosswalk (connection, destination, record, object, gsid, version, gone)
     VALUES ('acme', 'asset', ?1, 'Asset', ?2, ?3, 0)
     ON CONFLICT DO UPDATE SET version = excluded.version WHERE version <= excluded.version";

fn upsert(plan: &Plan) -> String {
    let columns = &plan.mapping.plan().destinations[0].columns;
    let columns: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
    let each = |text: &dyn Fn(&&str) -> String| columns.iter().map(text).collect::<Vec<_>>();
    let binds: Vec<_> = (0..columns.len())
        .map(|place| format!("?{}", place + 3))
        .collect();
    format!(
        "INSERT INTO asset (gsid, created_date, modified_date, {}) VALUES (?1, ?2, ?2, {})
         ON CONFLICT (gsid) DO UPDATE SET modified_date = excluded.modified_date, {} WHERE {}",
        columns.join(", "),
        binds.join(", "),
        each(&|name| format!("{name} = excluded.{name}")).join(", "),
        each(&|name| format!("{name} IS NOT excluded.{name}")).join(" OR "),
    )
}

/// A cell as the target stores it; the load's numbers are reals.
fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Boolean(flag) => Value::Integer(i64::from(*flag)),
        Cell::Number(digits) => Value::Real(digits.parse().unwrap()),
        Cell::Text(text) => Value::Text(text.to_string()),
        Cell::Date(day) => Value::Text(day.to_string()),
        Cell::DateTime(at) => Value::Text(instant(*at)),
        Cell::Gsid(gsid) => Value::Text(gsid.hyphenated().to_string()),
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Waits until a file's write-ahead log is in the file and cut to nothing, so that no arm does that in another's
/// time. The target does it once it has been idle for a second; a connection is told to.
pub async fn checkpointed(path: &Path, connection: Option<&Connection>) {
    if let Some(connection) = connection {
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
    }
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    for _ in 0..1_000 {
        if std::fs::metadata(&log).map_or(0, |meta| meta.len()) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} is not cut", Path::new(&log).display());
}
