//! The suite on what is parked and whose it is: released to its owner, told when it waits too long, forgotten when
//! that was heard.

use std::sync::Arc;

use chrono::TimeDelta;

use super::Bench;
use super::plans::{Row, by_id, company, person, row};
use super::world::{Writer, begin, start};
use crate::mapping::plan::DestinationPlan;
use crate::model::policy::OnNone;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::Outcome::{Inserted, Parked};
use crate::target::port::ParkedKey;

type Plan = Arc<DestinationPlan>;

/// Persons whose manager may be missing, and others who need their company.
fn plans() -> (Plan, Plan) {
    let strict = person().derive(by_id("company", "company").on_none(OnNone::Reject));
    let lax = person().derive(by_id("manager", "person"));
    (Arc::new(lax), Arc::new(strict))
}

fn child(plan: &Plan, record: &str, version: u64) -> Row {
    let column = &plan.derives[0].column;
    row(plan, record, version)
        .text("email", &format!("{record}@x.example"))
        .to(column, &["nobody"])
}

fn records(keys: &[ParkedKey]) -> Vec<&str> {
    keys.iter().map(|key| key.record.as_str()).collect()
}

/// What is due in a day.
async fn due(writer: &Writer, limit: usize) -> Vec<ParkedKey> {
    let expired = writer.expired(start() + TimeDelta::days(1), limit).await;
    expired.into_iter().map(|expired| expired.key).collect()
}

/// The listing is the same until it was heard, also after a restart.
pub async fn what_expired_is_told_until_it_is_forgotten(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (lax, strict) = plans();
    writer.one(child(&lax, "a", 1).at(0, 3)).await;
    assert_eq!(writer.one(child(&strict, "b", 2).at(0, 4)).await, Parked);
    let told = writer.expired(start() + TimeDelta::days(1), 9).await;
    let keys: Vec<_> = told.iter().map(|told| told.key.clone()).collect();
    let reference = Some(("person".to_owned(), "manager".to_owned()));
    let key = |record: &str, reference, version, offset| ParkedKey {
        record: RecordId::stored(record),
        reference,
        version: Version::new(1, version),
        place: (0, offset),
    };
    assert_eq!(keys, [key("a", reference, 1, 3), key("b", None, 2, 4)]);
    bench.reopen().await;
    let writer = writer.again(bench).await;
    assert_eq!(
        writer.expired(start() + TimeDelta::days(1), 9).await,
        told,
        "told is not gone"
    );
    assert_eq!(writer.forget(&keys[..1]).await, 1);
    assert_eq!(due(&writer, 9).await, keys[1..]);
    assert_eq!(writer.forget(&keys).await, 1, "the other one was gone");
    assert_eq!(writer.forget(&keys).await, 0);
    assert_eq!(writer.forget(&[]).await, 0);
    bench.reopen().await;
    let writer = writer.again(bench).await;
    assert_eq!((due(&writer, 9).await, writer.parked().await), (vec![], 0));
}

/// Few at a time, the oldest first, references and changes each.
pub async fn the_oldest_are_told_first(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (lax, strict) = plans();
    // Not in the order of their names.
    for n in [4, 1, 3, 0, 2] {
        writer
            .send([
                child(&lax, &format!("r{n}"), 1),
                child(&strict, &format!("c{n}"), 1),
            ])
            .await;
    }
    let mut all = Vec::new();
    for _ in 0..3 {
        let some = due(&writer, 2).await;
        assert!(some.len() <= 4, "{some:?}");
        writer.forget(&some).await;
        all.extend(some);
    }
    let due = ["r4", "r1", "c4", "c1", "r3", "r0", "c3", "c0", "r2", "c2"];
    assert_eq!(records(&all), due);
    assert_eq!(writer.parked().await, 0);
}

