//! The session: handshake, first connect, subscription, held polls, and what heals a lost one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::crm::port;
use crate::fault::{Fault, FaultKind};
use crate::model::event::Event;
use crate::model::name::ObjectName;
use crate::runtime::clock::Clock;

use super::super::decode::Objects;
use super::super::describe::Describer;
use super::super::kept::Hears;
use super::super::place::{Place, Replay, Track};
use super::super::settings::Transport;
use super::super::sign_in::{SignIn, Token};
use super::errors::Trouble;
use super::messages::{self, Advice, Data};
use super::payload;
use super::reply::{Client, Replies, Reply, lock, only, protocol};
use super::wire::Wire;

/// Sessions begun in a row without one poll held: more would only use up the org's clients.
const BEGINNINGS: u32 = 3;
/// How long a poll is held unless the server says otherwise (Streaming API Developer Guide, "Client connection").
const HELD: Duration = Duration::from_secs(110);
/// Events are on the stream this long after their commit, at the latest, as far as a quiet poll is trusted.
const MARGIN: TimeDelta = TimeDelta::seconds(10);
/// The longest pause between polls that come back at once and empty.
const PAUSE: Duration = Duration::from_secs(5);
/// Subscriptions in one request: its body has a limit of 32,768 bytes.
const AT_ONCE: usize = 50;

/// What a stream is made of.
pub struct Parts {
    /// Counts what is delivered.
    pub budget: Arc<Budget>,
    /// The way to the server.
    pub wire: Arc<Wire>,
    /// Where tokens come from.
    pub sign_in: Arc<SignIn>,
    /// Descriptions, read again when events say that they are stale.
    pub describer: Arc<Describer>,
    /// Our own clock, for answers that have no date.
    pub clock: Arc<dyn Clock>,
    /// The session that has to be left.
    pub client: Arc<Mutex<Option<Client>>>,
    /// How long a request may take.
    pub call_timeout: Duration,
    /// How long a held poll may take.
    pub poll_timeout: Duration,
    /// How much older than the CRM's clock a read is taken to be.
    pub lag: TimeDelta,
}

/// One stream.
pub struct Stream {
    parts: Parts,
    objects: Objects,
    /// Channels, and from where each is delivered if no event of it came yet.
    channels: Vec<(String, Replay)>,
    track: Track,
    token: Option<Arc<Token>>,
    advice: Advice,
    live: bool,
    /// Whether a subscription was granted before.
    subscribed: bool,
    beginnings: u32,
    renewed: bool,
    quick: u32,
    /// When the last answer came, and what it said that the server's time was.
    answered: Option<(Instant, DateTime<Utc>)>,
    message: u64,
    pending: Vec<Event>,
    stale: Vec<ObjectName>,
    failed: Option<Fault>,
}

impl Hears for Stream {
    /// Events that came with what ends the stream are told first.
    async fn hear(&mut self) -> Result<port::Heard, Fault> {
        loop {
            if !self.pending.is_empty() {
                return Ok(self.told(None));
            }
            if let Some(fault) = self.failed.take() {
                return Err(fault);
            }
            self.describe_again().await;
            if !self.live {
                self.begin().await?;
                continue;
            }
            self.pause().await;
            let sent = Instant::now();
            let before = self.answered;
            match self.connect(self.parts.poll_timeout).await {
                Ok(replies) => {
                    let held = self.held(before, sent);
                    if let Some(heard) = self.polled(&replies, held) {
                        return Ok(heard);
                    }
                }
                Err(trouble) => self.lost(trouble).await,
            }
        }
    }
}

impl Stream {
    /// A stream that nobody has opened yet.
    pub fn new(
        parts: Parts,
        objects: Objects,
        channels: Vec<(String, Replay)>,
        place: Place,
    ) -> Self {
        Self {
            parts,
            objects,
            channels,
            track: Track::from(place),
            token: None,
            advice: Advice::default(),
            live: false,
            subscribed: false,
            beginnings: 0,
            renewed: false,
            quick: 0,
            answered: None,
            message: 0,
            pending: Vec::new(),
            stale: Vec::new(),
            failed: None,
        }
    }

