//! Brakes: a run that would do too much stops the job, says why, and waits for a yes through `kill -9`.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::jobs::OPPORTUNITY_JOB;
use super::world::{LOOK, PATIENCE, World};

/// Partners without an account are refused.
const PARTNERS: &str = r#"
source = "Partner__c"
brakes = { min_rows = 20 }
[to.Company]
identifiers = ["salesforce_account_id"]
map = { name = "Name", salesforce_account_id = "Account__c" }
"#;

/// What the job of that name is paused for, once a brake has stopped it.
async fn braked(daemon: &Daemon, job: &str) -> String {
    let health = daemon
        .wait_for("the brake", |health| {
            let job = &health["jobs"]["acme"][job];
            job["state"] == "paused" && job["paused"]["brake"] == true
        })
        .await;
    let paused = &health["jobs"]["acme"][job]["paused"];
    assert_eq!(paused["by"], "brake");
    let metrics = daemon.get("/metrics").await.1;
    let gauge = format!("tributary_job_braked{{connection=\"acme\",sync_job=\"{job}\"}} 1");
    assert!(metrics.contains(&gauge), "{metrics}");
    paused["reason"].as_str().unwrap().to_owned()
}

fn resume(world: &World, daemon: &Daemon, job: &str, accept: bool) {
    let job = format!("acme/{job}");
    let mut told = vec![
        "job",
        "resume",
        job.as_str(),
        "--json",
        "--url",
        daemon.url(),
    ];
    told.extend(accept.then_some("--accept"));
    let done = world.command(&told);
    assert_eq!(done["changed"], true, "{done:#}");
}