/// What came in place of what was told was not told.
pub async fn only_what_was_told_is_forgotten(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (lax, strict) = plans();
    writer
        .send([
            child(&lax, "a", 1).at(0, 1),
            child(&lax, "b", 1).at(0, 2),
            child(&strict, "c", 1).at(0, 3),
            child(&strict, "d", 1).at(0, 4),
        ])
        .await;
    let told = due(&writer, 9).await;
    assert_eq!(told.len(), 4);
    // A later version, and the same one from another place.
    writer
        .send([
            child(&lax, "a", 2).at(0, 5),
            child(&lax, "b", 1).at(0, 6),
            child(&strict, "c", 2).at(0, 7),
            child(&strict, "d", 1).at(0, 8),
        ])
        .await;
    assert_eq!(writer.forget(&told).await, 0);
    assert_eq!(writer.parked().await, 4);
    let mut second = Writer::open(bench.target(), "acme", "second").await;
    second.one(child(&lax, "z", 1)).await;
    let other = due(&second, 9).await;
    assert_eq!(writer.forget(&other).await, 0, "another job's");
    assert_eq!(second.parked().await, 1);
    let again = due(&writer, 9).await;
    assert_eq!(writer.forget(&again).await, 4);
    assert_eq!(writer.parked().await, 0);
}

/// A change that ran again and was refused is cleared by name; what wrote a letter is not run again.
pub async fn a_released_change_can_be_forgotten(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (_, strict) = plans();
    let companies = Arc::new(company());
    writer.one(child(&strict, "a", 1)).await;
    writer.one(child(&strict, "b", 1)).await;
    writer.one(row(&companies, "nobody", 1)).await;
    let released = writer.release().await.changes;
    assert_eq!(released.len(), 2);
    assert_eq!(writer.forget(&[released[0].key()]).await, 1);
    let rest = writer.release().await.changes;
    assert_eq!(rest, released[1..]);
    // A later change is as if nothing had waited.
    assert_eq!(writer.one(child(&strict, "a", 2)).await, Inserted);
}

/// Neither another job nor another owner of the same job stands in the way, however much of theirs is ready.
pub async fn changes_are_released_to_their_owner(bench: &mut dyn Bench) {
    let mut idle = begin(bench).await;
    let (lax, strict) = plans();
    let companies = Arc::new(company());
    let mut busy = Writer::open(bench.target(), "acme", "second").await;
    let mut beside = busy.clone();
    beside.partition = 1;
    let mut beside = beside.again(bench).await;
    let many = |prefix: &'static str, partition| {
        let rows = (0..8).map(move |n| (format!("{prefix}{n}"), partition));
        let strict = Arc::clone(&strict);
        rows.map(move |(record, partition)| child(&strict, &record, 1).at(partition, 1))
    };
    idle.send(many("i", 0)).await;
    beside.send(many("s", 1)).await;
    busy.one(child(&strict, "own", 1)).await;
    // References are everybody's.
    idle.one(child(&lax, "report", 1)).await;
    busy.one(row(&companies, "nobody", 1)).await;
    busy.one(row(&lax, "nobody", 1).text("email", "nobody@x.example"))
        .await;
    let released = busy.release_some(4).await;
    let names: Vec<_> = released
        .changes
        .iter()
        .map(|change| change.record.as_str())
        .collect();
    assert_eq!(
        (released.filled, names, released.more),
        (1, vec!["own"], false)
    );
    let released = beside.release_some(4).await;
    assert_eq!((released.changes.len(), released.more), (4, true));
    let places = released.changes.iter().map(|change| change.place.0);
    assert!(places.eq([1; 4]));
    assert_eq!(idle.release().await.changes.len(), 8);
    // And told to them, too.
    for (owner, count) in [(&busy, 1), (&beside, 8), (&idle, 8)] {
        assert_eq!(due(owner, 99).await.len(), count);
    }
    // Who owns nothing fills references, and has no changes.
    let (connection, job) = (&busy.reader.connection, &busy.reader.job);
    let released = busy.target.release(connection, job, &[], 99).await.unwrap();
    assert!(released.changes.is_empty());
}
