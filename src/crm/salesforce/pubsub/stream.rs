//! The stream: its subscriptions, what they say, and what heals a lost one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::time::{Instant, timeout_at};

use crate::budget::Budget;
use crate::crm::port::Heard;
use crate::fault::{Fault, FaultKind};
use crate::model::event::Event;
use crate::model::name::ObjectName;
use crate::runtime::clock::Clock;

use super::super::describe::Describer;
use super::super::kept::Hears;
use super::super::place::{Place, Replay, Track};
use super::super::settings::Transport;
use super::super::sign_in::Token;
use super::Shelf;
use super::crm_clock::CrmClock;
use super::decoder::{Decoder, object_of};
use super::errors::{Trouble, classify};
use super::eventbus::{ConsumerEvent, FetchResponse};
use super::schema::EventSchema;
use super::subscription::{Subscription, text_of};
use super::tokens::Tokens;
use super::wire::Wire;

/// How long a refusal of a stored position is waited for: the server says nothing to a subscription that it grants.
/// One that comes later is kept for the next attempt.
const GRACE: Duration = Duration::from_secs(3);
/// Events are on the stream this long after their commit, at the latest, as far as a keep-alive is trusted.
const MARGIN: TimeDelta = TimeDelta::seconds(10);

/// What a stream is made of.
pub struct Parts {
    /// Counts what is delivered.
    pub budget: Arc<Budget>,
    /// The way to the server.
    pub wire: Wire,
    /// Descriptions, read again when events say that they are stale.
    pub describer: Arc<Describer>,
    /// Our own clock.
    pub clock: Arc<dyn Clock>,
    /// What outlives a stream.
    pub shelf: Arc<Shelf>,
    /// The longest silence.
    pub silence: Duration,
    /// The CRM's clock.
    pub crm_clock: CrmClock,
    /// How much older than the CRM's clock a read is taken to be.
    pub lag: TimeDelta,
}

/// One stream.
pub struct PubSubStream {
    parts: Parts,
    decoder: Decoder,
    subscriptions: Vec<Subscription>,
    track: Track,
    tokens: Tokens,
    /// Whose turn it is to be asked first.
    turn: usize,
    /// What was said while the stream was opened.
    early: VecDeque<Heard>,
    stale: Vec<ObjectName>,
}

/// What a subscription said.
enum Said {
    /// And when it had nothing to say, if it was waited for.
    Response(FetchResponse, Option<Instant>),
    Ended(Trouble),
}

impl Hears for PubSubStream {
    async fn hear(&mut self) -> Result<Heard, Fault> {
        if let Some(heard) = self.early.pop_front() {
            return Ok(heard);
        }
        loop {
            self.describe_again().await;
            self.subscribe().await?;
            // Who asks again has taken what was told before.
            for subscription in &mut self.subscriptions {
                subscription.top_up();
            }
            let (index, said) = self.said().await;
            if let Some(heard) = self.take(index, said).await? {
                return Ok(heard);
            }
        }
    }
}

impl PubSubStream {
    /// A stream that nobody has opened yet.
    pub fn new(
        parts: Parts,
        tokens: Tokens,
        decoder: Decoder,
        channels: Vec<(String, Replay)>,
        place: Place,
    ) -> Self {
        let subscriptions = channels
            .into_iter()
            .map(|(channel, start)| Subscription::new(channel, start));
        Self {
            parts,
            decoder,
            subscriptions: subscriptions.collect(),
            track: Track::from(place),
            tokens,
            turn: 0,
            early: VecDeque::new(),
            stale: Vec::new(),
        }
    }

    /// Subscribes, and waits for the first word: of one that begins now, because only that proves from when on it
    /// tells everything; of another for a short while, as a position may be refused.
    ///
    /// # Errors
    /// `PositionLost`, `Config`, `Permission`; `Unavailable` where nothing was said in time.
    pub async fn open(&mut self) -> Result<(), Fault> {
        self.check_topics().await?;
        let is_new = |subscription: &Subscription| subscription.start == Replay::Now;
        let must_hear = self.subscriptions.iter().any(is_new);
        let wait = if must_hear { self.parts.silence } else { GRACE };
        let until = Instant::now() + wait;
        if must_hear {
            tracing::info!(
                at_most = ?wait,
                "waiting for the stream's first word, which a quiet org sends within minutes"
            );
        }
        while self.subscriptions.iter().any(|one| !one.heard) {
            self.subscribe().await?;
            // Only the wait may be cut off: what was said is taken whole.
            let Ok((index, said)) = timeout_at(until, self.said()).await else {
                if must_hear {
                    let what = format!("the stream said nothing within {} s", wait.as_secs());
                    return Err(Fault::new(FaultKind::Unavailable, what));
                }
                return Ok(());
            };
            let heard = self.take(index, said).await?;
            self.early.extend(heard);
        }
        Ok(())
    }

