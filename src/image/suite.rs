//! The conformance suite of image stores, run on every engine.

use std::collections::BTreeMap;

use chrono::DateTime;

use crate::image::memory::MemoryImages;
use crate::image::merge::{Image, Life};
use crate::image::port::{ImageBatch, ImageStore, Mark};
use crate::image::sqlite::SqliteImages;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::Value;
use crate::model::version::Version;

fn key(object: &str) -> ObjectKey {
    ObjectKey {
        connection: ConnectionId::new("acme"),
        object: ObjectName::new(object),
    }
}

fn image(name: &str, counter: u64) -> Image {
    let mut image = Image::partial();
    image.life = Life::Live;
    image.version = Version::new(1, counter);
    image.set(&"Name".into(), &Value::from(name));
    image.set(
        &"Amount".into(),
        &Value::number("12345678901234567890.10").unwrap(),
    );
    image
}

fn mark(second: i64) -> Mark {
    Mark {
        position: Position::new(format!("p:{second}")),
        committed_at: DateTime::from_timestamp(second, 0).unwrap(),
    }
}

fn ids(names: &[&str]) -> Vec<RecordId> {
    names.iter().map(RecordId::stored).collect()
}

async fn conforms(store: &dyn ImageStore) {
    let (account, contact) = (key("Account"), key("Contact"));
    assert_eq!(store.held(&account).await.unwrap().generation, None);
    store.clear(&account, "g1").await.unwrap();
    store.clear(&contact, "g1").await.unwrap();
    store
        .put(ImageBatch {
            images: vec![
                (
                    account.clone(),
                    vec![
                        (RecordId::stored("a"), image("one", 1)),
                        (RecordId::stored("b"), image("two", 2)),
                    ],
                ),
                (
                    contact.clone(),
                    vec![(RecordId::stored("a"), image("other", 3))],
                ),
            ],
            offsets: vec![(account.clone(), 0, 7), (account.clone(), 3, 1)],
            mark: Some((ConnectionId::new("acme"), mark(1))),
        })
        .await
        .unwrap();
    let found = store.get(&account, ids(&["a", "b", "c"])).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[&RecordId::stored("a")], image("one", 1));
    let held = store.held(&account).await.unwrap();
    assert_eq!(held.generation.as_deref(), Some("g1"));
    assert_eq!(held.offsets, BTreeMap::from([(0, 7), (3, 1)]));
    assert_eq!(
        store.mark(&ConnectionId::new("acme")).await.unwrap(),
        Some(mark(1))
    );

    store
        .put(ImageBatch {
            images: vec![(
                account.clone(),
                vec![(RecordId::stored("b"), image("changed", 9))],
            )],
            offsets: vec![(account.clone(), 0, 8)],
            mark: None,
        })
        .await
        .unwrap();
    let scanned = store.scan(&account, None, 1).await.unwrap();
    assert_eq!(scanned, vec![(RecordId::stored("a"), image("one", 1))]);
    let scanned = store
        .scan(&account, Some(RecordId::stored("a")), 10)
        .await
        .unwrap();
    assert_eq!(scanned, vec![(RecordId::stored("b"), image("changed", 9))]);

    store.clear(&account, "g2").await.unwrap();
    assert!(store.scan(&account, None, 10).await.unwrap().is_empty());
    let held = store.held(&account).await.unwrap();
    assert_eq!(
        (held.generation.as_deref(), held.offsets.len()),
        (Some("g2"), 0)
    );
    assert_eq!(store.get(&contact, ids(&["a"])).await.unwrap().len(), 1);
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&MemoryImages::default()).await;
}

#[tokio::test]
async fn sqlite_conforms_and_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteImages::open(dir.path()).await.unwrap();
    conforms(&store).await;
    store.close().await.unwrap();
    drop(store);
    let store = SqliteImages::open(dir.path()).await.unwrap();
    let held = store.get(&key("Contact"), ids(&["a"])).await.unwrap();
    assert_eq!(held[&RecordId::stored("a")], image("other", 3));
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteImages::open(dir.path()).await.unwrap();
    let second = SqliteImages::open(dir.path()).await.unwrap_err();
    assert!(second.to_string().contains("images.lock"), "{second}");
    drop(store);
}
