//! Named lives: each invariant of ingest by the smallest story that once broke it, or would.

mod formulas;
mod parents;

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::schedule::Schedule;
use crate::crm::salesforce::merge::SalesforceTable;
use crate::image::merge::Life;
use crate::image::port::ImageStore;
use crate::model::change::{Change, Op};
use crate::model::event::GapCause;
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::schedule::Timetable;
use crate::state::orders::{Orders, Wish};
use crate::state::port::{Hole, HoleCause, HoleScope, Progress, State, StoredPosition};

use super::crm::LAG;
use super::faults::Odds;
use super::org::{Deed, Key, Telling};
use super::rng::Rng;
use super::world::{LEASE, World, account, contact, fields};

fn world() -> World {
    let mut world = World::new(&SalesforceTable, Rng::new(7), 0, true);
    world.selected.insert(account(), fields(&["Name", "City"]));
    world
}

fn key(number: usize) -> Key {
    (account(), RecordId::stored(format!("r{number:03}")))
}

fn told(name: &str) -> Fields {
    Fields::from([(FieldName::new("Name"), Value::from(name))])
}

impl World {
    fn does(&self, number: usize, deed: Deed) {
        let told = self.org.at_once(Telling::Events, &[(key(number), deed)], 0);
        self.say(|| told.unwrap());
    }

    fn create(&self, count: usize) {
        (0..count).for_each(|number| self.does(number, Deed::Create(told("old"))));
    }

    fn update(&self, number: usize, name: &str) {
        self.does(number, Deed::Update(told(name)));
    }