    /// Begins the session and subscribes.
    ///
    /// # Errors
    /// `PositionLost` where the CRM refuses a position; what else refuses the session.
    pub async fn open(&mut self) -> Result<(), Fault> {
        self.begin().await
    }

    /// How long the server held a poll, by our clock or by its own: the time between its last two answers, less
    /// what we waited between them.
    fn held(&self, before: Option<(Instant, DateTime<Utc>)>, sent: Instant) -> Duration {
        let ours = sent.elapsed();
        let (Some((heard, from)), Some((_, to))) = (before, self.answered) else {
            return ours;
        };
        let theirs = (to - from).to_std().unwrap_or_default();
        ours.max(theirs.saturating_sub(sent - heard))
    }

    /// A poll came back: what it told, if it told anything.
    fn polled(&mut self, replies: &Replies, held: Duration) -> Option<port::Heard> {
        if replies.closed {
            tracing::info!("the server closed the streaming session: a new one begins");
            self.live = false;
            return None;
        }
        self.beginnings = 0;
        self.renewed = false;
        if replies.data > 0 {
            self.quick = 0;
            // Events of objects that nobody listens to move the position too.
            return Some(self.told(None));
        }
        // A poll that was not held tells nothing about the time: what is replayed may still be on its way.
        let full = self.advice.timeout.map_or(HELD, Duration::from_millis);
        if held * 2 < full {
            self.quick = self.quick.saturating_add(1);
            return None;
        }
        self.quick = 0;
        self.track.quiet();
        let confirmed = replies.date.map(|date| date - MARGIN - self.parts.lag);
        Some(self.told(confirmed))
    }

    fn told(&mut self, confirmed_at: Option<DateTime<Utc>>) -> port::Heard {
        port::Heard {
            events: std::mem::take(&mut self.pending),
            position: self.track.safe(),
            confirmed_at,
            lost: Vec::new(),
        }
    }

    /// A poll was refused: a new session heals some of it.
    async fn lost(&mut self, trouble: Trouble) {
        self.live = false;
        match trouble {
            Trouble::Forgotten(text) => {
                tracing::info!(
                    reason = text,
                    "the server forgot the streaming session: a new one begins"
                );
            }
            Trouble::DeadToken(text) => {
                if let Err(fault) = self.renew(&text).await {
                    self.failed = Some(fault);
                }
            }
            Trouble::Fault(fault) => self.failed = Some(fault),
        }
    }

    /// Begins a session and subscribes where the stream stands.
    async fn begin(&mut self) -> Result<(), Fault> {
        loop {
            self.beginnings += 1;
            if self.beginnings > BEGINNINGS {
                return Err(Fault::new(
                    FaultKind::Unavailable,
                    format!("{BEGINNINGS} streaming sessions in a row were lost before one poll was held"),
                )
                .remedy("if a proxy stands between, it must keep the server's cookies and leave polls open")
                .retry_after(Duration::from_secs(30)));
            }
            match self.try_begin().await {
                Ok(()) => {
                    self.live = true;
                    self.subscribed = true;
                    return Ok(());
                }
                Err(Trouble::Forgotten(text)) => {
                    tracing::debug!(reason = text, "streaming session was lost at its beginning");
                }
                Err(Trouble::DeadToken(text)) => self.renew(&text).await?,
                Err(Trouble::Fault(fault)) => return Err(fault),
            }
        }
    }

    async fn try_begin(&mut self) -> Result<(), Trouble> {
        // Whoever keeps the advice of the lost session begins sessions for ever.
        self.advice = Advice::default();
        self.quick = 0;
        self.handshake().await?;
        let first = self.connect(self.parts.poll_timeout).await?;
        if first.closed {
            return Err(Trouble::Forgotten(
                "the server closed the session".to_owned(),
            ));
        }
        self.subscribe().await
    }

