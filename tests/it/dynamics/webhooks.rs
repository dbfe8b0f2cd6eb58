//! Webhooks, from a commit in the org to a row in the store, and everything that may go wrong with them.

use std::path::Path;

use tributary::app::webhook::open;

use super::*;
use crate::road::daemon::Daemon as Process;
use crate::sim;

pub const HOOK: &str = "webhook = { secret = { file = \"hook\" } }";
pub const HOOK_SECRET: &str = "hook & secret";

impl World {
    /// A daemon that hears of changes by webhook, and asks for them once an hour.
    async fn hooked(&self, more: &str) -> Daemon {
        self.hooked_that_asks("1h", more).await
    }

    async fn hooked_that_asks(&self, poll_interval: &str, more: &str) -> Daemon {
        std::fs::write(self.home.path().join("hook"), HOOK_SECRET).unwrap();
        let file = self.configure("daily 03:00", poll_interval, more);
        let daemon = Daemon::start(load(&file).unwrap()).await.unwrap();
        self.register(&file, &format!("http://{}", daemon.address()))
            .await;
        self.settled(&daemon).await;
        daemon
    }

    pub async fn register(&self, config: &Path, url: &str) {
        let config = load(config).unwrap();
        open(&config, "contoso")
            .unwrap()
            .add(Some(url))
            .await
            .unwrap();
    }

    /// A company's row: its name.
    fn name(&self, account: &str) -> Option<String> {
        let store = rusqlite::Connection::open(self.home.path().join("data/store.db")).unwrap();
        let name = "SELECT name FROM company WHERE dynamics_account_id = ?1";
        store.query_row(name, [account], |row| row.get(0)).ok()
    }

