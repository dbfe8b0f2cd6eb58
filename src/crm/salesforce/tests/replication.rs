//! The logs of updates and deletes: whole minutes, halves, waits, and where they end.

use std::sync::Mutex;

use chrono::{TimeDelta, TimeZone};
use serde_json::json;

use crate::http::tests::server::{Reply, Seen};

use super::org::{Org, account, below, describe};
use super::*;

type Window = (DateTime<Utc>, DateTime<Utc>);

fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + seconds, 0).unwrap()
}

fn asked(seen: &Seen, name: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&seen.query[name])
        .unwrap()
        .with_timezone(&Utc)
}

/// Where the windows began that were asked for.
fn starts(org: &Org, resource: &str) -> Vec<DateTime<Utc>> {
    let seen = org.server.seen();
    let calls = seen.iter().filter(|seen| seen.path.contains(resource));
    calls.map(|seen| asked(seen, "start")).collect()
}

fn log(ids: &[RecordId], earliest: DateTime<Utc>, covered: DateTime<Utc>) -> Reply {
    let rest = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string();
    let records: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id.as_str()[..15], "deletedDate": rest(covered)}))
        .collect();
    Reply::json(&json!({
        "deletedRecords": records, "earliestDateAvailable": rest(earliest), "latestDateCovered": rest(covered)
    }))
}

async fn org(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Org {
    let answer = Arc::new(answer);
    Org::start(move |seen| {
        let answer = Arc::clone(&answer);
        async move {
            if below(&seen).ends_with("/describe/") {
                account()
            } else {
                answer(&seen)
            }
        }
    })
    .await
}

#[tokio::test]
async fn windows_are_widened_to_whole_minutes() {
    let org = org(|seen| log(&[id(1), id(2)], at(-90_000), asked(seen, "end"))).await;
    let found = org
        .connector()
        .deleted(&"Account".into(), at(10), at(400))
        .await
        .unwrap();
    assert_eq!(found, [id(1), id(2)]);
    let seen = org.server.seen();
    let call = seen.last().unwrap();
    assert!(asked(call, "start") <= at(10) && asked(call, "end") >= at(400));
    assert_eq!(asked(call, "start").timestamp() % 60, 0);
    assert_eq!(asked(call, "end").timestamp() % 60, 0);
}

#[tokio::test]
async fn a_log_that_does_not_reach_back_is_lost() {
    let org = org(|_| {
        Reply::error(
            400,
            "INVALID_REPLICATION_DATE",
            "startDate before org replication enabled",
        )
    })
    .await;
    let fault = org
        .connector()
        .deleted(&"Account".into(), at(0), at(600))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);

    let purged = super::replication::org(|seen| log(&[], at(300), asked(seen, "end"))).await;
    let fault = purged
        .connector()
        .deleted(&"Account".into(), at(0), at(600))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
}

#[tokio::test]
async fn an_object_without_a_log_is_lost() {
    let org = Org::start(|_| async {
        Reply::json(&json!({"name": "AccountShare", "replicateable": false, "fields": []}))
    })
    .await;
    let fault = org
        .connector()
        .deleted(&"AccountShare".into(), at(0), at(600))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
}

#[tokio::test]
async fn too_many_ids_halve_the_window_without_a_gap() {
    let windows: Arc<Mutex<Vec<Window>>> = Arc::default();
    let taken = Arc::clone(&windows);
    let org = org(move |seen| {
        let (start, end) = (asked(seen, "start"), asked(seen, "end"));
        if end - start > TimeDelta::minutes(10) {
            return Reply::error(400, "EXCEEDED_ID_LIMIT", "too many");
        }
        let mut windows = taken.lock().unwrap();
        windows.push((start, end));
        log(&[id(windows.len()), id(99)], at(-90_000), end)
    })
    .await;
    let found = org
        .connector()
        .deleted(&"Account".into(), at(0), at(3600))
        .await
        .unwrap();
    let windows = windows.lock().unwrap();
    assert!(windows.len() >= 6);
    assert!(windows.first().unwrap().0 <= at(0) && windows.last().unwrap().1 >= at(3600));
    assert!(
        windows.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "{windows:?}"
    );
    assert_eq!(found.len(), windows.len() + 1, "each id once");
}

