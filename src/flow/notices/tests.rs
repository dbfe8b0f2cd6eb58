//! What is told, to whom, and how often: on a state, a board and a clock of the tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use super::audience::Audience;
use super::{Ground, Watch, WatchedJob};
use crate::config::job::Routine;
use crate::config::{Config, built_for_jobs};
use crate::flow::board::{Board, FaultPicture, Life};
use crate::model::name::{ConnectionId, JobId};
use crate::notify::memory::MemoryCarrier;
use crate::notify::port::Address;
use crate::notify::post::Post;
use crate::runtime::clock::{Clock, ManualClock};
use crate::runtime::shutdown::StopSignal;
use crate::state::memory::MemoryState;
use crate::state::notices::{Notices, Step};
use crate::state::orders::{Order, Orders, Seen};
use crate::state::runs::{RunCause, RunHead, RunPart, Runs, Taken};
use crate::telemetry::metrics::Metrics;

const CONFIG: &str = r#"
[mail]
smtp = "smtps://mail.example"
from = "sync@acme.example"
[notify]
revops = { mail = ["revops@acme.example", "ops@acme.example"] }
pager = { webhook = { env = "PAGER" } }
quiet = { mail = ["quiet@acme.example"] }
[job.acme.company_sync]
source = "Account"
digest = "1h"
to.Company = { identifiers = ["salesforce_account_id"], map = { salesforce_account_id = "Id" } }
notify = { failure = ["revops", "pager"], success = ["quiet"] }
[job.acme.user_sync]
source = "User"
to.User = { identifiers = ["username"], map = { username = "Username" } }
"#;

fn config() -> Config {
    built_for_jobs(&format!(
        "{CONFIG}[connection.acme]\nkind = \"salesforce\"\norg = \"https://acme.my.salesforce.com\"\n\
         auth = {{ flow = \"client_credentials\", client_id = \"x\", client_secret = {{ env = \"X\" }} }}\n"
    ))
}

fn mail(name: &str) -> Address {
    Address::Mail(format!("{name}@acme.example"))
}

fn names() -> (ConnectionId, JobId) {
    (ConnectionId::new("acme"), JobId::new("company_sync"))
}

struct Stage {
    state: Arc<MemoryState>,
    board: Arc<Board>,
    clock: Arc<ManualClock>,
    carrier: Arc<MemoryCarrier>,
    watch: Watch,
}

impl Stage {
    fn new() -> Self {
        let state: Arc<MemoryState> = Arc::default();
        let board: Arc<Board> = Arc::default();
        let start = Utc.with_ymd_and_hms(2026, 1, 5, 10, 0, 0).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let watch = watch(&state, &board, &clock);
        Self {
            state,
            board,
            clock,
            carrier: Arc::default(),
            watch,
        }
    }

    /// Another daemon on the same state, or this one after a restart.
    fn restart(&mut self) {
        self.watch = watch(&self.state, &self.board, &self.clock);
    }

    /// Looks twice, and tells what was written since the last time: to whom, and its title.
    async fn told(&mut self) -> Vec<(Address, String)> {
        for _ in 0..2 {
            self.watch.look(true, true).await.unwrap();
        }
        let post = Post {
            notices: Arc::clone(&self.state) as _,
            carrier: Arc::clone(&self.carrier) as _,
            clock: Arc::clone(&self.clock) as _,
            metrics: Metrics::none(),
            bell: Arc::default(),
        };
        let before = self.carrier.carried().len();
        let stop = StopSignal::new();
        let waits = async {
            while self.state.letters().await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
            stop.stop();
        };
        tokio::join!(post.deliver(stop.clone()), waits);
        let new = self.carrier.carried().into_iter().skip(before);
        let mut told: Vec<_> = new.map(|(to, _, notice)| (to, notice.title)).collect();
        told.sort();
        told
    }

    fn text(&self) -> String {
        let carried = self.carrier.carried();
        carried.last().unwrap().2.text()
    }

    async fn run(&self, head: RunHead, counts: &[(&str, u64)]) {
        let (connection, job) = names();
        let counts = counts
            .iter()
            .map(|(outcome, count)| ((*outcome).to_owned(), *count));
        let part = RunPart {
            counts: counts.collect(),
            at: Some(self.clock.now()),
            ..RunPart::default()
        };
        let noted = self.state.note_run(&connection, &job, head, "a", part);
        noted.await.unwrap();
    }

