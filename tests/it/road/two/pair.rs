//! Two daemons' common ground, and what stands on it, read past the daemons' own code.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value as Json;

use crate::postgres::Server;
use crate::road::daemon::Daemon;
use crate::road::store::{STORE_PASSWORD, STORE_PASSWORD_IN};
use crate::road::world::{LOOK, PATIENCE, SECRET, World};

/// How long a lease lasts here, and a silent member of a consumer group is waited for, in seconds.
pub const LEASE: u64 = 5;
const SESSION: u64 = 4;
/// What is synchronised here.
pub const OBJECTS: [&str; 3] = ["User", "Account", "Opportunity"];

/// A world whose log is the broker's, with rows and state in one database of its own server.
pub struct Pair {
    pub world: World,
    pub server: Arc<Server>,
}

/// A change as a topic holds it.
pub struct Told {
    pub partition: u64,
    pub offset: u64,
    pub id: String,
    /// The owner's term: the version's first ten digits.
    pub term: u64,
    pub change: Json,
}

impl Pair {
    pub async fn of(data: &[(&str, String)]) -> Self {
        assert!(
            std::env::var("TRIBUTARY_TEST_KAFKA").is_ok(),
            "run tests/run --kafka"
        );
        let server = Server::start();
        let world = World::on_postgres(data, &server).await;
        let file = world.config().join("tributary.toml");
        let state = format!(
            "[log.kafka]\n\"session.timeout.ms\" = {}\n\"reconnect.backoff.max.ms\" = 500\n\
             [state]\nurl = \"{}\"\npassword = {{ env = \"{STORE_PASSWORD_IN}\" }}\nca_file = \"{}\"\nlease = \"{LEASE}s\"\n",
            SESSION * 1000,
            server.url(&world.prefix),
            server.authority().display()
        );
        let main = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, main + &state).unwrap();
        Self { world, server }
    }

    /// A daemon with a data directory of its own, once it serves.
    pub async fn daemon(&self, name: &str) -> Daemon {
        let mut daemon = self.spawn(name);
        daemon.serving().await;
        daemon
    }

    pub fn spawn(&self, name: &str) -> Daemon {
        Daemon::spawn(
            &self.world.config(),
            &self.world.http,
            &[
                ("ACME_SECRET", SECRET),
                ("TRIBUTARY__DAEMON__DATA_DIR", name),
            ],
        )
    }

    /// Rows of a query, as JSON.
    pub async fn query(&self, sql: &str) -> Vec<Json> {
        let client = self.server.client(&self.world.prefix).await;
        let sql = format!("SELECT to_jsonb(t)::text FROM ({sql}) t");
        let rows = client.query(&sql, &[]).await.unwrap();
        rows.iter()
            .map(|row| serde_json::from_str(row.get(0)).unwrap())
            .collect()
    }

    /// Whoever owns the connection, and by which term.
    pub async fn owner(&self) -> (String, u64) {
        let lease = self
            .query("SELECT owner, term FROM tributary_state.lease")
            .await;
        let owner = lease[0]["owner"].as_str().unwrap().to_owned();
        (owner, lease[0]["term"].as_u64().unwrap())
    }

    /// All that daemons write: rows, offsets, what is known of records, and the state but for the lease's end.
    pub async fn written(&self) -> BTreeMap<&'static str, Vec<Json>> {
        let mut found = BTreeMap::new();
        for (name, sql) in [
            ("user", "SELECT * FROM store.\"user\" ORDER BY gsid"),
            ("company", "SELECT * FROM store.company ORDER BY gsid"),
            (
                "opportunity",
                "SELECT * FROM store.opportunity ORDER BY gsid",
            ),
            (
                "crosswalk",
                "SELECT * FROM tributary.crosswalk ORDER BY connection, destination, record, object",
            ),
            (
                "offset",
                "SELECT connection, job, reader, generation, partition, next FROM tributary.\"offset\" ORDER BY 1, 2, 3, 4, 5",
            ),
            (
                "lease",
                "SELECT connection, owner, term FROM tributary_state.lease",
            ),
            ("owed", "SELECT * FROM tributary_state.owed"),
            ("hole", "SELECT * FROM tributary_state.hole ORDER BY id"),
            (
                "object",
                "SELECT * FROM tributary_state.object ORDER BY object",
            ),
        ] {
            found.insert(name, self.query(sql).await);
        }
        found
    }

    /// What an object's topic holds, partition by partition.
    pub fn topic(&self, object: &str) -> Vec<Told> {
        let file = self.world.home.path().join(format!("{object}.jsonl"));
        let exported = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["topics", "export"])
            .arg(format!("{}.acme.{object}", self.world.prefix))
            .arg(&file)
            .arg("--config")
            .arg(self.world.config())
            .env(STORE_PASSWORD_IN, STORE_PASSWORD)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&exported.stderr);
        assert!(exported.status.success(), "{told}");
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines()
            .map(|line| {
                let line: Json = serde_json::from_str(line).unwrap();
                let change = line["value"]["json"].clone();
                let version = change["version"].as_str().unwrap();
                Told {
                    partition: line["partition"].as_u64().unwrap(),
                    offset: line["offset"].as_u64().unwrap(),
                    id: change["id"].as_str().unwrap().to_owned(),
                    term: version[..10].parse().unwrap(),
                    change,
                }
            })
            .collect()
    }

    /// One owner at a time: in no partition does a term follow a higher one. An append that was under way when its
    /// owner was stopped may land late all the same; then its record has been published again, so that it is never a
    /// record's last word. Answers with how many did.
    pub async fn one_owner_at_a_time(&self, daemon: &Daemon) -> usize {
        let mut late = 0;
        until("the healing of late appends", daemon, async || {
            let counts = OBJECTS.map(|object| self.late(object));
            late = counts.iter().map(|(late, _)| late).sum();
            counts.iter().all(|(_, open)| *open == 0)
        })
        .await;
        late
    }

    /// Changes below a higher term, and how many of them are their record's last.
    fn late(&self, object: &str) -> (usize, usize) {
        let (mut highest, mut late) = (BTreeMap::new(), Vec::new());
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for told in self.topic(object) {
            let highest = highest.entry(told.partition).or_insert(told.term);
            if told.term < *highest {
                late.push((told.id.clone(), told.offset));
            }
            *highest = told.term.max(*highest);
            last.insert(told.id, told.offset);
        }
        let open = late
            .iter()
            .filter(|(id, offset)| last.get(id) == Some(offset));
        (late.len(), open.count())
    }
}

pub async fn in_state(daemon: &Daemon, state: &str) {
    daemon
        .wait_for(state, |health| {
            health["connections"]["acme"]["state"] == state
        })
        .await;
}

/// Asks until it holds.
pub async fn until(what: &str, daemon: &Daemon, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(
            Instant::now() < end,
            "{what} does not come\n{}",
            daemon.tail()
        );
        tokio::time::sleep(LOOK * 2).await;
    }
}
