//! Notices, in memory.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryState;
use crate::fault::Fault;
use crate::state::notices::{LETTERS, Letter, Moved, Notices, Step, Taken};

/// What waits under a letter's id.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    body: String,
    written: DateTime<Utc>,
    due: DateTime<Utc>,
    tries: u32,
}

#[async_trait]
impl Notices for MemoryState {
    async fn mark(&self, subject: &str) -> Result<Option<String>, Fault> {
        let inner = self.lock();
        Ok(inner.marks.get(subject).map(|(mark, _)| mark.clone()))
    }

    async fn move_mark(&self, subject: &str, step: Step) -> Result<Moved, Fault> {
        let mut inner = self.lock();
        let held = inner.marks.get(subject).map(|(mark, _)| mark.clone());
        let (moved, mut kept) = (held == step.before, 0);
        if moved {
            let mark = (step.after, step.at);
            inner.marks.insert(subject.to_owned(), mark);
            for letter in step.letters {
                if inner.letters.len() < LETTERS && !inner.letters.contains_key(&letter.id) {
                    let waiting = Waiting {
                        body: letter.body,
                        written: step.at,
                        due: step.at,
                        tries: 0,
                    };
                    inner.letters.insert(letter.id, waiting);
                    kept += 1;
                }
            }
        }
        Ok(Moved { moved, kept })
    }

    async fn forget_marks(&self, before: DateTime<Utc>) -> Result<(), Fault> {
        self.lock().marks.retain(|_, (_, at)| *at >= before);
        Ok(())
    }

    async fn take_letters(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Taken>, Fault> {
        let mut inner = self.lock();
        let mut due: Vec<_> = inner
            .letters
            .iter_mut()
            .filter(|(_, waiting)| waiting.due <= now)
            .collect();
        due.sort_by(|one, other| (one.1.due, one.0).cmp(&(other.1.due, other.0)));
        let taken = due.into_iter().take(limit).map(|(id, waiting)| {
            waiting.due = until;
            waiting.tries += 1;
            Taken {
                letter: Letter {
                    id: id.clone(),
                    body: waiting.body.clone(),
                },
                written: waiting.written,
                tries: waiting.tries,
            }
        });
        Ok(taken.collect())
    }

    async fn put_off(&self, letter: &str, until: DateTime<Utc>) -> Result<(), Fault> {
        if let Some(waiting) = self.lock().letters.get_mut(letter) {
            waiting.due = until;
        }
        Ok(())
    }

    async fn remove_letter(&self, letter: &str) -> Result<(), Fault> {
        self.lock().letters.remove(letter);
        Ok(())
    }

    async fn letters(&self) -> Result<usize, Fault> {
        Ok(self.lock().letters.len())
    }
}
