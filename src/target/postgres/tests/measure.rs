//! A measurement, run by hand: `cargo test --lib target::postgres::tests::measure -- --ignored --nocapture`. The
//! server's CPU per row is what counts: the client is a debug build here, and the tests' server does not sync.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Store;
use super::server::server;
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::stored::StoredType;
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
            _ => Cell::Boolean(salt % 2 == 0),
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
    let mut settings = server().fresh();
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
    for size in [100, 500, 1_000, 2_000] {
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
