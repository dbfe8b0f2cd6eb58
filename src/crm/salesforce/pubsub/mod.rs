//! The change stream over gRPC: a client of Salesforce's Pub/Sub API.

mod bitmap;
mod crm_clock;
mod datum;
pub mod decoder;
mod errors;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod eventbus;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod generated;
mod payload;
mod schema;
mod schemas;
mod stream;
mod subscription;
#[cfg(test)]
mod tests;
mod tokens;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::TimeDelta;

use crate::crm::port::{Heard, Listener, Selection, Start};
use crate::fault::{Fault, FaultKind};
use crate::model::position::Position;

use super::desk::Desk;
use super::kept::Kept;
use super::place::subscriptions;
use super::settings::{Channels, Transport};
use crm_clock::CrmClock;
use decoder::Decoder;
use schemas::Schemas;
use stream::{Parts, PubSubStream};
use tokens::Tokens;
use wire::Wire;

/// The Pub/Sub API of one connection.
#[derive(Default)]
pub struct PubSub {
    shelf: Arc<Shelf>,
}

/// What outlives a stream.
#[derive(Default)]
pub struct Shelf {
    schemas: Arc<Schemas>,
    /// The position that the server refused last, after its stream was taken to be open.
    refused: Mutex<Option<Position>>,
}

impl Shelf {
    fn refuse(&self, position: Option<Position>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    fn is_refused(&self, position: &Position) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref() == Some(position)
    }
}

impl PubSub {
    /// Opens the stream of what is selected. One that starts now is open once the server has said something, which takes
    /// minutes in a quiet org.
    ///
    /// # Errors
    /// `PositionLost` where the position is of another transport or channel, or the CRM no longer takes it.
    pub async fn listen(
        &self,
        desk: Desk<'_>,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        let settings = desk.settings;
        if let Start::After(position) = &from
            && self.shelf.is_refused(position)
        {
            return Err(Fault::new(
                FaultKind::PositionLost,
                format!("position `{position}` was refused by the Pub/Sub API"),
            ));
        }
        let (channels, place) =
            subscriptions(Transport::PubSub, &settings.channels, selections, from)?;
        let known = desk.described(selections).await?;
        let parts = Parts {
            budget: Arc::clone(desk.rest.budget()),
            wire: Wire::new(settings)?,
            describer: Arc::clone(desk.describer),
            clock: Arc::clone(desk.clock),
            shelf: Arc::clone(&self.shelf),
            silence: settings.silence,
            crm_clock: CrmClock::new(Arc::clone(desk.rest)),
            lag: TimeDelta::from_std(settings.read_lag).unwrap_or_default(),
        };
        let may_enrich = settings.channels != Channels::PerObject;
        let decoder = Decoder::new(known, Arc::clone(&self.shelf.schemas), may_enrich);
        let tokens = Tokens::new(Arc::clone(desk.sign_in));
        let mut stream = Box::new(PubSubStream::new(parts, tokens, decoder, channels, place));
        Box::pin(stream.open()).await.map_err(|fault| {
            fault.context(format_args!(
                "listening to connection {}",
                settings.connection
            ))
        })?;
        Ok(Box::new(PubSubListener(Kept::new(stream))))
    }
}

struct PubSubListener(Kept<PubSubStream>);

#[async_trait]
impl Listener for PubSubListener {
    async fn next(&mut self) -> Result<Heard, Fault> {
        self.0.next().await
    }

    /// A stream that is dropped is cancelled at the server.
    async fn stop(self: Box<Self>) {}
}
