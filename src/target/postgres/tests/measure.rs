//! A measurement, run by hand: `cargo test --lib target::postgres::tests::measure -- --ignored --nocapture`. The
//! server's CPU per row is what counts: the client is a debug build here, and the tests' server does not sync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Store, fresh};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::stored::StoredType;
use crate::postgres::trial::server::server;
use crate::target::port::{Outcome, Target};
use crate::target::suite::plans::{Row, job, object, plan, row, text};
use crate::target::suite::world::Writer;

const TEXTS: usize = 10;
const FIELDS: usize = 19;

fn fields() -> Vec<(String, StoredType)> {
    let ty = |n: usize| match n {
        0..TEXTS => StoredType::String,
        10..=12 => StoredType::DateTime,
        13..=16 => StoredType::Number,
        _ => StoredType::Boolean,
    };
    (0..FIELDS).map(|n| (format!("f{n}"), ty(n))).collect()
}

fn full(plan: &Arc<DestinationPlan>, record: usize, version: u64, salt: u64) -> Row {
    let mut row = row(plan, &format!("001{record:015}"), version);
    for (place, column) in plan.columns.iter().enumerate() {
        row.row.cells[place] = Some(match column.ty {
            _ if place == 0 => text(&format!("key {record}")),
            StoredType::String => text(&format!("value {record} {place} {salt}")),
            StoredType::DateTime => Cell::DateTime(
                crate::target::suite::world::start()
                    + chrono::TimeDelta::seconds(salt.cast_signed()),
            ),
            StoredType::Number => Cell::Number(format!("{}.5", salt + record as u64).into()),
            _ => Cell::Boolean(salt.is_multiple_of(2)),
        });
    }
    row
}

/// User and system time of a process.
fn cpu(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields.get(11..13).map_or(0, |times| {
        times.iter().map(|time| time.parse::<u64>().unwrap()).sum()
    });
    Duration::from_millis(ticks * 10)
}

async fn backends() -> Vec<i32> {
    let client = server().client().await;
    let rows = client
        .query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'tributary'",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn rows_a_second() {
    let mut settings = fresh();
    settings.writers = 1;
    let store = Store::with(settings).await;
    let fields = fields();
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, ty)| (name.as_str(), *ty))
        .collect();
    store
        .target
        .ensure(&[object("account", &fields)])
        .await
        .unwrap();
    let plan = Arc::new(plan("account", &fields).identified(&["f0"]));
    store
        .target
        .prepare(&job("acme", "sync", &[&plan]))
        .await
        .unwrap();
    for size in [100, 1_000] {
        let target: Arc<dyn Target> = Arc::clone(&store.target) as _;
        let mut writer = Writer::open(target, "acme", &format!("sync{size}")).await;
        writer.object = crate::model::name::ObjectName::new(format!("Object{size}"));
        let rounds = 20_000 / size;
        for (what, version) in [
            ("insert", 1),
            ("update", 2),
            ("half unchanged", 3),
            ("unchanged", 4),
        ] {
            let pids = backends().await;
            let before: Duration = pids.iter().map(|pid| cpu(*pid)).sum();
            let own = cpu(std::process::id().cast_signed());
            let mut time = Duration::ZERO;
            let mut changed = 0;
            for round in 0..rounds {
                let rows = (0..size).map(|n| {
                    let record = size * 1_000_000 + round * size + n;
                    let salt = match version {
                        1 | 2 => version,
                        3 if n % 2 == 0 => 3,
                        3 => 2,
                        _ if n % 2 == 0 => 3,
                        _ => 2,
                    };
                    full(&plan, record, version, salt)
                });
                let batch = writer.batch(rows);
                let start = Instant::now();
                let applied = writer.apply(batch).await.unwrap();
                time += start.elapsed();
                let outcomes = applied.outcomes[0].iter();
                changed += outcomes
                    .filter(|outcome| **outcome != Outcome::Unchanged)
                    .count();
            }
            let count = (rounds * size) as u32;
            let server: Duration = pids.iter().map(|pid| cpu(*pid)).sum::<Duration>() - before;
            let own = cpu(std::process::id().cast_signed()) - own;
            println!(
                "batch {size:5} {what:15} {:7.0} rows/s, server {:5.1} us/row, client (debug) {:5.1} us/row, {changed} changed",
                f64::from(count) / time.as_secs_f64(),
                (server / count).as_nanos() as f64 / 1e3,
                (own / count).as_nanos() as f64 / 1e3,
            );
        }
    }
}

