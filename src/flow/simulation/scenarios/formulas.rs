//! Formulas: read once with a new record and by full syncs, or at each change where a job asks for it.

use super::*;
use crate::model::policy::Refresh;

impl World {
    /// A synced world whose jobs select a formula.
    async fn reckoning(refresh: Refresh, count: usize) -> Self {
        let mut world = world();
        world
            .selected
            .insert(account(), fields(&["Name", "City", "F"]));
        world.refresh = refresh;
        world.create(count);
        world.sleep(1).await;
        world.start("one");
        world.agrees_without_position().await;
        // The last one's event gives the stream a place; nobody looks at it.
        world.update(count - 1, "streamed");
        world.sleep(60).await;
        world
    }

    /// The last change of a record.
    async fn last(&self, number: usize) -> Change {
        let changes = self.published().await;
        let of = changes
            .into_iter()
            .rfind(|change| change.id == key(number).1);
        of.unwrap()
    }

    /// The formula as it was told last, and as it is in the org.
    async fn formulas(&self, number: usize) -> [Option<Value>; 2] {
        let field = FieldName::new("F");
        let there = self.org.truth(&account());
        let there = there.get(&key(number).1);
        [
            self.last(number).await.fields.get(&field).cloned(),
            there.and_then(|fields| fields.get(&field).cloned()),
        ]
    }

    /// Starts anew under jobs that say something else of formulas.
    async fn says(&mut self, refresh: Refresh) {
        self.stop().await;
        self.refresh = refresh;
        self.start("one");
        self.sleep(30).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_costs_no_read_and_the_full_sync_tells_the_formula() {
    let world = World::reckoning(Refresh::FullSync, 9).await;
    let [held, _] = world.formulas(1).await;
    let reads = world.reads();
    for round in 0..5 {
        world.update(1, &format!("round {round}"));
        world.sleep(20).await;
    }
    let [told, there] = world.formulas(1).await;
    assert_eq!(told, held, "as it was read last");
    assert_ne!(told, there);
    let name = Some(Value::from("round 4"));
    let last = world.last(1).await;
    assert_eq!(last.fields.get(&FieldName::new("Name")).cloned(), name);
    assert_eq!(world.reads(), reads);

    world.ask_for_full_sync().await.unwrap();
    world.agrees().await;
    let [told, there] = world.formulas(1).await;
    assert_eq!(told, there);
}

/// Of a new record no value is held, and none is guessed: many are read in one call, and once.
#[tokio::test(start_paused = true)]
async fn new_records_are_read_once_and_together() {
    let world = World::reckoning(Refresh::FullSync, 9).await;
    let reads = world.reads();
    let many: Vec<(Key, Deed)> = (100..300)
        .map(|number| (key(number), Deed::Create(told("new"))))
        .collect();
    world.org.at_once(Telling::Events, &many, 0);
    world.sleep(60).await;
    for number in [100, 299] {
        let [told, there] = world.formulas(number).await;
        assert!(told.is_some());
        assert_eq!(told, there);
    }
    let calls = world.reads() - reads;
    assert!((1..=4).contains(&calls), "{calls} calls");
    world.update(100, "known");
    world.sleep(60).await;
    assert_eq!(world.reads() - reads, calls);
}

/// A life that ends between the change and what it owes is followed by one that owes it.
#[tokio::test(start_paused = true)]
async fn a_new_record_is_read_whatever_ends_in_between() {
    for ends in ["crash", "lost images"] {
        let mut world = World::reckoning(Refresh::FullSync, 9).await;
        world.chaos.refuses_reads.store(true, Ordering::SeqCst);
        world.does(100, Deed::Create(told("new")));
        world.sleep(20).await;
        let [told, _] = world.formulas(100).await;
        assert_eq!(told, None, "not guessed");
        world.crash().await;
        if ends == "lost images" {
            world.images.clear();
        }
        world.chaos.refuses_reads.store(false, Ordering::SeqCst);
        world.start("one");
        world.sleep(60).await;
        let [told, there] = world.formulas(100).await;
        assert_eq!(told, there, "{ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_changes_cost_few_reads_where_a_job_asks_for_them() {
    let world = World::reckoning(Refresh::OnChange, 200).await;
    world.agrees().await;
    let reads = world.reads();
    let many: Vec<(Key, Deed)> = (0..200)
        .map(|number| (key(number), Deed::Update(told("changed"))))
        .collect();
    world.org.at_once(Telling::Events, &many, 0);
    world.agrees().await;
    let calls = world.reads() - reads;
    assert!((1..=4).contains(&calls), "{calls} calls");
}

/// However much changes, an object costs a call in the time that a read takes to be believed.
#[tokio::test(start_paused = true)]
async fn what_changes_all_the_time_is_read_no_more_often_than_reads_age() {
    let world = World::reckoning(Refresh::OnChange, 9).await;
    let reads = world.reads();
    for round in 0..60 {
        world.update(round % 9, &format!("round {round}"));
        world.sleep(1).await;
    }
    world.agrees().await;
    let most = 60_000 / LAG.unsigned_abs() + 4;
    let calls = world.reads() - reads;
    assert!(calls <= most, "{calls} calls");
}

/// What a job says now holds for the changes from now on; images that are lost cost no read.
#[tokio::test(start_paused = true)]
async fn a_job_that_says_otherwise_is_obeyed_from_then_on() {
    let mut world = World::reckoning(Refresh::FullSync, 9).await;
    world.update(1, "late");
    world.update(2, "late");
    world.sleep(20).await;
    let reads = world.reads();
    world.says(Refresh::OnChange).await;
    let [told, there] = world.formulas(1).await;
    assert_ne!(told, there, "nothing changed since");
    assert_eq!(world.reads(), reads);
    world.update(1, "soon");
    world.sleep(60).await;
    let [told, there] = world.formulas(1).await;
    assert_eq!(told, there);

    let reads = world.reads();
    world.crash().await;
    world.images.clear();
    world.says(Refresh::FullSync).await;
    world.update(1, "late again");
    world.sleep(60).await;
    let [told, there] = world.formulas(1).await;
    assert!(told.is_some());
    assert_ne!(told, there);
    assert_eq!(world.reads(), reads);
}
