//! The listener: opens the stream, and leaves it politely.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::json;

use crate::crm::port::{Heard, Listener, Selection, Start};
use crate::fault::Fault;
use crate::http::{Http, HttpSettings};

use super::super::desk::Desk;
use super::super::kept::Kept;
use super::super::place::subscriptions;
use super::super::settings::Transport;
use super::reply::{Client, lock};
use super::stream::{Parts, Stream};
use super::wire::Wire;

/// How long leaving may take; the server forgets silent clients by itself after minutes.
const LEAVING: Duration = Duration::from_secs(5);

/// Opens the stream of what is selected.
///
/// # Errors
/// `PositionLost` where the position is of another transport or channel, or the CRM no longer takes it.
pub async fn listen(
    desk: Desk<'_>,
    selections: &[Selection],
    from: Start,
) -> Result<Box<dyn Listener>, Fault> {
    let settings = desk.settings;
    let (channels, place) = subscriptions(Transport::Cometd, &settings.channels, selections, from)?;
    let known = desk.described(selections).await?;
    let http = Http::new(
        HttpSettings {
            connect_timeout: settings.connect_timeout,
            timeout: settings.call_timeout,
            ca_file: settings.ca_file.clone(),
            plain_text: settings.plain_text,
            cookies: true,
            http1: true,
            ..HttpSettings::new(settings.connection.as_str())
        },
        desk.metrics,
    )?;
    let wire = Arc::new(Wire::new(http, settings.api_version.clone()));
    let client = Arc::new(Mutex::new(None));
    let leave = Leave {
        wire: Arc::clone(&wire),
        client: Arc::clone(&client),
    };
    let parts = Parts {
        budget: Arc::clone(desk.rest.budget()),
        wire,
        sign_in: Arc::clone(desk.sign_in),
        describer: Arc::clone(desk.describer),
        clock: Arc::clone(desk.clock),
        client,
        call_timeout: settings.call_timeout,
        poll_timeout: settings.poll_timeout,
        lag: TimeDelta::from_std(settings.read_lag).unwrap_or_default(),
    };
    let mut stream = Box::new(Stream::new(parts, known, channels, place));
    if let Err(fault) = Box::pin(stream.open()).await {
        // A session that was begun counts against the org's clients.
        leave.now().await;
        return Err(fault.context(format_args!(
            "listening to connection {}",
            settings.connection
        )));
    }
    Ok(Box::new(CometdListener {
        stream: Kept::new(stream),
        leave,
    }))
}

struct CometdListener {
    stream: Kept<Stream>,
    leave: Leave,
}

#[async_trait]
impl Listener for CometdListener {
    async fn next(&mut self) -> Result<Heard, Fault> {
        self.stream.next().await
    }

    async fn stop(self: Box<Self>) {
        let Self { stream, leave } = *self;
        drop(stream);
        leave.now().await;
    }
}

/// Says goodbye.
struct Leave {
    wire: Arc<Wire>,
    client: Arc<Mutex<Option<Client>>>,
}

impl Leave {
    async fn now(&self) {
        let Some(client) = lock(&self.client).take() else {
            return;
        };
        let message = json!([{"channel": "/meta/disconnect", "clientId": client.id, "id": "0"}]);
        let sent = self.wire.send(&client.token, message.to_string(), LEAVING);
        if let Err(trouble) = sent.await {
            tracing::debug!(
                ?trouble,
                "streaming session was not left; the server ends it"
            );
        }
    }
}
