//! How a server is reached: TLS in all modes, wrong passwords, least privileges, restarts of the server's mind.

use std::path::PathBuf;
use std::sync::Arc;

use super::{PostgresSettings, Store, fresh};
use crate::fault::{Fault, FaultKind};
use crate::postgres::trial::server::server;
use crate::postgres::{Server, Settings, SslMode};
use crate::runtime::clock::SystemClock;
use crate::target::beside::StoreBeside;
use crate::target::port::{Outcome, Target};
use crate::target::postgres::PostgresTarget;
use crate::target::postgres::read_only::ReadOnlyDatabase;
use crate::target::suite::plans::{company, job, objects, row};
use crate::target::suite::world::Writer;

async fn role(sql: &str) {
    server().client().await.batch_execute(sql).await.unwrap();
}

/// Whether a connection is encrypted.
async fn encrypted(settings: &Settings) -> Result<bool, Fault> {
    let mut session = Server::new(settings)?.session().await?;
    let rows = session
        .query(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            &[],
        )
        .await?;
    Ok(rows[0].get(0))
}

#[tokio::test]
async fn every_ssl_mode_does_what_it_says() {
    role("CREATE ROLE tls_user LOGIN PASSWORD 'right'").await;
    let by = |host, mode| server().remote(host, "tls_user", "right", mode);
    let with = |mut settings: Settings, ca: Option<PathBuf>| {
        settings.ca_file = ca;
        settings
    };
    // A file of certificates in which ours is not.
    let other = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=Other CA",
            "-keyout",
            "key.pem",
            "-out",
            "ca.pem",
        ])
        .current_dir(other.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let stranger = || Some(other.path().join("ca.pem"));
    for (settings, due) in [
        (by("localhost", SslMode::Disable), Ok(false)),
        (by("localhost", SslMode::Prefer), Ok(true)),
        (by("localhost", SslMode::Require), Ok(true)),
        (with(by("localhost", SslMode::Require), None), Ok(true)),
        (by("localhost", SslMode::VerifyCa), Ok(true)),
        (by("localhost", SslMode::VerifyFull), Ok(true)),
        // The certificate is one for `localhost`.
        (by("127.0.0.1", SslMode::VerifyCa), Ok(true)),
        (by("127.0.0.1", SslMode::VerifyFull), Err(FaultKind::Config)),
        (
            with(by("localhost", SslMode::VerifyCa), stranger()),
            Err(FaultKind::Config),
        ),
        (
            with(by("localhost", SslMode::VerifyFull), stranger()),
            Err(FaultKind::Config),
        ),
        (
            with(
                by("localhost", SslMode::VerifyFull),
                Some("/nowhere/ca.pem".into()),
            ),
            Err(FaultKind::Config),
        ),
    ] {
        let told = encrypted(&settings).await.map_err(|fault| fault.kind());
        assert_eq!(told, due, "{} {settings:?}", settings.url);
    }
}

#[tokio::test]
async fn what_keeps_the_target_out_is_named() {
    role("CREATE ROLE known_user LOGIN PASSWORD 'right'").await;
    let require = SslMode::Require;
    let unreachable = Settings {
        url: "postgres://a@127.0.0.1:1/b".to_owned(),
        ..server().remote("localhost", "a", "b", SslMode::Disable)
    };
    let no_database = Settings {
        url: server()
            .local()
            .url
            .replace("dbname=postgres", "dbname=nowhere"),
        ..server().local()
    };
    for (settings, due) in [
        (
            server().remote("localhost", "known_user", "wrong", require),
            FaultKind::Credentials,
        ),
        (
            server().remote("localhost", "nobody", "right", require),
            FaultKind::Credentials,
        ),
        (no_database, FaultKind::Missing),
        (unreachable, FaultKind::Unavailable),
        // It may log in, and make nothing.
        (
            server().remote("localhost", "known_user", "right", require),
            FaultKind::Permission,
        ),
    ] {
        let settings = PostgresSettings {
            server: settings,
            ..fresh()
        };
        let fault = PostgresTarget::open(settings, Arc::new(SystemClock))
            .await
            .unwrap_err();
        assert_eq!(fault.kind(), due, "{fault:?}");
        assert!(!fault.report().contains("wrong"), "{}", fault.report());
    }
}

