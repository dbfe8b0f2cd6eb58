//! A record that fits several rows waits for a person, through `kill -9`; what is decided holds, and can be undone.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::{LOOK, PATIENCE, World};

const JOB: &str = r#"
source = "Partner__c"
on_delete = "delete"
[to.Company]
identifiers = ["name"]
map = { name = "Name", employees = "Size__c" }
derive.parent_company = { from = "Company", match = { name = "Parent__c" }, on_multiple = "error" }
"#;

/// A world in which partners are companies by name.
async fn world() -> World {
    let mut tables = tables(5, 20, 20);
    let stamp = "2017-12-31T23:59:59.000+0000";
    let partners = format!(
        "Id,Name,Size__c,Parent__c,CreatedDate,LastModifiedDate,SystemModstamp,IsDeleted\n\
         {},Company 0,77,Company 1,{stamp},{stamp},{stamp},false\n",
        id("a00", 0)
    );
    tables.push(("Partner__c", partners));
    let world = World::of(&tables).await;
    std::fs::write(world.config().join("jobs/acme/partner_sync.toml"), JOB).unwrap();
    world
}

/// Two companies get one name.
async fn twins(world: &World) -> [String; 2] {
    let twin = |number| {
        let fields = json!({ "Name": "Twin" });
        vec![
            json!({ "op": "update", "object": "Account", "id": id("001", number), "fields": fields }),
        ]
    };
    world.commit(&[twin(3), twin(4)]).await;
    rows(world, "both names", |rows| named(rows, "Twin").len() == 2).await;
    let by_account = world.rows("company", "salesforce_account_id").await;
    [3, 4].map(|number| text(&by_account[&id("001", number)]["gsid"]))
}

/// A partner of that name; the id that the org gave it.
async fn partner(world: &World, number: usize) -> String {
    let size = 1000 + number;
    let fields = json!({ "Name": "Twin", "Size__c": size });
    let create = json!({ "op": "create", "object": "Partner__c", "fields": fields });
    world.commit(&[vec![create]]).await;
    let partners = world.truth("Partner__c").await;
    let mut partners = partners.into_iter();
    let own = partners.find(|(_, partner)| partner["Size__c"].as_f64() == Some(size as f64));
    own.unwrap().0
}

type Rows = Vec<super::store::Row>;

