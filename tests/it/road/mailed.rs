//! Notices: who is told what by mail and webhook, at once or when a run ends, through refusals and `kill -9`.

use std::time::Instant;

use super::daemon::Daemon;
use super::data::tables;
use super::world::{LOOK, PATIENCE, SECRET, World};
use crate::hooks::{Hooks, SECRET_PATH};
use crate::smtp::{PASSWORD, Smtp};

/// Partners without an account are refused.
const PARTNERS: &str = r#"
source = "Partner__c"
[to.Company]
identifiers = ["salesforce_account_id"]
map = { name = "Name", salesforce_account_id = "Account__c" }
"#;

/// An org of which so many partners have no account, and a config that tells whom the test wants.
async fn world(refused: usize, smtp: &Smtp, recipients: &str) -> World {
    let mut partners = "Id,Name,Account__c\n".to_owned();
    for number in 0..refused {
        partners += &format!("{},Partner {number},\n", super::data::id("a01", number));
    }
    let data = [tables(5, 5, 5), vec![("Partner__c", partners)]].concat();
    let world = World::of(&data).await;
    let file = world.config().join("tributary.toml");
    let main = std::fs::read_to_string(&file).unwrap();
    world.put(
        "tributary.toml",
        &format!("{main}\n{}{recipients}", smtp.section()),
    );
    world
}

/// Neither log nor page nor mail holds what is secret.
fn hides_secrets(daemon: &Daemon, smtp: &Smtp) {
    let told = format!("{}{:?}", daemon.lines().join("\n"), smtp.mails());
    for secret in [PASSWORD, SECRET_PATH, SECRET] {
        assert!(!told.contains(secret), "{secret} is shown");
    }
}

/// The e-mail address of acme's user, once it is kept.
fn known_user(world: &World) -> Option<String> {
    let state = rusqlite::Connection::open(world.config().join("data/state.db")).unwrap();
    let sql = "SELECT mark FROM notice_mark WHERE subject = 'user acme'";
    state.query_row(sql, [], |row| row.get(0)).ok()
}