#[tokio::test]
async fn endless_halving_ends() {
    let org = org(|_| Reply::error(400, "EXCEEDED_ID_LIMIT", "too many")).await;
    let fault = org
        .connector()
        .deleted(&"Account".into(), at(0), at(3600))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
    assert!(org.server.seen().len() < 20);
}

/// A clock whose sleeps are over at once.
struct Hasty;

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    async fn sleep(&self, _: std::time::Duration) {
        tokio::task::yield_now().await;
    }
}

fn hasty(org: &Org) -> Salesforce {
    Salesforce::new(org.settings(), Metrics::none(), Arc::new(Hasty)).unwrap()
}

#[tokio::test]
async fn a_log_that_is_behind_is_asked_again() {
    let calls = Mutex::new(0);
    let org = org(move |seen| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        let covered = if *calls < 3 {
            at(500)
        } else {
            asked(seen, "end")
        };
        log(&[id(*calls)], at(-90_000), covered)
    })
    .await;
    let found = hasty(&org)
        .deleted(&"Account".into(), at(0), at(600))
        .await
        .unwrap();
    assert_eq!(found, [id(1), id(2), id(3)]);
    let starts = starts(&org, "/deleted/");
    assert_eq!(
        starts,
        [at(-20), at(460), at(460)],
        "on from what is covered"
    );
}

#[tokio::test]
async fn a_log_that_stays_behind_is_told() {
    let org = org(|_| log(&[], at(-90_000), at(500))).await;
    let fault = hasty(&org)
        .deleted(&"Account".into(), at(0), at(600))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(org.server.seen().len() < 20);
}

#[tokio::test]
async fn an_empty_window_asks_nothing() {
    let org = org(|_| Reply::new(500, "")).await;
    let found = org
        .connector()
        .deleted(&"Account".into(), at(600), at(600))
        .await
        .unwrap();
    assert!(found.is_empty());
    assert!(org.server.seen().is_empty());
}

/// What the log of updates answers.
fn updates(ids: &[RecordId], covered: DateTime<Utc>) -> Reply {
    let covered = covered.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string();
    let ids: Vec<_> = ids.iter().map(RecordId::as_str).collect();
    Reply::json(&json!({ "ids": ids, "latestDateCovered": covered }))
}

