//! A wait that is kept until it is over, whoever waits for it: a dropped `next` loses nothing.

use std::future::Future;
use std::pin::Pin;

use crate::crm::port::Heard;
use crate::fault::{Fault, FaultKind};

/// A stream whose waits must not be dropped half-way.
pub trait Hears: Send + 'static {
    /// Waits for what the CRM says next; not cancel-safe.
    ///
    /// # Errors
    /// What ends the stream.
    fn hear(&mut self) -> impl Future<Output = Result<Heard, Fault>> + Send;
}

type Wait<S> = Pin<Box<dyn Future<Output = (Box<S>, Result<Heard, Fault>)> + Send>>;

/// A stream, or the wait that owns it.
enum State<S> {
    Idle(Box<S>),
    Waiting(Wait<S>),
    Over,
}

/// Makes a stream's waits cancel-safe.
pub struct Kept<S>(State<S>);

impl<S: Hears> Kept<S> {
    /// Keeps `stream`.
    #[must_use]
    pub const fn new(stream: Box<S>) -> Self {
        Self(State::Idle(stream))
    }

    /// Waits for what the CRM says next. Cancel-safe.
    ///
    /// # Errors
    /// What ends the stream; it is over then.
    pub async fn next(&mut self) -> Result<Heard, Fault> {
        self.0 = match std::mem::replace(&mut self.0, State::Over) {
            State::Idle(mut stream) => State::Waiting(Box::pin(async move {
                let heard = stream.hear().await;
                (stream, heard)
            })),
            other => other,
        };
        let State::Waiting(wait) = &mut self.0 else {
            return Err(Fault::new(FaultKind::Protocol, "the stream is over"));
        };
        let (stream, heard) = wait.await;
        self.0 = if heard.is_ok() {
            State::Idle(stream)
        } else {
            State::Over
        };
        heard
    }
}
