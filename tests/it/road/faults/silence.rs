//! Streams that say nothing: one that stalls, one that ends for lack of credit, and one that only keeps itself alive.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::{Deed, LOOK, PATIENCE, Stage, Transport, options, update};
use crate::sim;

/// More than a stream may have outstanding.
const MANY: usize = 150;

impl Stage {
    /// Waits until the org's open gRPC streams are like this.
    async fn streams(&self, what: &str, holds: impl Fn(&[Json]) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = sim::told(&self.world.http, &self.world.org.url, "pubsub").await;
            if holds(told["streams"].as_array().unwrap()) {
                return;
            }
            assert!(Instant::now() < until, "{what} does not come: {told:#}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every script has fired.
    async fn has_begun(&self, what: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let scripts = sim::told(&self.world.http, &self.world.org.url, "faults").await;
            let mut left = scripts.as_object().unwrap().values();
            if left.all(|scripts| *scripts == json!([])) {
                return;
            }
            assert!(Instant::now() < until, "{what} does not begin: {scripts}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The stored place.
    fn place(&self) -> Option<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let file = self.world.config().join("data/state.db");
        let state = rusqlite::Connection::open_with_flags(file, flags).unwrap();
        state.busy_timeout(Duration::from_secs(5)).unwrap();
        let place = state.query_row("SELECT position FROM position", [], |row| row.get(0));
        place.unwrap()
    }

    /// Waits until another place is stored.
    async fn place_moves(&self) {
        let (place, until) = (self.place(), Instant::now() + PATIENCE);
        while self.place() == place {
            let tail = self.daemon().tail();
            assert!(Instant::now() < until, "{place:?} stays\n{tail}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Dies in a quiet time. Before it starts anew, the org forgets every event up to the last that was told.
    async fn outlives_the_last_event(&mut self, is_kept_alive: bool) {
        let word = [vec![update(9, json!({ "Name": "The last word" }))]];
        let told = self.world.commit(&word).await;
        let last = told["transactions"][0]["events"][0]["replay_id"].as_u64();
        let last = last.unwrap();
        self.settle("the last event", &[]).await;
        if is_kept_alive {
            // The second time it moves, by a keep-alive that was sent after the event.
            self.place_moves().await;
            self.place_moves().await;
        }
        self.daemon.take().unwrap().kill();
        self.does(Deed::Changes).await;
        let cut = json!({ "do": { "kind": "cut_retention", "before": last + 1 } });
        self.world.control("faults", cut).await;
        self.daemon = Some(self.world.daemon().await);
    }
}

/// It is left once it was silent for so long that even keep-alives are overdue; the next one goes on from its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_is_left_and_goes_on_from_its_place() {
    let stalls = [
        (
            Transport::PubSub,
            json!({ "on": { "rpc": "Subscribe" }, "do": { "kind": "rpc_stall", "at": "answer" } }),
        ),
        (
            Transport::Cometd,
            json!({ "on": { "message": "/meta/connect" }, "do": { "kind": "stall" } }),
        ),
    ];
    for (transport, stall) in stalls {
        let options = SimOptions {
            poll_seconds: Some(1),
            ..options()
        };
        let keys = "stream_silence = \"3s\"\n";
        let mut stage = Stage::of(options, transport, keys, &[]).await;
        stage.world.control("faults", stall).await;
        stage.has_begun("the stall").await;
        let began = Instant::now();
        stage.does(Deed::Changes).await;
        stage.settle("a stall", &[]).await;
        let took = began.elapsed();
        assert!(took > Duration::from_secs(1), "it did not stall: {took:?}");
        stage.end();
    }
}

/// A client that asks for nothing more is given what it asked for, and a minute later its stream ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_for_lack_of_credit_goes_on_from_its_place() {
    let mut stage = Stage::begin(Transport::PubSub, "").await;
    stage.daemon().signal("STOP");
    let industry = |number| {
        vec![update(
            number % 50,
            json!({ "Industry": format!("{number}") }),
        )]
    };
    let transactions: Vec<_> = (0..MANY).map(industry).collect();
    stage.world.commit(&transactions).await;
    stage
        .streams("a stream without credit", |streams| {
            streams[0]["credit"] == 0
        })
        .await;
    stage
        .world
        .control("time", json!({ "advance_seconds": 61 }))
        .await;
    stage.streams("the stream's end", <[Json]>::is_empty).await;
    stage.does(Deed::Changes).await;
    stage.daemon().signal("CONT");
    stage.settle("lack of credit", &[]).await;
    let lines = stage.daemon().lines().join("\n");
    assert!(lines.contains("the server closed it"), "{lines}");
    stage.end();
}

/// A keep-alive moves the stored place beyond the last event, which retention may then take; without keep-alives the
/// same cut takes the place itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_keep_alives_moved_outlives_the_last_event() {
    let mut stage = Stage::begin(Transport::PubSub, "").await;
    stage.outlives_the_last_event(true).await;
    stage.settle("kept alive", &[]).await;
    let rare = json!({ "do": { "kind": "keep_alive", "seconds": 10_000_000 } });
    stage.world.control("faults", rare).await;
    stage.outlives_the_last_event(false).await;
    stage.settle("not kept alive", &["expired_position"]).await;
    stage.end();
}