async fn metric(daemon: &Daemon, line: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let metrics = daemon.get("/metrics").await.1;
        let mut lines = metrics.lines();
        let value = lines.find_map(|told| told.strip_prefix(line)?.trim().parse::<f64>().ok());
        if value.is_some_and(|value| value >= 1.0) {
            return;
        }
        assert!(Instant::now() < until, "{line}: {metrics}");
        tokio::time::sleep(LOOK * 4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_run_reaches_whom_its_job_names() {
    let smtp = Smtp::start(true).await;
    let hooks = Hooks::start().await;
    let recipients = "[notify]\nrevops = { mail = [\"revops@acme.example\", \"ops@acme.example\"] }\n\
                      happy = { mail = [\"happy@acme.example\"] }\n\
                      pager = { webhook = { file = \"hook.url\" }, plain_text = true }\n\
                      beat = { webhook = { file = \"hook.url\" }, every = \"1s\", plain_text = true }\n";
    let world = world(3, &smtp, recipients).await;
    world.put("hook.url", &hooks.url);
    let notify = "notify = { failure = [\"revops\", \"pager\"], success = [\"happy\"] }\n";
    world.put(
        "jobs/acme/partner_sync.toml",
        &format!("{notify}{PARTNERS}"),
    );
    let company = format!("{notify}{}", super::jobs::COMPANY_JOB);
    world.put("jobs/acme/company_sync.toml", &company);
    let daemon = world.daemon().await;
    for to in ["revops@acme.example", "ops@acme.example"] {
        let mail = smtp.mail(to, "acme/partner_sync").await;
        assert!(
            mail.head.contains("full sync ended, 3 rejected"),
            "{mail:?}"
        );
        for line in [
            "rejected: 3",
            "tributary errors --job acme/partner_sync --run",
        ] {
            assert!(mail.text.contains(line), "{line}: {mail:?}");
        }
        assert!(
            !mail.text.contains("Partner 1"),
            "a record's value: {mail:?}"
        );
    }
    smtp.mail("happy@acme.example", "acme/company_sync: full sync ended")
        .await;
    let paged = hooks.more("run_ended", 0).await;
    assert_eq!(paged["job"], "partner_sync");
    assert_eq!(paged["outcome"], "partial_success");
    assert_eq!(hooks.more("heartbeat", 1).await["outcome"], "success");
    metric(&daemon, "tributary_heartbeats_total{outcome=\"sent\"}").await;
    metric(
        &daemon,
        "tributary_notices_total{channel=\"webhook\",outcome=\"sent\"}",
    )
    .await;
    hides_secrets(&daemon, &smtp);
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");

    // Nobody is told twice: what was told is marked with it.
    let before = smtp.mails().len();
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    hooks
        .more("heartbeat", hooks.said("heartbeat").len() + 6)
        .await;
    assert_eq!(smtp.mails().len(), before, "{:#?}", smtp.mails());
    drop(daemon);
    let tried = world.command(&["notify", "test", "revops", "--json"]);
    assert_eq!(tried[1]["delivered"], true, "{tried:#}");
    assert_eq!(tried[1]["answer"], "250 2.0.0 queued");
    smtp.mail("ops@acme.example", "a test").await;
    let main = std::fs::read_to_string(world.config().join("tributary.toml")).unwrap();
    let trusting: Vec<&str> = main
        .lines()
        .filter(|line| line.starts_with("ca_file"))
        .collect();
    world.put(
        "tributary.toml",
        &main.replace(&format!("{}\n", trusting.last().unwrap()), ""),
    );
    let tried = world.command(&["notify", "test", "happy", "--json"]);
    let answer = tried[0]["answer"].as_str().unwrap();
    assert!(answer.contains("invalid peer certificate"), "{answer}");
    world.put("tributary.toml", &main);
    smtp.set_password("wrong");
    let tried = world.command(&["notify", "test", "happy", "--json"]);
    assert_eq!(tried[0]["delivered"], false, "{tried:#}");
    let answer = tried[0]["answer"].as_str().unwrap();
    assert!(answer.contains("refuses user or password"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brake_is_mailed_at_once_and_no_beat_hides_it() {
    let smtp = Smtp::start(true).await;
    let hooks = Hooks::start().await;
    let recipients = "[notify]\nrevops = { mail = [\"revops@acme.example\"] }\n\
                      beat = { webhook = { file = \"hook.url\" }, every = \"1s\", plain_text = true }\n";
    let world = world(30, &smtp, recipients).await;
    world.put("hook.url", &hooks.url);
    let job =
        format!("notify = {{ failure = [\"revops\"] }}\nbrakes = {{ min_rows = 20 }}\n{PARTNERS}");
    world.put("jobs/acme/partner_sync.toml", &job);
    let daemon = world.daemon().await;
    let mail = smtp
        .mail(
            "revops@acme.example",
            "acme/partner_sync: stopped by a brake",
        )
        .await;
    assert!(
        mail.text.contains("resume acme/partner_sync --accept"),
        "{mail:?}"
    );
    assert!(
        !mail.text.contains("Partner 1"),
        "a record's value: {mail:?}"
    );
    metric(&daemon, "tributary_heartbeats_total{outcome=\"withheld\"}").await;
    let beats = hooks.said("heartbeat").len();
    let body = serde_json::json!({ "accept": true });
    daemon
        .post("/api/v1/jobs/acme/partner_sync/resume", &body)
        .await;
    smtp.mail("revops@acme.example", "acme/partner_sync: goes on")
        .await;
    hooks.more("heartbeat", beats).await;
    hides_secrets(&daemon, &smtp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_stops_no_job_and_loses_no_notice() {
    let smtp = Smtp::start(true).await;
    let recipients = "[notify]\nrevops = { mail = [\"revops@acme.example\"] }\n";
    let world = world(2, &smtp, recipients).await;
    let job = format!("notify = {{ failure = [\"revops\"] }}\n{PARTNERS}");
    world.put("jobs/acme/partner_sync.toml", &job);
    smtp.set_password("wrong-password");
    let daemon = world.daemon().await;
    metric(
        &daemon,
        "tributary_notices_total{channel=\"mail\",outcome=\"retried\"}",
    )
    .await;
    metric(&daemon, "tributary_notices_waiting").await;
    world.settled(&daemon).await;
    let refused = smtp.refused();
    assert!(refused > 0);
    let lines = daemon.lines().join("\n");
    assert!(lines.contains("refuses user or password"), "{lines}");
    assert!(!lines.contains("wrong-password"));
    daemon.kill();

    let daemon = world.daemon().await;
    let until = Instant::now() + PATIENCE;
    while smtp.refused() == refused {
        assert!(Instant::now() < until, "it is not tried again");
        tokio::time::sleep(LOOK * 4).await;
    }
    assert!(smtp.mails().is_empty());
    smtp.set_password(PASSWORD);
    smtp.mail("revops@acme.example", "2 rejected").await;
    hides_secrets(&daemon, &smtp);
}

/// Nobody is named, so that it is the user who is signed in.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_connection_is_mailed_to_its_user_by_starttls() {
    let smtp = Smtp::start(false).await;
    let world = world(0, &smtp, "").await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let until = Instant::now() + PATIENCE;
    let user = loop {
        if let Some(email) = known_user(&world) {
            let users = world.truth("User").await;
            let mut emails = users.values().map(|user| &user["Email"]);
            assert!(emails.any(|known| *known == email), "{email}");
            break email;
        }
        assert!(Instant::now() < until, "{}", daemon.tail());
        tokio::time::sleep(LOOK * 4).await;
    };
    drop(daemon.stop());
    let mut daemon = Daemon::spawn(
        &world.config(),
        &world.http,
        &[("ACME_SECRET", "wrong-secret")],
    );
    daemon.serving().await;
    let mail = smtp
        .mail(&user, "connection acme: the org refuses its credentials")
        .await;
    assert!(!mail.text.contains("wrong-secret"), "{mail:?}");
    drop(daemon.stop());
    let daemon = world.daemon().await;
    smtp.mail(&user, "connection acme: streams again").await;
    hides_secrets(&daemon, &smtp);
}
