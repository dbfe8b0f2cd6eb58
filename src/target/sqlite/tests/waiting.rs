//! What waits in the ledger: for several rows at once, too long, and in great number.

use std::sync::Arc;

use chrono::TimeDelta;

use super::File;
use crate::mapping::plan::{DestinationPlan, MatchKey};
use crate::model::policy::OnNone;
use crate::model::stored::StoredType;
use crate::target::port::Outcome;
use crate::target::suite::plans::{by, by_id, company, on, person, row};
use crate::target::suite::world::begin;

/// Persons who need a company by key and a manager by record id and name.
fn strict() -> Arc<DestinationPlan> {
    let company = by(
        "company",
        "company",
        vec![on("external_id", StoredType::String)],
    );
    let manager = by(
        "manager",
        "person",
        vec![MatchKey::RecordId, on("name", StoredType::String)],
    );
    let plan = person().derive(company.on_none(OnNone::Reject));
    Arc::new(plan.derive(manager.on_none(OnNone::Null)))
}

#[tokio::test]
async fn a_change_waits_for_all_it_needs() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let two = person()
        .derive(
            by(
                "company",
                "company",
                vec![on("external_id", StoredType::String)],
            )
            .on_none(OnNone::Reject),
        )
        .derive(by_id("manager", "company").on_none(OnNone::Reject));
    let (companies, persons) = (Arc::new(company()), Arc::new(two));
    let child = row(&persons, "p", 1)
        .to("company", &["k"])
        .to("manager", &["m"]);
    assert_eq!(writer.one(child.clone()).await, Outcome::Parked);
    writer
        .one(row(&companies, "c", 1).text("external_id", "k"))
        .await;
    assert!(
        writer.release().await.changes.is_empty(),
        "the other row is missing"
    );
    writer
        .one(row(&companies, "m", 1).text("external_id", "other"))
        .await;
    for _ in 0..2 {
        let released = writer.release().await;
        assert_eq!(released.changes.len(), 1, "it stays until it is applied");
    }
    assert_eq!(writer.one(child).await, Outcome::Inserted);
    assert_eq!(writer.parked().await, 0);
    let waits = file.query("SELECT key FROM tributary_parked_wait").await;
    assert!(waits.is_empty(), "{waits:?}");
}

#[tokio::test]
async fn what_waited_too_long_is_taken_out_and_told() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let (companies, persons) = (Arc::new(company()), strict());
    writer
        .one(row(&companies, "c", 1).text("external_id", "k"))
        .await;
    let of = |record: &str, company: &str| row(&persons, record, 1).to("company", &[company]);
    writer.one(of("change", " none ").at(0, 14)).await;
    writer
        .one(
            of("reference", "k")
                .to("manager", &["boss", "Ann "])
                .at(0, 5),
        )
        .await;
    let since = writer.now;
    // Delivered again at the same version, it is not younger.
    writer
        .one(
            of("reference", "k")
                .to("manager", &["boss", "Ann "])
                .at(0, 5),
        )
        .await;
    writer.one(of("late", "never")).await;
    let before = writer.expired(since - TimeDelta::seconds(1), 9).await;
    assert!(before.is_empty());
    let mut expired = writer.expired(since + TimeDelta::microseconds(1), 9).await;
    expired.sort_by(|one, other| one.key.record.cmp(&other.key.record));
    let told: Vec<_> = expired
        .iter()
        .map(|expired| {
            let key = &expired.key;
            (key.record.as_str(), &*expired.waited_for, key.place)
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "change",
                "a row of `company` with external_id = `none`",
                (0, 14)
            ),
            (
                "reference",
                "a row of `person` with @id = `boss` and name = `Ann`",
                (0, 5)
            ),
        ]
    );
    assert_eq!(expired[0].image.as_deref(), Some(&b"change@1"[..]));
    assert_eq!(expired[1].image, None);
    assert_eq!(writer.forget(expired.iter().map(|told| &told.key)).await, 2);
    assert_eq!(writer.parked().await, 1);
    let after = writer.expired(since + TimeDelta::microseconds(1), 9).await;
    assert!(after.is_empty());
    let waits = file
        .query("SELECT record FROM tributary_parked_change")
        .await;
    assert_eq!(waits, ["late"]);
}

/// A release looks at what was woken: ten thousand that wait in vain are not read.
#[tokio::test]
async fn a_release_does_not_look_at_what_waits_in_vain() {
    let mut file = File::new().await;
    let mut writer = begin(&mut file).await;
    let persons = Arc::new(person().derive(by_id("company", "company")));
    let companies = Arc::new(company());
    for batch in 0..10_u64 {
        let rows = (0..1_000).map(|n| {
            let record = (batch * 1_000 + n).to_string();
            row(&persons, &record, 1).to("company", &[&format!("never {record}")])
        });
        writer.send(rows).await;
    }
    writer
        .one(row(&persons, "child", 1).to("company", &["c"]))
        .await;
    writer.one(row(&companies, "c", 1)).await;
    let woken = "SELECT record FROM tributary_parked_reference WHERE ready = 1";
    assert_eq!(file.query(woken).await, ["child"]);
    assert_eq!(writer.release().await.filled, 1);
    assert_eq!(writer.parked().await, 10_000);
}
