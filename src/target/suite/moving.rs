//! The suite on rows that records leave for others (`on_move`), and on columns that belong to another connection.

use std::sync::Arc;

use super::Bench;
use super::plans::{Row, by, by_id, company, deleted, on, person, plan, row, sibling, text};
use super::world::{Writer, begin, start};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::{OnExit, OnMove, OnNone};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::target::port::Outcome::{
    Associated, Deleted, Inserted, Parked, Review, Unchanged, Updated,
};
use crate::target::port::Strays;
use crate::target::port::review::Bond;

type Plan = Arc<DestinationPlan>;

/// People at companies, known by both.
fn links(on_delete: OnExit, on_move: OnMove) -> Plan {
    let plan = plan("company person", &[("role", StoredType::String)])
        .derive(sibling("person", "person"))
        .derive(by_id("company", "company").on_none(OnNone::Reject))
        .identified(&["person", "company"])
        .exits(on_delete, OnExit::Keep)
        .moving(on_move);
    Arc::new(plan)
}

async fn companies(writer: &mut Writer) {
    let plan = Arc::new(company());
    let rows = ["x", "y"].map(|key| row(&plan, key, 1).text("external_id", key));
    writer.send(rows).await;
}

/// A contact at a company.
fn contact(links: &Plan, record: &str, version: u64, company: &str) -> [Row; 2] {
    let persons = Arc::new(person());
    let link = row(links, record, version).sibling("person");
    let link = link.to("company", &[company]);
    [
        row(&persons, record, version).text("email", &format!("{record}@x.example")),
        link.text("role", &format!("{record} at {company}"))
            .committed_at(start()),
    ]
}

async fn roles(writer: &Writer) -> Vec<(Cell, Cell)> {
    let rows = writer.all("company person").await;
    let mut roles: Vec<_> = rows
        .iter()
        .map(|row| (row.cell("role"), row.cell("crm_state")))
        .collect();
    roles.sort_by_key(|(role, _)| format!("{role:?}"));
    roles
}

pub async fn a_move_changes_the_row_or_takes_another(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    companies(&mut writer).await;
    let stays = links(OnExit::Delete, OnMove::Update);
    writer.send(contact(&stays, "a", 1, "x")).await;
    let first = writer.gsid_of("company person", "a").await;
    let moved = writer.send(contact(&stays, "a", 2, "y")).await;
    assert_eq!(moved, [Unchanged, Updated]);
    assert_eq!(writer.gsid_of("company person", "a").await, first);
    let moves = links(OnExit::Keep, OnMove::New);
    let same = writer.send(contact(&moves, "a", 3, "y")).await;
    assert_eq!(same, [Unchanged, Unchanged], "where it is");
    let moved = writer.send(contact(&moves, "a", 4, "x")).await;
    assert_eq!(moved, [Unchanged, Inserted]);
    let second = writer.gsid_of("company person", "a").await;
    assert_ne!(second, first);
    let kept = [(text("a at x"), Cell::Null), (text("a at y"), Cell::Null)];
    assert_eq!(roles(&writer).await, kept);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    // Back to the row that was kept, which nobody holds.
    let back = writer.send(contact(&moves, "a", 5, "y")).await;
    assert_eq!(back, [Unchanged, Associated]);
    assert_eq!(writer.gsid_of("company person", "a").await, first);
    assert_eq!(roles(&writer).await, kept);
}

