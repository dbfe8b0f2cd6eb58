//! The target under `kill -9`: a child writes batches and says what was committed; the parent kills it and looks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::runtime::clock::SystemClock;
use crate::target::port::Target;
use crate::target::sqlite::SqliteTarget;
use crate::target::suite::plans::{Row, by_id, company, objects, person, row, text};
use crate::target::suite::world::{Writer, every};

/// Tells this binary that it is the child, and where it works.
const FILE: &str = "TRIBUTARY_TEST_STORE";
const ROUNDS: u64 = 5;
const ROWS: u64 = 40;

/// Companies and persons who wait for companies of the next batch.
fn plans() -> [Arc<DestinationPlan>; 2] {
    let person = person().derive(by_id("company", "company"));
    [Arc::new(company()), Arc::new(person)]
}

/// Batch *n* writes its number into every row; a quarter of the rows is new in each.
fn batch(plans: &[Arc<DestinationPlan>; 2], n: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for k in 0..ROWS {
        let record = (n * ROWS / 4 + k).to_string();
        let company = row(&plans[0], &record, n + 1).text("external_id", &record);
        rows.push(company.text("name", &n.to_string()));
        let parent = (n * ROWS / 4 + k + ROWS / 2).to_string();
        let person = row(&plans[1], &record, n + 1)
            .text("email", &record)
            .text("name", &n.to_string());
        rows.push(person.to("company", &[&parent]));
    }
    rows
}

#[test]
fn a_killed_target_has_rows_and_offset_of_the_same_batch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut committed = 0;
    for round in 0..ROUNDS {
        let told = run_and_kill(&path, 3 + round * 4);
        assert!(told > committed, "round {round} committed nothing");
        committed = runtime.block_on(look(&path, told));
    }
}

/// Starts the child and kills it after so many commits; the offset it told last.
fn run_and_kill(path: &Path, commits: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "target::sqlite::tests::crash::writes_until_killed",
            "--nocapture",
        ])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut told, mut count, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        let read = output.read_line(&mut line).unwrap();
        // A line that was cut by the kill tells nothing.
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        let Some((_, next)) = line.split_once("committed ") else {
            continue;
        };
        told = next.trim().parse().unwrap();
        count += 1;
        if count == commits {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the child ended by itself");
    told
}

/// What was killed holds whole batches up to its offset, which is at least what was told.
async fn look(path: &Path, told: u64) -> u64 {
    let target = SqliteTarget::open(path, Arc::new(SystemClock))
        .await
        .unwrap();
    let target: Arc<dyn Target> = Arc::new(target);
    let writer = Writer::open(Arc::clone(&target), "acme", "sync").await;
    let next = writer.owned.next;
    assert!(next >= told, "offset {next} after {told} was committed");
    let mut due = BTreeMap::new();
    for n in 0..next {
        for k in 0..ROWS {
            due.insert((n * ROWS / 4 + k).to_string(), n.to_string());
        }
    }
    for (table, key) in [("company", "external_id"), ("person", "email")] {
        let rows = every(&*target, table).await;
        let stored: BTreeMap<_, _> = rows
            .iter()
            .map(|row| (shown(row.cell(key)), shown(row.cell("name"))))
            .collect();
        assert_eq!(stored.len(), rows.len(), "{table} has a record twice");
        assert_eq!(stored, due, "{table} at offset {next}");
    }
    // The crosswalk names the same rows, and whoever waits is told by the ledger.
    let mut waiting = 0;
    for (record, n) in &due {
        let traced = target
            .trace(
                &"acme".into(),
                &ObjectName::new("Object"),
                &RecordId::stored(record),
            )
            .await;
        let traced = traced.unwrap();
        assert_eq!(traced.len(), 2, "{record}");
        for traced in traced {
            assert_eq!(traced.row.unwrap().cell("name"), text(n));
            waiting += traced.parked.len() as u64;
        }
    }
    assert_eq!(writer.parked().await, waiting);
    target.close().await.unwrap();
    next
}

fn shown(cell: Cell) -> String {
    match cell {
        Cell::Text(text) => text.into(),
        other => panic!("{other:?}"),
    }
}

/// Does nothing unless started by the test above, in a process of its own.
#[test]
fn writes_until_killed() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let target = SqliteTarget::open(Path::new(&path), Arc::new(SystemClock))
            .await
            .unwrap();
        target.ensure(&objects()).await.unwrap();
        let plans = plans();
        let mut writer = Writer::open(Arc::new(target), "acme", "sync").await;
        for n in writer.owned.next.. {
            writer.send(batch(&plans, n)).await;
            writeln!(std::io::stdout().lock(), "committed {}", writer.owned.next).unwrap();
            writer.release().await;
        }
    });
}
