//! Hints that are lost, doubled, late, reordered or about nothing: they make a change come sooner, and nothing else.

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use crate::model::record_id::RecordId;
use crate::state::port::Hinted;

use super::*;

const RECORDS: u8 = 4;

#[derive(Debug, Clone)]
enum Deed {
    Put(u8, u8),
    Delete(u8),
    /// Hints of so many of the latest changes come, from the last to the first.
    Hint(u8),
    /// A hint of a record to which nothing happened.
    HintOf(u8),
    /// A hint of a table that no job selects (any more).
    Foreign(u8),
    Wait(u16),
    /// Reads show a state of so long ago from now on.
    Lag(u16),
    Restart,
    Lose,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let record = || 0..RECORDS;
    let deed = prop_oneof![
        6 => (record(), any::<u8>()).prop_map(|(record, value)| Deed::Put(record, value)),
        3 => record().prop_map(Deed::Delete),
        6 => (1..5_u8).prop_map(Deed::Hint),
        2 => record().prop_map(Deed::HintOf),
        1 => record().prop_map(Deed::Foreign),
        6 => (0..3000_u16).prop_map(Deed::Wait),
        2 => (0..4900_u16).prop_map(Deed::Lag),
        1 => prop::strategy::Just(Deed::Restart),
        1 => prop::strategy::Just(Deed::Lose),
    ];
    prop::collection::vec(deed, 1..40)
}

fn name(record: u8) -> String {
    format!("r{record}")
}

impl World {
    /// As an inbox does.
    async fn hint(&self, object: ObjectName, record: &str) {
        let hint = Hinted {
            object,
            record: RecordId::stored(record),
            at: crate::runtime::clock::Clock::now(&self.clock),
        };
        self.state.hint(&connection(), vec![hint]).await.unwrap();
        self.hinted.notify_one();
    }

    async fn hints(&self) -> usize {
        self.state.hints(&connection(), 100).await.unwrap().len()
    }

    /// Waits until every hint was met.
    async fn met(&self) {
        for _ in 0..1000 {
            if self.hints().await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("hints are never met: {}", self.hints().await);
    }
}

async fn lives(deeds: Vec<Deed>) {
    let mut world = World::new();
    world.org.put("r0", "first");
    world.start();
    let mut untold: Vec<String> = Vec::new();
    for deed in deeds {
        match deed {
            Deed::Put(record, value) => {
                world.org.put(&name(record), &value.to_string());
                untold.push(name(record));
            }
            Deed::Delete(record) => {
                world.org.delete(&name(record));
                untold.push(name(record));
            }
            Deed::Hint(count) => {
                let first = untold.len().saturating_sub(count.into());
                for record in untold.split_off(first).iter().rev() {
                    world.hint(object(), record).await;
                }
            }
            Deed::HintOf(record) => world.hint(object(), &name(record)).await,
            Deed::Foreign(record) => world.hint("lead".into(), &name(record)).await,
            Deed::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms.into())).await,
            Deed::Lag(ms) => world.org.lag(Duration::from_millis(ms.into())),
            Deed::Restart => {
                world.stop().await;
                world.start();
            }
            Deed::Lose => world.org.lose(),
        }
    }
    world.settle().await;
    world.met().await;
    // What a hint led to may have come last.
    world.settle().await;
    world.stop().await;
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]
    #[test]
    fn whatever_becomes_of_hints_images_end_as_the_org(deeds in deeds()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(lives(deeds));
    }
}

/// A world whose stream tells nothing for an hour, long after its first read.
async fn silent() -> World {
    let mut world = World::new();
    world.org.put("a", "one");
    world.org.put("b", "two");
    world.start();
    world.settle().await;
    world.org.silence();
    tokio::time::sleep(Duration::from_secs(60)).await;
    world
}

async fn passed(world: &World, began: tokio::time::Instant, name: Option<&str>) -> Duration {
    while world.names().await.get("a").map(String::as_str) != name {
        assert!(began.elapsed() < Duration::from_secs(60), "{name:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_hint_brings_changes_and_deletes_before_the_stream_does() {
    let mut world = silent().await;
    let quoted = |name: &str| Value::from(name).to_string();
    for round in 0..20 {
        let text = format!("change {round}");
        world.org.put("a", &text);
        let began = tokio::time::Instant::now();
        world.hint(object(), "a").await;
        let took = passed(&world, began, Some(&quoted(&text))).await;
        assert!(took < Duration::from_millis(200), "{took:?}");
    }
    world.met().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.org.delete("a");
    let began = tokio::time::Instant::now();
    world.hint(object(), "a").await;
    let took = passed(&world, began, None).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    world.met().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_a_read_does_not_show_yet_is_read_again() {
    let mut world = silent().await;
    world.org.lag(Duration::from_millis(900));
    world.org.put("a", "late");
    let began = tokio::time::Instant::now();
    world.hint(object(), "a").await;
    let took = passed(&world, began, Some(&Value::from("late").to_string())).await;
    // At once, after 0.2 s, and a second later.
    assert!(
        took > Duration::from_millis(1100) && took < Duration::from_millis(1500),
        "{took:?}"
    );
    world.met().await;
    assert!(world.org.looks().is_empty(), "the reads were enough");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_no_read_shows_is_left_to_the_stream() {
    let mut world = silent().await;
    world.org.lag(Duration::from_millis(4800));
    let reads = world.org.reads_by_id();
    world.org.put("a", "very late");
    world.hint(object(), "a").await;
    world.met().await;
    assert_eq!(world.org.reads_by_id() - reads, 4);
    assert_eq!(
        world.org.looks(),
        [object()],
        "the stream was asked to look"
    );
    assert_ne!(
        world.names().await["a"],
        Value::from("very late").to_string()
    );
    world.org.speak();
    world.settle().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hints_beyond_what_the_day_affords_are_left_to_the_stream() {
    let mut world = silent().await;
    world.org.afford_hints(false);
    let reads = world.org.reads_by_id();
    world.org.put("a", "new");
    world.hint(object(), "a").await;
    world.met().await;
    assert_eq!(world.org.reads_by_id(), reads);
    assert_eq!(world.org.looks(), [object()]);
    world.org.speak();
    world.settle().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hints_of_before_a_crash_are_met_by_the_next_life() {
    let mut world = silent().await;
    world.stop().await;
    world.org.put("a", "while it was down");
    world.hint(object(), "a").await;
    world.hint("lead".into(), "x").await;
    world.start();
    let began = tokio::time::Instant::now();
    passed(
        &world,
        began,
        Some(&Value::from("while it was down").to_string()),
    )
    .await;
    world.met().await;
    world.stop().await;
}

/// A delete that no topic holds was heard by the last life alone. Where nothing keeps a read by id from being early, one
/// that is behind must not bring the record back.
#[tokio::test(start_paused = true)]
async fn a_death_that_only_an_earlier_life_heard_is_not_undone() {
    let mut world = World::new();
    world.org.ungate();
    world.org.put("r0", "first");
    world.start();
    world.settle().await;
    // It comes and goes between two questions.
    world.org.put_untold("r1", "short");
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.org.delete("r1");
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.stop().await;
    world.images = Arc::default();
    world.org.lag(Duration::from_secs(2));
    world.start();
    world.hint(object(), "r1").await;
    world.met().await;
    world.settle().await;
    world.stop().await;
}