fn named<'a>(rows: &'a Rows, name: &str) -> Vec<&'a super::store::Row> {
    rows.iter().filter(|row| row["name"] == name).collect()
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until the companies are as they should be.
async fn rows(world: &World, what: &str, holds: impl Fn(&Rows) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = world.store.rows("company").await;
        if holds(&rows) {
            return;
        }
        assert!(Instant::now() < until, "{what} never: {rows:?}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn waiting(daemon: &Daemon, count: u64) {
    daemon
        .wait_for("the number that waits", |health| {
            health["jobs"]["acme"]["partner_sync"]["in_review"] == count
        })
        .await;
}

async fn synced(daemon: &Daemon) {
    daemon
        .wait_for("the first sync", |health| {
            let objects = health["connections"]["acme"]["objects"].as_object();
            objects.is_some_and(|objects| {
                objects.len() == 4
                    && objects
                        .values()
                        .all(|object| !object["synced_at"].is_null())
            })
        })
        .await;
}

/// The run of the partners that counts a record that waits.
async fn run_that_asks(world: &World) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let runs = world.command(&["runs", "acme/partner_sync", "--json"]);
        let asks = |run: &&Json| run["rows"]["review"].as_u64() == Some(1);
        if let Some(run) = runs.as_array().unwrap().iter().find(asks) {
            return text(&run["id"]);
        }
        assert!(Instant::now() < until, "no run asks: {runs:#}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The run's error file has the record, with its candidates.
fn error_file_tells(world: &World, run: &str, record: &str, candidates: &[Json]) {
    let file = world.config().join("errors.csv");
    let (job, to) = ("acme/partner_sync", file.to_str().unwrap());
    let told = world.command(&["errors", "--job", job, "--run", run, "--csv", to, "--json"]);
    let rows = std::fs::read_to_string(&file).unwrap();
    assert_eq!(told["records"], 1, "{rows}");
    assert!(rows.contains(record), "{rows}");
    for candidate in candidates {
        assert!(rows.contains(&text(&candidate["gsid"])), "{rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fits_several_rows_waits_for_a_person() {
    let world = world().await;
    let daemon = world.daemon().await;
    synced(&daemon).await;
    let [one, _] = twins(&world).await;
    let record = partner(&world, 1).await;
    waiting(&daemon, 1).await;
    let metrics = daemon.get("/metrics").await.1;
    let gauge = "tributary_in_review{connection=\"acme\",sync_job=\"partner_sync\"} 1";
    assert!(metrics.contains(gauge), "{metrics}");
    let run = run_that_asks(&world).await;
    daemon.kill();

    let daemon = world.daemon().await;
    waiting(&daemon, 1).await;
    let listed = world.command(&["review", "list", "--json"]);
    assert_eq!(listed[0]["record"], record, "{listed:#}");
    let candidates = listed[0]["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2);
    assert!(
        candidates
            .iter()
            .all(|candidate| candidate["columns"]["name"] == "Twin")
    );
    let errors = world.command(&["errors", "--json", "--job", "acme/partner_sync"]);
    assert_eq!(errors.as_array().unwrap().len(), 1, "{errors:#}");
    assert!(text(&errors[0]["reason"]).contains("several rows"));
    error_file_tells(&world, &run, &record, candidates);
    let decide = |word: &'static str, record: &str, gsid: Option<&str>| {
        let mut told = vec!["review", word, "acme", "Partner__c", record];
        told.extend(gsid);
        told.extend(["--json", "--url", daemon.url()]);
        world.command(&told)
    };
    let done = decide("bind", &record, Some(&one));
    assert_eq!(done["waited"], true, "{done:#}");
    let is_bound = |rows: &Rows| {
        let bound = named(rows, "Twin").into_iter();
        bound
            .filter(|row| row["employees"].as_f64() == Some(1001.0))
            .any(|row| row["gsid"] == one.as_str())
    };
    rows(&world, "the bound row", is_bound).await;
    waiting(&daemon, 0).await;
    let explained = world.command(&["explain", "acme", "Partner__c", &record, "--json"]);
    assert_eq!(
        explained["decisions"][0]["gsid"],
        one.as_str(),
        "{explained:#}"
    );
    assert_eq!(explained["rows"][0]["row"]["gsid"], one.as_str());

    // A row of its own, and none at all.
    let second = partner(&world, 2).await;
    let third = partner(&world, 3).await;
    waiting(&daemon, 2).await;
    decide("create", &second, None);
    rows(&world, "a third twin", |rows| {
        named(rows, "Twin").len() == 3
    })
    .await;
    decide("ignore", &third, None);
    waiting(&daemon, 0).await;
    assert_eq!(named(&world.store.rows("company").await, "Twin").len(), 3);
    let bindings = world.command(&["review", "bindings", "--json"]);
    let words: Vec<String> = bindings
        .as_array()
        .unwrap()
        .iter()
        .map(|binding| text(&binding["decision"]))
        .collect();
    assert_eq!(words, ["bind", "create", "ignore"]);

    // Undone, the record is published again and asked again.
    let undone = decide("unbind", &record, None);
    assert_eq!(
        (&undone["waited"], &undone["before"]),
        (&json!(false), &json!("bind"))
    );
    waiting(&daemon, 1).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

/// A look-up is not for a person to decide: its record is refused, and the rows are named.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_finds_several_names_them_among_the_errors() {
    let world = world().await;
    let daemon = world.daemon().await;
    synced(&daemon).await;
    let candidates = twins(&world).await;
    let fields = json!({ "Name": "Child", "Parent__c": "Twin" });
    let create = json!({ "op": "create", "object": "Partner__c", "fields": fields });
    world.commit(&[vec![create]]).await;
    let until = Instant::now() + PATIENCE;
    let reason = loop {
        let errors = world.command(&["errors", "--json", "--job", "acme/partner_sync"]);
        if let Some(error) = errors.as_array().and_then(|errors| errors.first()) {
            break text(&error["reason"]);
        }
        assert!(Instant::now() < until, "{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    };
    assert!(reason.contains("parent_company"), "{reason}");
    for candidate in candidates {
        assert!(reason.contains(&candidate), "{reason}");
    }
    assert_eq!(world.command(&["review", "list", "--json"]), json!([]));
    assert!(named(&world.store.rows("company").await, "Child").is_empty());
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_makes_no_sense_is_refused_with_its_remedy() {
    let world = world().await;
    let daemon = world.daemon().await;
    synced(&daemon).await;
    let at = |object: &str| format!("/api/v1/reviews/acme/{object}/{}", id("a00", 1));
    let nowhere = json!({ "decision": "bind", "gsid": "00000000-0000-0000-0000-000000000009" });
    let cases = [
        (at("Partner__c"), nowhere, 404, "review list"),
        (
            at("Case"),
            json!({ "decision": "create" }),
            404,
            "tributary jobs",
        ),
        (at("Partner__c"), json!({ "decision": "bind" }), 400, "gsid"),
        (
            at("Partner__c"),
            json!({ "decision": "unbind" }),
            404,
            "review bindings",
        ),
        (
            at("Partner__c"),
            json!({ "decision": "ignore", "destination": "Person" }),
            404,
            "Company",
        ),
    ];
    for (path, body, status, told) in cases {
        let (answered, text) = daemon.post(&path, &body).await;
        assert_eq!(answered, status, "{body}: {text}");
        assert!(text.contains(told), "{body}: {text}");
    }
    let listed = world.command(&["review", "list", "--json"]);
    assert_eq!(listed, json!([]));
}
