//! A restored org, of which no question for changes tells: the newest rows are read again.

use std::time::Duration;

use crate::crm::port::{Heard, LostCause};
use crate::model::event::EventKind;

use super::changes::{Changing, by_ids, chosen, heard, place};
use super::org::{gone, page, row};
use super::*;

/// A life that was told of a second row, and the one after it, which begins at the stored place.
async fn next_life(changing: &Changing) -> (Dynamics, Box<dyn Listener>) {
    changing.then(|seen| page(seen, &[row(2, 21, "two")], None, Some("$deltatoken=2")));
    changing.held.lock().unwrap().push(row(2, 21, "two"));
    let crm = changing
        .org
        .with(|settings| settings.read_lag = Duration::ZERO);
    let mut listener = crm.listen(&[chosen()], Start::Now).await.unwrap();
    let mut pages = crm.read_all(&chosen(), None).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    let told = heard(&mut listener).await;
    assert_eq!(checks(changing), 0, "who was there knows");
    let position = told.position.unwrap();
    let listener = crm.listen(&[chosen()], Start::After(position)).await;
    (crm, listener.unwrap())
}

/// How often rows were read by id.
fn checks(changing: &Changing) -> usize {
    let calls = changing.org.calls();
    calls.iter().filter(|seen| by_ids(seen).is_some()).count()
}

/// Listens until the rows were read so often.
async fn checked(changing: &Changing, listener: &mut Box<dyn Listener>, times: usize) -> Heard {
    loop {
        let heard = listener.next().await.unwrap();
        assert_eq!(heard.lost, Vec::new());
        if checks(changing) >= times {
            return heard;
        }
    }
}

#[tokio::test]
async fn rows_that_are_older_than_they_were_are_a_restored_org() {
    let changing = Changing::start().await;
    let (_crm, mut listener) = next_life(&changing).await;
    changing.held.lock().unwrap()[1] = row(2, 20, "before the backup");
    let told = heard(&mut listener).await;
    assert_eq!(told.lost[0].cause, LostCause::Restored);
    assert_eq!(checks(&changing), 2, "once more, to be sure");
}

#[tokio::test]
async fn a_row_that_went_without_a_tombstone_has_its_table_compared() {
    let changing = Changing::start().await;
    let (_crm, mut listener) = next_life(&changing).await;
    changing.held.lock().unwrap().pop();
    let told = heard(&mut listener).await;
    assert_eq!(told.lost[0].cause, LostCause::NotCaptured);
    let left = place(&told).tables["account"].canaries.records();
    assert_eq!(left, [RecordId::guid(&guid(1)).unwrap()]);
}

#[tokio::test]
async fn a_row_whose_tombstone_comes_with_the_next_question_is_no_contradiction() {
    let changing = Changing::start().await;
    let (_crm, mut listener) = next_life(&changing).await;
    changing.held.lock().unwrap().pop();
    checked(&changing, &mut listener, 1).await;
    changing.then(|seen| page(seen, &[gone(2)], None, Some("$deltatoken=3")));
    let told = heard(&mut listener).await;
    assert_eq!(told.lost, Vec::new());
    assert!(matches!(told.events[0].kind, EventKind::Tombstone { .. }));
    checked(&changing, &mut listener, 2).await;
}

#[tokio::test]
async fn a_read_that_is_behind_once_is_no_contradiction() {
    let changing = Changing::start().await;
    let (_crm, mut listener) = next_life(&changing).await;
    changing.held.lock().unwrap()[1] = row(2, 20, "behind");
    checked(&changing, &mut listener, 1).await;
    changing.held.lock().unwrap()[1] = row(2, 21, "two");
    checked(&changing, &mut listener, 2).await;
}

#[tokio::test]
async fn they_are_read_again_from_time_to_time() {
    let changing = Changing::start().await;
    let crm = changing
        .org
        .with(|settings| settings.check_interval = Duration::from_millis(1));
    let mut listener = crm.listen(&[chosen()], Start::Now).await.unwrap();
    let mut pages = crm.read_all(&chosen(), None).await.unwrap();
    while pages.next().await.unwrap().is_some() {}
    checked(&changing, &mut listener, 3).await;
}