pub async fn what_a_move_leaves_is_left_as_by_a_delete(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    companies(&mut writer).await;
    let marks = links(OnExit::Mark, OnMove::New);
    writer.send(contact(&marks, "a", 1, "x")).await;
    writer.send(contact(&marks, "a", 2, "y")).await;
    let marked = [
        (text("a at x"), text("deleted")),
        (text("a at y"), Cell::Null),
    ];
    assert_eq!(roles(&writer).await, marked);
    let row = writer.all("company person").await;
    let row = row.iter().find(|row| row.cell("role") == text("a at x"));
    let at = row.unwrap().cell("crm_state_at");
    assert_eq!(at, Cell::DateTime(start()));
    let deletes = links(OnExit::Delete, OnMove::New);
    writer.send(contact(&deletes, "a", 3, "x")).await;
    let gone = [(text("a at x"), Cell::Null)];
    assert_eq!(
        roles(&writer).await,
        gone,
        "it came back, and the other went"
    );
    // One that others hold stays.
    let two = contact(&deletes, "a", 4, "x");
    let mut other = contact(&deletes, "b", 4, "x");
    other[0] = other[0].clone().text("email", "a@x.example");
    // One destination has both persons.
    other[0].plan = Arc::clone(&two[0].plan);
    writer.send(two.into_iter().chain(other)).await;
    assert_eq!(writer.all("company person").await.len(), 1);
    writer.send(contact(&deletes, "a", 5, "y")).await;
    assert_eq!(writer.all("company person").await.len(), 2);
    let exits = contact(&deletes, "b", 6, "x").map(|row| deleted(&row.plan, "b", 6));
    assert_eq!(writer.send(exits).await, [Deleted, Deleted]);
    let left = [(text("a at y"), Cell::Null)];
    assert_eq!(roles(&writer).await, left);
}

pub async fn a_move_waits_for_what_it_lacks(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    companies(&mut writer).await;
    let moves = links(OnExit::Delete, OnMove::New);
    writer.send(contact(&moves, "a", 1, "x")).await;
    let before = roles(&writer).await;
    let moved = contact(&moves, "a", 2, "z");
    assert_eq!(writer.send(moved.clone()).await, [Unchanged, Parked]);
    assert_eq!(roles(&writer).await, before);
    let plan = Arc::new(company());
    let late = row(&plan, "z", 3).text("external_id", "z");
    writer.one(late).await;
    assert_eq!(writer.release().await.changes.len(), 1);
    assert_eq!(writer.send(moved).await, [Unchanged, Inserted]);
    assert_eq!(roles(&writer).await, [(text("a at z"), Cell::Null)]);
    // Without a value an identifier says nothing.
    let none = contact(&moves, "a", 4, "z");
    let none = none.map(|row| {
        if row.plan.table == "person" {
            row
        } else {
            row.reference("company", crate::mapping::plan::Reference::Empty)
        }
    });
    assert_eq!(writer.send(none).await, [Unchanged, Updated]);
    assert_eq!(writer.all("company person").await.len(), 1);
}

/// Several rows have what it says now: its own among them, or not.
pub async fn a_move_to_one_of_several_waits_for_a_person(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plain = Arc::new(company());
    let moves = Arc::new(company().moving(OnMove::New));
    let with = |plan: &Plan, record: &str, version: u64, id: &str| {
        row(plan, record, version).text("external_id", id)
    };
    writer
        .send(["a", "b", "c"].map(|id| with(&plain, id, 1, id)))
        .await;
    writer
        .send(["a", "b"].map(|id| with(&plain, id, 2, "same")))
        .await;
    let own = with(&moves, "a", 3, "same").text("name", "own");
    assert_eq!(writer.one(own).await, Updated);
    assert_eq!(writer.one(with(&moves, "c", 3, "same")).await, Review);
    let c = writer.gsid_of("company", "c").await;
    // The one that waited said nothing yet: the row is as it was.
    assert_eq!(writer.one(with(&moves, "c", 4, "c")).await, Unchanged);
    assert_eq!(writer.gsid_of("company", "c").await, c);
    let waiting = writer.target.reviews(&Default::default()).await.unwrap();
    assert!(waiting.is_empty());
}