    /// How long it takes until the row is so.
    async fn comes(&self, number: usize, name: Option<&str>) -> Duration {
        let began = Instant::now();
        while self.name(&guid(number)).as_deref() != name {
            let waiting = format!("account {number} never becomes {name:?}");
            assert!(began.elapsed() < Duration::from_secs(30), "{waiting}");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        began.elapsed()
    }

    /// Any save runs the step of Update.
    async fn unfilter(&self) {
        let rows = format!(
            "{}/api/data/v9.2/sdkmessageprocessingsteps?$select=name",
            self.org.url
        );
        let answer = self.http.get(rows).bearer_auth(&self.token).send().await;
        let answer: Json = answer.unwrap().json().await.unwrap();
        let steps = answer["value"].as_array().unwrap().iter();
        let mut updates = steps.filter(|step| step["name"].as_str().unwrap().contains("Update"));
        let id = updates.next().unwrap()["sdkmessageprocessingstepid"]
            .as_str()
            .unwrap();
        let path = format!("sdkmessageprocessingsteps({id})");
        let body = json!({"filteringattributes": null});
        self.write(Method::PATCH, &path, Some(body)).await;
    }

    async fn metric(&self, daemon: &Daemon, line: &str) -> f64 {
        let url = format!("http://{}/metrics", daemon.address());
        let text = self.http.get(url).send().await.unwrap();
        let text = text.text().await.unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    async fn queued(&self, daemon: &Daemon) -> f64 {
        let line = "tributary_hints_total{connection=\"contoso\",outcome=\"queued\"}";
        self.metric(daemon, line).await
    }

    async fn met(&self, daemon: &Daemon, by: &str) -> f64 {
        let line = "tributary_hints_met_total{connection=\"contoso\",outcome=";
        self.metric(daemon, &format!("{line}\"{by}\"}}")).await
    }

    /// Waits until so many hints were queued.
    async fn wait_queued(&self, daemon: &Daemon, count: f64) {
        let began = Instant::now();
        while self.queued(daemon).await < count {
            assert!(began.elapsed() < PATIENCE, "{}", self.queued(daemon).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn hint(number: usize) -> Json {
    json!({"MessageName": "Update", "PrimaryEntityName": "account", "PrimaryEntityId": guid(number)})
}

/// The status that a call gets which says that its body is large, and sends none of it.
async fn announced(address: std::net::SocketAddr, call: reqwest::RequestBuilder) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let call = call.build().unwrap();
    let mut head = format!("POST {}", call.url().path());
    if let Some(query) = call.url().query() {
        head.push_str(&format!("?{query}"));
    }
    head.push_str(" HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n");
    for (name, value) in call.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{head}\r\n").as_bytes())
        .await
        .unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_reaches_its_row_by_webhook() {
    const ROUNDS: usize = 150;
    let world = World::of(60).await;
    let daemon = world.hooked(HOOK).await;
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let number = 1000 + round;
        world.put(number, "born").await;
        waits.push(world.comes(number, Some("born")).await);
        world.put(number, "changed").await;
        waits.push(world.comes(number, Some("changed")).await);
    }
    // Nobody read them for a while: a read that misses them is believed at once.
    for number in 0..60 {
        world.delete(number).await;
        waits.push(world.comes(number, None).await);
    }
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    println!(
        "commit in the org to row in the store by webhook: median {:?}, p99 {p99:?}",
        waits[waits.len() / 2]
    );
    assert!(p99 < Duration::from_secs(1), "p99 {p99:?}");
    let changes = f64::from(u32::try_from(waits.len()).unwrap());
    assert!(world.queued(&daemon).await >= changes);
    assert!(world.met(&daemon, "read").await > 0.0);
    let count = "tributary_hint_seconds_count{connection=\"contoso\"}";
    assert!(world.metric(&daemon, count).await > 0.0);
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_doubled_late_and_reordered_webhooks_cost_latency_alone() {
    let world = World::of(30).await;
    let daemon = world.hooked_that_asks("50ms", HOOK).await;
    let mut seed = 11_u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((seed >> 33) % limit).unwrap()
    };
    let deeds = [
        json!({"kind": "lose"}),
        json!({"kind": "double"}),
        json!({"kind": "hold", "behind": 2}),
        json!({"kind": "delay", "seconds": 1}),
    ];
    for round in 0..200 {
        if below(3) > 0 {
            let script = json!({"on": {"table": "account"}, "do": deeds[below(4)]});
            world.control("faults", script).await;
        }
        let number = below(40);
        if below(4) == 0 && world.org_names().await.contains_key(&guid(number)) {
            world.delete(number).await;
        } else {
            world.put(number, &format!("name {round}")).await;
        }
    }
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_update_and_a_cut_body_are_reads_like_any_other() {
    let world = World::of(5).await;
    let columns = json!({"columns": {"new_notes": "Memo(1000000)"}});
    let table = json!({"table": "account", "definition": columns});
    world.control("tables", table).await;
    let daemon = world.hooked(HOOK).await;
    world.unfilter().await;
    let path = format!("accounts({})", guid(1));
    // One save, two events: without and with the state's columns.
    let body = json!({"name": "closed", "statecode": 1, "statuscode": 2});
    world.write(Method::PATCH, &path, Some(body)).await;
    world.comes(1, Some("closed")).await;
    world.wait_queued(&daemon, 2.0).await;
    let body = json!({"name": "large", "new_notes": "x".repeat(140_000)});
    world.write(Method::PATCH, &path, Some(body)).await;
    world.comes(1, Some("large")).await;
    let log = sim::told(&world.http, &world.org.url, "webhooks").await;
    let log = log["log"].as_array().unwrap();
    assert!(
        log.iter().all(|sent| sent["outcome"] == "delivered"),
        "{log:?}"
    );
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_proof_is_taken_and_no_other_call() {
    let ways = [
        ("webhook = { secret = { file = \"hook\" } }", "code", ""),
        (
            "webhook = { auth = \"query\", name = \"k\", secret = { file = \"hook\" } }",
            "k",
            "",
        ),
        (
            "webhook = { auth = \"header\", name = \"X-Hook\", secret = { file = \"hook\" } }",
            "",
            "x-hook",
        ),
    ];
    let world = World::of(2).await;
    for (more, query, header) in ways {
        // The org calls as it was told to.
        let daemon = world.hooked(more).await;
        let queued = world.queued(&daemon).await;
        world.put(1, more).await;
        world.comes(1, Some(more)).await;
        world.wait_queued(&daemon, queued + 1.0).await;
        let url = format!("http://{}/webhooks/contoso", daemon.address());
        let call = |secret: Option<&str>| {
            let mut call = world.http.post(&url);
            if let (Some(secret), false) = (secret, query.is_empty()) {
                call = call.query(&[(query, secret)]);
            }
            if let (Some(secret), false) = (secret, header.is_empty()) {
                call = call.header(header, secret);
            }
            call
        };
        let status = async |call: reqwest::RequestBuilder| call.send().await.unwrap().status();
        assert_eq!(status(call(Some(HOOK_SECRET)).json(&hint(1))).await, 204);
        for wrong in [None, Some(""), Some("hook"), Some("hook & secreT")] {
            assert_eq!(status(call(wrong).json(&hint(1))).await, 401, "{wrong:?}");
        }
        // A large body is not read for a stranger, nor for anybody.
        let address = daemon.address();
        assert_eq!(announced(address, call(None)).await, 401);
        assert_eq!(announced(address, call(Some(HOOK_SECRET))).await, 413);
        let bodies = [
            ("application/msbin1", "@x"),
            ("application/xml", "<a/>"),
            ("application/json", "{}"),
            ("application/json", ""),
        ];
        for (kind, body) in bodies {
            let call = call(Some(HOOK_SECRET))
                .header("content-type", kind)
                .body(body);
            assert_eq!(status(call).await, 400, "{kind}");
        }
        assert_eq!(status(world.http.get(&url)).await, 405);
        let other = url.replace("contoso", "other");
        assert_eq!(status(world.http.post(other)).await, 404);
        let count = async |outcome: &str| {
            let line = "tributary_hints_total{connection=\"contoso\",outcome=";
            world
                .metric(&daemon, &format!("{line}\"{outcome}\"}}"))
                .await
        };
        assert_eq!(count("unproven").await, 5.0);
        assert_eq!(count("too_large").await, 1.0);
        assert_eq!(count("binary").await + count("xml").await, 2.0);
        assert_eq!(count("unreadable").await, 2.0);
        // A table that no job selects: taken, dropped, counted.
        let mut lead = hint(1);
        lead["PrimaryEntityName"] = "lead".into();
        assert_eq!(status(call(Some(HOOK_SECRET)).json(&lead)).await, 204);
        assert_eq!(count("not_selected").await, 1.0);
        // A secret that was rotated is met without a restart.
        std::fs::write(world.home.path().join("hook"), "next").unwrap();
        assert_eq!(status(call(Some(HOOK_SECRET)).json(&hint(1))).await, 401);
        assert_eq!(status(call(Some("next")).json(&hint(1))).await, 204);
        daemon.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_after_it_took_a_hint_reads_it_in_its_next_life() {
    let world = World::of(3).await;
    std::fs::write(world.home.path().join("hook"), HOOK_SECRET).unwrap();
    let config = world.configure("daily 03:00", "1h", HOOK);
    let mut process = Process::spawn(&config, &world.http, &[]);
    process.serving().await;
    let began = Instant::now();
    while world.store_names().len() < 3 {
        assert!(began.elapsed() < PATIENCE, "{}", process.tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.put(1, "just before the end").await;
    // The org reads nothing out any more: the hint is taken, and can't be resolved.
    let down = json!({"on": {"surface": "web_api"}, "forever": true, "do": {"kind": "status", "status": 503}});
    world.control("faults", down).await;
    let (status, _) = process
        .post("/webhooks/contoso?code=hook+%26+secret", &hint(1))
        .await;
    assert_eq!(status, 204);
    process.kill();
    let noted = || {
        let state = rusqlite::Connection::open(world.home.path().join("data/state.db")).unwrap();
        let count = "SELECT count(*) FROM hint";
        state
            .query_row(count, [], |row| row.get::<_, u32>(0))
            .unwrap()
    };
    assert_eq!(noted(), 1, "durable before it was answered");
    let url = format!("{}/_sim/faults", world.org.url);
    world.http.delete(url).send().await.unwrap();
    let daemon = Daemon::start(load(&config).unwrap()).await.unwrap();
    world.comes(1, Some("just before the end")).await;
    let began = Instant::now();
    while noted() > 0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut met = 0.0;
    for by in ["read", "owed", "delta"] {
        met += world.met(&daemon, by).await;
    }
    assert_eq!(met, 1.0);
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_twice_changes_nothing_and_removing_leaves_nothing() {
    let world = World::of(1).await;
    std::fs::write(world.home.path().join("hook"), HOOK_SECRET).unwrap();
    let config = load(&world.configure("daily 03:00", "1h", HOOK)).unwrap();
    let webhook = open(&config, "contoso").unwrap();
    assert_eq!(webhook.registrar().list().await.unwrap(), None);
    let base = "http://127.0.0.1:1";
    let (url, done) = webhook.add(Some(base)).await.unwrap();
    assert_eq!(url, format!("{base}/webhooks/contoso"));
    assert_eq!((done.created, done.updated, done.deleted), (4, 0, 0));
    let first = webhook.registrar().list().await.unwrap().unwrap();
    let messages: Vec<&str> = first.steps.iter().map(|step| &*step.message).collect();
    assert_eq!(messages, ["Create", "Delete", "Update"]);
    assert!(
        first
            .steps
            .iter()
            .all(|step| step.table == "account" && step.enabled)
    );
    assert_eq!(first.steps[2].columns, ["name", "numberofemployees"]);
    assert!(first.steps[0].columns.is_empty());
    let (_, done) = webhook.add(Some(base)).await.unwrap();
    assert_eq!((done.created, done.updated, done.deleted), (0, 0, 0));
    assert_eq!(webhook.registrar().list().await.unwrap().unwrap(), first);

    // Another address, and jobs that select another column: what differs is changed.
    let file = world.configure("daily 03:00", "1h", HOOK);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace(", employees = \"numberofemployees\"", ""),
    )
    .unwrap();
    let fewer = open(&load(&file).unwrap(), "contoso").unwrap();
    let (_, done) = fewer.add(Some("http://127.0.0.1:2")).await.unwrap();
    assert_eq!((done.created, done.updated, done.deleted), (0, 2, 0));
    let second = fewer.registrar().list().await.unwrap().unwrap();
    assert_eq!(second.steps[2].columns, ["name"]);

    // Whoever may not says what it takes.
    let denied = json!({"deny": [["Create", "sdkmessageprocessingstep"], ["Delete", "sdkmessageprocessingstep"]]});
    world.control("privileges", denied).await;
    let fault = fewer.registrar().remove().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Permission);
    assert!(
        fault
            .remedy_text()
            .unwrap()
            .contains("Sdk Message Processing Step")
    );
    let allowed = json!({"allow": [["Create", "sdkmessageprocessingstep"], ["Delete", "sdkmessageprocessingstep"]]});
    world.control("privileges", allowed).await;
    let done = fewer.registrar().remove().await.unwrap();
    assert_eq!(done.deleted, 4);
    assert_eq!(fewer.registrar().list().await.unwrap(), None);
    assert_eq!(fewer.registrar().remove().await.unwrap().deleted, 0);
}
