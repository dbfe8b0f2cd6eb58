//! One Subscribe call: its credit, its timers, and the answers it is given.
//!
//! Source: Salesforce Developers, "Pub/Sub API", "Pull Subscription and Flow Control", "Subscribe RPC Method".

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use md5::{Digest, Md5};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::super::cometd::{DataMessage, Request};
use super::super::org::Org;
use super::access::Caller;
use super::eventbus::{ConsumerEvent, FetchRequest, FetchResponse, ProducerEvent, ReplayPreset};
use super::refusal::{
    AUTHENTICATION, BAD_FETCH, CORRUPTED, DELIVERY_LIMIT, MISMATCH, NO_REPLAY_ID, NO_TOPIC,
    REQUESTED, Refusal, status,
};
use super::{payload, service};

/// Outstanding events of a stream at most; who asks for more has asked for these.
const MOST_OUTSTANDING: usize = 100;
/// A stream without credit ends after so long.
const STARVING: TimeDelta = TimeDelta::seconds(60);
/// Bytes of one answer's payloads at most.
const MOST_BYTES: usize = 3 * 1024 * 1024;

/// A Subscribe call.
pub(super) struct Subscribe {
    org: Arc<Org>,
    caller: Caller,
    rpc_id: String,
    requests: Streaming<FetchRequest>,
    connection: CancellationToken,
    open: Option<Open>,
    /// The client sends no more requests.
    deaf: bool,
    ended: bool,
}

/// What the first request has opened.
struct Open {
    org: Arc<Org>,
    number: u64,
    topic: String,
    credit: usize,
    /// Taken off the log and not sent.
    waiting: VecDeque<DataMessage>,
    /// The last answer, or the last request: silence and starvation count from here.
    since: DateTime<Utc>,
    sent: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.org.bus.close(self.number);
        self.org.streaming.wake();
    }
}

impl Subscribe {
    pub fn new(
        org: Arc<Org>,
        caller: Caller,
        rpc_id: String,
        requests: Streaming<FetchRequest>,
        connection: CancellationToken,
    ) -> Self {
        Self {
            org,
            caller,
            rpc_id,
            requests,
            connection,
            open: None,
            deaf: false,
            ended: false,
        }
    }