/// Two records of a batch change places, and a third takes what one left.
pub async fn moves_see_each_other_in_a_batch(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person().moving(OnMove::New));
    let with = |record: &str, version: u64, email: &str| {
        let row = row(&plan, record, version).text("email", email);
        row.text("name", record)
    };
    writer
        .send([with("a", 1, "a@x.example"), with("b", 1, "b@x.example")])
        .await;
    let (a, b) = (
        writer.gsid_of("person", "a").await,
        writer.gsid_of("person", "b").await,
    );
    let outcomes = writer
        .send([
            with("a", 2, "b@x.example"),
            with("b", 2, "c@x.example"),
            with("c", 2, "b@x.example"),
        ])
        .await;
    assert_eq!(outcomes, [Associated, Inserted, Associated]);
    assert_eq!(writer.gsid_of("person", "a").await, b);
    assert_eq!(writer.gsid_of("person", "c").await, b);
    let rows = writer.all("person").await;
    assert!(rows.iter().all(|row| row.gsid != a), "nobody holds it");
    assert_eq!(rows.len(), 2);
    assert_eq!(writer.cell_of("person", "a", "name").await, text("c"));
}

/// A batch that only asks says who would move, and leaves all as it is.
pub async fn a_look_at_identifiers_changes_nothing(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let by_name = Arc::new(company().identified(&["name"]));
    let by_id = Arc::new(company());
    let with = |plan: &Plan, record: &str, name: &str| {
        let row = row(plan, record, 1).text("external_id", record);
        row.text("name", name)
    };
    writer
        .send([
            with(&by_name, "a", "same"),
            with(&by_name, "b", "same"),
            with(&by_name, "c", "other"),
            with(&by_name, "d", "fourth"),
        ])
        .await;
    let d = writer.gsid_of("company", "d").await;
    let bound = super::deciding::binding(&writer, "d", "company", Bond::Row(d));
    writer.target.decide(&bound).await.unwrap();
    let before = writer.all("company").await;
    assert_eq!(before.len(), 3);
    let look = |writer: &Writer, plan: &Plan| {
        let rows = ["a", "b", "c"].map(|record| with(plan, record, "whatever"));
        let mut batch = writer.batch(rows.into_iter().chain([with(plan, "d", "same")]));
        batch.rematch = true;
        batch
    };
    let asked = look(&writer, &by_id);
    let applied = writer.apply(asked).await.unwrap();
    assert!(!applied.committed);
    assert_eq!(
        applied.outcomes,
        [vec![Inserted, Updated, Updated, Updated]],
        "the row of both is the last one's; what was decided stays"
    );
    assert_eq!(writer.all("company").await, before);
    assert_eq!(writer.one(with(&by_id, "a", "same")).await, Updated);
    assert_eq!(
        writer.gsid_of("company", "a").await,
        writer.gsid_of("company", "b").await,
        "nothing has moved"
    );
}

/// Two connections fill one company; the name is the first one's wherever it holds the row.
pub async fn a_column_is_its_owners_where_that_holds_the_row(bench: &mut dyn Bench) {
    let mut acme = begin(bench).await;
    let mut contoso = Writer::open(bench.target(), "contoso", "sync").await;
    let derive = || by_id("parent", "company");
    let ours = Arc::new(company().derive(derive()));
    let theirs = Arc::new(
        company()
            .derive(derive())
            .owned(&["name", "parent"], "acme"),
    );
    let with = |plan: &Plan, record: &str, version: u64, name: &str| {
        let row = row(plan, record, version).text("external_id", "k");
        row.text("name", name)
    };
    // Alone it fills all of it.
    let first = with(&theirs, "1", 1, "Contoso says");
    contoso.one(first.number("employees", "7")).await;
    let name = contoso.cell_of("company", "1", "name").await;
    assert_eq!(name, text("Contoso says"));
    let top = row(&ours, "top", 1).text("external_id", "top");
    acme.one(top).await;
    let own = with(&ours, "1", 1, "Acme says").number("employees", "8");
    assert_eq!(acme.one(own.to("parent", &["top"])).await, Associated);
    let parent = Cell::Gsid(acme.gsid_of("company", "top").await);
    // Now two columns are not its own, also what they would wait for.
    let second = with(&theirs, "1", 2, "Contoso insists").to("parent", &["nowhere"]);
    let outcome = contoso.one(second.number("employees", "9")).await;
    assert_eq!(outcome, Updated);
    assert_eq!(contoso.parked().await, 0);
    let row = contoso.row_of("company", "1").await.unwrap();
    assert_eq!(row.cell("name"), text("Acme says"));
    assert_eq!(row.cell("parent"), parent);
    assert_eq!(row.cell("employees"), Cell::Number("9".into()));
    let again = with(&theirs, "1", 3, "Contoso shouts");
    assert_eq!(contoso.one(again.number("employees", "9")).await, Unchanged);
    // Other rows are nobody else's.
    let other = row_with(&theirs, "2", "other", "Other");
    assert_eq!(contoso.one(other).await, Inserted);
    let name = contoso.cell_of("company", "2", "name").await;
    assert_eq!(name, text("Other"));
    // When the owner leaves, it is the next one's.
    assert_eq!(acme.one(deleted(&ours, "1", 4)).await, Deleted);
    let last = with(&theirs, "1", 4, "Contoso alone");
    assert_eq!(contoso.one(last.number("employees", "9")).await, Updated);
    let name = contoso.cell_of("company", "1", "name").await;
    assert_eq!(name, text("Contoso alone"));
}