    fn sync(&self, ended: bool) -> RunHead {
        let now = self.clock.now();
        let head = RunHead::sync(RunCause::Asked, None, BTreeMap::new(), now);
        RunHead {
            ended: ended.then_some(now),
            rows: 7,
            ends: ended.then(BTreeMap::new),
            ..head
        }
    }

    async fn order(&self, after: u64, order: Order) {
        let (connection, job) = names();
        let given = self.state.give(&connection, &job, after, order);
        assert!(given.await.unwrap());
    }

    fn connection(&self, life: Life) {
        self.board.connection(&names().0, |entry| {
            entry.state = life;
            entry.fault = Some(FaultPicture {
                kind: "credentials",
                text: "the org says: expired\nsecret".to_owned(),
                at: DateTime::UNIX_EPOCH,
            });
        });
    }
}

fn watch(state: &Arc<MemoryState>, board: &Arc<Board>, clock: &Arc<ManualClock>) -> Watch {
    let config = config();
    let (connection, job) = names();
    let routines: BTreeMap<(ConnectionId, JobId), Routine> = config.routines;
    let digest = routines[&(connection.clone(), job.clone())].digest;
    Watch::new(Ground {
        board: Arc::clone(board),
        state: Arc::clone(state) as _,
        notices: Arc::clone(state) as _,
        clock: Arc::clone(clock) as _,
        metrics: Metrics::none(),
        owner: "here".to_owned(),
        crms: BTreeMap::new(),
        audience: Audience::new(&config.notify, true, &config.connections, &routines),
        jobs: vec![WatchedJob {
            connection,
            job,
            object: "Account".into(),
            digest: Some(digest),
        }],
        bell: Arc::default(),
        settled: Duration::ZERO,
    })
}

#[tokio::test]
async fn a_run_is_told_once_when_it_has_ended() {
    let mut stage = Stage::new();
    let begun = stage.sync(false);
    stage.run(begun, &[("inserted", 3), ("rejected", 2)]).await;
    assert_eq!(stage.told().await, []);
    let ended = stage.sync(true);
    let id = ended.id.clone();
    stage.run(ended, &[("inserted", 4), ("rejected", 2)]).await;
    let what = "acme/company_sync: full sync ended, 2 rejected".to_owned();
    let told = stage.told().await;
    let all = [
        (mail("ops"), what.clone()),
        (mail("revops"), what.clone()),
        (Address::Webhook("pager".to_owned()), what),
    ];
    assert_eq!(told, all);
    let text = stage.text();
    for line in [
        "inserted: 4",
        "rejected: 2",
        "Rows read from the CRM: 7",
        &format!("errors --job acme/company_sync --run {id} --csv"),
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    stage.restart();
    assert_eq!(stage.told().await, []);

    stage.clock.advance(Duration::from_secs(5));
    let good = stage.sync(true);
    stage.run(good, &[]).await;
    let told = stage.told().await;
    let what = "acme/company_sync: full sync ended".to_owned();
    assert_eq!(told, [(mail("quiet"), what)]);
    assert!(stage.text().contains("Nothing differed."));
}

#[tokio::test]
async fn of_two_daemons_one_tells() {
    let mut stage = Stage::new();
    let mut other = watch(&stage.state, &stage.board, &stage.clock);
    // Both have looked before there was anything.
    other.look(true, true).await.unwrap();
    assert_eq!(stage.told().await, []);
    let ended = stage.sync(true);
    stage.run(ended, &[("rejected", 2)]).await;
    stage.connection(Life::Failed);
    let (one, two) = tokio::join!(stage.watch.look(true, true), other.look(true, true));
    one.and(two).unwrap();
    assert_eq!(stage.told().await.len(), 3);
    other.look(true, true).await.unwrap();
    assert_eq!(stage.told().await, []);
}

#[tokio::test]
async fn what_ended_long_ago_is_no_news() {
    let mut stage = Stage::new();
    let ended = stage.sync(true);
    stage.run(ended, &[("rejected", 2)]).await;
    stage.clock.advance(Duration::from_hours(25));
    assert_eq!(stage.told().await, []);
}

#[tokio::test]
async fn a_brake_is_told_with_its_counts_and_without_the_record_that_pulled_it() {
    let mut stage = Stage::new();
    assert_eq!(stage.told().await, []);
    let braked = Order {
        paused: true,
        reason: Some("refused because: \"ann@private.example\"".to_owned()),
        by: Some("brake".to_owned()),
        since: Some(stage.clock.now()),
        braked: Some(Seen {
            run: "20260105-stream".to_owned(),
            took: Taken {
                gone: 120,
                emptied: 0,
                rejected: 9,
            },
            ..Seen::default()
        }),
        accepted: None,
        replay: None,
    };
    stage.order(0, braked.clone()).await;
    let told = stage.told().await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0].1, "acme/company_sync: stopped by a brake");
    let text = stage.text();
    assert!(
        text.contains("120 rows") && text.contains("20260105-stream"),
        "{text}"
    );
    assert!(!text.contains("private"), "{text}");
    stage.restart();
    assert_eq!(stage.told().await, []);
    stage.order(1, Order::default()).await;
    let told = stage.told().await;
    assert_eq!(told.len(), 3);
    assert_eq!(told[0].1, "acme/company_sync: goes on");
    // A second time is another one.
    let since = Some(stage.clock.now() + TimeDelta::seconds(1));
    stage.order(2, Order { since, ..braked }).await;
    assert_eq!(stage.told().await.len(), 3);
    // A person's pause is no news to people.
    let by_person = Order {
        paused: true,
        by: Some("ann".to_owned()),
        ..Order::default()
    };
    stage.order(3, Order::default()).await;
    assert_eq!(stage.told().await.len(), 3);
    stage.order(4, by_person).await;
    assert_eq!(stage.told().await, []);
}