    async fn handshake(&mut self) -> Result<(), Trouble> {
        let token = self.token().await?;
        let message = json!([{
            "id": self.next_id(), "channel": "/meta/handshake", "version": "1.0", "minimumVersion": "1.0",
            "supportedConnectionTypes": ["long-polling"], "ext": {"replay": true},
        }]);
        let replies = self
            .ask(
                "/meta/handshake",
                "handshake of the stream",
                message.to_string(),
                self.parts.call_timeout,
            )
            .await?;
        let reply = only(replies, "handshake")?;
        let Some(id) = reply.client_id else {
            return Err(protocol("the handshake's answer has no `clientId`").into());
        };
        *lock(&self.parts.client) = Some(Client { id, token });
        if !reply.can_replay {
            return Err(Fault::new(
                FaultKind::Config,
                "the handshake's answer does not offer replay: events could be lost unseen",
            )
            .remedy("set `api_version` to 37.0 or later, and let no proxy change the messages")
            .into());
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<(), Trouble> {
        let client = self.client_id()?;
        let wanted: Vec<(String, Box<serde_json::value::RawValue>)> = self
            .channels
            .iter()
            .map(|(channel, start)| Ok((channel.clone(), self.replay(channel, start)?)))
            .collect::<Result<_, Fault>>()?;
        for some in wanted.chunks(AT_ONCE) {
            let mut messages = Vec::with_capacity(some.len());
            for (channel, replay) in some {
                // As raw text: a replay id is opaque, its digits are kept.
                messages.push(format!(
                    r#"{{"id":"{}","channel":"/meta/subscribe","clientId":{},"subscription":{channel},"ext":{{"replay":{{{channel}:{replay}}}}}}}"#,
                    self.next_id(), json!(client), channel = json!(channel), replay = replay.get()
                ));
            }
            let what = match some {
                [(channel, replay)] => format!("subscription to {channel} from {}", replay.get()),
                _ => format!("subscription to {} channels", some.len()),
            };
            let body = format!("[{}]", messages.join(","));
            let replies = self
                .ask("/meta/subscribe", &what, body, self.parts.call_timeout)
                .await?;
            let mut granted = Vec::new();
            for reply in replies.replies {
                if let Some(trouble) = reply.refused {
                    return Err(trouble);
                }
                granted.push(reply.subscription);
            }
            for (channel, _) in some {
                let is_granted = granted.iter().any(|told| {
                    told.as_deref() == Some(channel) || (told.is_none() && some.len() == 1)
                });
                if !is_granted {
                    return Err(protocol(&format!(
                        "nothing was said to the subscription to {channel}"
                    ))
                    .into());
                }
            }
        }
        tracing::debug!(channels = self.channels.len(), "subscribed");
        Ok(())
    }

    /// From where a channel is delivered now.
    fn replay(
        &self,
        channel: &str,
        start: &Replay,
    ) -> Result<Box<serde_json::value::RawValue>, Fault> {
        let text = match (self.track.resume(channel), start) {
            (Some(id), _) => id.to_owned(),
            (None, Replay::After(id)) => id.clone(),
            (None, Replay::Earliest) => "-2".to_owned(),
            // The first subscription is lost and told no id: what came since is among what is still held.
            (None, Replay::Now) if self.subscribed => "-2".to_owned(),
            (None, Replay::Now) => "-1".to_owned(),
        };
        serde_json::value::RawValue::from_string(text.clone())
            .map_err(|error| protocol(&format!("`{text}` is no replay id")).source(error))
    }

    /// One `/meta/connect`; its answer's events are pending.
    async fn connect(&mut self, timeout: Duration) -> Result<Replies, Trouble> {
        let message = json!([{
            "id": self.next_id(), "channel": "/meta/connect", "clientId": self.client_id()?,
            "connectionType": "long-polling",
        }]);
        let mut replies = self
            .ask(
                "/meta/connect",
                "poll of the stream",
                message.to_string(),
                timeout,
            )
            .await?;
        for reply in &mut replies.replies {
            if let Some(trouble) = reply.refused.take() {
                return Err(trouble);
            }
        }
        Ok(replies)
    }

    /// Sends a request and takes its answer apart: events are decoded, advice is kept, replies are handed over.
    async fn ask(
        &mut self,
        channel: &str,
        what: &str,
        body: String,
        timeout: Duration,
    ) -> Result<Replies, Trouble> {
        let token = self.token().await?;
        let heard = self.parts.wire.send(&token, body, timeout).await?;
        self.answered = heard.date.map(|date| (Instant::now(), date));
        let arrived = heard.date.unwrap_or_else(|| self.parts.clock.now());
        let messages = messages::parse(&heard.body)
            .map_err(|error| protocol("an answer holds no messages").source(error))?;
        let mut taken = Replies {
            replies: Vec::new(),
            date: heard.date,
            closed: false,
            data: 0,
        };
        for message in &messages {
            let Some(message) = message else {
                // Whatever it was: it may have been an event.
                taken.data += 1;
                self.take_event(None, None, arrived);
                continue;
            };
            if let (true, Some(advice)) = (message.channel.starts_with("/meta/"), &message.advice) {
                self.advise(advice);
            }
            if message.answers(channel) {
                taken.replies.push(Reply::of(message, what));
            } else if message.channel == "/meta/disconnect" {
                taken.closed = true;
            } else if !message.channel.starts_with("/meta/") {
                taken.data += 1;
                self.take_event(Some(&message.channel), message.data, arrived);
            }
        }
        Ok(taken)
    }

    fn take_event(
        &mut self,
        channel: Option<&str>,
        data: Option<&serde_json::value::RawValue>,
        arrived: DateTime<Utc>,
    ) {
        self.parts.budget.delivered(1);
        let data = data.and_then(Data::read);
        let payload = data.as_ref().and_then(|data| data.payload);
        let id = data
            .as_ref()
            .and_then(|data| data.event.as_ref()?.replay_id)
            .map(|id| id.get().trim_matches('"'))
            .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
        // The position after the event is needed to decode it, and what it is decoded to, to know whether that
        // position is safe: first as if it were not.
        let channel = self.channel_of(channel);
        if let Some(id) = id {
            self.track.passed(&channel, id, true);
        }
        let position = (self.track.newest()).unwrap_or_else(|| Place::none(Transport::Cometd));
        let payload = payload.and_then(payload::read);
        let decoded = self.objects.decode(payload, &position, arrived);
        if let Some(id) = id {
            self.track.passed(&channel, id, decoded.may_share);
        }
        self.pending.extend(decoded.events);
        self.stale.extend(decoded.stale);
    }

    /// The subscription that a data message belongs to.
    fn channel_of(&self, told: Option<&str>) -> String {
        match (self.channels.as_slice(), told) {
            ([(only, _)], _) => only.clone(),
            (_, told) => told.unwrap_or_default().to_owned(),
        }
    }

    fn advise(&mut self, advice: &Advice) {
        if advice.interval.is_some() {
            self.advice.interval = advice.interval;
        }
        if advice.timeout.is_some() {
            self.advice.timeout = advice.timeout;
        }
    }

    /// Waits as the server asks between polls, and longer if polls come back at once.
    async fn pause(&self) {
        let asked = Duration::from_millis(self.advice.interval.unwrap_or(0)).min(HELD);
        let own = match self.quick {
            0 | 1 => Duration::ZERO,
            many => PAUSE.min(Duration::from_millis(25) * 2_u32.saturating_pow(many.min(16))),
        };
        let wait = asked.max(own);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads descriptions again that events said to be stale, or whose labels may be.
    async fn describe_again(&mut self) {
        let stale = std::mem::take(&mut self.stale);
        let describer = &self.parts.describer;
        self.objects.describe_again(describer, stale).await;
    }

    async fn token(&mut self) -> Result<Arc<Token>, Fault> {
        match &self.token {
            Some(token) => Ok(Arc::clone(token)),
            None => {
                let token = self.parts.sign_in.token().await?;
                self.token = Some(Arc::clone(&token));
                Ok(token)
            }
        }
    }

    /// One new token until a poll is held again.
    async fn renew(&mut self, refusal: &str) -> Result<(), Fault> {
        let Some(dead) = self.token.take() else {
            return Ok(());
        };
        if self.renewed {
            return Err(Fault::new(FaultKind::Credentials, refusal.to_owned()).remedy(
                "the CRM refuses a token that it has just given: check the session settings and the IP ranges of the \
                 Run-As user",
            ));
        }
        self.renewed = true;
        self.token = Some(self.parts.sign_in.renewed(&dead).await?);
        Ok(())
    }

    fn client_id(&self) -> Result<String, Fault> {
        lock(&self.parts.client)
            .as_ref()
            .map(|client| client.id.clone())
            .ok_or_else(|| protocol("there is no session to ask in"))
    }

    fn next_id(&mut self) -> String {
        self.message += 1;
        self.message.to_string()
    }
}