/// What waits for a parent when the owner comes to the row is no matter of its record any more.
pub async fn a_column_that_waits_is_left_to_its_owner(bench: &mut dyn Bench) {
    let mut acme = begin(bench).await;
    let mut contoso = Writer::open(bench.target(), "contoso", "sync").await;
    let derive = || by_id("parent", "company");
    let ours = Arc::new(company().derive(derive()));
    let theirs = Arc::new(company().derive(derive()).owned(&["parent"], "acme"));
    let waits = |record: &str| row_with(&theirs, record, record, "waits").to("parent", &["late"]);
    contoso.send(["1", "2", "3"].map(waits)).await;
    assert_eq!(contoso.parked().await, 3);
    let top = row(&ours, "top", 1).text("external_id", "top");
    acme.one(top).await;
    let joins = |record: &str| row_with(&ours, record, record, "joins");
    acme.one(joins("1").to("parent", &["top"])).await;
    // Whose reference is empty has an empty column.
    acme.one(joins("2")).await;
    // Whoever left again has none.
    acme.one(joins("3")).await;
    acme.one(deleted(&ours, "3", 2)).await;
    bench.reopen().await;
    let (acme, mut contoso) = (acme.again(bench).await, contoso.again(bench).await);
    let late = row_with(&theirs, "late", "late", "late").reference("parent", None);
    contoso.one(late).await;
    assert_eq!(contoso.release().await.filled, 1);
    assert_eq!(contoso.parked().await, 0);
    let parent = async |record: &str| contoso.cell_of("company", record, "parent").await;
    let top = Cell::Gsid(acme.gsid_of("company", "top").await);
    let late = Cell::Gsid(contoso.gsid_of("company", "late").await);
    assert_eq!(parent("1").await, top);
    assert_eq!(parent("2").await, Cell::Null);
    assert_eq!(parent("3").await, late);
}

