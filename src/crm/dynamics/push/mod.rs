//! Push: what the environment sends when a row changes, whatever the way it comes by.
//!
//! A push is a *hint*: it may be lost, come twice or in another order, and nothing of it is merged. It only says
//! which record to read soon. Change tracking tells the change in any case, a little later.
//!
//! How a sender's receiver uses this (a webhook, a queue, whatever comes next):
//! 1. [`hint::parse`] the body of each message. A [`hint::Refusal`] has a sentence, a remedy, and a label for metrics
//!    ([`Inbox::refused`] counts it); it will be refused again, so the message is answered with 4xx or dead-lettered.
//! 2. [`Inbox::enqueue`] the hints, several at once if there are several. Once it returns `Ok` they are durable: a
//!    crash right after loses nothing, whoever owns the connection then. Only now is a webhook answered with 2xx, or a
//!    message settled. On a fault nothing is promised: answer 503, or give the message back.
//!
//! Nothing else is to be done. Hints of tables that no job selects are dropped and counted by the inbox; `Ok` all the
//! same, as nobody waits for them.

pub mod hint;
pub mod inbox;
pub mod register;
pub mod webhook;

pub use inbox::Inbox;
