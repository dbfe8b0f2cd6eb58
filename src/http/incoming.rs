//! An answer whose body is still on its way: taken piece by piece, so that memory does not grow with it.

use std::time::Duration;

use bytes::Bytes;

use crate::fault::Fault;

use super::answer::Answer;
use super::transport;

/// An answer's head, and its body as it comes.
#[derive(Debug)]
pub struct Incoming {
    pub(super) head: Answer,
    pub(super) response: reqwest::Response,
    pub(super) timeout: Duration,
}

impl Incoming {
    /// Status and headers; its body is empty.
    #[must_use]
    pub const fn head(&self) -> &Answer {
        &self.head
    }

    /// The next piece of the body, decompressed; `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable` for a body that is cut off or too slow.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        self.response
            .chunk()
            .await
            .map_err(|error| transport(error, &self.head.what, self.timeout))
    }
}