/// What a command beside the daemon is told before there is a target, and after.
#[tokio::test]
async fn whether_a_target_is_made_is_told() {
    role("CREATE ROLE looking LOGIN PASSWORD 'right'").await;
    let looking = server().remote("localhost", "looking", "right", SslMode::VerifyFull);
    let own = fresh();
    let theirs = PostgresSettings {
        server: looking,
        ..own.clone()
    };
    let is_made = async |settings: &PostgresSettings| {
        let beside = ReadOnlyDatabase::new(settings.clone()).unwrap();
        beside.is_made().await
    };
    let refused = is_made(&theirs).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Permission, "{refused:?}");
    assert!(refused.report().contains("is not there"), "{refused:?}");
    assert!(!is_made(&own).await.unwrap());
    let target = PostgresTarget::open(own.clone(), Arc::new(SystemClock));
    target.await.unwrap().ensure(&objects()).await.unwrap();
    assert!(is_made(&own).await.unwrap());
    let refused = is_made(&theirs).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Permission, "{refused:?}");
    assert!(refused.report().contains("may not use"), "{refused:?}");
}

/// A rotated password is met by the next connection.
#[tokio::test]
async fn a_password_is_read_anew() {
    role("CREATE ROLE rotated LOGIN PASSWORD 'old'").await;
    let password = Arc::new(std::sync::Mutex::new("old"));
    let source = Arc::clone(&password);
    let settings = Settings {
        password: Some(Arc::new(move || {
            Ok(crate::secret::Secret::new(*source.lock().unwrap()))
        })),
        ..server().remote("localhost", "rotated", "old", SslMode::VerifyFull)
    };
    assert!(encrypted(&settings).await.unwrap());
    role("ALTER ROLE rotated PASSWORD 'new'").await;
    let refused = encrypted(&settings).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Credentials, "{refused:?}");
    *password.lock().unwrap() = "new";
    assert!(encrypted(&settings).await.unwrap());
}

/// What docs/postgresql.md has an administrator run is enough for everything, and what it leaves out is not there.
#[tokio::test]
async fn the_role_of_the_manual_is_enough() {
    let manual = include_str!("../../../../docs/postgresql.md");
    let sql = manual
        .split("```sql")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let (outside, inside) = sql.split_once("\\connect store").unwrap();
    let client = server().client().await;
    // One by one: a database can't be made within a transaction.
    for statement in outside.split_inclusive(';') {
        client.batch_execute(statement).await.unwrap();
    }
    let url = server()
        .local()
        .url
        .replace("dbname=postgres", "dbname=store");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.batch_execute(inside).await.unwrap();
    let mut settings = server().remote("localhost", "tributary", "change me", SslMode::VerifyFull);
    settings.url = format!("postgres://tributary@localhost:{}/store", server().port);
    let store = Store::with(PostgresSettings::new(settings)).await;
    store.target.ensure(&objects()).await.unwrap();
    let plan = Arc::new(company());
    store
        .target
        .prepare(&job("acme", "sync", &[&plan]))
        .await
        .unwrap();
    let target: Arc<dyn Target> = Arc::clone(&store.target) as _;
    let mut writer = Writer::open(target, "acme", "sync").await;
    let big = (0..700).map(|n| row(&plan, &n.to_string(), 1).text("external_id", &n.to_string()));
    assert!(
        writer
            .send(big)
            .await
            .iter()
            .all(|outcome| *outcome == Outcome::Inserted)
    );
    store
        .target
        .prepare(&job("acme", "sync", &[&plan]))
        .await
        .unwrap();
    writer.release().await;
}