#[tokio::test]
async fn a_revoked_connection_is_told_once_to_its_user_and_that_it_streams_again() {
    let mut stage = Stage::new();
    let step = Step {
        before: None,
        after: "sync@acme.example".to_owned(),
        letters: Vec::new(),
        at: stage.clock.now(),
    };
    stage.state.move_mark("user acme", step).await.unwrap();
    for life in [Life::Starting, Life::Streaming, Life::Retrying] {
        stage.connection(life);
        assert_eq!(stage.told().await, [], "{life:?}");
    }
    stage.connection(Life::Revoked);
    let what = "connection acme: the org refuses its credentials".to_owned();
    assert_eq!(stage.told().await, [(mail("sync"), what)]);
    assert!(
        stage
            .text()
            .contains("credentials: the org says: expired secret\n")
    );
    for life in [Life::Starting, Life::Revoked] {
        stage.connection(life);
        assert_eq!(stage.told().await, [], "{life:?}");
    }
    stage.restart();
    assert_eq!(stage.told().await, []);
    stage.connection(Life::Streaming);
    let what = "connection acme: streams again".to_owned();
    assert_eq!(stage.told().await, [(mail("sync"), what)]);
}

#[tokio::test]
async fn a_digest_tells_what_is_new_and_nothing_else() {
    let mut stage = Stage::new();
    let day = RunHead::stream(stage.clock.now());
    stage.run(day.clone(), &[("rejected", 5)]).await;
    assert_eq!(stage.told().await, [], "the first look begins the count");
    stage.clock.advance(Duration::from_mins(59));
    stage.run(day.clone(), &[("rejected", 7)]).await;
    assert_eq!(stage.told().await, [], "not due");
    stage.restart();
    stage.clock.advance(Duration::from_mins(1));
    let told = stage.told().await;
    let what = "acme/company_sync: real-time changes: 2 rejected";
    assert_eq!(told.len(), 3);
    assert_eq!(told[0].1, what);
    stage.clock.advance(Duration::from_hours(1));
    assert_eq!(stage.told().await, [], "nothing to tell");
    // The next day has a run of its own.
    stage.clock.advance(Duration::from_hours(24));
    stage.run(day, &[("rejected", 8)]).await;
    let next = RunHead::stream(stage.clock.now());
    stage.run(next, &[("rejected", 4)]).await;
    let told = stage.told().await;
    assert!(told[0].1.ends_with(": 5 rejected"), "{told:?}");
}
