//! The port of notices: marks of what people were told of, and letters that wait to be delivered.
//!
//! Contract for every engine:
//! * A mark is moved by who saw it last only, and the letters that go with the move are kept in the same transaction: what
//!   several daemons see at once is written down by one of them, and a kill neither loses a letter nor doubles one.
//! * A write whose reply is lost may be made again: the mark has moved then, and nothing is written twice.
//! * A letter that was taken is nobody else's until the time that its taker named, so that one whose taker dies is delivered
//!   by another: at least once.
//! * At most [`LETTERS`] letters wait; those beyond are not kept, and whoever writes them is told so.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::fault::Fault;

/// How many letters wait at most.
pub const LETTERS: usize = 1000;

/// A store of notices.
#[async_trait]
pub trait Notices: Send + Sync {
    /// The mark of a subject.
    async fn mark(&self, subject: &str) -> Result<Option<String>, Fault>;

    /// Moves the mark of a subject from `before` (`None`: it has none) and keeps the letters that go with it.
    async fn move_mark(&self, subject: &str, step: Step) -> Result<Moved, Fault>;

    /// Forgets marks that were not moved since `before`.
    async fn forget_marks(&self, before: DateTime<Utc>) -> Result<(), Fault>;

    /// Takes letters that are due, the oldest first; they are due again at `until`.
    async fn take_letters(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Taken>, Fault>;

    /// Says when a letter is due again.
    async fn put_off(&self, letter: &str, until: DateTime<Utc>) -> Result<(), Fault>;

    /// Removes a letter: it is delivered, or given up.
    async fn remove_letter(&self, letter: &str) -> Result<(), Fault>;

    /// How many letters wait.
    async fn letters(&self) -> Result<usize, Fault>;
}

/// A move of a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it was.
    pub before: Option<String>,
    /// What it becomes.
    pub after: String,
    /// What is to be delivered.
    pub letters: Vec<Letter>,
    /// When.
    pub at: DateTime<Utc>,
}

/// How a move went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The mark was what the mover thought.
    pub moved: bool,
    /// So many letters were kept.
    pub kept: usize,
}

/// What is to be delivered; the body is its writer's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its id: one that waits is not kept a second time.
    pub id: String,
    /// What it says, and to whom.
    pub body: String,
}

/// A letter in the hands of who delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The letter.
    pub letter: Letter,
    /// When it was written.
    pub written: DateTime<Utc>,
    /// How often it was taken, with this time.
    pub tries: u32,
}
