//! What goes wrong with a file, and that others read it meanwhile.

use std::sync::Arc;

use rusqlite::limits::Limit;

use super::File;
use crate::fault::{Fate, FaultKind};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::OnNone;
use crate::model::stored::StoredType;
use crate::runtime::clock::SystemClock;
use crate::target::beside::StoreBeside;
use crate::target::port::{Outcome, RowsPage};
use crate::target::sqlite::SqliteTarget;
use crate::target::suite::plans::{by, by_id, company, on, person, plan, row};
use crate::target::suite::world::begin;

#[tokio::test]
async fn a_full_disk_leaves_nothing_and_passes() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    let limit = |pages: i64| {
        file.target.writer.alone(move |transaction| {
            Ok(
                transaction.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| {
                    row.get::<_, i64>(0)
                })?,
            )
        })
    };
    let held = limit(1).await.unwrap();
    let big = "x".repeat(4_000);
    let batch = writer.batch((0..200).map(|n| row(&plan, &n.to_string(), 1).text("name", &big)));
    for _ in 0..3 {
        let full = writer.target.apply(batch.clone()).await.unwrap_err();
        assert_eq!(
            (full.kind(), full.fate()),
            (FaultKind::Storage, Fate::Retry)
        );
        assert!(full.report().contains("store.db"), "{}", full.report());
        assert_eq!(writer.all("company").await.len(), 1);
        assert!(writer.traced("5").await.is_empty());
    }
    limit(held + 10_000).await.unwrap();
    // The same batch, under the same epoch and offset.
    assert!(writer.apply(batch).await.unwrap().committed);
    assert_eq!(writer.all("company").await.len(), 201);
}

#[tokio::test]
async fn what_sqlite_refuses_is_of_the_record() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let plan = Arc::new(company());
    let set = file.target.writer.alone(|transaction| {
        transaction.set_limit(Limit::SQLITE_LIMIT_LENGTH, 100_000)?;
        Ok(())
    });
    set.await.unwrap();
    file.execute("CREATE UNIQUE INDEX theirs ON company (name)")
        .await;
    writer
        .one(row(&plan, "taken", 1).text("name", "taken"))
        .await;
    for bad in ["x".repeat(200_000), "taken".to_owned()] {
        let rows = [
            row(&plan, "good", 1).text("name", "good"),
            row(&plan, "bad", 1).text("name", &bad),
        ];
        let refused = writer.apply(writer.batch(rows)).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.fate()),
            (FaultKind::Record, Fate::DeadLetter)
        );
        assert!(writer.traced("good").await.is_empty(), "a part was written");
    }
    // A cell of another type is told at once, with its column.
    let reasons = writer
        .refused([row(&plan, "bad", 1).cell("name", Cell::Boolean(true))])
        .await;
    assert!(reasons[0].contains("name"), "{reasons:?}");
    assert_eq!(
        writer.one(row(&plan, "good", 1).text("name", "good")).await,
        Outcome::Inserted
    );
}

#[tokio::test]
async fn a_busy_file_is_unavailable_and_a_second_owner_refused() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let plan = Arc::new(company());
    let second = SqliteTarget::open(&file.path(), Arc::new(SystemClock))
        .await
        .unwrap_err();
    assert_eq!(second.kind(), FaultKind::Config);
    assert!(
        second.report().contains("store.db.lock"),
        "{}",
        second.report()
    );
    let other = rusqlite::Connection::open(file.path()).unwrap();
    let wait = file
        .target
        .writer
        .alone(|transaction| Ok(transaction.busy_timeout(std::time::Duration::ZERO)?));
    wait.await.unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = writer.batch([row(&plan, "a", 1)]);
    let busy = writer.target.apply(batch.clone()).await.unwrap_err();
    assert_eq!(
        (busy.kind(), busy.fate()),
        (FaultKind::Unavailable, Fate::Retry)
    );
    other.execute_batch("ROLLBACK").unwrap();
    assert!(writer.apply(batch).await.unwrap().committed);
}

#[tokio::test]
async fn another_process_reads_beside_the_daemon() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let persons = Arc::new(person().derive(by_id("company", "company").on_none(OnNone::Null)));
    writer
        .one(
            row(&persons, "a", 1)
                .text("name", "Ann")
                .to("company", &["c"]),
        )
        .await;
    let reader = SqliteTarget::read_only(&file.path());
    let rows = reader.rows("person", RowsPage::default()).await.unwrap();
    assert_eq!(rows, writer.all("person").await);
    let (connection, object, record) = (
        "acme".into(),
        "Object".into(),
        crate::model::record_id::RecordId::stored("a"),
    );
    let traced = reader.trace(&connection, &object, &record).await.unwrap();
    assert_eq!(traced, writer.traced("a").await);
    assert_eq!(traced[0].parked, ["company"]);
    assert_eq!(
        reader.parked().await.unwrap(),
        [("acme".into(), "sync".into(), 1)]
    );
    let missing = reader
        .rows("nothing", RowsPage::default())
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), FaultKind::Missing);
}

#[tokio::test]
async fn what_was_not_made_is_missing() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let unknown = |plan: DestinationPlan| Arc::new(plan);
    let plans = [
        unknown(plan("company", &[("nope", StoredType::String)])),
        unknown(plan("company", &[("nope", StoredType::String)]).identified(&["nope"])),
        unknown(person().derive(by(
            "company",
            "company",
            vec![on("nope", StoredType::String)],
        ))),
        unknown(person().derive(by(
            "company",
            "nowhere",
            vec![on("nope", StoredType::String)],
        ))),
        unknown(person().derive(by_id("nope", "company"))),
    ];
    for plan in plans {
        let mut child = row(&plan, "a", 1);
        for column in &plan.columns {
            child = child.text(&column.name, "x");
        }
        if let Some(derive) = plan.derives.first() {
            child = child.to(&derive.column, &["x"]);
        }
        let refused = writer.apply(writer.batch([child])).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.fate()),
            (FaultKind::Missing, Fate::Stop),
            "{plan:?}"
        );
        let told = refused.report();
        assert!(told.contains("nope") || told.contains("nowhere"), "{told}");
    }
    assert!(writer.all("company").await.is_empty() && writer.all("person").await.is_empty());
}
