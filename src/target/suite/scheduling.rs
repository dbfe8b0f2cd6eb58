//! The suite on columns that a row which is there gets by full syncs alone (`realtime_fields`).

use std::sync::Arc;

use super::Bench;
use super::plans::{Row, by_id, company, deleted, filtered, person, row, text};
use super::world::{Writer, begin};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::{OnExit, OnMove, OnNone};
use crate::model::version::Version;
use crate::target::port::Outcome::{Associated, Inserted, Parked, Stale, Unchanged, Updated};

type Plan = Arc<DestinationPlan>;

/// Companies whose number of employees full syncs write.
fn companies() -> Plan {
    Arc::new(company().scheduled(&["employees"]))
}

/// What a change of this version tells of a company.
fn told(plan: &Plan, record: &str, version: u64) -> Row {
    let row = row(plan, record, version).text("external_id", record);
    row.text("name", &format!("name {version}"))
        .number("employees", &version.to_string())
}

fn by_sync(plan: &Plan, record: &str, version: u64) -> Row {
    told(plan, record, version).synced(version)
}

/// Of which versions the name and the number of employees are.
async fn stored(writer: &Writer, record: &str) -> (Cell, Cell) {
    let row = writer.row_of("company", record).await.unwrap();
    (row.cell("name"), row.cell("employees"))
}

fn of(name: u64, employees: u64) -> (Cell, Cell) {
    let employees = Cell::Number(employees.to_string().into());
    (text(&format!("name {name}")), employees)
}

pub async fn scheduled_columns_wait_for_a_full_sync(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = companies();
    // A new row is whole.
    assert_eq!(writer.one(told(&plan, "a", 1)).await, Inserted);
    assert_eq!(stored(&writer, "a").await, of(1, 1));
    assert_eq!(writer.one(told(&plan, "a", 2)).await, Updated);
    assert_eq!(stored(&writer, "a").await, of(2, 1));
    let same = told(&plan, "a", 3).text("name", "name 2");
    assert_eq!(writer.one(same).await, Unchanged);
    assert_eq!(writer.one(by_sync(&plan, "a", 4)).await, Updated);
    assert_eq!(stored(&writer, "a").await, of(4, 4));
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.one(told(&plan, "a", 5).synced(4)).await, Updated);
    assert_eq!(stored(&writer, "a").await, of(5, 4));
    // Told again, before and after.
    let late = writer.one(by_sync(&plan, "a", 4)).await;
    assert_eq!(late, Stale(Version::new(1, 5)));
    assert_eq!(writer.one(told(&plan, "a", 5).synced(4)).await, Unchanged);
    assert_eq!(stored(&writer, "a").await, of(5, 4));
    assert_eq!(writer.one(by_sync(&plan, "a", 6)).await, Updated);
    assert_eq!(writer.one(by_sync(&plan, "a", 6)).await, Unchanged);
    assert_eq!(stored(&writer, "a").await, of(6, 6));
    // A field that became empty is no field that is not told.
    let empty = told(&plan, "a", 7).synced(6).cell("name", Cell::Null);
    writer.one(empty.cell("employees", Cell::Null)).await;
    let (name, employees) = (Cell::Null, of(0, 6).1);
    assert_eq!(stored(&writer, "a").await, (name, employees));
    let empty = by_sync(&plan, "a", 8).cell("employees", Cell::Null);
    writer.one(empty).await;
    assert_eq!(stored(&writer, "a").await.1, Cell::Null);
}

/// A topic keeps a record's last change, and perhaps some before: whatever of them comes, and however often, nothing is
/// older than what the last full sync told.
pub async fn a_full_sync_that_was_not_met_is_made_up_for(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = companies();
    let told = |record: &str, version: u64| match version {
        2 | 5 => by_sync(&plan, record, version),
        1 => told(&plan, record, 1),
        3 | 4 => told(&plan, record, version).synced(2),
        _ => told(&plan, record, version).synced(5),
    };
    for kept in 0..32_u64 {
        let record = format!("r{kept:02}");
        let met: Vec<u64> = (1..6)
            .filter(|version| kept >> (version - 1) & 1 == 1)
            .collect();
        for version in met.iter().chain(&[6, 6]) {
            writer.one(told(&record, *version)).await;
        }
        let (name, employees) = stored(&writer, &record).await;
        assert_eq!(name, of(6, 6).0, "{met:?}");
        let expected = if met.contains(&5) { 5 } else { 6 };
        assert_eq!(employees, of(6, expected).1, "{met:?}");
    }
}

