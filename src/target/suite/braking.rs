//! A batch that takes more than it may leaves nothing behind.

use std::sync::Arc;

use super::Bench;
use super::plans::{Row, company, deleted, filtered, row};
use super::world::{Writer, begin};
use crate::config::job::Brakes;
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::OnExit;
use crate::target::port::brake::{Brake, Gauge, Held, Toll};
use crate::target::port::{Applied, Outcome};

/// A brake that stops at more than 20 rows as long as nobody has counted the store's, of a run that has taken so much.
fn brake(before: Toll, from: u64) -> Brake {
    let gauge = Gauge::new(Brakes {
        min_rows: 20,
        ..Brakes::default()
    });
    gauge.add(before);
    Brake::new(Arc::new(gauge), from)
}

async fn offer(writer: &mut Writer, brake: &Brake, rows: Vec<Row>) -> Applied {
    let mut batch = writer.batch(rows);
    batch.brake = Some(brake.clone());
    writer.apply(batch).await.unwrap()
}

async fn held(writer: &Writer) -> u64 {
    let (acme, object) = ("acme".into(), "Object".into());
    writer.target.held(&acme, &object, "company").await.unwrap()
}

/// What is accepted is not counted.
pub async fn a_batch_takes_no_more_rows_than_it_may(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company().exits(OnExit::Delete, OnExit::Mark));
    let all = ["a", "b", "c", "d"];
    writer.send(all.map(|record| row(&plan, record, 1))).await;
    assert_eq!(held(&writer).await, 4);
    let rows = || {
        vec![
            deleted(&plan, "a", 2).at(0, 10),
            filtered(&plan, "b", 2).at(0, 11),
            row(&plan, "c", 2).text("name", "kept out").at(0, 12),
            deleted(&plan, "unknown", 2).at(0, 13),
        ]
    };
    let told = [
        Outcome::Deleted,
        Outcome::Marked,
        Outcome::Updated,
        Outcome::Ignored,
    ];
    let gone = |gone| Toll {
        gone,
        ..Toll::default()
    };
    for (before, from) in [(19, 0), (20, 11)] {
        let brake = brake(gone(before), from);
        let applied = offer(&mut writer, &brake, rows()).await;
        assert!(!applied.committed, "{before} from {from}");
        assert_eq!(applied.outcomes, [told.to_vec()]);
        assert_eq!(held(&writer).await, 4);
        assert_eq!(writer.all("company").await.len(), 4);
        let crossed = brake.crossed().unwrap();
        assert!(crossed.contains("delete or mark 21 of"), "{crossed}");
    }
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.owned.next, 1, "the offset did not move");
    let brake = brake(gone(19), 11);
    let applied = offer(&mut writer, &brake, rows()).await;
    assert_eq!(brake.crossed(), None);
    assert!(applied.committed);
    assert_eq!(applied.outcomes, [told.to_vec()]);
    assert_eq!(held(&writer).await, 2, "a marked one is gone");
}

/// Of the columns that are written: one that keeps its value, or had none, loses none.
pub async fn a_batch_empties_no_more_rows_than_it_may(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut plan = company();
    plan.column("external_id").keep_on_null = true;
    let plan = Arc::new(plan);
    let whole = |record: &str| {
        let row = row(&plan, record, 1).text("name", record);
        row.text("external_id", record).number("employees", "7")
    };
    let all = ["a", "b", "c", "d"].map(whole);
    writer.send(all).await;
    let none = None::<Cell>;
    writer
        .one(
            row(&plan, "d", 2)
                .text("name", "d")
                .cell("employees", Cell::Null),
        )
        .await;
    let rows = |plan: &Arc<DestinationPlan>| {
        let named = |record: &str, name: &str| {
            let row = row(plan, record, 3).text("name", name);
            row.number("employees", "7")
        };
        vec![
            named("a", "a").cell("employees", Cell::Null),
            named("b", "other").cell("external_id", Cell::Null),
            named("c", "other").cell("employees", none.clone()),
            named("d", "other").cell("employees", Cell::Null),
            named("new", "new").cell("employees", Cell::Null),
        ]
    };
    let told = |first: Outcome| {
        let rest = [
            Outcome::Updated,
            Outcome::Updated,
            Outcome::Updated,
            Outcome::Inserted,
        ];
        vec![[vec![first], rest.to_vec()].concat()]
    };
    let before = Toll {
        gone: 0,
        emptied: 20,
    };
    let brake = brake(before, 0);
    let all = |all| Held { may_go: 0, all };
    brake.measure(all(41));
    let applied = offer(&mut writer, &brake, rows(&plan)).await;
    assert!(!applied.committed, "half of 41 is 20");
    assert_eq!(applied.outcomes, told(Outcome::Emptied));
    let crossed = brake.crossed().unwrap();
    assert!(crossed.contains("empty a column of 21 of 41"), "{crossed}");
    brake.measure(all(42));
    assert!(brake.is_crossed());
    assert_eq!(brake.crossed(), None, "half of 42 is 21");
    let applied = offer(&mut writer, &brake, rows(&plan)).await;
    assert!(applied.committed);
    assert!(!brake.is_crossed());
    assert_eq!(applied.outcomes, told(Outcome::Emptied));
    let rows = writer.all("company").await;
    let kept = rows.iter().filter(|row| {
        let mut columns = row.columns.iter();
        columns.any(|(name, cell)| name == "external_id" && *cell != Cell::Null)
    });
    assert_eq!(kept.count(), 4);
    // Nobody asks, nobody is told.
    let outcome = writer
        .one(
            row(&plan, "c", 4)
                .text("name", "c")
                .cell("employees", Cell::Null),
        )
        .await;
    assert_eq!(outcome, Outcome::Updated);
}
