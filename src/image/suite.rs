//! The conformance suite of image stores, run on every engine.

use std::collections::BTreeMap;

use chrono::DateTime;

use crate::image::memory::MemoryImages;
use crate::image::merge::{Image, Life};
use crate::image::port::{ImageBatch, ImageStore, Mark};
use crate::image::sqlite::SqliteImages;
use crate::model::name::{ConnectionId, FieldName, ObjectKey, ObjectName};
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

    finds_children(store, &contact).await;

    store.clear(&account, "g2").await.unwrap();
    assert!(store.scan(&account, None, 10).await.unwrap().is_empty());
    let held = store.held(&account).await.unwrap();
    assert_eq!(
        (held.generation.as_deref(), held.offsets.len()),
        (Some("g2"), 0)
    );
    assert_eq!(store.get(&contact, ids(&["a"])).await.unwrap().len(), 1);
}

/// Children are found by their reference as it is now, whenever they were stored.
async fn finds_children(store: &dyn ImageStore, contact: &ObjectKey) {
    let reference = FieldName::new("AccountId");
    let child = |parent: Option<&str>| {
        let mut image = image("child", 4);
        image.set(&reference, &parent.map_or(Value::Null, Value::from));
        image
    };
    let put = |records: Vec<(&str, Image)>| ImageBatch {
        images: vec![(
            contact.clone(),
            records
                .into_iter()
                .map(|(record, image)| (RecordId::stored(record), image))
                .collect(),
        )],
        ..ImageBatch::default()
    };
    let before = vec![("c1", child(Some("p"))), ("c2", child(Some("it's")))];
    store.put(put(before)).await.unwrap();
    store
        .refer(contact, std::slice::from_ref(&reference))
        .await
        .unwrap();
    let after = vec![
        ("c3", child(Some("p"))),
        ("c4", child(None)),
        ("c5", child(Some("p"))),
    ];
    store.put(put(after)).await.unwrap();
    let found = async |parent: &str, after: Option<&str>, limit| {
        let after = after.map(RecordId::stored);
        let parent = RecordId::stored(parent);
        let found = store.children(contact, &reference, &parent, after, limit);
        let found = found.await.unwrap().into_iter();
        found
            .map(|(record, image)| (record.as_str().to_owned(), image))
            .collect::<Vec<_>>()
    };
    let p = child(Some("p"));
    assert_eq!(
        found("p", None, 2).await,
        [("c1".to_owned(), p.clone()), ("c3".to_owned(), p.clone())]
    );
    assert_eq!(found("p", Some("c3"), 2).await, [("c5".to_owned(), p)]);
    assert_eq!(found("it's", None, 9).await.len(), 1);
    assert!(found("q", None, 9).await.is_empty());
    store
        .put(put(vec![("c1", child(Some("q")))]))
        .await
        .unwrap();
    assert_eq!(found("p", None, 9).await.len(), 2);
    assert_eq!(found("q", None, 9).await.len(), 1);
    let other = key("Account");
    store
        .refer(&other, std::slice::from_ref(&reference))
        .await
        .unwrap();
    let parent = RecordId::stored("p");
    let none = store.children(&other, &reference, &parent, None, 9);
    assert!(none.await.unwrap().is_empty());
    store.refer(contact, &[]).await.unwrap();
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