/// Who refers to the row that a record has left is told until somebody says that it was heard.
pub async fn what_refers_to_a_row_that_was_left_is_told(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plain = Arc::new(company());
    let moves = Arc::new(
        company()
            .moving(OnMove::New)
            .exits(OnExit::Keep, OnExit::Keep),
    );
    let persons = person().derive(by_id("company", "company"));
    let persons = Arc::new(DestinationPlan {
        is_looked_up: false,
        ..persons
    });
    let with = |plan: &Plan, record: &str, version: u64, id: &str| {
        row(plan, record, version).text("external_id", id)
    };
    let child = |record: &str, version: u64, company: &str| {
        let row = row(&persons, record, version).text("email", &format!("{record}@x.example"));
        row.to("company", &[company])
    };
    writer
        .send(["a", "b"].map(|record| with(&plain, record, 1, record)))
        .await;
    writer
        .send([
            child("p", 1, "a"),
            child("q", 1, "b"),
            child("gone", 1, "a"),
        ])
        .await;
    writer.one(deleted(&persons, "gone", 2)).await;
    let strays = async |writer: &Writer| {
        let strays = writer.target.strays(&writer.reader.connection);
        strays.await.unwrap()
    };
    assert_eq!(strays(&writer).await, Strays::default());
    writer.one(with(&moves, "b", 2, "b")).await;
    assert_eq!(
        strays(&writer).await,
        Strays::default(),
        "it is where it was"
    );
    assert_eq!(writer.one(with(&moves, "a", 2, "other")).await, Inserted);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    let told = strays(&writer).await;
    let p = ("acme".into(), "Object".into(), RecordId::stored("p"));
    assert_eq!(told.records, [p]);
    assert_eq!(strays(&writer).await, told, "until it is forgotten");
    let other = Writer::open(bench.target(), "contoso", "sync").await;
    assert_eq!(strays(&other).await, Strays::default());
    writer.target.forget_strays(&told.marks).await.unwrap();
    assert_eq!(strays(&writer).await, Strays::default());
    // What is published again finds the row that the record has.
    assert_eq!(writer.one(child("p", 2, "a")).await, Updated);
    let a = Cell::Gsid(writer.gsid_of("company", "a").await);
    assert_eq!(writer.cell_of("person", "p", "company").await, a);
    // A record that had gone comes back as the row that was decided.
    let b = writer.gsid_of("company", "b").await;
    let bound = super::deciding::binding(&writer, "a", "company", Bond::Row(b));
    writer.one(deleted(&plain, "a", 3)).await;
    let told = strays(&writer).await;
    writer.target.forget_strays(&told.marks).await.unwrap();
    writer.target.decide(&bound).await.unwrap();
    assert_eq!(writer.one(with(&plain, "a", 4, "a")).await, Associated);
    let told = strays(&writer).await;
    assert_eq!(told.records.len(), 1, "{told:?}");
}

/// Who found a row by what it does not have any more is told, too.
pub async fn what_found_a_row_by_another_key_is_told(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let keyed = Arc::new(company().identified(&["name"]).keyed(&["external_id"]));
    let by_key = by(
        "company",
        "company",
        vec![on("external_id", StoredType::String)],
    );
    let persons = Arc::new(person().derive(by_key));
    let with = |version: u64, id: &str| {
        let row = row(&keyed, "a", version).text("name", "a");
        row.text("external_id", id)
            .number("employees", &version.to_string())
    };
    let child = |version: u64, id: &str| {
        let row = row(&persons, "p", version).text("email", "p@x.example");
        row.to("company", &[id])
    };
    writer.one(with(1, "x")).await;
    writer.one(child(1, "x")).await;
    let strays = async |writer: &Writer| {
        let strays = writer.target.strays(&writer.reader.connection);
        strays.await.unwrap()
    };
    assert_eq!(writer.one(with(2, "x")).await, Updated);
    assert_eq!(strays(&writer).await, Strays::default());
    assert_eq!(writer.one(with(3, "y")).await, Updated);
    let told = strays(&writer).await;
    let p = ("acme".into(), "Object".into(), RecordId::stored("p"));
    assert_eq!(told.records, [p]);
    writer.target.forget_strays(&told.marks).await.unwrap();
    // Published again it finds none, and waits for one.
    assert_eq!(writer.one(child(2, "x")).await, Updated);
    assert_eq!(writer.cell_of("person", "p", "company").await, Cell::Null);
    assert_eq!(writer.parked().await, 1);
    assert_eq!(writer.one(with(4, "x")).await, Updated);
    assert_eq!(writer.release().await.filled, 1);
    let a = Cell::Gsid(writer.gsid_of("company", "a").await);
    assert_eq!(writer.cell_of("person", "p", "company").await, a);
    let told = strays(&writer).await;
    assert_eq!(told.marks.len(), 1, "it is back under the first one");
    writer.target.forget_strays(&told.marks).await.unwrap();
    // A column that is not told is not changed.
    let silent = with(5, "x").cell("external_id", None);
    writer.one(silent).await;
    assert_eq!(strays(&writer).await, Strays::default());
}

fn row_with(plan: &Plan, record: &str, id: &str, name: &str) -> Row {
    let row = row(plan, record, 1).text("external_id", id);
    row.text("name", name)
}
