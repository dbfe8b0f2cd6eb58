//! An open connection to the queue: authorised, with one link that messages come on.

use chrono::{TimeDelta, Utc};
use fe2o3_amqp::Receiver;
use fe2o3_amqp::connection::{Connection, ConnectionHandle};
use fe2o3_amqp::link::{CreditMode, RecvError};
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::{Session, SessionHandle};
use fe2o3_amqp::types::definitions::{
    Error, ErrorCondition, Fields, ReceiverSettleMode, SenderSettleMode,
};
use fe2o3_amqp::types::messaging::Body;
use fe2o3_amqp::types::primitives::{Array, OrderedMap, Symbol, Uuid, Value};
use tokio::time::{Instant, timeout};

use crate::crm::dynamics::push::hint::{Hint, Refusal};
use crate::fault::{Fault, FaultKind};

use super::exchange::Exchange;
use super::message::Held;
use super::settings::BusSettings;
use super::{refusal, sas, socket};

/// The largest frame that is read.
const MOST: u32 = 65_536;

/// The connection, its links, and when the next token is due.
pub(super) struct Link {
    settings: BusSettings,
    connection: ConnectionHandle<()>,
    session: SessionHandle<()>,
    cbs: Exchange,
    management: Option<Exchange>,
    receiver: Receiver,
    /// When a new token is to be brought.
    pub token_due: Instant,
}

/// A message that came.
pub(super) struct Received {
    /// Its lock.
    pub held: Held,
    /// Its hint, or why it is none.
    pub content: Result<Hint, Refusal>,
}

impl Link {
    /// Connects, brings a token, and opens the link.
    ///
    /// # Errors
    /// `Credentials` if the token is refused, `Permission` or `Missing` if the queue is, `Unavailable` and kin else.
    pub async fn open(settings: &BusSettings) -> Result<Self, Fault> {
        let doing =
            |fault: Fault| fault.context(format_args!("listening to queue {}", settings.queue));
        let opening = Self::opened(settings);
        // Several calls, each with its own limit; the whole has one, too.
        match timeout(settings.call_timeout * 3, opening).await {
            Ok(opened) => opened.map_err(doing),
            Err(_) => Err(doing(refusal::lost("connecting takes too long"))),
        }
    }

    async fn opened(settings: &BusSettings) -> Result<Self, Fault> {
        let socket = timeout(settings.call_timeout, socket::open(settings)).await;
        let socket = socket.unwrap_or_else(|_| {
            let what = format!(
                "service bus {}:{} does not answer",
                settings.host,
                settings.port()
            );
            Err(Fault::new(FaultKind::Unavailable, what))
        })?;
        let idle = u32::try_from(settings.idle.as_millis()).unwrap_or(u32::MAX);
        let mut connection = Connection::builder()
            .container_id(format!("tributary-{}", uuid::Uuid::now_v7()))
            .hostname(settings.host.as_str())
            .max_frame_size(MOST)
            .idle_time_out(idle)
            .sasl_profile(SaslProfile::Anonymous)
            .open_with_stream(socket)
            .await
            .map_err(refusal::of_open)?;
        let begun = Session::begin(&mut connection).await;
        let mut session =
            begun.map_err(|error| refusal::lost("beginning a session").source(error))?;
        let mut cbs = Exchange::open(&mut session, "$cbs", settings.call_timeout).await?;
        let token_due = bring_token(&mut cbs, settings).await?;
        let receiver = Receiver::builder()
            .name(format!("tributary-{}", settings.connection))
            .source(settings.queue.as_str())
            .sender_settle_mode(SenderSettleMode::Unsettled)
            .receiver_settle_mode(ReceiverSettleMode::Second)
            .credit_mode(CreditMode::Manual)
            .attach(&mut session)
            .await
            .map_err(refusal::of_receiver)?;
        Ok(Self {
            settings: settings.clone(),
            connection,
            session,
            cbs,
            management: None,
            receiver,
            token_due,
        })
    }

    /// The most messages that may be held.
    pub const fn credit(&self) -> usize {
        self.settings.credit as usize
    }

