//! The listener: what a table's changes become, where it stands, what it does when a place is lost.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use crate::crm::port::{Heard, LostCause};
use crate::http::tests::server::{Reply, Seen};
use crate::model::event::EventKind;

use super::super::place::Way;
use super::org::{Org, gone, page, refused, row};
use serde_json::Value as Json;

use super::*;

type Script = Arc<Mutex<VecDeque<Box<dyn FnOnce(&Seen) -> Reply + Send>>>>;

/// An org whose whole read gives `$deltatoken=1`, and whose answers to questions for changes are scripted; once the
/// script is at its end, nothing changes.
pub struct Changing {
    pub org: Org,
    script: Script,
    /// The rows that reads by id find.
    pub held: Arc<Mutex<Vec<Json>>>,
}

impl Changing {
    pub async fn start() -> Self {
        let script: Script = Arc::default();
        let held = Arc::new(Mutex::new(vec![row(1, 1, "one")]));
        let (shared, kept) = (Arc::clone(&script), Arc::clone(&held));
        let org = Org::start(move |seen| {
            let (shared, held) = (Arc::clone(&shared), Arc::clone(&kept));
            async move {
                if let Some(ids) = by_ids(&seen) {
                    let named = |row: &Json| ids.contains(row["accountid"].as_str().unwrap());
                    let held = held.lock().unwrap().clone();
                    let found: Vec<Json> = held.into_iter().filter(named).collect();
                    return page(&seen, &found, None, None);
                }
                let is_question = seen.query.contains_key("$deltatoken")
                    || seen.query.contains_key("$skiptoken")
                    || seen.query.contains_key("$filter");
                if !is_question {
                    let tracks = seen.header("prefer").contains("odata.track-changes");
                    return page(
                        &seen,
                        &[row(1, 1, "one")],
                        None,
                        tracks.then_some("$deltatoken=1"),
                    );
                }
                let scripted = shared.lock().unwrap().pop_front();
                match scripted {
                    Some(answer) => answer(&seen),
                    None => {
                        let delta = seen.query.get("$deltatoken");
                        let delta = delta.map(|token| format!("$deltatoken={token}"));
                        page(&seen, &[], None, delta.as_deref())
                    }
                }
            }
        })
        .await;
        Self { org, script, held }
    }

    pub fn then(&self, answer: impl FnOnce(&Seen) -> Reply + Send + 'static) {
        self.script.lock().unwrap().push_back(Box::new(answer));
    }

    /// A connector that listens, its table begun by a whole read.
    async fn listening(&self) -> (Dynamics, Box<dyn Listener>) {
        let crm = self.org.connector();
        let listener = crm.listen(&[chosen()], Start::Now).await.unwrap();
        let mut pages = crm.read_all(&chosen(), None).await.unwrap();
        while pages.next().await.unwrap().is_some() {}
        (crm, listener)
    }

    /// The tokens that changes were asked for with, in order and each once.
    fn tokens(&self) -> Vec<String> {
        let calls = self.org.calls();
        let asked = calls
            .iter()
            .filter_map(|seen| seen.query.get("$deltatoken").cloned());
        let mut tokens: Vec<String> = asked.collect();
        tokens.dedup();
        tokens
    }
}

/// The filter of a read by id.
pub fn by_ids(seen: &Seen) -> Option<&String> {
    let filter = seen.query.get("$filter");
    filter.filter(|filter| filter.contains(".In("))
}

pub fn chosen() -> Selection {
    selection("account", &["name"])
}

/// Listens until something is told or lost.
pub async fn heard(listener: &mut Box<dyn Listener>) -> Heard {
    loop {
        let heard = listener.next().await.unwrap();
        if !heard.events.is_empty() || !heard.lost.is_empty() {
            return heard;
        }
    }
}

pub fn place(heard: &Heard) -> Place {
    Place::parse(heard.position.as_ref().unwrap()).unwrap()
}

fn kinds(heard: &Heard) -> Vec<EventKind> {
    heard
        .events
        .iter()
        .map(|event| event.kind.clone())
        .collect()
}

fn beside_row(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Tombstone {
            beside_row: true,
            ..
        }
    )
}

#[tokio::test]
async fn tells_where_it_stands_at_once_and_when_a_table_begins() {
    let changing = Changing::start().await;
    let crm = changing.org.connector();
    let mut listener = crm.listen(&[chosen()], Start::Now).await.unwrap();
    let first = listener.next().await.unwrap();
    let standing = place(&first);
    assert_eq!(standing.org.as_deref(), Some(super::org::ORG));
    assert!(standing.tables.is_empty() && first.confirmed_at.is_none());
    assert!(!crm.goes_on(first.position.as_ref().unwrap(), &chosen()));
    let mut pages = crm.read_all(&chosen(), None).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    let begun = loop {
        let heard = listener.next().await.unwrap();
        if !place(&heard).tables.is_empty() {
            break heard;
        }
    };
    assert!(crm.goes_on(begun.position.as_ref().unwrap(), &chosen()));
    assert!(begun.confirmed_at.unwrap() <= Utc::now());
}

