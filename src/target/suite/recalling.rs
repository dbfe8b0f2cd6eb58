//! The suite on J7: what a look-up has found once is not believed longer than it is true.

use std::sync::Arc;

use uuid::Uuid;

use super::Bench;
use super::plans::{Row, by_id, company, deleted, person, row};
use super::world::{Writer, begin};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::OnMultiple;
use crate::target::port::Outcome;

type Plan = Arc<DestinationPlan>;

/// Companies, and persons with a company by record id: of several none will do.
fn plans() -> (Plan, Plan) {
    let company_of = by_id("company", "company").on_multiple(OnMultiple::Error);
    (Arc::new(company()), Arc::new(person().derive(company_of)))
}

/// The same job's owner of another partition: on another connection, where a target has several.
async fn beside(writer: &Writer, bench: &dyn Bench) -> Writer {
    let mut other = writer.clone();
    other.partition = 1;
    other.again(bench).await
}

fn child(persons: &Plan, record: &str, version: u64, company: &str) -> Row {
    row(persons, record, version).to("company", &[company])
}

async fn company_of(writer: &Writer, record: &str) -> Option<Uuid> {
    match writer.cell_of("person", record, "company").await {
        Cell::Gsid(gsid) => Some(gsid),
        Cell::Null => None,
        other => panic!("company holds {other:?}"),
    }
}

/// A company that two batches of the writer have found.
async fn found(writer: &mut Writer, companies: &Plan, persons: &Plan) -> Uuid {
    writer.one(row(companies, "c", 1)).await;
    let gsid = writer.gsid_of("company", "c").await;
    for record in ["p", "q"] {
        writer.one(child(persons, record, 1, "c")).await;
        assert_eq!(company_of(writer, record).await, Some(gsid));
    }
    gsid
}

pub async fn a_found_row_that_another_takes_away_is_missing(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut other = beside(&writer, bench).await;
    let (companies, persons) = plans();
    let gsid = found(&mut writer, &companies, &persons).await;
    for version in (2..20).step_by(2) {
        other.one(deleted(&companies, "c", version)).await;
        let (new, old) = (format!("new-{version}"), "p");
        writer
            .send([
                child(&persons, &new, 1, "c"),
                child(&persons, old, version, "c"),
            ])
            .await;
        assert_eq!(company_of(&writer, &new).await, None);
        assert_eq!(company_of(&writer, old).await, None);
        assert_eq!(writer.parked().await, 2);
        // It comes back, and is found once more.
        other.one(row(&companies, "c", version + 1)).await;
        assert_eq!(writer.release().await.filled, 2);
        let back = writer.gsid_of("company", "c").await;
        assert_eq!(back, gsid);
        writer.one(child(&persons, old, version + 1, "c")).await;
        for record in [old, &new] {
            assert_eq!(company_of(&writer, record).await, Some(back));
        }
    }
}

/// A merge at the source: the loser is deleted, its children say the master from then on, or not yet.
pub async fn a_merged_row_is_found_by_the_master_only(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut other = beside(&writer, bench).await;
    let (companies, persons) = plans();
    found(&mut writer, &companies, &persons).await;
    writer.one(row(&companies, "master", 1)).await;
    let master = writer.gsid_of("company", "master").await;
    writer.one(child(&persons, "r", 1, "master")).await;
    other
        .send([row(&companies, "master", 2), deleted(&companies, "c", 2)])
        .await;
    writer
        .send([
            child(&persons, "p", 2, "master"),
            child(&persons, "q", 2, "c"),
        ])
        .await;
    assert_eq!(company_of(&writer, "p").await, Some(master));
    assert_eq!(company_of(&writer, "q").await, None);
}

pub async fn a_found_row_is_missing_in_the_batch_that_takes_it(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    found(&mut writer, &companies, &persons).await;
    writer
        .send([deleted(&companies, "c", 2), child(&persons, "p", 2, "c")])
        .await;
    assert_eq!(company_of(&writer, "p").await, None);
    writer.one(child(&persons, "q", 2, "c")).await;
    assert_eq!(company_of(&writer, "q").await, None);
}

/// A record id that is that of two records, of different objects, finds both.
pub async fn a_second_row_of_a_record_id_is_found(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut other = beside(&writer, bench).await;
    other.object = "Other".into();
    let (companies, persons) = plans();
    found(&mut writer, &companies, &persons).await;
    other.one(row(&companies, "c", 1)).await;
    let refused = writer.refused([child(&persons, "p", 2, "c")]).await;
    assert!(refused[0].contains("`company`"), "{refused:?}");
    // And in the batch that first brings it.
    let (mut third, mut fourth) = (writer.clone(), writer.clone());
    third.reader.connection = "third".into();
    fourth.reader.connection = "third".into();
    fourth.object = "Other".into();
    fourth.partition = 1;
    let (mut third, mut fourth) = (third.again(bench).await, fourth.again(bench).await);
    found_on(&mut third, &companies, &persons).await;
    let mut batch = fourth.batch([row(&companies, "e", 1)]);
    batch
        .destinations
        .extend(fourth.batch([child(&persons, "x", 1, "e")]).destinations);
    let refused = fourth.apply(batch).await.unwrap();
    assert!(!refused.committed, "{refused:?}");
    assert!(matches!(refused.outcomes[1][0], Outcome::Rejected(_)));
}

async fn found_on(writer: &mut Writer, companies: &Plan, persons: &Plan) {
    writer.one(row(companies, "e", 1)).await;
    for version in 1..3 {
        writer.one(child(persons, "y", version, "e")).await;
    }
}

pub async fn a_row_that_was_not_committed_is_not_found_later(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    let bad = row(&persons, "bad", 1).cell("name", Cell::Boolean(true));
    let rows = [row(&companies, "c", 1), child(&persons, "p", 1, "c"), bad];
    writer.refused(rows).await;
    writer.one(child(&persons, "p", 1, "c")).await;
    assert_eq!(company_of(&writer, "p").await, None);
    assert_eq!(writer.parked().await, 1);
    // Nor is it known for good that it is missing.
    writer.one(row(&companies, "c", 1)).await;
    writer.one(child(&persons, "q", 1, "c")).await;
    assert!(company_of(&writer, "q").await.is_some());
}

/// The same record id on two CRM connections is two records.
pub async fn a_found_row_is_the_connections_own(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = plans();
    found(&mut writer, &companies, &persons).await;
    let mut other = Writer::open(bench.target(), "globex", "sync").await;
    other.one(child(&persons, "x", 1, "c")).await;
    assert_eq!(company_of(&other, "x").await, None);
    other.one(row(&companies, "c", 1)).await;
    let gsid = other.gsid_of("company", "c").await;
    for record in ["y", "z"] {
        other.one(child(&persons, record, 1, "c")).await;
        assert_eq!(company_of(&other, record).await, Some(gsid));
    }
}