    /// Allows as many messages as may be held beside the `held` ones.
    ///
    /// # Errors
    /// The link's.
    pub async fn allow(&mut self, held: usize) -> Result<(), Fault> {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let room = self.settings.credit.saturating_sub(held);
        let allowed = self.receiver.set_credit(room).await;
        allowed.map_err(|error| refusal::lost("allowing messages").source(error))
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// The link's: it has ended.
    pub async fn next(&mut self) -> Result<Received, Fault> {
        match self.receiver.recv::<Body<Value>>().await {
            Ok(delivery) => {
                let (held, content) = Held::read(delivery, Utc::now());
                Ok(Received { held, content })
            }
            Err(RecvError::MessageDecode(malformed)) => Ok(Received {
                held: Held::unread(malformed.info),
                content: Err(Refusal::Unreadable(None)),
            }),
            Err(error) => Err(refusal::of_recv(error)),
        }
    }

    /// Takes messages out of the queue for good.
    ///
    /// # Errors
    /// The link's; what was not settled comes again.
    pub async fn complete(&self, held: &[Held]) -> Result<(), Fault> {
        let infos = held.iter().map(|held| held.info.clone());
        let done = self.receiver.accept_all(infos).await;
        done.map_err(|error| refusal::lost("settling").source(error))
    }

    /// Moves a message to the dead letters.
    ///
    /// # Errors
    /// The link's; the message comes again.
    pub async fn bury(&self, held: &Held, reason: &str, fault: &Fault) -> Result<(), Fault> {
        let error = dead_letter(reason, &fault.report());
        let buried = self.receiver.reject(held.info.clone(), error).await;
        buried.map_err(|error| refusal::lost("settling").source(error))
    }

    /// Brings a new token, before the last one ends.
    ///
    /// # Errors
    /// `Credentials` if it is refused; the connection's.
    pub async fn renew_token(&mut self) -> Result<(), Fault> {
        self.token_due = bring_token(&mut self.cbs, &self.settings).await?;
        Ok(())
    }

    /// Lengthens a lock. One that is lost already is not; its message comes again.
    ///
    /// # Errors
    /// The connection's.
    pub async fn renew_lock(&mut self, lock: &Uuid) -> Result<(), Fault> {
        let mut management = match self.management.take() {
            Some(management) => management,
            None => {
                let node = format!("{}/$management", self.settings.queue);
                Exchange::open(&mut self.session, &node, self.settings.call_timeout).await?
            }
        };
        let mut body = OrderedMap::new();
        let tokens = Array::from(vec![Value::Uuid(lock.clone())]);
        body.insert(
            Value::String("lock-tokens".to_owned()),
            Value::Array(tokens),
        );
        let operation = [("operation", "com.microsoft:renew-lock")];
        let status = management.ask(&operation, Value::Map(body)).await?;
        self.management = Some(management);
        if !status.is_done() {
            tracing::debug!(
                connection = %self.settings.connection, status = status.code, told = %status.text,
                "a message's lock was not renewed; it comes again"
            );
        }
        Ok(())
    }

    /// Leaves: link, session, connection, in this order, so that no settlement is overtaken. What the bus has not heard
    /// settled comes again.
    pub async fn close(mut self) {
        let limit = self.settings.call_timeout;
        let leaving = async {
            // A connection that ended by itself has nobody to say good-bye to.
            self.receiver.close().await.ok();
            self.session.end().await.ok();
            self.connection.close().await.ok();
        };
        timeout(limit, leaving).await.ok();
    }
}

async fn bring_token(cbs: &mut Exchange, settings: &BusSettings) -> Result<Instant, Fault> {
    let key = (settings.key)()?;
    let life = TimeDelta::from_std(settings.token_life).unwrap_or(TimeDelta::hours(1));
    let audience = settings.audience();
    let token = sas::token(&audience, &settings.key_name, &key, Utc::now() + life);
    let properties = [
        ("operation", "put-token"),
        ("type", "servicebus.windows.net:sastoken"),
        ("name", audience.as_str()),
    ];
    let began = Instant::now();
    let status = cbs
        .ask(&properties, Value::String(token.expose().to_owned()))
        .await?;
    if status.is_done() {
        return Ok(began + settings.token_life * 3 / 4);
    }
    let what = format!(
        "the service bus refuses the key of policy `{}` ({}): {}",
        settings.key_name, status.code, status.text
    );
    if status.code >= 500 {
        return Err(Fault::new(FaultKind::Unavailable, what));
    }
    Err(Fault::new(FaultKind::Credentials, what).remedy(
        "copy the name and a key of a shared access policy with the right Listen, and check this machine's clock",
    ))
}

/// What the bus is told of a message that is no hint.
fn dead_letter(reason: &str, description: &str) -> Error {
    let mut info = Fields::new();
    for (name, text) in [
        ("DeadLetterReason", reason),
        ("DeadLetterErrorDescription", description),
    ] {
        info.insert(Symbol::from(name), Value::String(text.to_owned()));
    }
    let condition = ErrorCondition::Custom(Symbol::from("com.microsoft:dead-letter"));
    Error::new(condition, None, info)
}