#[tokio::test]
async fn rows_and_tombstones_come_in_the_answers_order() {
    let changing = Changing::start().await;
    changing.then(|seen| {
        page(
            seen,
            &[row(2, 21, "two"), row(3, 22, "three"), gone(1), gone(3)],
            None,
            Some("$deltatoken=2"),
        )
    });
    let (_crm, mut listener) = changing.listening().await;
    let before = Utc::now();
    let heard = heard(&mut listener).await;
    let records: Vec<&str> = heard.events.iter().map(|e| e.records[0].as_str()).collect();
    assert_eq!(records, [guid(2), guid(3), guid(1), guid(3)]);
    let kinds = kinds(&heard);
    assert!(matches!(&kinds[0], EventKind::Row { version, .. } if version.number == 21));
    assert!(!beside_row(&kinds[2]), "{kinds:?}");
    assert!(beside_row(&kinds[3]), "{kinds:?}");
    let told = &heard.events[0];
    // After the commit, whatever the clock's rounding; the row's own stamp is what is published.
    assert!(told.committed_at >= before - TimeDelta::seconds(1));
    assert_eq!(told.source_time().timestamp(), 1_767_607_872);
    let Way::Delta(link) = &place(&heard).tables["account"].way else {
        panic!("not tracked");
    };
    assert!(link.ends_with("$deltatoken=2"), "{link}");
}

#[tokio::test]
async fn the_place_moves_only_with_the_last_page() {
    let changing = Changing::start().await;
    changing.then(|seen| {
        page(
            seen,
            &[row(2, 21, "two"), gone(4)],
            Some("$skiptoken=p2"),
            None,
        )
    });
    changing.then(|seen| page(seen, &[gone(5)], None, Some("$deltatoken=2")));
    let (_crm, mut listener) = changing.listening().await;
    let first = heard(&mut listener).await;
    assert_eq!((first.position.clone(), first.confirmed_at), (None, None));
    // The other page might have its row.
    assert!(beside_row(&kinds(&first)[1]));
    let second = heard(&mut listener).await;
    assert!(beside_row(&kinds(&second)[0]));
    assert!(second.position.is_some() && second.confirmed_at.is_some());
}

#[tokio::test]
async fn another_life_goes_on_from_the_place() {
    let changing = Changing::start().await;
    changing.then(|seen| page(seen, &[row(2, 21, "two")], None, Some("$deltatoken=2")));
    let (crm, mut listener) = changing.listening().await;
    let position = heard(&mut listener).await.position.unwrap();
    listener.stop().await;
    drop(crm);
    let crm = changing.org.connector();
    let mut listener = crm
        .listen(&[chosen()], Start::After(position.clone()))
        .await
        .unwrap();
    listener.next().await.unwrap();
    changing.then(|seen| page(seen, &[row(2, 31, "deux")], None, Some("$deltatoken=3")));
    heard(&mut listener).await;
    assert_eq!(changing.tokens(), ["1", "2"]);
    // Another selection has no place there.
    let more = selection("account", &["name", "revenue"]);
    assert!(crm.goes_on(&position, &chosen()) && !crm.goes_on(&position, &more));
    let mut listener = crm.listen(&[more], Start::After(position)).await.unwrap();
    assert!(place(&listener.next().await.unwrap()).tables.is_empty());
}

#[tokio::test]
async fn an_expired_place_is_lost_for_its_table_and_begun_by_the_next_whole_read() {
    for refusal in [
        refused(
            400,
            "0x80044352",
            "Version stamp associated with the client has expired.",
        ),
        refused(400, "-2147204270", "expired"),
        refused(410, "", "gone"),
        refused(
            500,
            "",
            "Version stamp associated with the client has expired. Please perform a full sync.",
        ),
        refused(
            400,
            "0x80072491",
            "Entity account isn't enabled for change tracking.",
        ),
    ] {
        let changing = Changing::start().await;
        changing.then(move |_| refusal);
        let (crm, mut listener) = changing.listening().await;
        let lost = heard(&mut listener).await;
        assert_eq!(lost.lost.len(), 1);
        assert_eq!(lost.lost[0].cause, LostCause::Expired);
        assert_eq!(lost.lost[0].object.as_str(), "account");
        assert!(place(&lost).tables.is_empty());
        let mut pages = crm.read_all(&chosen(), None).await.unwrap();
        while pages.next().await.unwrap().is_some() {}
        assert!(!place(&listener.next().await.unwrap()).tables.is_empty());
    }
}