/// The bare technique on the same server: a binary COPY of buffers that were made before, and one upsert.
#[tokio::test]
#[ignore = "a measurement"]
async fn raw_rows_a_second() {
    use bytes::{BufMut, Bytes, BytesMut};
    use futures_util::SinkExt;
    use tokio_postgres::types::{IsNull, ToSql, Type};

    let client = server().client().await;
    let columns = "f0 text, f1 text, f2 text, f3 text, f4 text, f5 text, f6 text, f7 text, f8 text, f9 text,
        f10 timestamptz, f11 timestamptz, f12 timestamptz, f13 numeric, f14 numeric, f15 numeric, f16 numeric,
        f17 boolean, f18 boolean";
    let staged = columns.replace("numeric", "text");
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS raw; CREATE TABLE raw (gsid uuid PRIMARY KEY, {columns});
             CREATE UNIQUE INDEX ON raw (f0);
             CREATE TEMPORARY TABLE s (gsid uuid, {staged}) ON COMMIT DELETE ROWS"
        ))
        .await
        .unwrap();
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let names: Vec<String> = (0..FIELDS).map(|n| format!("f{n}")).collect();
    let values: Vec<String> = (0..FIELDS)
        .map(|n| {
            if (13..=16).contains(&n) {
                format!("f{n}::numeric")
            } else {
                format!("f{n}")
            }
        })
        .collect();
    let set: Vec<String> = names
        .iter()
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let differs: Vec<String> = names
        .iter()
        .map(|name| format!("raw.{name} IS DISTINCT FROM excluded.{name}"))
        .collect();
    let upsert = client
        .prepare(&format!(
            "INSERT INTO raw SELECT gsid, {} FROM s ON CONFLICT (gsid) DO UPDATE SET {} WHERE {}",
            values.join(", "),
            set.join(", "),
            differs.join(" OR ")
        ))
        .await
        .unwrap();
    let copy = client
        .prepare("COPY s FROM STDIN (FORMAT binary)")
        .await
        .unwrap();
    let encode = |records: std::ops::Range<usize>, salt: &dyn Fn(usize) -> u64| -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.put_i64(0);
        for record in records {
            let salt = salt(record);
            buffer.put_i16(FIELDS as i16 + 1);
            let mut put = |value: &(dyn ToSql + Sync), ty: &Type| {
                let at = buffer.len();
                buffer.put_i32(0);
                assert!(matches!(
                    value.to_sql_checked(ty, &mut buffer).unwrap(),
                    IsNull::No
                ));
                let length = (buffer.len() - at - 4) as i32;
                buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
            };
            // Ordered, as UUIDv7 are.
            put(&uuid::Uuid::from_u128(record as u128), &Type::UUID);
            for place in 0..FIELDS {
                match place {
                    0 => put(&format!("key {record}"), &Type::TEXT),
                    1..TEXTS => put(&format!("value {record} {place} {salt}"), &Type::TEXT),
                    10..=12 => put(
                        &(crate::target::suite::world::start()
                            + chrono::TimeDelta::seconds(salt.cast_signed())),
                        &Type::TIMESTAMPTZ,
                    ),
                    13..=16 => put(&format!("{}.5", salt + record as u64), &Type::TEXT),
                    _ => put(&salt.is_multiple_of(2), &Type::BOOL),
                }
            }
        }
        buffer.put_i16(-1);
        buffer.freeze()
    };
    for size in [100, 1_000] {
        for (what, version) in [("insert", 1), ("update", 2), ("half unchanged", 3)] {
            let rounds = 20_000 / size;
            let salt = |record: usize| {
                if version == 3 && record % 2 == 1 {
                    2
                } else {
                    version
                }
            };
            let buffers: Vec<Bytes> = (0..rounds)
                .map(|round| {
                    let from = size * 1_000_000 + round * size;
                    encode(from..from + size, &salt)
                })
                .collect();
            let (before, start) = (cpu(pid), Instant::now());
            for buffer in buffers {
                client.batch_execute("BEGIN").await.unwrap();
                let sink = client.copy_in(&copy).await.unwrap();
                let mut sink = std::pin::pin!(sink);
                sink.send(buffer).await.unwrap();
                sink.close().await.unwrap();
                client.execute(&upsert, &[]).await.unwrap();
                client.batch_execute("COMMIT").await.unwrap();
            }
            let count = (rounds * size) as u32;
            println!(
                "raw   {size:5} {what:15} {:7.0} rows/s, server {:5.1} us/row",
                f64::from(count) / start.elapsed().as_secs_f64(),
                ((cpu(pid) - before) / count).as_nanos() as f64 / 1e3,
            );
        }
    }
}
