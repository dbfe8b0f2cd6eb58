//! A CRM whose objects have places of their own: what is done when one is lost, and when the org was restored.

mod hints;
mod tracked;

use std::collections::BTreeSet;

use crate::flow::board::Board;
use crate::flow::road::Settings;
use crate::image::memory::MemoryImages;
use crate::image::merge::Life as RecordLife;
use crate::image::port::ImageStore;
use crate::log::memory::MemoryLog;
use crate::model::name::{ConnectionId, ObjectKey};
use crate::model::value::Value;
use crate::runtime::clock::VirtualClock;
use crate::state::memory::MemoryState;
use crate::state::port::{HoleCause, HoleScope, State};
use crate::telemetry::metrics::Metrics;

use super::*;

use tracked::{Org, Tracked};

struct World {
    org: Arc<Org>,
    state: Arc<MemoryState>,
    images: Arc<MemoryImages>,
    log: Arc<MemoryLog>,
    clock: VirtualClock,
    hinted: Arc<tokio::sync::Notify>,
    running: Option<(StopSignal, tokio::task::JoinHandle<()>)>,
}

fn object() -> ObjectName {
    ObjectName::new("account")
}

fn connection() -> ConnectionId {
    ConnectionId::new("contoso")
}

impl World {
    fn new() -> Self {
        let begin = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let clock = VirtualClock::new(begin);
        Self {
            org: Arc::new(Org::new(clock)),
            state: Arc::default(),
            images: Arc::default(),
            log: Arc::new(MemoryLog::new(Arc::new(clock))),
            clock,
            hinted: Arc::default(),
            running: None,
        }
    }

    fn start(&mut self) {
        let road = Road {
            connection: connection(),
            crm: Arc::new(Tracked::new(Arc::clone(&self.org))),
            log: Arc::clone(&self.log) as _,
            images: Arc::clone(&self.images) as _,
            state: Arc::clone(&self.state) as _,
            clock: Arc::new(self.clock),
            metrics: Metrics::none(),
            board: Arc::new(Board::default()),
            hinted: Arc::clone(&self.hinted),
            settings: Arc::new(Settings::default()),
        };
        let fields: BTreeSet<FieldName> = ["Id", "name"].map(FieldName::new).into();
        let selected = Selected::from([(object(), fields)]);
        let stop = StopSignal::new();
        let kept = tokio::spawn(keep(road, selected, stop.clone()));
        self.running = Some((stop, kept));
    }

    async fn stop(&mut self) {
        if let Some((stop, kept)) = self.running.take() {
            stop.stop();
            kept.await.unwrap();
        }
    }

    async fn holes(&self, all: bool) -> Vec<crate::state::port::Hole> {
        self.state.holes(Some(&connection()), all).await.unwrap()
    }

    /// Names of living records, as the images have them.
    async fn names(&self) -> BTreeMap<String, String> {
        let key = ObjectKey {
            connection: connection(),
            object: object(),
        };
        let images = self.images.scan(&key, None, 1000).await.unwrap();
        let live = images
            .into_iter()
            .filter(|(_, image)| image.life == RecordLife::Live);
        live.map(|(id, image)| (id.to_string(), image.fields["name"].to_string()))
            .collect()
    }

