//! A Dataverse environment that a person authorises, by a code with PKCE: rows after it, and nobody is asked again.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value as Json, json};

use super::authorised::{KEY, auth, authorise, holding};
use super::daemon::Daemon;
use super::dataverse::{CLIENT, Dataverse, Members, SECRET, Write, member};
use super::world::{LOOK, PATIENCE};

const ACCOUNT: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const JOB: &str = r#"
source = "account"
[to.Company]
identifiers = ["dynamics_account_id"]
map = { dynamics_account_id = "accountid", name = "name" }
"#;

struct World {
    dataverse: Dataverse,
    home: tempfile::TempDir,
}

impl World {
    async fn begin() -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("org");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(
            data.join("account.csv"),
            format!("accountid,name\n{ACCOUNT},First\n"),
        )
        .unwrap();
        let dataverse = Dataverse::of(&data).await;
        let world = Self { dataverse, home };
        // The command finds the daemon by its address.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = free.local_addr().unwrap();
        let main =
            format!("[admin]\nlisten = \"{listen}\"\n[state]\nkey = {{ env = \"STATE_KEY\" }}\n");
        let connection = world.dataverse.connection("poll_interval = \"50ms\"\n");
        let connection = connection.replace("client_credentials", "authorization_code");
        for (name, text) in [
            ("tributary.toml", main.as_str()),
            ("connections/contoso.toml", &connection),
            ("jobs/contoso/company_sync.toml", JOB),
            ("secret", SECRET),
        ] {
            let path = world.config().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        world
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    async fn daemon(&self) -> Daemon {
        let secrets = [("STATE_KEY", KEY)];
        let mut daemon = Daemon::spawn(&self.config(), &self.dataverse.http, &secrets);
        daemon.serving().await;
        daemon
    }

    async fn rename(&mut self, name: &str) {
        let write = Write {
            method: Method::PATCH,
            path: format!("accounts({ACCOUNT})"),
            body: Some(Members::from([("name".to_owned(), member(name))])),
        };
        self.dataverse.write(&write).await;
    }

    /// Waits until the company has that name.
    async fn comes(&self, name: &str, daemon: &Daemon) {
        let until = std::time::Instant::now() + PATIENCE;
        let file = self.config().join("data/store.db");
        let stored = || {
            let store = rusqlite::Connection::open(&file).ok()?;
            let found = store.query_row("SELECT name FROM company", [], |row| row.get(0));
            found.ok()
        };
        while stored() != Some(name.to_owned()) {
            assert!(
                std::time::Instant::now() < until,
                "{name}\n{}",
                daemon.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn is(daemon: &Daemon, state: &str) {
    let there = |health: &Json| health["connections"]["contoso"]["state"] == state;
    daemon.wait_for(state, there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_authorises_an_environment_once_and_again_after_a_withdrawal() {
    let mut world = World::begin().await;
    let first = world.daemon().await;
    is(&first, "revoked").await;
    let who = ("contoso", CLIENT);
    let http = world.dataverse.http.clone();
    let (status, ended) = authorise(&world.config(), who, &http).await;
    assert!(
        status.success() && ended["outcome"] == "authorised",
        "{ended}"
    );
    world.comes("First", &first).await;
    is(&first, "streaming").await;
    first.kill();

    // Nobody is asked again, though the token in hand has ended.
    world.rename("While it was down").await;
    let order = json!({"expire_access": true});
    world.dataverse.control("entra", order).await;
    let second = world.daemon().await;
    world.comes("While it was down", &second).await;
    let calls = world.dataverse.told("calls").await;
    let entra = calls["entra"].as_object().unwrap();
    let asked = entra.iter().filter(|(call, _)| call.contains("authorize"));
    let asked: u64 = asked.filter_map(|(_, times)| times.as_u64()).sum();
    assert_eq!(asked, 1, "{calls}");

    // Consent is withdrawn: the connection waits, and goes on without a restart.
    for order in ["revoke", "expire_access"] {
        world.dataverse.control("entra", json!({order: true})).await;
    }
    is(&second, "revoked").await;
    world.rename("Meanwhile").await;
    let (status, ended) = authorise(&world.config(), who, &http).await;
    assert!(status.success(), "{ended}");
    is(&second, "streaming").await;
    world.comes("Meanwhile", &second).await;

    let done = auth(&world.config(), "contoso", &["--revoke"]);
    let done = done.wait_with_output().unwrap();
    let told: Json = serde_json::from_slice(&done.stdout).unwrap();
    assert!(
        told["had_token"] == true && told["revoked"] == false,
        "{told}"
    );
    is(&second, "revoked").await;
    let secrets = [SECRET, KEY];
    for line in second.lines() {
        assert!(
            !secrets.iter().any(|secret| line.contains(secret)),
            "{line}"
        );
    }
    let data = world.config().join("data");
    assert_eq!(holding(&data, &secrets), Vec::<String>::new());
}
