//! A connection that a person authorises: no row before, rows after, and nobody is asked again.

use std::io::BufReader;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Deserializer, Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::{id, tables};
use super::world::{CLIENT, SECRET, World};

/// 32 bytes in base64.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// How the org's refresh tokens and codes begin.
const SECRETS: [&str; 2] = ["5Aep8", "aPrx"];

/// The world with a connection that a person authorises, and a daemon at a known port.
async fn world(options: SimOptions) -> World {
    let world = World::in_org(&tables(4, 12, 12), options).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    let change = |name: &str, from: &str, to: &str| {
        let path = world.config().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    let state = format!("listen = \"{listen}\"\n[state]\nkey = {{ env = \"STATE_KEY\" }}\n");
    change("tributary.toml", "listen = \"127.0.0.1:0\"\n", &state);
    change(
        "connections/acme.toml",
        "client_credentials",
        "authorization_code",
    );
    world
}

async fn daemon(world: &World) -> Daemon {
    let secrets = [("ACME_SECRET", SECRET), ("STATE_KEY", KEY)];
    let mut daemon = Daemon::spawn(&world.config(), &world.http, &secrets);
    daemon.serving().await;
    daemon
}

async fn is(daemon: &Daemon, state: &str) {
    daemon
        .wait_for(state, |health| {
            health["connections"]["acme"]["state"] == state
        })
        .await;
}

pub fn auth(config: &Path, connection: &str, flags: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["auth", connection, "--json", "--config"])
        .arg(config)
        .args(flags)
        .env("ACME_SECRET", SECRET)
        .env("STATE_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// `tributary auth`, and a person who follows the link and agrees.
pub async fn authorise(
    config: &Path,
    (connection, client): (&str, &str),
    http: &reqwest::Client,
) -> (ExitStatus, Json) {
    let mut command = auth(config, connection, &[]);
    let output = BufReader::new(command.stdout.take().unwrap());
    let mut told = Deserializer::from_reader(output).into_iter::<Json>();
    let link = told.next().unwrap().unwrap();
    let link = link["link"].as_str().unwrap();
    assert!(link.contains(&format!("client_id={client}")), "{link}");
    assert!(link.contains("code_challenge_method=S256"), "{link}");
    let page = http.get(link).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let ended = told.next().unwrap().unwrap();
    (command.wait().unwrap(), ended)
}

async fn agreed(world: &World) -> (ExitStatus, Json) {
    authorise(&world.config(), ("acme", CLIENT), &world.http).await
}

/// Files below `folder` that hold one of these texts.
pub fn holding(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, texts));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for text in texts {
            if bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(format!("{text} in {}", path.display()));
            }
        }
    }
    found
}

fn rename(number: usize, name: &str) -> Json {
    json!({"op": "update", "object": "Account", "id": id("001", number), "fields": {"Name": name}})
}

fn silent(world: &World, daemon: &Daemon, org: &str) {
    let session = format!("{org}!");
    let mut secrets = vec![SECRET, KEY, session.as_str()];
    secrets.extend(SECRETS);
    for line in daemon.lines() {
        let told = secrets.iter().any(|secret| line.contains(secret));
        assert!(!told, "{line}");
    }
    let data = world.config().join("data");
    assert_eq!(holding(&data, &secrets), Vec::<String>::new());
    // The search finds what is there: the org's id is kept as it is.
    assert!(!holding(&data, &[org]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_authorises_once_and_a_kill_asks_nobody_again() {
    let world = world(SimOptions::default()).await;
    let first = daemon(&world).await;
    is(&first, "revoked").await;
    let (status, ended) = agreed(&world).await;
    assert!(
        status.success() && ended["outcome"] == "authorised",
        "{ended}"
    );
    let org = ended["org"].as_str().unwrap();
    first.synced().await;
    world.settled(&first).await;
    is(&first, "streaming").await;
    silent(&world, &first, org);
    first.kill();

    world.commit(&[vec![rename(3, "Renamed")]]).await;
    let second = daemon(&world).await;
    world.settled(&second).await;
    is(&second, "streaming").await;
    silent(&world, &second, org);
    let calls = world.counts().await["calls"].clone();
    assert_eq!(calls["GET oauth2/authorize"], 1, "{calls}");
}

/// Each refresh gives another token, and the one before is refused from then on, also to a daemon that was killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_the_one_that_is_used() {
    let rotating = SimOptions {
        rotate_refresh_tokens: true,
        ..SimOptions::default()
    };
    let world = world(rotating).await;
    let mut running = daemon(&world).await;
    let (status, ended) = agreed(&world).await;
    assert!(status.success(), "{ended}");
    running.synced().await;
    is(&running, "streaming").await;
    for round in 0..4 {
        let expire = json!({"do": {"kind": "expire_tokens_now"}});
        world.control("faults", expire).await;
        // The first may come with the new session's beginning; the other proves that a poll was held by the new token.
        for word in ["first", "second"] {
            let name = format!("Round {round}, {word}");
            world.commit(&[vec![rename(5, &name)]]).await;
            world.settled(&running).await;
        }
        if round == 1 {
            running.kill();
            running = daemon(&world).await;
        }
    }
    let calls = world.counts().await["calls"].clone();
    assert_eq!(calls["GET oauth2/authorize"], 1, "{calls}");
    let health = running.health().await;
    assert_eq!(health["connections"]["acme"]["open_holes"], 0, "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_connection_goes_on_without_a_restart() {
    let world = world(SimOptions::default()).await;
    let daemon = daemon(&world).await;
    let (status, ended) = agreed(&world).await;
    assert!(status.success(), "{ended}");
    daemon.synced().await;
    is(&daemon, "streaming").await;
    // A stream that has told nothing has no position to keep.
    world.commit(&[vec![rename(4, "Before")]]).await;
    world.settled(&daemon).await;

    for kind in ["expire_refresh_tokens", "expire_tokens_now"] {
        world.control("faults", json!({"do": {"kind": kind}})).await;
    }
    is(&daemon, "revoked").await;
    world.commit(&[vec![rename(5, "Meanwhile")]]).await;
    let (status, ended) = agreed(&world).await;
    assert!(status.success(), "{ended}");
    is(&daemon, "streaming").await;
    world.settled(&daemon).await;
    let health = daemon.health().await;
    assert_eq!(health["connections"]["acme"]["open_holes"], 0, "{health}");

    let done = auth(&world.config(), "acme", &["--revoke"])
        .wait_with_output()
        .unwrap();
    let told: Json = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        told["had_token"] == true && told["revoked"] == true,
        "{told}"
    );
    is(&daemon, "revoked").await;
}