    /// Waits until the images are the org, nothing is owed, and no hole is open.
    async fn settle(&self) {
        for _ in 0..10_000 {
            let owed = self.state.owed_counts(&connection()).await.unwrap();
            let is_quiet = owed.iter().all(|(_, count)| *count == 0);
            if is_quiet
                && self.holes(false).await.is_empty()
                && self.names().await == self.org.names()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!(
            "images {:?}, org {:?}, holes {:?}",
            self.names().await,
            self.org.names(),
            self.holes(false).await
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_whole_read_begins_the_stream_and_nothing_is_read_twice() {
    let mut world = World::new();
    world.org.put("a", "one");
    world.org.put("b", "two");
    world.start();
    world.settle().await;
    world.org.put("a", "changed");
    world.org.delete("b");
    world.org.put("c", "new");
    world.settle().await;
    assert_eq!(world.org.whole_reads(), 1);
    assert!(world.holes(true).await.is_empty());
    world.stop().await;
    // Another life goes on from the place.
    world.org.delete("c");
    world.org.put("a", "while it was down");
    world.start();
    world.settle().await;
    assert_eq!(world.org.whole_reads(), 1);
    assert!(world.holes(true).await.is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_place_is_a_hole_over_its_object_which_the_next_whole_read_closes() {
    let mut world = World::new();
    world.org.put("a", "one");
    world.org.put("b", "two");
    world.start();
    world.settle().await;
    // What no stream tells: the place is lost with it.
    world.org.lose();
    world.org.put_untold("a", "changed unheard");
    world.org.delete_untold("b");
    world.settle().await;
    let holes = world.holes(true).await;
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert_eq!(holes[0].cause, HoleCause::ExpiredPosition);
    assert!(matches!(holes[0].scope, HoleScope::Object { .. }));
    let evidence = holes[0].evidence.clone().unwrap();
    assert!(evidence.as_of > holes[0].scope.end());
    assert_eq!(evidence.deleted, 1);
    assert_eq!(world.org.whole_reads(), 2);
    // The stream tells again.
    world.org.put("a", "heard");
    world.settle().await;
    assert_eq!(world.org.whole_reads(), 2);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_gone_at_the_start_is_a_hole() {
    let mut world = World::new();
    world.org.put("a", "one");
    world.start();
    world.settle().await;
    world.stop().await;
    world.org.forget_places();
    world.org.put_untold("a", "changed unheard");
    world.start();
    world.settle().await;
    let holes = world.holes(true).await;
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert_eq!(holes[0].cause, HoleCause::ExpiredPosition);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_a_crash_ended_is_not_begun_for_a_second_hole() {
    let mut world = World::new();
    world.org.put("a", "one");
    world.start();
    world.settle().await;
    // The repair can't begin before the daemon ends.
    world.org.refuse_reads(true);
    world.org.lose();
    while world.holes(false).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..3 {
        world.stop().await;
        world.start();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(world.holes(true).await.len(), 1);
    world.org.refuse_reads(false);
    world.settle().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_org_is_read_anew_and_its_lower_numbers_count() {
    let mut world = World::new();
    world.org.put("a", "one");
    world.org.put("b", "two");
    world.start();
    world.settle().await;
    let backup = world.org.backup();
    world.org.put("a", "after the backup");
    world.org.put("c", "born after the backup");
    world.org.delete("b");
    world.settle().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.org.restore(backup);
    // The change feed tells something of one record; its lower number gives the restore away.
    world.org.tell("a");
    world.settle().await;
    let holes = world.holes(true).await;
    assert!(
        holes
            .iter()
            .any(|hole| hole.cause == HoleCause::OrgRestored),
        "{holes:?}"
    );
    let stored = world.state.position(&connection()).await.unwrap().unwrap();
    assert_eq!(Tracked::incarnation(&stored.position.unwrap()), 1);
    assert_eq!(world.org.names()["b"], "two");
    world.org.put("b", "on it goes");
    world.settle().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_delivered_is_read_and_the_stream_goes_on_from_its_place() {
    let mut world = World::new();
    world.org.put("a", "one");
    world.start();
    world.settle().await;
    world.org.spend_deliveries(true);
    for name in ["not delivered", "nor this", "nor that"] {
        tokio::time::sleep(Duration::from_mins(1)).await;
        world.org.put("a", name);
        world.settle().await;
    }
    // Windows that follow one another, each read once; the newest is told first.
    let holes = world.holes(true).await;
    let windows: Vec<_> = holes
        .iter()
        .map(|hole| match hole.scope {
            HoleScope::Window { from, to } if hole.cause == HoleCause::DeliveryLimit => (from, to),
            _ => panic!("{hole:?}"),
        })
        .collect();
    assert!(windows.len() >= 3, "{windows:?}");
    assert!(
        windows.windows(2).all(|pair| pair[1].1 == pair[0].0),
        "{windows:?}"
    );
    world.org.spend_deliveries(false);
    tokio::time::sleep(Duration::from_hours(1)).await;
    world.settle().await;
    let (holes, reads) = (world.holes(true).await.len(), world.org.whole_reads());
    world.org.put("b", "delivered");
    world.settle().await;
    assert_eq!(world.holes(true).await.len(), holes);
    assert_eq!(world.org.whole_reads(), reads);
    world.stop().await;
}
