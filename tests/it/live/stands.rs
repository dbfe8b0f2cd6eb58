//! What the daemon stands on: topics as they should be or not, a store that is there or not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tributary::log::embedded::{EmbeddedLog, Settings};
use tributary::log::port::{Log, Policy, TopicSpec};
use tributary::runtime::clock::SystemClock;

use super::{looked, run};

const DAY: Duration = Duration::from_hours(24);

/// A config without a connection that is reached: only what the daemon stands on is looked at.
fn config(home: &tempfile::TempDir) -> PathBuf {
    let file = home.path().join("all.toml");
    let text = r#"
[connection.acme]
kind = "salesforce"
org = "http://127.0.0.1:9"
plain_text = true
auth = { flow = "client_credentials", client_id = "3MVG9", client_secret = { file = "secret" } }
[job.acme.company_sync]
source = "Account"
[job.acme.company_sync.to.Company]
identifiers = ["salesforce_account_id"]
map = { salesforce_account_id = "Id", name = "Name" }
"#;
    std::fs::write(&file, text).unwrap();
    std::fs::write(home.path().join("secret"), "any").unwrap();
    file
}

async fn make(home: &tempfile::TempDir, partitions: u32, min_lag: Duration) {
    let folder = home.path().join("data");
    let log = EmbeddedLog::open(&folder, Arc::new(SystemClock), Settings::default());
    let log = log.await.unwrap();
    let spec = TopicSpec {
        name: "tributary.acme.Account".to_owned(),
        partitions,
        policy: Policy::Compact {
            min_lag,
            delete_retention: 30 * DAY,
        },
    };
    log.ensure(&spec).await.unwrap();
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_topic_that_is_right_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let file = config(&home);
    make(&home, 8, 7 * DAY).await;
    let looked = looked(&file).await;
    assert_eq!(looked.log.right, ["tributary.acme.Account"]);
    assert!(looked.log.findings.is_empty() && looked.log.to_make.is_empty());
}

#[tokio::test]
async fn a_topic_with_wrong_settings_is_broken() {
    for (partitions, min_lag, due) in [(3, 7 * DAY, "has 3 partitions"), (8, DAY, "keeps")] {
        let home = tempfile::tempdir().unwrap();
        let file = config(&home);
        make(&home, partitions, min_lag).await;
        let looked = looked(&file).await;
        let [finding] = looked.log.findings.as_slice() else {
            panic!("{:?}", looked.log);
        };
        assert!(finding.what.contains(due), "{finding:?}");
        assert!(finding.remedy.is_some());
        let (code, out, _) = run(&file, &["check", "--live"]).await;
        assert_eq!(code, 3);
        assert!(
            out.contains("BROKEN: topic `tributary.acme.Account`"),
            "{out}"
        );
    }
}

#[tokio::test]
async fn a_store_that_can_not_be_read_is_broken() {
    let home = tempfile::tempdir().unwrap();
    let file = config(&home);
    let data = home.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(
        data.join("store.db"),
        "no database at all, and long enough to be read as one",
    )
    .unwrap();
    let looked = looked(&file).await;
    assert_eq!(looked.target.findings.len(), 1, "{:?}", looked.target);
    assert!(!looked.target.made);
}