    /// Asks whether each topic is there and may be listened to: a plain answer before a stream begins.
    async fn check_topics(&mut self) -> Result<(), Fault> {
        for index in 0..self.subscriptions.len() {
            let channel = self.subscriptions[index].channel.clone();
            let topic = loop {
                let token = self.tokens.get().await?;
                match self.parts.wire.topic(&token, &channel).await {
                    Ok(topic) => break topic,
                    Err(status) => {
                        let trouble = classify(&format!("asking for topic {channel}"), &status);
                        self.heal_call(trouble, &token).await?;
                    }
                }
            };
            if !topic.can_subscribe {
                let what = format!("topic {channel} may not be subscribed to");
                let remedy = "give the connection's user View All Data, or View All on each object";
                return Err(Fault::new(FaultKind::Permission, what).remedy(remedy));
            }
        }
        Ok(())
    }

    /// A unary call failed: a new token heals it once.
    async fn heal_call(&mut self, trouble: Trouble, used: &Arc<Token>) -> Result<(), Fault> {
        match trouble {
            Trouble::DeadToken(text) => self.tokens.renew(&text, used).await,
            Trouble::Cut(text) => Err(Fault::new(FaultKind::Unavailable, text)),
            Trouble::Fault(fault) => Err(fault),
        }
    }

