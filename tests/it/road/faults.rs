//! Each fault that an org shows, one after another over the whole road: after each, org, images and store agree, nothing
//! is owed, and the holes that it opened are those that it asks for, closed.

mod events;
mod requests;
mod silence;
mod waits;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::id;
use super::world::{PATIENCE, World, main_section};
use crate::sim;

const JOB: &str = "source = \"Account\"\non_delete = \"delete\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n\
                   [to.Company.map]\nsalesforce_account_id = \"Id\"\nname = \"Name\"\nindustry = \"Industry\"\n\
                   description = \"Notes__c\"\n";
const COLUMNS: [(&str, &str); 3] = [
    ("Name", "name"),
    ("Industry", "industry"),
    ("Notes__c", "description"),
];
const ACCOUNTS: usize = 100;
/// Records of a page, so that a read has several.
const PAGE: usize = 20;
const LOOK: Duration = Duration::from_millis(50);
/// Looks between which the org's clock moves on while a hole is open: its log of deletes tells whole minutes.
const LOOKS: usize = 20;

/// A fault, and what brings it about.
struct Case {
    what: &'static str,
    /// Scripts before the deed; those that wait for something have to fire.
    before: Vec<Json>,
    deed: Deed,
    /// Scripts after it.
    after: Vec<Json>,
    /// The causes of the holes that it opens.
    holes: &'static [&'static str],
}

/// What happens in the org.
#[derive(Clone, Copy)]
enum Deed {
    /// Changes of every kind, among them two alike in one transaction and one of a long text.
    Changes,
    /// Changes whose events nobody gets.
    Unheard,
    /// A record dies without an event, and a full sync is asked for.
    Sync,
    /// A text becomes larger than an event may be.
    Large,
}

fn case(what: &'static str, before: Vec<Json>, deed: Deed) -> Case {
    Case {
        what,
        before,
        deed,
        after: Vec::new(),
        holes: &[],
    }
}

impl Case {
    fn then(mut self, after: Vec<Json>) -> Self {
        self.after = after;
        self
    }

    fn opens(mut self, holes: &'static [&'static str]) -> Self {
        self.holes = holes;
        self
    }
}

/// How changes come.
#[derive(Clone, Copy, PartialEq)]
enum Transport {
    PubSub,
    Cometd,
}

/// An org that is in the store, and its daemon.
struct Stage {
    world: World,
    daemon: Option<Daemon>,
    /// Deeds done.
    round: usize,
    /// Holes that there were.
    holes: usize,
}

/// Small pages, frequent keep-alives, and replay ids over gRPC that nobody can count with.
fn options() -> SimOptions {
    SimOptions {
        page_size: PAGE,
        bulk_page_size: PAGE,
        keepalive_seconds: Some(1),
        opaque_replay_ids: true,
        ..SimOptions::default()
    }
}

impl Stage {
    /// With more keys of the connection.
    async fn begin(transport: Transport, keys: &str) -> Self {
        Self::of(options(), transport, keys, &[]).await
    }

    /// On a custom channel, whose events are enriched by these fields.
    async fn on_a_channel(transport: Transport, fields: &[&str]) -> Self {
        let keys = "channel = \"/data/Sync__chn\"\n";
        Self::of(options(), transport, keys, fields).await
    }