/// Who comes back, and who takes another row, brings all of it.
pub async fn what_comes_to_a_row_writes_all_of_it(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let marks = company().scheduled(&["employees"]);
    let marks = Arc::new(marks.exits(OnExit::Mark, OnExit::Delete));
    let told = |record: &str, version: u64| told(&marks, record, version).synced(1);
    writer.one(by_sync(&marks, "a", 1)).await;
    writer.one(deleted(&marks, "a", 2).synced(1)).await;
    assert_eq!(stored(&writer, "a").await, of(1, 1));
    assert_eq!(writer.one(told("a", 3)).await, Updated);
    assert_eq!(stored(&writer, "a").await, of(3, 3));
    assert_eq!(writer.one(told("a", 4)).await, Updated);
    assert_eq!(stored(&writer, "a").await, of(4, 3));
    writer.one(filtered(&marks, "a", 5).synced(1)).await;
    assert_eq!(writer.one(told("a", 6)).await, Inserted);
    assert_eq!(stored(&writer, "a").await, of(6, 6));
    // A second record of the row, with its first change.
    let joins = told("b", 1).text("external_id", "a").text("name", "name 1");
    assert_eq!(writer.one(joins.number("employees", "1")).await, Associated);
    assert_eq!(stored(&writer, "a").await, of(1, 1));
    // Another row.
    let moves = company().scheduled(&["employees"]).moving(OnMove::New);
    let moves = Arc::new(moves);
    let of_moves = |version: u64, id: &str| {
        let row = row(&moves, "a", version).synced(1).text("external_id", id);
        row.text("name", &format!("name {version}"))
            .number("employees", &version.to_string())
    };
    assert_eq!(writer.one(of_moves(7, "a")).await, Updated);
    assert_eq!(stored(&writer, "a").await, of(7, 1));
    assert_eq!(writer.one(of_moves(8, "c")).await, Inserted);
    assert_eq!(stored(&writer, "a").await, of(8, 8));
}

/// Look-ups into another table, and into the own one.
pub async fn scheduled_look_ups_wait_for_a_full_sync(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plain = Arc::new(company());
    let links = person()
        .derive(by_id("company", "company"))
        .derive(by_id("manager", "person"));
    let plan = Arc::new(links.scheduled(&["company", "manager"]));
    let with = |record: &str, version: u64, company: &str, manager: &str| {
        let row = row(&plan, record, version).text("email", &format!("{record}@x.example"));
        row.to("company", &[company]).to("manager", &[manager])
    };
    let rows = ["c1", "c2"].map(|record| row(&plain, record, 1).text("external_id", record));
    writer.send(rows).await;
    writer
        .send([with("boss", 1, "c1", "boss"), with("p", 1, "c1", "late")])
        .await;
    assert_eq!(writer.parked().await, 1);
    let cell = async |writer: &Writer, column: &str| writer.cell_of("person", "p", column).await;
    let gsid = async |writer: &Writer, table: &str, record: &str| {
        Cell::Gsid(writer.gsid_of(table, record).await)
    };
    // What it waits for is waited for at the new version, though the change says another.
    assert_eq!(writer.one(with("p", 2, "c2", "boss")).await, Unchanged);
    assert_eq!(
        cell(&writer, "company").await,
        gsid(&writer, "company", "c1").await
    );
    assert_eq!(cell(&writer, "manager").await, Cell::Null);
    assert_eq!(writer.parked().await, 1);
    writer.one(with("late", 1, "c1", "boss")).await;
    assert_eq!(writer.release().await.filled, 1);
    assert_eq!(
        cell(&writer, "manager").await,
        gsid(&writer, "person", "late").await
    );
    let synced = with("p", 3, "c2", "boss").synced(3);
    assert_eq!(writer.one(synced).await, Updated);
    assert_eq!(
        cell(&writer, "company").await,
        gsid(&writer, "company", "c2").await
    );
    assert_eq!(
        cell(&writer, "manager").await,
        gsid(&writer, "person", "boss").await
    );
    // In the batch in which somebody leaves, look-ups into the own table are open to its end.
    let leaves = deleted(&plan, "late", 2);
    let moved = with("p", 4, "c1", "p").synced(3).text("name", "moved");
    writer.send([moved, leaves]).await;
    assert_eq!(cell(&writer, "name").await, text("moved"));
    assert_eq!(
        cell(&writer, "manager").await,
        gsid(&writer, "person", "boss").await
    );
}

/// A change that is kept out whole has written nothing of what a full sync told.
pub async fn a_full_sync_that_was_kept_out_is_made_up_for(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plain = Arc::new(company());
    let plan = person().derive(by_id("company", "company").on_none(OnNone::Reject));
    let plan = Arc::new(plan.scheduled(&["notes"]));
    let with = |version: u64, company: &str| {
        let row = row(&plan, "p", version).to("company", &[company]);
        row.text("email", "p@x.example")
            .text("notes", &format!("notes {version}"))
    };
    writer
        .one(row(&plain, "c", 1).text("external_id", "c"))
        .await;
    assert_eq!(writer.one(with(1, "c")).await, Inserted);
    assert_eq!(writer.one(with(2, "nowhere").synced(2)).await, Parked);
    assert_eq!(writer.one(with(3, "c").synced(2)).await, Updated);
    let notes = writer.cell_of("person", "p", "notes").await;
    assert_eq!(notes, text("notes 3"));
    assert_eq!(writer.one(with(4, "c").synced(2)).await, Unchanged);
}