/// An org with an object that has no stamp of its changes.
async fn rates(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Org {
    let answer = Arc::new(answer);
    Org::start(move |seen| {
        let answer = Arc::clone(&answer);
        async move {
            if below(&seen).ends_with("/describe/") {
                describe("Rate__c", &[("Id", "id"), ("CreatedDate", "datetime")])
            } else {
                answer(&seen)
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_stamp_makes_the_log_of_updates_needless() {
    let org = org(|_| Reply::new(500, "")).await;
    let crm = org.connector();
    let found = crm.updated(&"Account".into(), at(0), at(600)).await;
    assert_eq!(found.unwrap(), None);
    assert_eq!(org.server.count("/updated/"), 0);
}

#[tokio::test]
async fn what_has_no_stamp_is_told_by_the_log_of_updates() {
    let org = rates(|seen| updates(&[id(2), id(1), id(2)], asked(seen, "end"))).await;
    let crm = org.connector();
    let from = Utc::now() - TimeDelta::minutes(20);
    let to = from + TimeDelta::minutes(5);
    let found = crm.updated(&"Rate__c".into(), from, to).await.unwrap();
    assert_eq!(found, Some(vec![id(1), id(2)]));
    let seen = org.server.seen();
    let call = seen.last().unwrap();
    let (start, end) = (asked(call, "start"), asked(call, "end"));
    assert!(start <= from && from - start < TimeDelta::minutes(1));
    // What changed once more after the window is told under its last change.
    assert!(end >= to + TimeDelta::minutes(14), "{end}");
    assert_eq!((start.timestamp() % 60, end.timestamp() % 60), (0, 0));
    let none = crm.updated(&"Rate__c".into(), to, to).await.unwrap();
    assert_eq!((none, org.server.count("/updated/")), (Some(vec![]), 1));
}

#[tokio::test]
async fn what_neither_stamp_nor_log_tells_is_lost() {
    let org = Org::start(|_| async {
        Reply::json(&json!({"name": "Rate__c", "replicateable": false, "fields": []}))
    })
    .await;
    let crm = org.connector();
    let found = crm.updated(&"Rate__c".into(), at(0), at(600)).await;
    assert_eq!(found.unwrap_err().kind(), FaultKind::PositionLost);
}

#[tokio::test]
async fn what_the_log_of_updates_does_not_cover_is_asked_next() {
    let (from, to) = (at(0), at(600));
    let calls = Mutex::new(0);
    let org = rates(move |seen| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        match *calls {
            1 => updates(&[id(1)], at(220)),
            2..6 => updates(&[id(2)], at(580)),
            _ => updates(&[id(3)], asked(seen, "end")),
        }
    })
    .await;
    let found = hasty(&org).updated(&"Rate__c".into(), from, to).await;
    assert_eq!(found.unwrap(), Some(vec![id(1), id(2), id(3)]));
    let starts = starts(&org, "/updated/");
    assert_eq!(starts[..3], [at(-20), at(220), at(580)]);
    // The waits move the end: what changes meanwhile is told under that change.
    let seen = org.server.seen();
    let calls = seen.iter().filter(|seen| seen.path.contains("/updated/"));
    let ends: Vec<_> = calls.map(|seen| asked(seen, "end")).collect();
    assert!(ends.iter().all(|end| *end > Utc::now()), "{ends:?}");
    assert!(ends[5] > ends[0], "{ends:?}");

    let behind = rates(|_| updates(&[], at(580))).await;
    let fault = hasty(&behind).updated(&"Rate__c".into(), from, to).await;
    let fault = fault.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable, "{fault:?}");
    assert!(fault.wait_hint().is_some());
}

#[tokio::test]
async fn too_many_updates_are_asked_for_in_halves() {
    let now = Utc::now();
    let org = rates(|seen| {
        let (start, end) = (asked(seen, "start"), asked(seen, "end"));
        if end - start > TimeDelta::minutes(1) {
            return Reply::error(400, "EXCEEDED_ID_LIMIT", "too many");
        }
        let minute = usize::try_from(start.timestamp() / 60 % 1_000).unwrap();
        updates(&[id(minute)], end)
    })
    .await;
    let from = now - TimeDelta::minutes(8);
    let found = org.connector().updated(&"Rate__c".into(), from, now).await;
    let found = found.unwrap().unwrap();
    assert!((8..=12).contains(&found.len()), "a minute each: {found:?}");

    let endless = rates(|_| Reply::error(400, "EXCEEDED_ID_LIMIT", "too many")).await;
    let fault = endless
        .connector()
        .updated(&"Rate__c".into(), from, now)
        .await;
    assert_eq!(fault.unwrap_err().kind(), FaultKind::PositionLost);
    assert!(endless.server.seen().len() < 20);
}

#[tokio::test]
async fn a_log_of_updates_that_does_not_reach_back_is_lost() {
    let org = rates(|_| {
        let message = "startDate before org replication enabled";
        Reply::error(400, "INVALID_REPLICATION_DATE", message)
    })
    .await;
    let crm = org.connector();
    let fault = crm.updated(&"Rate__c".into(), at(0), at(600)).await;
    assert_eq!(fault.unwrap_err().kind(), FaultKind::PositionLost);
}
