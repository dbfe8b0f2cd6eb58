//! Tests of the writer, the readers, the schema steps and the lock.

use std::sync::Arc;

use super::database::Database;
use super::error::{JobError, SqliteError};
use super::lock::FileLock;
use super::readers::Readers;
use super::writer::Writer;
use crate::fault::{Fault, FaultKind};

const STEPS: &[&str] = &[
    "CREATE TABLE item (n INTEGER PRIMARY KEY, data BLOB) STRICT",
    "ALTER TABLE item ADD COLUMN note TEXT",
];

fn database(dir: &tempfile::TempDir) -> Database {
    Database::new(dir.path().join("a/test.db"), STEPS)
}

fn insert(n: i64) -> impl FnOnce(&rusqlite::Transaction<'_>) -> Result<i64, JobError> + Send {
    move |tx| {
        tx.execute("INSERT INTO item (n) VALUES (?1)", [n])?;
        Ok(n)
    }
}

async fn numbers(database: &Database) -> Vec<i64> {
    let readers = Readers::new(database.clone(), 1);
    readers
        .read(|tx| {
            let mut found = tx.prepare("SELECT n FROM item ORDER BY n")?;
            let rows = found.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<Vec<i64>, _>>()?)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn opens_durably_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(&dir);
    let writer = Writer::open(database.clone(), None).await.unwrap();
    let pragmas = writer
        .alone(|tx| {
            let get = |name: &str| {
                tx.query_row(&format!("PRAGMA {name}"), [], |row| {
                    row.get::<_, rusqlite::types::Value>(0)
                })
            };
            Ok(format!(
                "{:?} {:?} {:?} {:?} {:?}",
                get("journal_mode")?,
                get("synchronous")?,
                get("page_size")?,
                get("auto_vacuum")?,
                get("user_version")?
            ))
        })
        .await
        .unwrap();
    assert_eq!(
        pragmas,
        "Text(\"wal\") Integer(2) Integer(8192) Integer(2) Integer(2)"
    );
    writer.grouped(insert(1)).await.unwrap();
    writer.close().await.unwrap();
    let wal = dir.path().join("a/test.db-wal");
    assert!(!wal.exists() || wal.metadata().unwrap().len() == 0);
    let closed = writer.grouped(insert(2)).await.unwrap_err();
    assert_eq!(closed.kind(), FaultKind::Stopping);
    let again = Writer::open(database.clone(), None).await.unwrap();
    again.grouped(insert(3)).await.unwrap();
    assert_eq!(numbers(&database).await, [1, 3]);
}

#[tokio::test]
async fn a_failing_job_of_a_group_undoes_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(&dir);
    let writer = Arc::new(Writer::open(database.clone(), None).await.unwrap());
    // The first job holds the thread until the others wait behind it, so that they form a group.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let first = writer.grouped(move |_| {
        wait.recv().ok();
        Ok(())
    });
    let fault = writer.grouped(|tx| -> Result<(), JobError> {
        tx.execute("INSERT INTO item (n) VALUES (20)", [])?;
        Err(Fault::new(FaultKind::Fenced, "term 2 is over").into())
    });
    let clash = writer.grouped(|tx| -> Result<(), JobError> {
        tx.execute("INSERT INTO item (n) VALUES (30)", [])?;
        tx.execute("INSERT INTO item (n) VALUES (10)", [])?;
        Ok(())
    });
    let panics = writer.grouped(|tx| -> Result<(), JobError> {
        tx.execute("INSERT INTO item (n) VALUES (50)", [])?;
        panic!("boom");
    });
    let release = async move { go.send(()).unwrap() };
    let (first, good, fault, clash, panicked, last, ()) = tokio::join!(
        biased;
        first,
        writer.grouped(insert(10)),
        fault,
        clash,
        panics,
        writer.grouped(insert(40)),
        release
    );
    first.unwrap();
    good.unwrap();
    last.unwrap();
    assert_eq!(fault.unwrap_err().kind(), FaultKind::Fenced);
    let clash = clash.unwrap_err().report();
    assert!(
        clash.contains("test.db") && clash.contains("UNIQUE"),
        "{clash}"
    );
    assert!(panicked.unwrap_err().report().contains("boom"));
    assert_eq!(numbers(&database).await, [10, 40]);
}

