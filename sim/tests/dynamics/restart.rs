//! The journal: an organization comes back with its rows, row versions, tombstones and definitions. And TLS.

use serde_json::json;
use tributary_sim::dynamics::{SimOptions, start};

use crate::harness::{EXAMPLE, OTHER, THIRD, TestOrg};

#[tokio::test]
async fn a_restart_keeps_rows_versions_and_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let mut first = TestOrg::with(|options| options.journal = Some(file.clone())).await;
    first
        .control(
            "tables",
            json!({"table": "account", "definition": {"columns": {"new_color": "String(20)"}}}),
        )
        .await;
    let page = first
        .prefer("accounts?$select=name,new_color", "odata.track-changes")
        .await
        .expect(200);
    let link = page.link("deltaLink").unwrap().to_owned();
    first
        .patch(&format!("accounts({EXAMPLE})"), json!({"new_color": "red"}))
        .await
        .expect(204);
    first
        .delete(&format!("accounts({THIRD})"))
        .await
        .expect(204);
    let new = first
        .create("accounts", json!({"name": "New", "revenue": 12.5}))
        .await;
    first.control("snapshots", json!({"save": "a"})).await;
    first
        .patch(&format!("accounts({OTHER})"), json!({"name": "Undone"}))
        .await
        .expect(204);
    first.control("snapshots", json!({"restore": "a"})).await;
    let before = first.get("accounts").await.body["value"].clone();
    let address = first.running.address;
    let data = first.dir;
    first.running.stop().await.unwrap();

    let options = SimOptions {
        listen: address,
        data: Some(data.path().to_owned()),
        journal: Some(file),
        ..SimOptions::default()
    };
    first.running = start(options).await.unwrap();
    first.dir = tempfile::tempdir().unwrap();
    first.client = reqwest::Client::new();
    first.sign_in().await;
    assert_eq!(first.get("accounts").await.body["value"], before);
    let delta = first.get(&link).await.expect(200);
    let ids: Vec<_> = delta
        .rows()
        .iter()
        .map(|row| row.get("id").unwrap_or(&row["accountid"]).as_str().unwrap())
        .collect();
    assert_eq!(ids, [EXAMPLE, new.as_str(), THIRD]);
    let another = first.create("accounts", json!({"name": "Another"})).await;
    assert_ne!(another, new, "ids are not drawn twice");
}

#[tokio::test]
async fn tls_is_served_from_files() {
    let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls");
    let options = SimOptions {
        tls_cert: Some(format!("{tls}/cert.pem").into()),
        tls_key: Some(format!("{tls}/key.pem").into()),
        public_url: Some("https://contoso.example/".to_owned()),
        ..SimOptions::default()
    };
    let running = start(options).await.unwrap();
    assert_eq!(running.url, "https://contoso.example");
    let client = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let answer = client
        .get(format!("https://{}/api/data/v9.2/WhoAmI", running.address))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 401);
    let hint = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        hint.contains("authorization_uri=https://contoso.example/")
            && hint.ends_with("resource_id=https://contoso.example/")
    );
    running.stop().await.unwrap();
}
