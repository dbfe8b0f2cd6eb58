//! What waits for a row, as the job sees it: run again, refused, expired; a letter each, and never lost.

use super::*;
use crate::target::port::ParkedKey;
use crate::target::port::review::InReview;

/// A child that waits for its parent, and a job that runs.
async fn waiting(stage: &Stage) -> (RecordId, RecordId, Running) {
    let (child, parent) = (ids(1, 1).remove(0), ids(4, 1).remove(0));
    stage
        .target
        .lock()
        .waits
        .insert(child.clone(), parent.clone());
    let running = start(stage);
    stage.publish(&[change(&child, 1, "child")]).await;
    stage.settled().await;
    assert_eq!(stage.outcome("parked"), 1);
    (child, parent, running)
}

fn key(child: &RecordId) -> ParkedKey {
    ParkedKey {
        record: child.clone(),
        reference: None,
        version: Version::new(7, 1),
        place: (1, 0),
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_change_runs_again_when_its_row_has_come() {
    let stage = stage().await;
    let (child, parent, running) = waiting(&stage).await;
    stage.publish(&[change(&parent, 1, "parent")]).await;
    stage
        .target
        .until("the child", |inner| inner.names.contains_key(&child))
        .await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert!(inner.parked.is_empty());
        let last = inner.commits.last().unwrap();
        assert_eq!(
            (last.partition, last.expect, last.next),
            (1, 1, 1),
            "the offset stays"
        );
    }
    assert!(stage.letters().await.is_empty());
}

/// Its row has come, and now it is refused: one letter, then it is gone.
async fn refused_when_run_again(refuse: impl Fn(&mut Inner, &RecordId), reason: &str) {
    let stage = stage().await;
    let (child, parent, running) = waiting(&stage).await;
    refuse(&mut stage.target.lock(), &child);
    stage.publish(&[change(&parent, 1, "parent")]).await;
    stage
        .target
        .until("nothing parked", |inner| inner.parked.is_empty())
        .await;
    let seen = stage.target.lock().releases;
    stage
        .target
        .until("later releases", |inner| inner.releases > seen + 70)
        .await;
    running.end().await;
    assert_eq!(stage.letters().await, [(reason.to_owned(), 0)]);
    let inner = stage.target.lock();
    assert_eq!(
        inner.forgotten,
        [(key(&child), 1)],
        "its letter came before it was forgotten"
    );
    assert!(!inner.names.contains_key(&child));
    assert_eq!(moves(&inner.commits, 1), [(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_parked_change_that_is_rejected_becomes_one_letter() {
    let reject = |inner: &mut Inner, child: &RecordId| {
        inner.rejected.insert(child.clone(), "ambiguous".to_owned());
    };
    refused_when_run_again(reject, "Company: ambiguous").await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_change_that_is_poison_becomes_one_letter() {
    let poison = |inner: &mut Inner, child: &RecordId| {
        inner.poison.push(Set::from([child.clone()]));
    };
    refused_when_run_again(poison, "as scripted").await;
}

/// One that no mapping takes any more does not get as far as the target.
#[tokio::test(start_paused = true)]
async fn a_parked_change_that_is_no_longer_mapped_becomes_one_letter() {
    let garble = |inner: &mut Inner, child: &RecordId| {
        let parked = inner.parked.get_mut(child).unwrap();
        let mut odd = change(child, 1, "child");
        odd.fields.insert("Employees".into(), Value::from("many"));
        parked.image = odd.encode().unwrap().into();
    };
    let stage = stage().await;
    let (child, parent, running) = waiting(&stage).await;
    garble(&mut stage.target.lock(), &child);
    stage.publish(&[change(&parent, 1, "parent")]).await;
    stage
        .target
        .until("nothing parked", |inner| inner.parked.is_empty())
        .await;
    running.end().await;
    let letters = stage.letters().await;
    assert!(
        letters.len() == 1 && letters[0].0.contains("`many`"),
        "{letters:?}"
    );
    assert_eq!(stage.target.lock().forgotten, [(key(&child), 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_too_long_becomes_one_letter_before_it_is_forgotten() {
    let stage = stage().await;
    let (child, parent, running) = waiting(&stage).await;
    stage
        .target
        .until("its expiry", |inner| inner.parked.is_empty())
        .await;
    let seen = stage.target.lock().releases;
    stage
        .target
        .until("later releases", |inner| inner.releases > seen + 2)
        .await;
    running.end().await;
    let reason = format!("waited 1 h for record {parent}, which did not come");
    assert_eq!(stage.letters().await, [(reason, 0)]);
    assert_eq!(stage.target.lock().forgotten, [(key(&child), 1)]);
}

/// A crash between the letter and the forgetting tells it twice; never not at all.
#[tokio::test(start_paused = true)]
async fn a_crash_between_letter_and_forgetting_loses_nothing() {
    let stage = stage().await;
    let (_, _, running) = waiting(&stage).await;
    stage.target.lock().clings = Some(FaultKind::Unavailable);
    let dead = async || {
        let ends = stage.log.bounds(DEAD).await.unwrap();
        ends.values().map(|ends| ends.end).sum::<u64>()
    };
    stage
        .target
        .until("many attempts", |inner| inner.clung > 50)
        .await;
    assert_eq!(dead().await, 1, "not again while the target can't forget");
    running.task.abort();
    assert_eq!(stage.target.lock().parked.len(), 1);
    stage.target.lock().clings = None;
    let running = start(&stage);
    stage
        .target
        .until("it forgotten", |inner| inner.parked.is_empty())
        .await;
    running.end().await;
    assert_eq!(dead().await, 2);
}

/// More are refused than one release returns: all of them in one go.
#[tokio::test(start_paused = true)]
async fn many_are_refused_in_one_go() {
    let stage = stage().await;
    let parent = ids(4, 1).remove(0);
    let children = ids(1, 30);
    {
        let mut inner = stage.target.lock();
        inner.release_limit = Some(7);
        for child in &children {
            inner.waits.insert(child.clone(), parent.clone());
        }
    }
    let changes: Vec<_> = children.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes).await;
    let running = start(&stage);
    stage.settled().await;
    for child in &children {
        let mut inner = stage.target.lock();
        inner.rejected.insert(child.clone(), "ambiguous".to_owned());
    }
    stage.publish(&[change(&parent, 1, "parent")]).await;
    stage
        .target
        .until("nothing parked", |inner| inner.parked.is_empty())
        .await;
    running.end().await;
    assert_eq!(stage.letters().await.len(), 30);
    let inner = stage.target.lock();
    assert!(inner.releases <= 7, "{} releases", inner.releases);
}

/// More than one listing tells, all in one go.
#[tokio::test(start_paused = true)]
async fn many_expire_in_one_go() {
    let stage = stage().await;
    let parent = ids(4, 1).remove(0);
    let children = ids(1, 600);
    for child in &children {
        let mut inner = stage.target.lock();
        inner.waits.insert(child.clone(), parent.clone());
    }
    let changes: Vec<_> = children.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes).await;
    let running = start(&stage);
    stage
        .target
        .until("all expired", |inner| {
            inner.parked.is_empty() && inner.forgotten.len() == 600
        })
        .await;
    running.end().await;
    assert_eq!(stage.letters().await.len(), 600);
    let inner = stage.target.lock();
    assert!(inner.forgotten.is_sorted_by_key(|(_, letters)| *letters));
    assert_eq!(inner.forgotten[0].1, 250);
}

/// What a person decided is carried out long before the next look at all that waits.
#[tokio::test(start_paused = true)]
async fn what_is_decided_runs_again_soon() {
    let stage = stage().await;
    let (child, parent, running) = waiting(&stage).await;
    let began = tokio::time::Instant::now();
    {
        let mut inner = stage.target.lock();
        inner.names.insert(parent, (Version::new(7, 1), None));
        inner.in_review = InReview {
            waiting: 1,
            decided: 1,
        };
    }
    stage
        .target
        .until("the child", |inner| inner.names.contains_key(&child))
        .await;
    assert!(began.elapsed() < super::super::RELEASE_EVERY);
    running.end().await;
    assert_eq!(stage.picture().in_review, 1);
}