#[tokio::test]
async fn dropping_the_future_does_not_undo_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(&dir);
    let writer = Writer::open(database.clone(), None).await.unwrap();
    {
        let mut job = Box::pin(writer.grouped(insert(1)));
        assert!(futures_util::poll!(&mut job).is_pending());
    }
    writer.close().await.unwrap();
    assert_eq!(numbers(&database).await, [1]);
}

#[tokio::test]
async fn a_full_disk_fails_closed_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(&dir);
    let connection = database.open_writer().unwrap();
    connection
        .pragma_update(None, "max_page_count", 20)
        .unwrap();
    let writer = Writer::start(database.path().to_owned(), connection, None).unwrap();
    let big = |n: i64| {
        writer.grouped(move |tx| {
            tx.execute(
                "INSERT INTO item (n, data) VALUES (?1, zeroblob(200000))",
                [n],
            )?;
            Ok(())
        })
    };
    let (good, full) = tokio::join!(biased; writer.grouped(insert(1)), big(2));
    let full = full.unwrap_err();
    assert_eq!(full.kind(), FaultKind::Storage);
    assert!(full.report().contains("test.db"), "{full}");
    assert!(full.remedy_text().unwrap().contains("free space"));
    // The small job may have shared the undone transaction: then it was told so.
    let stored = numbers(&database).await;
    assert_eq!(stored, if good.is_ok() { vec![1] } else { vec![] });
    writer
        .alone(|tx| Ok(tx.pragma_update(None, "max_page_count", 20_000)?))
        .await
        .unwrap();
    big(3).await.unwrap();
    assert!(numbers(&database).await.contains(&3));
}

#[tokio::test]
async fn a_file_of_a_later_build_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(database(&dir).open_writer().unwrap());
    let older = Database::new(database(&dir).path(), &STEPS[..1]);
    let refused = older.open_writer().unwrap_err();
    assert!(matches!(
        refused,
        SqliteError::Newer {
            found: 2,
            known: 1,
            ..
        }
    ));
    assert_eq!(Fault::from(refused).kind(), FaultKind::Config);
}

#[tokio::test]
async fn an_older_file_comes_up_to_date_and_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let older = Database::new(database(&dir).path(), &STEPS[..1]);
    older
        .open_writer()
        .unwrap()
        .execute("INSERT INTO item (n) VALUES (5)", [])
        .unwrap();
    drop(database(&dir).open_writer().unwrap());
    assert_eq!(numbers(&database(&dir)).await, [5]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    std::fs::write(&path, vec![b'x'; 9000]).unwrap();
    let fault = Fault::from(Database::new(&path, STEPS).open_writer().unwrap_err());
    assert_eq!(fault.kind(), FaultKind::Corrupt, "{fault:?}");
}

#[tokio::test]
async fn readers_can_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let database = database(&dir);
    let writer = Writer::open(database.clone(), None).await.unwrap();
    let readers = Readers::new(database, 2);
    let refused = readers
        .read(|tx| Ok(tx.execute("INSERT INTO item (n) VALUES (1)", [])?))
        .await;
    assert_eq!(refused.unwrap_err().kind(), FaultKind::Storage);
    readers.close();
    let closed = readers.read(|_| Ok(())).await;
    assert_eq!(closed.unwrap_err().kind(), FaultKind::Stopping);
    writer.close().await.unwrap();
}

#[test]
fn a_second_holder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x/log.lock");
    let lock = FileLock::take(&path).unwrap();
    let refused = Fault::from(FileLock::take(&path).unwrap_err());
    assert_eq!(refused.kind(), FaultKind::Config);
    let told = refused.report();
    assert!(
        told.contains("log.lock") && told.contains(&format!("process {}", std::process::id())),
        "{told}"
    );
    drop(lock);
    FileLock::take(&path).unwrap();
}
