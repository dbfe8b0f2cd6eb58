//! The listener: opens the stream, and waits for it so that a dropped wait loses nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde_json::json;

use crate::crm::port::{Heard, Listener, Start};
use crate::fault::{Fault, FaultKind};
use crate::http::{Http, HttpSettings};
use crate::model::name::ObjectName;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use super::super::describe::Describer;
use super::super::settings::{Channels, SalesforceSettings};
use super::super::sign_in::SignIn;
use super::decode::Objects;
use super::place::{Place, Replay, STANDARD};
use super::reply::{Client, lock};
use super::stream::{Parts, Stream};
use super::wire::Wire;

/// How long leaving may take; the server forgets silent clients by itself after minutes.
const LEAVING: Duration = Duration::from_secs(5);

/// What listening needs of its connection.
pub struct Desk<'a> {
    /// The settings.
    pub settings: &'a SalesforceSettings,
    /// Where tokens come from.
    pub sign_in: &'a Arc<SignIn>,
    /// Descriptions.
    pub describer: &'a Arc<Describer>,
    /// Our own clock.
    pub clock: &'a Arc<dyn Clock>,
    /// The count of calls.
    pub metrics: &'a Metrics,
}

/// Opens the stream of `objects`.
///
/// # Errors
/// `PositionLost` where the position is of another transport or channel, or the CRM no longer takes it.
pub async fn listen(
    desk: Desk<'_>,
    objects: &[ObjectName],
    from: Start,
) -> Result<Box<dyn Listener>, Fault> {
    let settings = desk.settings;
    let (channels, place) = subscriptions(&settings.channels, objects, from)?;
    let mut known = Objects::default();
    for object in objects {
        known.insert(object.clone(), desk.describer.get(object).await?);
    }
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
        state: State::Idle(stream),
        leave,
    }))
}

/// The channel of an object: `Account` is `/data/AccountChangeEvent`, `Plan__c` is `/data/Plan__ChangeEvent`.
fn channel_of(object: &ObjectName) -> String {
    match object.as_str().strip_suffix("__c") {
        Some(custom) => format!("/data/{custom}__ChangeEvent"),
        None => format!("/data/{object}ChangeEvent"),
    }
}

/// Channels and from where each is delivered.
fn subscriptions(
    channels: &Channels,
    objects: &[ObjectName],
    from: Start,
) -> Result<(Vec<(String, Replay)>, Place), Fault> {
    let mut names = match channels {
        Channels::Standard => vec![STANDARD.to_owned()],
        Channels::Named(name) => vec![name.clone()],
        Channels::PerObject => objects.iter().map(channel_of).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let position = match from {
        Start::Now => return Ok((all_from(names, &Replay::Now), Place::default())),
        Start::Earliest => return Ok((all_from(names, &Replay::Earliest), Place::default())),
        Start::After(position) => position,
    };
    let place = Place::parse(&position)?;
    let channels: Vec<(String, Replay)> = names
        .into_iter()
        .map(|channel| {
            let replay = match place.get(&channel) {
                Some(id) => Replay::After(id.to_owned()),
                // Nothing of it was heard yet: what came since is among what is still held.
                None => Replay::Earliest,
            };
            (channel, replay)
        })
        .collect();
    if channels
        .iter()
        .all(|(_, replay)| *replay == Replay::Earliest)
    {
        return Err(Fault::new(
            FaultKind::PositionLost,
            format!("position `{position}` is of other channels than the connection's"),
        ));
    }
    Ok((channels, place))
}

fn all_from(names: Vec<String>, replay: &Replay) -> Vec<(String, Replay)> {
    names
        .into_iter()
        .map(|name| (name, replay.clone()))
        .collect()
}

type Wait = Pin<Box<dyn Future<Output = (Box<Stream>, Result<Heard, Fault>)> + Send>>;

/// A stream, or the wait that owns it.
enum State {
    Idle(Box<Stream>),
    Waiting(Wait),
    Over,
}

struct CometdListener {
    state: State,
    leave: Leave,
}

#[async_trait]
impl Listener for CometdListener {
    async fn next(&mut self) -> Result<Heard, Fault> {
        // The wait is kept until it is over, whoever waits for it: a poll in flight is never dropped.
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Idle(mut stream) => State::Waiting(Box::pin(async move {
                let heard = stream.next().await;
                (stream, heard)
            })),
            other => other,
        };
        let State::Waiting(wait) = &mut self.state else {
            return Err(Fault::new(FaultKind::Protocol, "the stream is over"));
        };
        let (stream, heard) = wait.await;
        self.state = if heard.is_ok() {
            State::Idle(stream)
        } else {
            State::Over
        };
        heard
    }

    async fn stop(self: Box<Self>) {
        let Self { state, leave } = *self;
        drop(state);
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

#[cfg(test)]
mod tests {
    use crate::model::position::Position;

    use super::*;

    fn objects() -> Vec<ObjectName> {
        vec!["Account".into(), "Plan__c".into(), "ns__Plan__c".into()]
    }

    fn after(text: &str) -> Start {
        Start::After(Position::new(text))
    }

    #[test]
    fn one_channel_for_all() {
        let (channels, _) =
            subscriptions(&Channels::Standard, &objects(), after("cometd:7")).unwrap();
        assert_eq!(channels, [(STANDARD.to_owned(), Replay::After("7".into()))]);
        let (channels, _) = subscriptions(&Channels::Standard, &objects(), Start::Now).unwrap();
        assert_eq!(channels, [(STANDARD.to_owned(), Replay::Now)]);
    }

    #[test]
    fn a_channel_for_each() {
        let from = after("cometd:/data/AccountChangeEvent=7,/data/Plan__ChangeEvent=9");
        let (channels, _) = subscriptions(&Channels::PerObject, &objects(), from).unwrap();
        let expected = [
            (
                "/data/AccountChangeEvent".to_owned(),
                Replay::After("7".into()),
            ),
            (
                "/data/Plan__ChangeEvent".to_owned(),
                Replay::After("9".into()),
            ),
            ("/data/ns__Plan__ChangeEvent".to_owned(), Replay::Earliest),
        ];
        assert_eq!(channels, expected);
    }

    #[test]
    fn a_position_of_other_channels_is_lost() {
        for (channels, position) in [
            (Channels::PerObject, "cometd:7"),
            (Channels::Named("/data/Sales__chn".into()), "cometd:7"),
            (Channels::Standard, "cometd:/data/Sales__chn=7"),
            (Channels::Standard, "pubsub:AAAB"),
        ] {
            let fault = subscriptions(&channels, &objects(), after(position)).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::PositionLost, "{position}");
            assert!(fault.to_string().contains(position));
        }
    }
}