/// Says yes, and yes again to what was not in the topic yet when the job stopped, until all is applied.
async fn accept(daemon: &Daemon, job: &str, done: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done().await {
        let path = format!("/api/v1/jobs/acme/{job}/resume");
        // Refused while no brake has stopped it.
        daemon.post(&path, &json!({ "accept": true })).await;
        assert!(Instant::now() < until, "{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
}

/// Opportunities that are not there any more in the org and are in the store.
async fn left(world: &World) -> usize {
    world.rows("opportunity", "external_id").await.len()
}

/// Waits until a run of the job is noted with such a count.
async fn noted(world: &World, job: &str, outcome: &str, count: u64) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let runs = world.command(&["runs", &format!("acme/{job}"), "--json"]);
        let has = |run: &&Json| run["rows"][outcome].as_u64() == Some(count);
        if let Some(run) = runs.as_array().unwrap().iter().find(has) {
            return run["id"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < until, "no run has {count}: {runs:#}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The records that letters are of.
fn records(letters: &[Json]) -> BTreeSet<&str> {
    let records = letters.iter().map(|letter| letter["record"].as_str());
    records.flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_delete_waits_for_a_yes() {
    const ALL: usize = 1_200;
    let world = World::of(&tables(5, 20, ALL)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let delete =
        |number| json!({ "op": "delete", "object": "Opportunity", "id": id("006", number) });
    // A day that only deletes is a day like others, as long as it is a small one.
    world.commit(&[(0..100).map(delete).collect()]).await;
    world.settled(&daemon).await;
    noted(&world, "opportunity_sync", "deleted", 100).await;
    daemon.kill();

    let daemon = world.daemon().await;
    let night: Vec<Vec<Json>> = (100..ALL).map(|number| vec![delete(number)]).collect();
    for some in night.chunks(100) {
        world.commit(some).await;
    }
    let reason = braked(&daemon, "opportunity_sync").await;
    let line = "of 1200 rows: max_delete_percent = 10 lets 120 pass";
    assert!(reason.contains(line), "{reason}");
    let stood = left(&world).await;
    assert!(
        stood >= ALL - 120,
        "a run deletes no more than a tenth: {stood}"
    );
    daemon.kill();

    let daemon = world.daemon().await;
    assert_eq!(braked(&daemon, "opportunity_sync").await, reason);
    // Judged again, it is too much still.
    resume(&world, &daemon, "opportunity_sync", false);
    braked(&daemon, "opportunity_sync").await;
    let stood = left(&world).await;
    assert!(stood >= ALL - 120, "{stood}");
    accept(&daemon, "opportunity_sync", async || {
        left(&world).await == 0
    })
    .await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_emptied_beyond_the_line_wait_for_a_yes() {
    let world = World::of(&tables(5, 20, 50)).await;
    let job = format!("brakes = {{ min_rows = 20 }}\n{OPPORTUNITY_JOB}");
    world.put("jobs/acme/opportunity_sync.toml", &job);
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let amounts = async || {
        let rows = world.rows("opportunity", "external_id").await;
        rows.values().filter(|row| !row["amount"].is_null()).count()
    };
    let before = amounts().await;
    let empty = |number| {
        let fields = json!({ "Amount": null });
        json!({ "op": "update", "object": "Opportunity", "id": id("006", number), "fields": fields })
    };
    // Every fourth has no amount.
    let emptied: Vec<Json> = (0..40)
        .filter(|number| number % 4 != 3)
        .map(empty)
        .collect();
    assert_eq!(emptied.len(), 30);
    world.commit(&[emptied]).await;
    let reason = braked(&daemon, "opportunity_sync").await;
    assert!(
        reason.contains("of 50 rows: max_null_percent = 50 lets 25 pass"),
        "{reason}"
    );
    assert!(amounts().await >= before - 25);
    resume(&world, &daemon, "opportunity_sync", true);
    let done = async || amounts().await == before - 30;
    accept(&daemon, "opportunity_sync", done).await;
    world.settled(&daemon).await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_beyond_the_line_wait_for_a_yes_and_lie_in_the_error_file() {
    let mut tables = tables(5, 20, 20);
    let stamp = "2017-12-31T23:59:59.000+0000";
    let partners = format!(
        "Id,Name,Account__c,CreatedDate,LastModifiedDate,SystemModstamp,IsDeleted\n{},One,none yet,{stamp},{stamp},{stamp},false\n",
        id("a00", 0)
    );
    tables.push(("Partner__c", partners));
    let world = World::of(&tables).await;
    world.put("jobs/acme/partner_sync.toml", PARTNERS);
    let daemon = world.daemon().await;
    daemon
        .wait_for("the partners", |health| {
            let partners = &health["connections"]["acme"]["objects"]["Partner__c"];
            !partners["synced_at"].is_null()
        })
        .await;
    daemon.kill();
    let daemon = world.daemon().await;
    // From here on no read tells a record once more that an event told: nothing is refused twice.
    world.holes_close(&daemon).await;
    let nobodys = json!({ "op": "create", "object": "Partner__c", "fields": { "Name": "Two" } });
    world.commit(&[vec![nobodys; 30]]).await;
    let reason = braked(&daemon, "partner_sync").await;
    assert!(
        reason.contains("max_rejected_percent = 50 lets 20 pass"),
        "{reason}"
    );
    assert!(reason.contains("is empty"), "the newest reason: {reason}");
    let job = ["--job", "acme/partner_sync"];
    let letters = || {
        let told = world.command(&[&["errors", "--limit", "999", "--json"], &job[..]].concat());
        told.as_array().unwrap().clone()
    };
    assert!(letters().len() <= 20, "no more than the line is set aside");
    // A change that is told again has another letter (docs/runs.md).
    accept(&daemon, "partner_sync", async || {
        records(&letters()).len() == 30
    })
    .await;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");

    let letters = letters();
    assert_eq!(records(&letters).len(), 30, "{letters:#?}");
    let run = letters[0]["run"].as_str().unwrap().to_owned();
    assert!(
        letters.iter().all(|letter| letter["run"] == *run),
        "{letters:#?}"
    );
    let runs = world.command(&["runs", "acme/partner_sync", "--json"]);
    let mut runs = runs.as_array().unwrap().iter();
    let noted = runs.find(|noted| noted["id"] == *run).unwrap();
    let rejected = noted["rows"]["rejected"].as_u64().unwrap();
    assert!(
        (30..=letters.len() as u64).contains(&rejected),
        "{noted:#} has {} letters",
        letters.len()
    );
    let file = world.config().join("errors.csv");
    let to = ["--run", &run, "--csv", file.to_str().unwrap(), "--json"];
    let told = world.command(&[&["errors"], &job[..], &to].concat());
    let rows = std::fs::read_to_string(&file).unwrap();
    assert_eq!(told["records"], letters.len(), "{rows}");
    assert_eq!(rows.matches("is empty").count(), letters.len(), "{rows}");
    assert!(
        rows.lines().skip(1).all(|row| row.contains("Two")),
        "{rows}"
    );
}