    async fn sleep(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    async fn agrees(&self) {
        let rest = self.rest().await;
        let trace = self.chaos.trace.told();
        rest.unwrap_or_else(|why| panic!("{trace}\n{why}"));
    }

    async fn published(&self) -> Vec<Change> {
        self.changes(&account()).await
    }

    async fn ledger(&self) -> Vec<Hole> {
        self.state.holes(None, true).await.unwrap()
    }

    /// A synced world whose stream has told something.
    async fn streaming(count: usize) -> Self {
        let mut world = world();
        world.create(count);
        world.sleep(1).await;
        world.start("one");
        world.agrees_without_position().await;
        world.update(0, "streamed");
        world.agrees().await;
        world
    }

    async fn is_dead(&self, number: usize) -> bool {
        let images = &self.images["one"];
        let found = images.get(&self.key(&account()), vec![key(number).1]).await;
        found.unwrap()[&key(number).1].life == Life::Dead
    }

    /// Waits for the first full sync.
    async fn agrees_without_position(&self) {
        for _ in 0..100 {
            self.sleep(1).await;
            let state = self.state.object(&self.connection, &account()).await;
            if state.unwrap().synced_at.is_some() {
                return;
            }
        }
        panic!("{}\nnot synced", self.chaos.trace.told());
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_is_published_once() {
    let world = World::streaming(9).await;
    let before = world.published().await.len();
    assert_eq!(before, 9 + 1);
    world.does(100, Deed::Create(told("new")));
    let cleared = Fields::from([(FieldName::new("Name"), Value::Null)]);
    world.does(3, Deed::Update(cleared));
    world.does(4, Deed::Delete);
    world.agrees().await;
    world.does(4, Deed::Undelete);
    world.agrees().await;
    assert_eq!(world.published().await.len(), before + 4);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_it_stopped() {
    let mut world = World::streaming(9).await;
    let before = world.published().await.len();
    world.stop().await;
    (0..9).for_each(|number| world.update(number, "while away"));
    world.start("one");
    world.agrees().await;
    assert_eq!(world.published().await.len(), before + 9);
    assert!(world.ledger().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn lost_images_are_rebuilt_from_the_topic_without_a_read() {
    let mut world = World::streaming(9).await;
    let (before, reads) = (world.published().await.len(), world.reads());
    world.crash().await;
    world.images.clear();
    world.start("one");
    world.sleep(30).await;
    world.agrees().await;
    assert_eq!(world.published().await.len(), before);
    assert_eq!(world.reads(), reads);
}

#[tokio::test(start_paused = true)]
async fn a_lost_position_is_a_hole_that_reaches_back_to_the_statement() {
    let mut world = World::streaming(9).await;
    // Its stamp is that of the statement, 45 seconds before the commit and before the window.
    let long = [(key(5), Deed::Update(told("slow")))];
    let number = world.org.begin(Telling::Events, &long).unwrap();
    world.sleep(30).await;
    world.update(1, "seen");
    world.agrees().await;
    world.stop().await;
    world.sleep(15).await;
    world.org.commit(number, 0);
    world.does(2, Deed::Delete);
    world.does(3, Deed::HardDelete);
    let end = world.org.lock().stream.len();
    world.org.lock().first = end;
    world.start("one");
    world.agrees().await;
    let holes = world.ledger().await;
    assert_eq!(holes.len(), 1);
    assert_eq!(holes[0].cause, HoleCause::ExpiredPosition);
    assert_eq!(holes[0].evidence.as_ref().unwrap().deleted, 2);
}

/// A start that has not heard anything confirms nothing: else the hole of the next begins too late.
#[tokio::test(start_paused = true)]
async fn a_start_alone_confirms_nothing() {
    let mut world = World::streaming(9).await;
    world.stop().await;
    // Committed, and not told before the position is lost.
    let missed = [(key(5), Deed::Update(told("missed")))];
    world.org.at_once(Telling::Events, &missed, 200_000);
    world.sleep(100).await;
    world.start("one");
    world.sleep(5).await;
    world.crash().await;
    let end = world.org.lock().stream.len();
    world.org.lock().first = end;
    world.start("one");
    world.agrees().await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_log_that_is_too_short_means_comparing_ids() {
    let mut world = World::streaming(9).await;
    world.stop().await;
    world.does(3, Deed::HardDelete);
    world.update(4, "missed");
    let now = world.org.now();
    {
        let mut inner = world.org.lock();
        inner.first = inner.stream.len();
        inner.graves_from = now + 1000;
    }
    world.start("one");
    world.agrees().await;
}

/// A topic that was made again is a hole, also when the life that noticed it ended at once.
#[tokio::test(start_paused = true)]
async fn a_topic_made_again_is_read_whole_whoever_noticed() {
    let mut world = World::streaming(9).await;
    world.crash().await;
    world.log.make_again(&world.topic(&account())).unwrap();
    world.chaos.set(Odds {
        error: 300,
        ..Odds::default()
    });
    world.start("one");
    world.sleep(20).await;
    world.crash().await;
    world.chaos.set(Odds::default());
    world.start("one");
    world.agrees().await;
    let holes = world.ledger().await;
    let again = holes
        .iter()
        .filter(|hole| hole.cause == HoleCause::TopicRecreated);
    assert!(again.count() >= 1);
    assert_eq!(world.published().await.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_new_field_is_absent_until_its_hole_is_closed() {
    let mut world = World::streaming(4).await;
    let stage = Fields::from([(FieldName::new("Stage"), Value::from("won"))]);
    world.does(1, Deed::Update(stage));
    world.agrees().await;
    world.stop().await;
    world.selected.insert(account(), fields(&["Name", "Stage"]));
    world.chaos.refuses_reads.store(true, Ordering::SeqCst);
    world.start("one");
    world.sleep(5).await;
    world.update(1, "before the read");
    world.sleep(60).await;
    let last = world.published().await.pop().unwrap();
    assert_eq!(
        last.fields,
        told("before the read"),
        "not guessed, and the old field is gone"
    );
    assert_eq!(world.ledger().await[0].cause, HoleCause::NewField);
    world.chaos.refuses_reads.store(false, Ordering::SeqCst);
    world.agrees().await;
    // Removed and added again, what happened meanwhile is not known.
    for names in [&["Name"][..], &["Name", "Stage"][..]] {
        world.stop().await;
        world.selected.insert(account(), fields(names));
        world.start("one");
        world.sleep(20).await;
        let lost = Fields::from([(FieldName::new("Stage"), Value::from(names[0]))]);
        world.does(2, Deed::Update(lost));
        world.agrees().await;
    }
    assert_eq!(world.ledger().await.len(), 2);
}

/// What an object's stream told while no job selected the object is not known.
#[tokio::test(start_paused = true)]
async fn an_object_that_comes_back_is_a_hole() {
    let mut world = World::streaming(4).await;
    let others = (contact(), RecordId::stored("c1"));
    world.stop().await;
    let kept = world.selected.clone();
    world.selected = [(contact(), fields(&["Name"]))].into();
    world.start("one");
    world.update(1, "unheard");
    let other = [(others, Deed::Create(told("heard")))];
    world.org.at_once(Telling::Events, &other, 0);
    world.agrees().await;
    world.stop().await;
    world.selected = kept;
    world.start("one");
    world.agrees().await;
    assert_eq!(world.ledger().await[0].cause, HoleCause::NotCaptured);
}

/// A first sync that stopped half-way under another selection begins anew.
#[tokio::test(start_paused = true)]
async fn a_sync_of_other_fields_is_not_gone_on_with() {
    let mut world = world();
    world.create(12);
    world.sleep(1).await;
    world.start("one");
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let state = world.state.object(&world.connection, &account()).await;
        if state.unwrap().snapshot.is_some_and(|sync| sync.rows >= 6) {
            break;
        }
    }
    world.crash().await;
    world
        .selected
        .insert(account(), fields(&["Name", "City", "Stage"]));
    world.start("one");
    world.agrees_without_position().await;
    world.update(0, "streamed");
    world.agrees().await;
}

#[tokio::test(start_paused = true)]
async fn failing_reads_never_stop_the_stream() {
    let world = World::streaming(9).await;
    world.chaos.refuses_reads.store(true, Ordering::SeqCst);
    let gap = Telling::ObjectGap(GapCause::Overflow);
    world
        .org
        .at_once(gap, &[(key(1), Deed::Update(told("hidden")))], 0);
    world
        .org
        .at_once(Telling::Gap, &[(key(2), Deed::Update(told("hidden")))], 0);
    for round in 0..20 {
        world.sleep(15).await;
        let name = format!("round {round}");
        world.update(3, &name);
        world.sleep(1).await;
        let last = world.published().await;
        let last = last.iter().rfind(|change| change.id == key(3).1).unwrap();
        assert_eq!(
            last.fields.get(&FieldName::new("Name")),
            Some(&Value::from(name.as_str()))
        );
    }
    let term = world.published().await.pop().unwrap().version.term();
    assert_eq!(
        term,
        world.chaos.term.load(Ordering::SeqCst),
        "one life all along"
    );
    world.chaos.refuses_reads.store(false, Ordering::SeqCst);
    world.agrees().await;
}

/// An overflow of a second is committed until the second's end.
#[tokio::test(start_paused = true)]
async fn a_hole_of_an_object_ends_after_its_second() {
    let world = World::streaming(2).await;
    let gap = Telling::ObjectGap(GapCause::Overflow);
    world
        .org
        .at_once(gap, &[(key(1), Deed::Update(told("hidden")))], 0);
    world.agrees().await;
    let hole = &world.ledger().await[0];
    let at = world.org.lock().stream.last().unwrap().at;
    assert!(hole.scope.end().timestamp_millis() > at);
    assert!(matches!(hole.scope, HoleScope::Object { .. }));
}

/// The old owner's change lands long after another took over: last in the topic, with an older version.
#[tokio::test(start_paused = true)]
async fn an_append_that_wakes_up_late_is_healed() {
    let mut world = World::streaming(3).await;
    world.chaos.stalls_append.store(true, Ordering::SeqCst);
    world.update(1, "stalled");
    world.sleep(1).await;
    world.start("two");
    tokio::time::sleep(LEASE * 2).await;
    world.update(1, "newer");
    world.sleep(10).await;
    let before = world.published().await;
    world.owners[0].process.stall(false);
    world.sleep(1).await;
    assert_eq!(world.chaos.zombies.load(Ordering::SeqCst), 1);
    let landed = world.published().await;
    assert_eq!(landed.len(), before.len() + 1, "the stalled change is last");
    world.retire(0).await;
    // The owner looks at the ends of its topics once a lease.
    tokio::time::sleep(LEASE * 2).await;
    world.agrees().await;
    let last = world.published().await.pop().unwrap();
    assert_eq!(
        last.fields.get(&FieldName::new("Name")),
        Some(&Value::from("newer"))
    );
    let versions = landed.iter().map(|change| change.version);
    assert!(Some(last.version) > versions.max());
}

/// An owner that stalled and woke up publishes nothing: its lease is over before anybody tells it.
#[tokio::test(start_paused = true)]
async fn an_owner_whose_lease_is_over_publishes_nothing() {
    let mut world = World::streaming(3).await;
    world.owners[0].process.stall(true);
    world.update(1, "unheard by the first");
    world.sleep(1).await;
    world.start("two");
    tokio::time::sleep(LEASE * 2).await;
    world.owners[0].process.stall(false);
    world.update(2, "both hear");
    world.sleep(20).await;
    world.retire(0).await;
    world.agrees().await;
    assert_eq!(world.chaos.zombies.load(Ordering::SeqCst), 0);
}

/// What a job asks for is published again, the dead included, and a request outlives a crash.
#[tokio::test(start_paused = true)]
async fn a_request_to_publish_again_is_met_once() {
    let mut world = World::streaming(3).await;
    world.does(2, Deed::Delete);
    world.agrees().await;
    let before = world.published().await.len();
    world.crash().await;
    let never = RecordId::stored("never");
    for record in [&key(1).1, &key(2).1, &never] {
        let object = account();
        let asked = world
            .state
            .request_republish(&world.connection, &object, record);
        asked.await.unwrap();
    }
    let reads = world.reads();
    world.start("one");
    world.sleep(30).await;
    let again = world.published().await;
    assert_eq!(again.len(), before + 2);
    let mut ops: Vec<Op> = again.iter().map(|change| change.op).collect();
    ops.retain(|op| *op == Op::Delete);
    assert_eq!(ops.len(), 2);
    assert_eq!(world.reads(), reads, "without a call");
    world.agrees().await;
}

/// Debts are read in few calls, each when its answer can be believed, however many there are.
#[tokio::test(start_paused = true)]
async fn many_debts_cost_few_calls() {
    let world = World::streaming(200).await;
    let reads = world.reads();
    let many: Vec<(Key, Deed)> = (0..200)
        .map(|number| (key(number), Deed::Update(told("hidden"))))
        .collect();
    world.org.at_once(Telling::Gap, &many, 0);
    world.agrees().await;
    let calls = world.reads() - reads;
    assert!(calls <= 4, "{calls} calls");
}

/// A record's hard delete is told by nothing; an old event that comes again must not revive it.
#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_revives_nobody() {
    let mut world = World::streaming(3).await;
    world.does(50, Deed::Create(told("short-lived")));
    world.agrees().await;
    world.does(50, Deed::HardDelete);
    world.sleep(u64::try_from(LAG).unwrap() / 1000 + 5).await;
    world.ask_for_full_sync().await.unwrap();
    world.agrees().await;
    // The stream begins anew from its earliest event, the create among them.
    world.crash().await;
    let term = world.chaos.term.load(Ordering::SeqCst);
    let stored = world
        .state
        .position(&world.connection)
        .await
        .unwrap()
        .unwrap();
    let progress = Progress {
        position: Some(StoredPosition {
            position: None,
            ..stored
        }),
        ..Progress::default()
    };
    world
        .state
        .commit(&world.connection, term, progress)
        .await
        .unwrap();
    world.sleep(100).await;
    world.start("one");
    world.sleep(60).await;
    assert!(world.is_dead(50).await);
}

/// No event tells of a hard delete; the full sync that is due does.
#[tokio::test(start_paused = true)]
async fn a_scheduled_full_sync_finds_a_hard_delete() {
    let mut world = World::streaming(5).await;
    world.crash().await;
    let hourly = Schedule::Cron("0 * * * *".to_owned());
    let table = Timetable::new(&hourly, chrono_tz::Tz::UTC).unwrap();
    world.full_syncs.insert(account(), vec![table]);
    world.start("one");
    world.agrees().await;
    world.does(3, Deed::HardDelete);
    world.sleep(30).await;
    assert!(!world.is_dead(3).await, "nothing has told yet");
    world.sleep(2 * 3600).await;
    world.agrees().await;
    assert!(world.is_dead(3).await);
    let deletes = world
        .published()
        .await
        .into_iter()
        .filter(|change| change.op == Op::Delete);
    assert_eq!(deletes.count(), 1);
}

/// As does the one that somebody asks for; it is asked for once.
#[tokio::test(start_paused = true)]
async fn a_full_sync_that_is_asked_for_finds_a_hard_delete() {
    let mut world = World::streaming(5).await;
    world.does(3, Deed::HardDelete);
    world.sleep(30).await;
    assert!(!world.is_dead(3).await, "nothing has told yet");
    let (acme, account) = (world.connection.clone(), account());
    let before = world.state.object(&acme, &account).await.unwrap();
    let asked = world.state.ask_sync(&acme, &account, Wish::default());
    asked.await.unwrap();
    // Whoever dies in the middle of it leaves it asked for.
    world.crash().await;
    world.start("one");
    world.sleep(60).await;
    world.agrees().await;
    assert!(world.is_dead(3).await);
    assert!(world.state.asked_syncs(&acme).await.unwrap().is_empty());
    let synced_at = async |world: &World| {
        let known = world.state.object(&acme, &account).await.unwrap();
        known.synced_at
    };
    let done = synced_at(&world).await;
    assert!(done > before.synced_at);
    world.sleep(600).await;
    assert_eq!(synced_at(&world).await, done, "done once");
}
