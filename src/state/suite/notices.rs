//! What the port of notices promises.

use crate::state::notices::{LETTERS, Letter, Moved, Notices, Step, Taken};

use super::at;

fn letter(id: &str) -> Letter {
    Letter {
        id: id.to_owned(),
        body: format!("{{\"to\": \"{id}\"}}"),
    }
}

fn step(before: Option<&str>, after: &str, letters: &[&str], second: i64) -> Step {
    Step {
        before: before.map(str::to_owned),
        after: after.to_owned(),
        letters: letters.iter().map(|id| letter(id)).collect(),
        at: at(second),
    }
}

fn ids(taken: &[Taken]) -> Vec<(&str, u32)> {
    taken
        .iter()
        .map(|taken| (taken.letter.id.as_str(), taken.tries))
        .collect()
}

/// A mark moves once, with its letters; a letter is one taker's at a time, and again another's.
pub(super) async fn conforms(one: &dyn Notices, other: &dyn Notices) {
    let moved = |moved, kept| Moved { moved, kept };
    let told = async |by: &dyn Notices, subject: &str, step| by.move_mark(subject, step).await;
    assert_eq!(one.mark("run a").await.unwrap(), None);
    // Nobody may move what is not there.
    let early = told(one, "run a", step(Some("x"), "y", &["lost"], 0)).await;
    assert_eq!(early.unwrap(), moved(false, 0));
    let first = step(None, "told", &["a1", "a2"], 1);
    assert_eq!(
        told(one, "run a", first.clone()).await.unwrap(),
        moved(true, 2)
    );
    assert_eq!(told(other, "run a", first).await.unwrap(), moved(false, 0));
    assert_eq!(other.mark("run a").await.unwrap().as_deref(), Some("told"));
    // A letter that waits is not kept twice.
    let next = step(Some("told"), "again", &["a1", "a3"], 2);
    assert_eq!(told(other, "run a", next).await.unwrap(), moved(true, 1));
    assert_eq!(one.letters().await.unwrap(), 3);

    assert_eq!(one.take_letters(at(0), at(9), 9).await.unwrap(), []);
    let mut taken = one.take_letters(at(5), at(60), 2).await.unwrap();
    taken.sort_by(|one, other| one.letter.id.cmp(&other.letter.id));
    assert_eq!(ids(&taken), [("a1", 1), ("a2", 1)]);
    assert_eq!((&taken[0].letter, taken[0].written), (&letter("a1"), at(1)));
    let rest = other.take_letters(at(5), at(60), 9).await.unwrap();
    assert_eq!(ids(&rest), [("a3", 1)]);
    one.remove_letter("a1").await.unwrap();
    one.remove_letter("a1").await.unwrap();
    one.put_off("a2", at(30)).await.unwrap();
    assert_eq!(other.take_letters(at(29), at(99), 9).await.unwrap(), []);
    let again = other.take_letters(at(30), at(99), 9).await.unwrap();
    assert_eq!(ids(&again), [("a2", 2)]);
    // Whoever took it died.
    let left = one.take_letters(at(60), at(120), 9).await.unwrap();
    assert_eq!(ids(&left), [("a3", 2)]);
    bounded(one).await;
    told(one, "kept", step(None, "old", &["k"], 50))
        .await
        .unwrap();
    one.forget_marks(at(50)).await.unwrap();
    assert_eq!(other.mark("run a").await.unwrap(), None);
    has_kept(other).await;
}

async fn bounded(notices: &dyn Notices) {
    let many: Vec<String> = (0..LETTERS).map(|number| format!("m{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let waiting = notices.letters().await.unwrap();
    let moved = notices.move_mark("many", step(None, "x", &many, 3)).await;
    let moved = moved.unwrap();
    assert_eq!((moved.moved, moved.kept), (true, LETTERS - waiting));
    assert_eq!(notices.letters().await.unwrap(), LETTERS);
    for id in many.iter().chain(&["a2", "a3"]) {
        notices.remove_letter(id).await.unwrap();
    }
    assert_eq!(notices.letters().await.unwrap(), 0);
}

/// What [`conforms`] leaves is there when the store is opened again.
pub(super) async fn has_kept(notices: &dyn Notices) {
    assert_eq!(notices.mark("kept").await.unwrap().as_deref(), Some("old"));
    assert_eq!(notices.letters().await.unwrap(), 1);
}