#[tokio::test]
async fn a_table_that_may_not_be_read_holds_up_no_other_and_keeps_its_place() {
    let changing = Changing::start().await;
    changing.then(|_| refused(403, "0x80040220", "missing prvReadAccount"));
    let (_crm, mut listener) = changing.listening().await;
    let lost = heard(&mut listener).await;
    assert_eq!(lost.lost[0].cause, LostCause::PermissionLost);
    assert!(!place(&lost).tables.is_empty());
}

#[tokio::test]
async fn throttling_ends_the_stream_with_the_wait() {
    let changing = Changing::start().await;
    changing.then(|_| {
        refused(429, "0x80072322", "Number of requests exceeded").with("retry-after", "9")
    });
    let (_crm, mut listener) = changing.listening().await;
    let fault = loop {
        if let Err(fault) = listener.next().await {
            break fault;
        }
    };
    assert_eq!(fault.kind(), FaultKind::Throttled);
    assert_eq!(fault.wait_hint(), Some(std::time::Duration::from_secs(9)));
    assert!(fault.report().contains("account"), "{}", fault.report());
    assert!(listener.next().await.is_err(), "it is over");
}

#[tokio::test]
async fn another_org_under_the_same_address_is_refused() {
    let changing = Changing::start().await;
    let (crm, mut listener) = changing.listening().await;
    let position = listener.next().await.unwrap().position.unwrap();
    *changing.org.inner.org.lock().unwrap() = Some(guid(9));
    let fault = crm
        .listen(&[chosen()], Start::After(position))
        .await
        .err()
        .unwrap();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert!(fault.report().contains(&guid(9)) && fault.report().contains(super::org::ORG));
}

#[tokio::test]
async fn after_a_restore_rows_are_of_another_incarnation_and_no_place_is_left() {
    let changing = Changing::start().await;
    let (crm, mut listener) = changing.listening().await;
    let position = listener.next().await.unwrap().position.unwrap();
    let next = crm.after_restore(Some(&position)).unwrap();
    let standing = Place::parse(&next).unwrap();
    assert_eq!((standing.incarnation, standing.tables.len()), (1, 0));
    assert_eq!(
        standing.org,
        place(&Heard {
            position: Some(position),
            ..Heard::default()
        })
        .org
    );
    crm.listen(&[chosen()], Start::After(next.clone()))
        .await
        .unwrap();
    let mut pages = crm.read_all(&chosen(), None).await.unwrap();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!(page.rows[0].version.unwrap().incarnation, 1);
    let again = crm.after_restore(Some(&next)).unwrap();
    assert_eq!(Place::parse(&again).unwrap().incarnation, 2);
}

#[tokio::test]
async fn an_untracked_table_is_asked_by_time_and_compared_now_and_then() {
    let changing = Changing::start().await;
    changing.org.inner.untracked.store(true, Ordering::SeqCst);
    changing.then(|seen| page(seen, &[row(2, 21, "two")], None, None));
    let crm = changing
        .org
        .with(|settings| settings.sweep_interval = std::time::Duration::ZERO);
    let mut listener = crm.listen(&[chosen()], Start::Now).await.unwrap();
    let mut pages = crm.read_all(&chosen(), None).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    let (mut events, mut lost) = (Vec::new(), Vec::new());
    let told = loop {
        let told = heard(&mut listener).await;
        events.extend(told.events.clone());
        lost.extend(told.lost.clone());
        if !events.is_empty() && !lost.is_empty() {
            break told;
        }
    };
    assert_eq!(events.len(), 1);
    assert_eq!(lost[0].cause, LostCause::NotCaptured);
    assert!(matches!(
        place(&told).tables["account"].way,
        Way::Modified(_)
    ));
    let question = changing
        .org
        .calls()
        .into_iter()
        .find(|seen| seen.query.contains_key("$filter"));
    let question = question.unwrap();
    assert!(
        question.query["$filter"].starts_with("modifiedon ge 20"),
        "{question:?}"
    );
    assert!(!question.header("prefer").contains("track-changes"));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let changing = Changing::start().await;
    changing.then(|seen| page(seen, &[row(2, 21, "two")], None, Some("$deltatoken=2")));
    let (_crm, mut listener) = changing.listening().await;
    let told = loop {
        let wait = tokio::time::timeout(std::time::Duration::from_micros(300), listener.next());
        if let Ok(heard) = wait.await {
            let heard = heard.unwrap();
            if !heard.events.is_empty() {
                break heard;
            }
        }
    };
    assert_eq!(told.events[0].records[0], id(2));
}