    /// The next answer, and the call as it goes on; nothing when it has ended.
    pub async fn next(mut self) -> Option<(Result<FetchResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let answer = match self.step().await {
            Ok(Some(response)) => self.suffer(response).await,
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        self.ended = answer.is_err();
        if self.ended {
            self.open = None;
        }
        Some((answer, self))
    }

    /// Waits until there is something to tell.
    async fn step(&mut self) -> Result<Option<FetchResponse>, Status> {
        let org = Arc::clone(&self.org);
        let mut log = org.log.watch();
        let mut changed = org.streaming.watch();
        if self.open.is_none() {
            let Some(first) = self.requests.message().await? else {
                return Ok(None);
            };
            let open = self.begin(&first)?;
            self.open = Some(open);
        }
        loop {
            log.borrow_and_update();
            changed.borrow_and_update();
            if org.sessions.check(&self.caller.token).is_none() {
                return Err(AUTHENTICATION.status(&self.rpc_id));
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            if org.bus.is_dismissed(open.number) {
                return Ok(None);
            }
            if open.credit > 0
                && let Some(response) = open.answer(&self.caller, &self.rpc_id)?
            {
                return Ok(Some(response));
            }
            if self.deaf && open.credit == 0 {
                return Ok(None);
            }
            let until = open.deadline();
            if org.clock.now() >= until {
                return Ok((open.credit > 0).then(|| open.keepalive(&self.rpc_id)));
            }
            tokio::select! {
                message = self.requests.message(), if !self.deaf => match message? {
                    Some(request) => open.more(&request).map_err(|refusal| refusal.status(&self.rpc_id))?,
                    None => self.deaf = true,
                },
                // The org outlives its streams: neither sender is gone.
                _ = log.changed() => {}
                _ = changed.changed() => {}
                () = org.clock.sleep_until(until) => {}
            }
        }
    }

    /// What the first request asks for.
    fn begin(&self, first: &FetchRequest) -> Result<Open, Status> {
        let org = &self.org;
        let refused = |refusal: Refusal| refusal.status(&self.rpc_id);
        if first.topic_name.is_empty() {
            return Err(refused(NO_TOPIC));
        }
        let channel = service::topic(org, &first.topic_name, &self.rpc_id)?;
        if !service::may_subscribe(org, &self.caller.user, &channel) {
            return Err(refused(super::refusal::CANNOT_SUBSCRIBE));
        }
        let credit = asked(first).map_err(refused)?;
        let cursor = position(org, first).map_err(refused)?;
        let number = org
            .bus
            .open(&first.topic_name, &self.caller.user.id, channel, cursor);
        org.bus.note(number, credit, 0);
        org.streaming.wake();
        Ok(Open {
            org: Arc::clone(org),
            number,
            topic: first.topic_name.clone(),
            credit,
            waiting: VecDeque::new(),
            since: org.clock.now(),
            sent: 0,
        })
    }

    /// Lets a script spoil an answer.
    async fn suffer(&mut self, response: FetchResponse) -> Result<FetchResponse, Status> {
        let topic = self.open.as_ref().map_or("", |open| open.topic.as_str());
        let Some(fault) = self.org.faults.rpc_answer("Subscribe", topic) else {
            return Ok(response);
        };
        service::suffer(&self.org, fault, &self.connection, &self.rpc_id).await?;
        Ok(response)
    }
}

/// The position that a stream begins after.
fn position(org: &Org, first: &FetchRequest) -> Result<u64, Refusal> {
    match ReplayPreset::try_from(first.replay_preset) {
        Ok(ReplayPreset::Latest) => Ok(org.log.newest()),
        Ok(ReplayPreset::Earliest) => Ok(org.log.beginning()),
        Ok(ReplayPreset::Custom) if first.replay_id.is_empty() => Err(NO_REPLAY_ID),
        Ok(ReplayPreset::Custom) => org
            .bus
            .positions
            .decode(&first.replay_id)
            .filter(|replay_id| org.log.check(*replay_id).is_ok())
            .ok_or(CORRUPTED),
        Err(_) => Err(BAD_FETCH),
    }
}

fn asked(request: &FetchRequest) -> Result<usize, Refusal> {
    usize::try_from(request.num_requested)
        .ok()
        .filter(|asked| *asked > 0)
        .map(|asked| asked.min(MOST_OUTSTANDING))
        .ok_or(REQUESTED)
}

impl Open {
    /// A later request: more credit; topic and position are settled.
    fn more(&mut self, request: &FetchRequest) -> Result<(), Refusal> {
        if !request.topic_name.is_empty() && request.topic_name != self.topic {
            return Err(MISMATCH);
        }
        let more = asked(request)?;
        if self.credit == 0 {
            self.since = self.org.clock.now();
        }
        self.credit = (self.credit + more).min(MOST_OUTSTANDING);
        self.note();
        Ok(())
    }

    fn note(&self) {
        self.org.bus.note(self.number, self.credit, self.sent);
        self.org.streaming.wake();
    }

    fn deadline(&self) -> DateTime<Utc> {
        let patience = if self.credit > 0 {
            let keepalive: Duration = self.org.bus.keepalive();
            TimeDelta::from_std(keepalive).unwrap_or(TimeDelta::MAX)
        } else {
            STARVING
        };
        self.since
            .checked_add_signed(patience)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The next events, as many as there are, as the client asked for and as the org may deliver.
    fn answer(&mut self, caller: &Caller, rpc_id: &str) -> Result<Option<FetchResponse>, Status> {
        let now = self.org.clock.now();
        let room = self.credit.min(self.org.bus.batch());
        if self.waiting.is_empty() {
            self.fill(caller, room, rpc_id)?;
        }
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let allowed = self.org.streaming.allowance(now);
        if allowed == 0 {
            return Err(DELIVERY_LIMIT.status(rpc_id));
        }
        let mut events = Vec::new();
        let (mut bytes, mut last) = (0, 0);
        while events.len() < room.min(allowed)
            && let Some(message) = self.waiting.front()
        {
            let event = consumer_event(&self.org, message, rpc_id)?;
            let weight = event.event.as_ref().map_or(0, |event| event.payload.len());
            if !events.is_empty() && bytes + weight > MOST_BYTES {
                break;
            }
            bytes += weight;
            last = message.event.replay_id;
            events.push(event);
            self.waiting.pop_front();
        }
        let count = events.len();
        self.org.streaming.use_up(count, now);
        self.org.counters.deliver(count as u64);
        self.credit = self.credit.saturating_sub(count);
        self.sent += count as u64;
        self.since = now;
        self.note();
        Ok(Some(self.response(events, last, rpc_id)))
    }

    /// Takes events off the log; a position that the log has lost ends the stream.
    fn fill(&mut self, caller: &Caller, room: usize, rpc_id: &str) -> Result<(), Status> {
        let forbidden = self.org.streaming.forbidden();
        let request = Request {
            org: &self.org,
            client_id: None,
            view_all_data: caller.user.view_all_data,
            forbidden: &forbidden,
            allowance: room,
        };
        let (messages, _) = self
            .org
            .bus
            .take(self.number, &request)
            .map_err(|_| CORRUPTED.status(rpc_id))?;
        self.waiting.extend(messages);
        Ok(())
    }

    /// No events, and a position behind all that there were.
    fn keepalive(&mut self, rpc_id: &str) -> FetchResponse {
        let position = self.org.bus.refresh(&self.org, self.number);
        self.since = self.org.clock.now();
        self.response(Vec::new(), position, rpc_id)
    }

    fn response(&self, events: Vec<ConsumerEvent>, latest: u64, rpc_id: &str) -> FetchResponse {
        FetchResponse {
            events,
            latest_replay_id: self.org.bus.positions.encode(latest),
            rpc_id: rpc_id.to_owned(),
            pending_num_requested: i32::try_from(self.credit).unwrap_or(i32::MAX),
        }
    }
}

/// An event under the id of the schema it is written by.
fn consumer_event(org: &Org, message: &DataMessage, rpc_id: &str) -> Result<ConsumerEvent, Status> {
    let event = &message.event.event;
    let failed = |text: String| {
        let code = Some("subscription.internal.error");
        status(tonic::Code::Internal, code, &text, rpc_id)
    };
    // A restarted org knows the schemas it would use now; those of the events it has read again are no others.
    let schema = match org.schemas.find(&event.schema) {
        Some(schema) => schema,
        None => {
            let object = org
                .object(&event.entity)
                .ok_or_else(|| failed(format!("{} has no schema", event.entity)))?;
            let schema = org.schemas.of(&object);
            schema.map_err(|error| failed(error.to_string()))?
        }
    };
    let payload =
        payload::encode(message, &schema).map_err(|error| failed(format!("encoding: {error}")))?;
    Ok(ConsumerEvent {
        event: Some(ProducerEvent {
            id: event_id(message),
            schema_id: schema.id.clone(),
            payload,
            headers: Vec::new(),
        }),
        replay_id: org.bus.positions.encode(message.event.replay_id),
    })
}

/// The same for every delivery of an event.
fn event_id(message: &DataMessage) -> String {
    let event = &message.event.event;
    let record = message.record.unwrap_or_default();
    let name = format!("{} {} {record}", event.transaction_key, event.sequence);
    let hash = Md5::digest(name.as_bytes());
    let mut id = String::with_capacity(36);
    for (place, byte) in hash.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        id.push_str(&format!("{byte:02x}"));
    }
    id
}
