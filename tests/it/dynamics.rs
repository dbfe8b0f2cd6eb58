//! The Dataverse connector against the simulated org: calls one by one, and a daemon whose store must equal the org.

mod parents;
mod restored;
mod servicebus;
mod webhooks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sim;
use reqwest::Method;
use serde_json::{Value as Json, json};
use tributary::app::{Daemon, load};
use tributary::budget::Priority;
use tributary::crm::dynamics::Dynamics;
use tributary::crm::dynamics::settings::{DynamicsSettings, Proof};
use tributary::crm::port::{Crm, Selection, Start};
use tributary::fault::FaultKind;
use tributary::model::event::EventKind;
use tributary::model::name::FieldName;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::dynamics::{Running, SimOptions, start};

const CLIENT: &str = "c11e0000-0000-4000-8000-00000000d001";
const SECRET: &str = "simulated-secret";
const TENANT: &str = "7e0a0000-0000-4000-8000-00000000d001";
/// The longest that anything may take; a wait on a state ends far sooner.
const PATIENCE: Duration = Duration::from_secs(180);

struct World {
    org: Running,
    http: reqwest::Client,
    token: String,
    home: tempfile::TempDir,
}

fn guid(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012x}")
}

impl World {
    async fn of(accounts: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("org");
        std::fs::create_dir_all(&data).unwrap();
        let mut csv = "accountid,name,numberofemployees\n".to_owned();
        for number in 0..accounts {
            csv.push_str(&format!("{},Example {number},{number}\n", guid(number)));
        }
        std::fs::write(data.join("account.csv"), csv).unwrap();
        let org = start(SimOptions {
            data: Some(data),
            client_id: CLIENT.to_owned(),
            client_secret: SECRET.to_owned(),
            tenant_id: TENANT.to_owned(),
            amqp_listen: Some(([127, 0, 0, 1], 0).into()),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        let mut world = Self {
            org,
            http: reqwest::Client::new(),
            token: String::new(),
            home,
        };
        world.token = world.sign_in().await;
        world
    }

    /// The test's own session, to write with.
    async fn sign_in(&self) -> String {
        let url = format!("{}/{TENANT}/oauth2/v2.0/token", self.org.url);
        let scope = format!("{}/.default", self.org.url);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("client_secret", SECRET),
            ("scope", &scope),
        ];
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        let answer: Json = answer.json().await.unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn write(&self, method: Method, path: &str, body: Option<Json>) {
        let url = format!("{}/api/data/v9.2/{path}", self.org.url);
        let mut call = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.unwrap();
        let status = answer.status();
        assert!(
            status.is_success(),
            "{path}: {status}: {:?}",
            answer.text().await
        );
    }

    async fn put(&self, number: usize, name: &str) {
        let path = format!("accounts({})", guid(number));
        self.write(Method::PATCH, &path, Some(json!({"name": name})))
            .await;
    }

    async fn delete(&self, number: usize) {
        let path = format!("accounts({})", guid(number));
        self.write(Method::DELETE, &path, None).await;
    }

    async fn control(&self, path: &str, body: Json) {
        sim::order(&self.http, &self.org.url, path, &body).await;
    }

    /// The change tokens of accounts expire, as after any change of the table's definition.
    async fn expire(&self, column: &str) {
        let definition = json!({"columns": {column: "String(10)"}});
        let body = json!({"table": "account", "definition": definition});
        self.control("tables", body).await;
    }

    fn crm(&self, page_size: u32) -> Dynamics {
        self.crm_that(|settings| settings.page_size = page_size)
    }

    fn crm_that(&self, change: impl FnOnce(&mut DynamicsSettings)) -> Dynamics {
        let secret = Proof::Secret(Arc::new(|| Ok(Secret::new(SECRET))));
        let mut settings = DynamicsSettings::new("contoso".into(), &self.org.url, CLIENT, secret);
        settings.authority_url = Some(self.org.url.clone());
        settings.plain_text = true;
        settings.read_lag = Duration::ZERO;
        settings.poll_interval = Duration::from_millis(20);
        change(&mut settings);
        Dynamics::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    async fn daemon(&self) -> Daemon {
        self.daemon_that_syncs("daily 03:00").await
    }

    /// Starts a daemon in this process.
    async fn daemon_that_syncs(&self, full_sync: &str) -> Daemon {
        let config = load(&self.configure(full_sync, "50ms", "")).unwrap();
        Daemon::start(config).await.unwrap()
    }

    /// Writes the daemon's config, with more keys of the connection.
    fn configure(&self, full_sync: &str, poll_interval: &str, more: &str) -> PathBuf {
        let url = &self.org.url;
        let text = format!(
            r#"
[admin]
listen = "127.0.0.1:0"
[connection.contoso]
kind = "dynamics"
org = "{url}"
authority_url = "{url}"
plain_text = true
read_lag = "0s"
poll_interval = "{poll_interval}"
{more}
auth = {{ flow = "client_credentials", client_id = "{CLIENT}", client_secret = {{ file = "secret" }} }}
[job.contoso.company_sync]
source = "account"
full_sync = "{full_sync}"
on_delete = "delete"
[job.contoso.company_sync.to.Company]
identifiers = ["dynamics_account_id"]
map = {{ dynamics_account_id = "accountid", name = "name", employees = "numberofemployees" }}
"#
        );
        let file = self.home.path().join("all.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(self.home.path().join("secret"), SECRET).unwrap();
        file
    }

    /// Accounts by id, as the org has them.
    async fn org_names(&self) -> BTreeMap<String, String> {
        let mut url = Some(format!(
            "{}/api/data/v9.2/accounts?$select=name",
            self.org.url
        ));
        let mut names = BTreeMap::new();
        while let Some(page) = url {
            let answer = self.http.get(page).bearer_auth(&self.token).send().await;
            let answer: Json = answer.unwrap().json().await.unwrap();
            for row in answer["value"].as_array().unwrap() {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                names.insert(text("accountid"), text("name"));
            }
            url = answer["@odata.nextLink"].as_str().map(str::to_owned);
        }
        names
    }

    /// Companies by account id, as the store has them.
    fn store_names(&self) -> BTreeMap<String, String> {
        let file = self.home.path().join("data/store.db");
        let Ok(store) = rusqlite::Connection::open(file) else {
            return BTreeMap::new();
        };
        let Ok(mut rows) = store.prepare("SELECT dynamics_account_id, name FROM company") else {
            return BTreeMap::new();
        };
        let pairs = rows
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        pairs.map(Result::unwrap).collect()
    }

    /// Waits until store and org agree and no hole is open.
    async fn settled(&self, daemon: &Daemon) {
        let began = Instant::now();
        let id = "contoso";
        loop {
            let picture = daemon.picture();
            let holes = picture.connections.get(id).map_or(1, |of| of.open_holes);
            let (org, store) = (self.org_names().await, self.store_names());
            if org == store && holes == 0 {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{holes} holes, {:?}: org {org:?}, store {store:?}",
                picture.connections.get(id).map(|of| &of.fault)
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn selection(fields: &[&str]) -> Selection {
    Selection {
        object: "account".into(),
        fields: fields.iter().map(FieldName::new).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn describes_reads_in_pages_and_by_id() {
    let world = World::of(7).await;
    let crm = world.crm(3);
    let schema = crm.describe(&"account".into()).await.unwrap();
    for field in ["Id", "accountid", "name", "ownerid@type", "statecode@label"] {
        assert!(schema.fields.contains_key(field), "{field}");
    }
    let fault = crm.describe(&"acount".into()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing, "{}", fault.report());
    let selection = selection(&["name", "statecode", "statecode@label"]);
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    let first = pages.next().await.unwrap().unwrap();
    assert_eq!(first.rows.len(), 3);
    assert!(first.rows.iter().all(|row| row.version.is_some()));
    assert_eq!(
        first.rows[0].fields["statecode@label"].as_text(),
        Some("Active")
    );
    let mut count = 3;
    let mut rest = world
        .crm(3)
        .read_all(&selection, first.resume.as_deref())
        .await
        .unwrap();
    while let Some(page) = rest.next().await.unwrap() {
        count += page.rows.len();
    }
    assert_eq!(count, 7);
    let ids = [0, 5, 99].map(|number| crm.record_id(&guid(number)).unwrap());
    let found = crm.read_ids(&selection, &ids).await.unwrap();
    assert_eq!((found.rows.len(), found.absent.len()), (2, 1));
}

/// A whole read stops before the last calls of the day, which reads by id may spend; at their end these wait, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_days_last_calls_are_for_repair() {
    let world = World::of(30).await;
    let crm = world.crm_that(|settings| {
        settings.page_size = 1;
        settings.daily_requests = Some(20);
        settings.limits.reserve = 50;
    });
    let chosen = selection(&["name"]);
    let budget = crm.budget().unwrap();
    let reading = Priority::FullSync.scope(async {
        let mut pages = crm.read_all(&chosen, None).await.unwrap();
        let mut count = 0;
        while pages.next().await.unwrap().is_some() {
            count += 1;
        }
        count
    });
    tokio::select! {
        () = budget.held(Priority::FullSync) => {}
        count = reading => panic!("read {count} pages to the end"),
    }
    assert_eq!(budget.spent(), (10, Some(20)));
    let picture = budget.show();
    assert_eq!(picture.held, ["incremental", "full_sync", "verify"]);
    assert!(picture.burst_left.is_some(), "{picture:?}");
    let id = crm.record_id(&guid(3)).unwrap();
    for _ in 0..10 {
        let found = Priority::Repair.scope(crm.read_ids(&chosen, std::slice::from_ref(&id)));
        assert_eq!(found.await.unwrap().rows.len(), 1);
    }
    let picture = budget.show();
    assert_eq!((picture.left, picture.held.len()), (Some(0), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_deletes_are_told_page_by_page() {
    let world = World::of(4).await;
    let crm = world.crm(2);
    let chosen = selection(&["name"]);
    let mut listener = crm
        .listen(std::slice::from_ref(&chosen), Start::Now)
        .await
        .unwrap();
    let mut pages = crm.read_all(&chosen, None).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    for number in 0..3 {
        world.put(number, "changed").await;
    }
    world.delete(3).await;
    let (mut rows, mut gone) = (0, 0);
    while rows < 3 || gone < 1 {
        let heard = tokio::time::timeout(PATIENCE, listener.next())
            .await
            .unwrap();
        for event in heard.unwrap().events {
            match event.kind {
                EventKind::Row { .. } => rows += 1,
                EventKind::Tombstone { .. } => gone += 1,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemons_store_equals_the_org_whatever_happens() {
    let world = World::of(40).await;
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    // Writes in an order that a seed decides.
    let mut seed = 7_u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((seed >> 33) % limit).unwrap()
    };
    for round in 0..150 {
        let number = below(60);
        if below(4) == 0 && world.org_names().await.contains_key(&guid(number)) {
            world.delete(number).await;
        } else {
            // An update, or the record is born (again) under its id.
            world.put(number, &format!("name {round}")).await;
        }
    }
    world.settled(&daemon).await;
    // Asked too much, and cut off.
    let busy = json!({"on": {"surface": "web_api"}, "times": 3,
        "do": {"kind": "status", "status": 429, "code": "0x80072322", "message": "Number of requests exceeded", "retry_after": 1}});
    let faults = json!([busy, {"on": {"surface": "web_api"}, "times": 2, "do": {"kind": "cut"}}]);
    world.control("faults", faults).await;
    world.settle_faults().await;
    world.put(1, "after the faults").await;
    world.settled(&daemon).await;
    // The place in the changes expires while records change and go.
    world.expire("new_one").await;
    world.put(2, "unheard").await;
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
    world.put(3, "while it was down").await;
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
}

/// A place in the changes that is ahead of the org tells nothing: it is the next full sync that finds older rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_org_ends_in_the_store() {
    let world = World::of(10).await;
    let daemon = world.daemon_that_syncs("cron * * * * *").await;
    world.settled(&daemon).await;
    world.control("snapshots", json!({"save": "backup"})).await;
    for number in 0..5 {
        world.put(number, "after the backup").await;
    }
    world.put(50, "born after the backup").await;
    world.delete(7).await;
    world.settled(&daemon).await;
    // Restoring takes its time.
    world.control("time", json!({"advance_seconds": 60})).await;
    let restore = json!({"restore": "backup"});
    world.control("snapshots", restore).await;
    world.settled(&daemon).await;
    assert_eq!(world.store_names()[&guid(7)], "Example 7");
    world.put(7, "on it goes").await;
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
    let causes = world.causes();
    assert!(
        causes.iter().any(|cause| cause.contains("org_restored")),
        "{causes:?}"
    );
}

impl World {
    /// Why there were holes.
    fn causes(&self) -> Vec<String> {
        let state = rusqlite::Connection::open(self.home.path().join("data/state.db")).unwrap();
        let mut causes = state.prepare("SELECT DISTINCT cause FROM hole").unwrap();
        let causes = causes.query_map([], |row| row.get(0)).unwrap();
        causes.map(Result::unwrap).collect()
    }

    /// Waits until every script has fired.
    async fn settle_faults(&self) {
        let began = Instant::now();
        loop {
            let left = sim::told(&self.http, &self.org.url, "faults").await;
            let scripts = left.as_array().or_else(|| left["scripts"].as_array());
            if scripts.is_some_and(Vec::is_empty) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{left}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