    /// Opens the subscriptions that are not.
    async fn subscribe(&mut self) -> Result<(), Fault> {
        for index in 0..self.subscriptions.len() {
            while !self.subscriptions[index].is_open() {
                let token = self.tokens.get().await?;
                let subscription = &mut self.subscriptions[index];
                let replay = replay(&self.track, subscription);
                let wire = &self.parts.wire;
                let begun = subscription
                    .open(&replay, &token, |requests| wire.subscribe(&token, requests))?;
                if let Err(status) = begun {
                    self.heal_call(classify("subscribing", &status), &token)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for what any subscription says, or for one that was silent too long. Cancel-safe.
    async fn said(&mut self) -> (usize, Said) {
        let silent = self
            .subscriptions
            .iter()
            .enumerate()
            .filter_map(|(index, one)| Some((one.silent_since()?, index)))
            .min();
        let Some((since, index)) = silent else {
            // A connection without objects has nothing to say.
            return std::future::pending().await;
        };
        let silence = self.parts.silence;
        let (subscriptions, turn) = (&mut self.subscriptions, &mut self.turn);
        let mut quiet = None;
        let any = poll_fn(|cx| {
            let count = subscriptions.len();
            for step in 0..count {
                let index = (*turn + step) % count;
                let Some(subscription) = subscriptions.get_mut(index) else {
                    continue;
                };
                if let Poll::Ready(said) = subscription.poll(cx) {
                    *turn = index + 1;
                    let what = format!("subscription to {}", subscription.channel);
                    return Poll::Ready((index, said_of(&what, said, quiet)));
                }
            }
            quiet.get_or_insert_with(Instant::now);
            Poll::Pending
        });
        match timeout_at(since + silence, any).await {
            Ok(said) => said,
            Err(_) => {
                let channel = self
                    .subscriptions
                    .get(index)
                    .map(|one| one.channel.as_str());
                let text = format!(
                    "subscription to {} said nothing for {} s, keep-alives included",
                    channel.unwrap_or_default(),
                    silence.as_secs()
                );
                (index, Said::Ended(Trouble::Cut(text)))
            }
        }
    }

    /// Takes what a subscription said; `None` if there is nothing to tell.
    async fn take(&mut self, index: usize, said: Said) -> Result<Option<Heard>, Fault> {
        match said {
            Said::Response(response, quiet) if response.events.is_empty() => {
                Ok(Some(self.nothing(index, &response, quiet).await))
            }
            Said::Response(response, _) => self.told(index, response).await.map(Some),
            Said::Ended(trouble) => {
                self.ended(index, trouble).await?;
                Ok(None)
            }
        }
    }

    /// A subscription ended. One that had said something is opened again, once; else the caller has the backoff.
    async fn ended(&mut self, index: usize, trouble: Trouble) -> Result<(), Fault> {
        let Some(subscription) = self.subscriptions.get_mut(index) else {
            return Ok(());
        };
        let used = subscription.close();
        match trouble {
            Trouble::DeadToken(text) => match used {
                Some(used) => self.tokens.renew(&text, &used).await,
                None => Ok(()),
            },
            Trouble::Cut(text) if subscription.heard && !subscription.reopened => {
                subscription.reopened = true;
                tracing::info!(reason = text, "subscription was lost: a new one begins");
                Ok(())
            }
            Trouble::Cut(text) => Err(Fault::new(FaultKind::Unavailable, text)),
            Trouble::Fault(fault) => {
                if fault.kind() == FaultKind::PositionLost {
                    self.parts.shelf.refuse(self.track.safe());
                }
                Err(fault)
            }
        }
    }

    /// A keep-alive: where the stream stands, and up to when it has told everything. It was sent after the
    /// subscription was found to have nothing more for us; one that lay there before tells no time.
    async fn nothing(
        &mut self,
        index: usize,
        response: &FetchResponse,
        quiet: Option<Instant>,
    ) -> Heard {
        self.tokens.proved();
        self.parts.crm_clock.look().await;
        let confirmed = quiet.and_then(|quiet| self.parts.crm_clock.at(quiet));
        if let Some(subscription) = self.subscriptions.get_mut(index) {
            let confirmed = confirmed.map(|at| at - MARGIN - self.parts.lag);
            subscription.confirmed = subscription.confirmed.max(confirmed);
            let id = text_of(&response.latest_replay_id);
            self.track.quiet_at(&subscription.channel, id.as_deref());
        }
        let all = self.subscriptions.iter().map(|one| one.confirmed);
        Heard {
            position: self.track.safe(),
            // None is less than any time.
            confirmed_at: all.min().flatten(),
            ..Heard::default()
        }
    }

    /// Events, decoded.
    async fn told(&mut self, index: usize, response: FetchResponse) -> Result<Heard, Fault> {
        self.tokens.proved();
        let channel = self
            .subscriptions
            .get(index)
            .map_or_else(String::new, |one| one.channel.clone());
        self.parts.budget.delivered(response.events.len() as u64);
        self.learn(&response.events).await?;
        let mut events = Vec::with_capacity(response.events.len());
        for event in &response.events {
            self.decode(&channel, event, &mut events);
        }
        Ok(Heard {
            events,
            lost: Vec::new(),
            position: self.track.safe(),
            confirmed_at: None,
        })
    }

    fn decode(&mut self, channel: &str, event: &ConsumerEvent, events: &mut Vec<Event>) {
        let arrived = self.parts.clock.now();
        let id = text_of(&event.replay_id);
        // The position after the event is needed to decode it, and what it is decoded to, to know whether that
        // position is safe: first as if it were not.
        if let Some(id) = &id {
            self.track.passed(channel, id, true);
        }
        let position = (self.track.newest()).unwrap_or_else(|| Place::none(Transport::PubSub));
        let produced = event
            .event
            .as_ref()
            .map(|event| (event.schema_id.as_str(), &*event.payload));
        let decoded = self.decoder.decode(produced, &position, arrived);
        if let Some(id) = &id {
            self.track.passed(channel, id, decoded.may_share);
        }
        events.extend(decoded.events);
        self.stale.extend(decoded.stale);
    }

    /// Asks for the schemas of events that nobody asked for yet.
    async fn learn(&mut self, events: &[ConsumerEvent]) -> Result<(), Fault> {
        for event in events.iter().filter_map(|event| event.event.as_ref()) {
            let id = event.schema_id.as_str();
            if id.is_empty() || self.decoder.schemas.has(id) {
                continue;
            }
            let asking = format!("asking for schema {id}");
            let told = loop {
                let token = self.tokens.get().await?;
                match self.parts.wire.schema(&token, id).await {
                    Ok(told) => break Some(told),
                    Err(status) => match classify(&asking, &status) {
                        // The server has no such schema: its events are gaps, and the stream goes on.
                        Trouble::Fault(fault)
                            if matches!(fault.kind(), FaultKind::Protocol | FaultKind::Config) =>
                        {
                            tracing::warn!(error = %fault, "events of a schema can't be decoded");
                            break None;
                        }
                        trouble => self.heal_call(trouble, &token).await?,
                    },
                }
            };
            let Some(told) = told else { continue };
            let parsed = EventSchema::parse(&told.schema_json);
            if let Err(error) = &parsed {
                tracing::warn!(schema = id, %error, "events of a schema can't be decoded");
            }
            let parsed = parsed.ok();
            let object = parsed.as_ref().map(|schema| object_of(&schema.name));
            let is_another = self.decoder.schemas.keep(id, parsed);
            if let (true, Some(object)) = (is_another, object)
                && let Some(object) = self.decoder.objects.name(&object)
            {
                // The object has other fields now; its events name them.
                self.stale.push(object.clone());
                self.describe_again().await;
            }
        }
        Ok(())
    }

    /// Reads descriptions again that events said to be stale, or whose labels may be.
    async fn describe_again(&mut self) {
        let stale = std::mem::take(&mut self.stale);
        let describer = &self.parts.describer;
        self.decoder.objects.describe_again(describer, stale).await;
    }
}

/// From where a subscription is delivered now.
fn replay(track: &Track, subscription: &Subscription) -> Replay {
    match (track.resume(&subscription.channel), &subscription.start) {
        (Some(id), _) => Replay::After(id.to_owned()),
        // It was lost and told no id: what came since is among what is still held.
        (None, Replay::Now) if subscription.heard => Replay::Earliest,
        (None, start) => start.clone(),
    }
}

fn said_of(
    what: &str,
    said: Result<Option<FetchResponse>, tonic::Status>,
    quiet: Option<Instant>,
) -> Said {
    match said {
        Ok(Some(response)) => Said::Response(response, quiet),
        Ok(None) => Said::Ended(Trouble::Cut(format!("{what}: the server closed it"))),
        Err(status) => Said::Ended(classify(what, &status)),
    }
}