    async fn of(options: SimOptions, transport: Transport, keys: &str, enriched: &[&str]) -> Self {
        // What a CSV has to quote, and a text that is long enough to come as a difference.
        let row = |number| {
            format!(
                "{},\"Acme, \"\"{number}\"\"\n;\",Energy,\"{}\"\n",
                id("001", number),
                long(number)
            )
        };
        let rows: String = (0..ACCOUNTS).map(row).collect();
        let notes =
            json!({ "fields": { "Notes__c": { "type": "textarea", "length": 4_000_000 } } });
        let files = vec![
            (
                "Account.csv".to_owned(),
                format!("Id,Name,Industry,Notes__c\n{rows}"),
            ),
            ("Account.json".to_owned(), notes.to_string()),
        ];
        let world = World::bare(files, options).await;
        if !enriched.is_empty() {
            let channel = json!({ "name": "Sync__chn", "entities": ["Account"], "enrich": { "Account": enriched } });
            world.control("channels", channel).await;
        }
        let transport = match transport {
            Transport::PubSub => format!("pubsub_address = \"{}\"\n", world.org.pubsub_url),
            Transport::Cometd => "transport = \"cometd\"\n".to_owned(),
        };
        let connection = world.connection(&world.org.url, &transport);
        world.put("tributary.toml", &main_section(&world.prefix, &world.store));
        world.put("connections/acme.toml", &format!("{connection}{keys}"));
        world.put("jobs/acme/company_sync.toml", JOB);
        let daemon = world.daemon().await;
        // Nobody looks into the store before it is made.
        daemon
            .wait_for("the first sync", |health| {
                !health["connections"]["acme"]["objects"]["Account"]["synced_at"].is_null()
            })
            .await;
        let mut stage = Self {
            world,
            daemon: Some(daemon),
            round: 0,
            holes: 0,
        };
        // Something is told, so that there is a place to go on from.
        stage.meet(case("nothing", vec![], Deed::Changes)).await;
        stage
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    async fn meet(&mut self, case: Case) {
        for script in &case.before {
            self.world.control("faults", script.clone()).await;
        }
        self.does(case.deed).await;
        for script in &case.after {
            self.world.control("faults", script.clone()).await;
        }
        self.settle(case.what, case.holes).await;
    }

    async fn meet_all(&mut self, cases: Vec<Case>) {
        for case in cases {
            self.meet(case).await;
        }
    }

    /// Ends the daemon, which may wait for long, and starts another.
    async fn again(&mut self) {
        let (status, lines) = self.daemon.take().unwrap().stop();
        assert!(status.success(), "{lines}");
        self.daemon = Some(self.world.daemon().await);
    }

    async fn does(&mut self, deed: Deed) {
        self.round += 1;
        let round = self.round;
        match deed {
            Deed::Changes => {
                let name = format!("Round {round}");
                let dead = id("001", 4);
                let transactions = [
                    vec![
                        update(1, json!({ "Industry": name })),
                        update(2, json!({ "Industry": name })),
                    ],
                    vec![
                        json!({ "op": "create", "object": "Account", "fields": { "Name": name, "Notes__c": long(round) } }),
                    ],
                    vec![update(3, json!({ "Notes__c": long(round) }))],
                    vec![json!({ "op": "delete", "object": "Account", "id": dead })],
                    vec![json!({ "op": "undelete", "object": "Account", "id": dead })],
                    vec![update(5, json!({ "Name": name, "Industry": null }))],
                    vec![update(7, json!({ "Notes__c": "Short." }))],
                ];
                self.world.commit(&transactions).await;
            }
            Deed::Unheard => {
                let name = format!("Unheard {round}");
                let lose =
                    json!({ "on": { "entity": "Account" }, "times": 3, "do": { "kind": "lose" } });
                self.world.control("faults", lose).await;
                let transactions = [
                    vec![update(6, json!({ "Name": name }))],
                    vec![
                        json!({ "op": "create", "object": "Account", "fields": { "Name": name } }),
                    ],
                    vec![json!({ "op": "delete", "object": "Account", "id": self.next() })],
                ];
                self.world.commit(&transactions).await;
            }
            Deed::Sync => {
                let gone = json!({ "op": "hard_delete", "object": "Account", "id": self.next() });
                self.world.commit(&[vec![gone]]).await;
                let url = self.daemon().url();
                self.world.command(&[
                    "sync",
                    "acme",
                    "Account",
                    "--no-wait",
                    "--json",
                    "--url",
                    url,
                ]);
            }
            Deed::Large => {
                let large = "A line of a text.\n".repeat(70_000);
                self.world
                    .commit(&[vec![update(7, json!({ "Notes__c": large }))]])
                    .await;
                self.world
                    .commit(&[vec![update(8, json!({ "Name": "After it" }))]])
                    .await;
            }
        }
    }

    /// A record that lives, of those that nothing else is done to.
    fn next(&self) -> String {
        id("001", 10 + self.round)
    }

    /// Waits until everything agrees, and has opened and closed these holes.
    async fn settle(&mut self, what: &str, holes: &[&str]) {
        let until = Instant::now() + PATIENCE;
        for look in 1.. {
            let left = self.left(holes).await;
            if left.is_empty() {
                break;
            }
            assert!(
                Instant::now() < until,
                "{what}: {left:#?}\n{}",
                self.daemon().tail()
            );
            if look % LOOKS == 0 {
                self.world
                    .control("time", json!({ "advance_seconds": 75 }))
                    .await;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.holes = self.holes().len();
    }

    /// Waits until org, images and store agree, whatever the stream does.
    async fn agree(&self, what: &str) {
        let until = Instant::now() + PATIENCE;
        for look in 1.. {
            let left = self.differences().await;
            if left.is_empty() {
                break;
            }
            let tail = self.daemon().tail();
            assert!(Instant::now() < until, "{what}: {left:#?}\n{tail}");
            if look % LOOKS == 0 {
                self.world
                    .control("time", json!({ "advance_seconds": 75 }))
                    .await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is not as it should be.
    async fn left(&self, holes: &[&str]) -> Vec<String> {
        let scripts = sim::told(&self.world.http, &self.world.org.url, "faults").await;
        let waiting = scripts.as_object().unwrap().values();
        if waiting
            .flat_map(|scripts| scripts.as_array().unwrap())
            .next()
            .is_some()
        {
            return vec![format!("this has not happened: {scripts}")];
        }
        let health = self.daemon().health().await;
        let connection = &health["connections"]["acme"];
        let object = &connection["objects"]["Account"];
        if connection["state"] != "streaming"
            || connection["open_holes"] != 0
            || object["owed"] != 0
        {
            return vec![format!("{connection:#}")];
        }
        let mut left = self.differences().await;
        if left.is_empty() {
            let found = self.holes();
            let new = found[self.holes..].iter().map(|(cause, _)| cause.as_str());
            let mut new: Vec<&str> = new.collect();
            new.dedup();
            if new != holes || found.iter().any(|(_, state)| state != "closed") {
                left.push(format!("holes: {found:?}, and {holes:?} should be new"));
            }
        }
        left
    }

    /// Where org, images and store differ.
    async fn differences(&self) -> Vec<String> {
        let truth = self.world.truth("Account").await;
        let rows = self.world.rows("company", "salesforce_account_id").await;
        let images = images(&self.world);
        let mut found = Vec::new();
        for (id, record) in &truth {
            let (row, image) = (rows.get(id), images.get(id));
            for (field, column) in COLUMNS {
                let there = &record[field];
                if row.map(|row| &row[column]) != Some(there)
                    || image.map(|image| &image[field]) != Some(there)
                {
                    found.push(format!("{id} {field}: {}", short(there)));
                }
            }
        }
        let dead = |id: &&String| !truth.contains_key(*id);
        let stored = rows.keys().filter(dead).map(|id| format!("{id} is stored"));
        let imaged = images
            .keys()
            .filter(dead)
            .map(|id| format!("{id} is imaged"));
        found.extend(stored.chain(imaged));
        found
    }

    /// Every hole's cause and state, the oldest first.
    fn holes(&self) -> Vec<(String, String)> {
        let told = self.world.command(&["holes", "--all", "--json"]);
        let mut holes = told.as_array().unwrap().clone();
        holes.sort_by_key(|hole| hole["opened_at"].as_str().unwrap().to_owned());
        let text = |hole: &Json, key: &str| hole[key].as_str().unwrap().to_owned();
        holes
            .iter()
            .map(|hole| (text(hole, "cause"), text(hole, "state")))
            .collect()
    }

    async fn clear(&self) {
        let faults = format!("{}/_sim/faults", self.world.org.url);
        self.world.http.delete(faults).send().await.unwrap();
    }

    fn end(mut self) {
        let (status, lines) = self.daemon.take().unwrap().stop();
        assert!(status.success(), "{lines}");
    }
}

fn update(number: usize, fields: Json) -> Json {
    json!({ "op": "update", "object": "Account", "id": id("001", number), "fields": fields })
}

/// A text whose changes may be told by their difference.
fn long(number: usize) -> String {
    let line = |line: usize| match line {
        20 => format!("this one is about {number}"),
        _ => format!("line {line} of a text that is long enough"),
    };
    (0..40).map(line).collect::<Vec<_>>().join("\n")
}

fn short(value: &Json) -> String {
    value.to_string().chars().take(60).collect()
}

/// The fields of the images that live, by record.
fn images(world: &World) -> BTreeMap<String, Json> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = world.config().join("data/images.db");
    let images = rusqlite::Connection::open_with_flags(file, flags).unwrap();
    images.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut images = images.prepare("SELECT record, image FROM image").unwrap();
    let images = images.query_map([], |row| {
        let (record, image): (String, String) = (row.get(0)?, row.get(1)?);
        Ok((record, serde_json::from_str::<Json>(&image).unwrap()))
    });
    let images = images.unwrap().map(Result::unwrap);
    let live = images.filter(|(_, image)| image["l"] == "live");
    live.map(|(record, image)| (record, image["f"].clone()))
        .collect()
}
