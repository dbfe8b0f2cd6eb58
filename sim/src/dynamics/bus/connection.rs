//! A connection: opened, kept alive, closed, and its frames handed to the sessions.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::io::{AsyncRead, AsyncWrite, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Bus;
use super::amqp::frame::{
    ATTACH, BEGIN, CLOSE, DETACH, DISPOSITION, END, FLOW, Frame, FrameError, OPEN, TRANSFER, error,
};
use super::amqp::value::{Value, field};
use super::node::Node;
use super::sas::{Grant, Right};
use super::sasl::{SignedIn, negotiate};
use super::session::{Session, WINDOW};
use super::settings::Order;
use crate::dynamics::org::Org;

/// The largest frame that is read or written.
const MOST: usize = 65_536;
/// How long a client may take to answer a close.
const LAST_WORD: Duration = Duration::from_secs(1);
/// The highest channel of a client's session.
const CHANNELS: u16 = 4999;

/// What a client did that ends a session, or the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    Session(&'static str, &'static str),
    Connection(&'static str, String),
}

impl Broken {
    pub fn session(condition: &'static str, text: &'static str) -> Self {
        Self::Session(condition, text)
    }

    fn connection(condition: &'static str, text: impl Into<String>) -> Self {
        Self::Connection(condition, text.into())
    }
}

/// The client at the other end: what it may do.
#[derive(Debug)]
pub(super) struct Peer {
    pub org: Arc<Org>,
    bus: Arc<Bus>,
    /// The host that the client named.
    pub host: String,
    /// The largest frame that the client reads.
    pub most: usize,
    key: Option<Grant>,
    /// Tokens by the path that they hold for; a later one takes the place of an earlier.
    grants: BTreeMap<String, Grant>,
    cbs: [bool; 2],
}

impl Peer {
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    pub fn grant(&mut self, grant: Grant) {
        self.grants.insert(grant.path.clone(), grant);
    }

    /// Whether the client may have a link.
    pub fn may(&self, node: &Node, receives: bool, now: DateTime<Utc>) -> bool {
        let path = node.path();
        let allows = |right| {
            let mut all = self.key.iter().chain(self.grants.values());
            all.any(|grant| grant.allows(right, &path, now))
        };
        match node {
            Node::Cbs => true,
            Node::Management { .. } => allows(Right::Listen) || allows(Right::Send),
            Node::Entity { .. } if receives => allows(Right::Listen),
            Node::Entity { .. } => allows(Right::Send),
        }
    }

    pub fn has_cbs(&self, receives: bool) -> bool {
        self.cbs[usize::from(receives)]
    }

    pub fn opened(&mut self, node: &Node, receives: bool) {
        if *node == Node::Cbs {
            self.cbs[usize::from(receives)] = true;
        }
    }

    pub fn closed(&mut self, node: &Node, receives: bool) {
        if *node == Node::Cbs {
            self.cbs[usize::from(receives)] = false;
        }
    }

    fn is_known(&self) -> bool {
        self.key.is_some() || !self.grants.is_empty()
    }
}

/// Serves one client until it goes, or has to.
pub(super) async fn serve<S>(org: Arc<Org>, bus: Arc<Bus>, mut stream: S) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key = match negotiate(&bus, &mut stream).await? {
        SignedIn::Refused => return Ok(()),
        SignedIn::Anonymous => None,
        SignedIn::Key(grant) => Some(grant),
    };
    let peer = Peer {
        org,
        bus: Arc::clone(&bus),
        host: String::new(),
        most: MOST,
        key,
        grants: BTreeMap::new(),
        cbs: [false; 2],
    };
    let (mut reader, writer) = tokio::io::split(stream);
    let (into, frames) = mpsc::channel(16);
    let reading = tokio::spawn(async move {
        loop {
            let frame = Frame::read(&mut reader, MOST).await;
            let is_last = frame.is_err();
            if into.send(frame).await.is_err() || is_last {
                return;
            }
        }
    });
    bus.connected.send_modify(|count| *count += 1);
    let engine = Engine {
        began: peer.org.clock.now(),
        peer,
        writer,
        frames,
        sessions: BTreeMap::new(),
        opened: false,
        heard: Instant::now(),
        beat: None,
    };
    let served = engine.run().await;
    bus.connected.send_modify(|count| *count -= 1);
    reading.abort();
    match served {
        // A socket that ends without a word is the client's way.
        Err(FrameError::Read(gone)) if gone.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        other => other,
    }
}

struct Engine<S> {
    peer: Peer,
    writer: WriteHalf<S>,
    frames: mpsc::Receiver<Result<Frame, FrameError>>,
    sessions: BTreeMap<u16, Session>,
    opened: bool,
    began: DateTime<Utc>,
    /// When the client was last heard.
    heard: Instant,
    /// How often the client wants to hear of us.
    beat: Option<Duration>,
}

/// What ended a wait.
enum Woken {
    Frame(Option<Result<Frame, FrameError>>),
    Order(Order),
    /// Messages, tokens or locks are to be looked at.
    Look,
    Beat,
    Silence,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Engine<S> {
    async fn run(mut self) -> Result<(), FrameError> {
        let mut changed = self.peer.bus.changed.subscribe();
        let mut orders = self.peer.bus.orders.subscribe();
        let mut last_beat = Instant::now();
        loop {
            let idle = Duration::from_millis(u64::from(self.peer.bus.settings().idle_ms));
            let beat = self.beat.map(|beat| last_beat + beat);
            let deadline = self.deadline();
            let woken = tokio::select! {
                frame = self.frames.recv() => Woken::Frame(frame),
                Ok(order) = orders.recv() => Woken::Order(order),
                Ok(()) = changed.changed() => Woken::Look,
                () = due(&self.peer, &self.sessions, deadline) => Woken::Look,
                () = at(beat) => Woken::Beat,
                () = tokio::time::sleep_until(self.heard + idle) => Woken::Silence,
            };
            let result = match woken {
                Woken::Frame(None) => return Ok(()),
                Woken::Frame(Some(Err(FrameError::Read(gone)))) => return Err(gone.into()),
                Woken::Frame(Some(Err(other))) => Err(Broken::connection(
                    "amqp:connection:framing-error",
                    other.to_string(),
                )),
                Woken::Frame(Some(Ok(frame))) => {
                    self.heard = Instant::now();
                    match self.take(frame).await {
                        Ok(true) => return Ok(()),
                        Ok(false) => self.look().await,
                        Err(Stopped::Broken(broken)) => Err(broken),
                        Err(Stopped::Gone(gone)) => return Err(gone.into()),
                    }
                }
                Woken::Order(Order::Drop {}) => return Ok(()),
                Woken::Order(Order::Freeze {}) => std::future::pending().await,
                Woken::Order(Order::Close {
                    condition,
                    description,
                }) => {
                    return self.close(&condition, &description).await;
                }
                Woken::Order(Order::Detach {
                    condition,
                    description,
                }) => {
                    let mut out = Vec::new();
                    let sessions = self.sessions.values_mut();
                    sessions
                        .for_each(|session| session.detach_all(&condition, &description, &mut out));
                    self.write(&out).await?;
                    Ok(())
                }
                Woken::Look => self.look().await,
                Woken::Beat => {
                    last_beat = Instant::now();
                    self.write(&[Frame::empty()]).await?;
                    Ok(())
                }
                Woken::Silence => {
                    let text = format!(
                        "The connection was inactive for more than the allowed {} milliseconds and is closed.",
                        idle.as_millis()
                    );
                    Err(Broken::connection("amqp:connection:forced", text))
                }
            };
            if let Err(broken) = result {
                let (condition, text) = match broken {
                    Broken::Connection(condition, text) => (condition, text),
                    Broken::Session(condition, text) => (condition, text.to_owned()),
                };
                return self.close(condition, &text).await;
            }
        }
    }

    /// By when a first token has to be there.
    fn deadline(&self) -> DateTime<Utc> {
        self.began + TimeDelta::milliseconds(i64::from(self.peer.bus.settings().token_ms))
    }

    /// Enforces what time took away, and delivers what there is.
    async fn look(&mut self) -> Result<(), Broken> {
        let now = self.peer.org.clock.now();
        if !self.peer.is_known() && self.deadline() <= now {
            let text = "The connection brought no valid token in time.";
            return Err(Broken::connection("amqp:connection:forced", text));
        }
        let mut out = Vec::new();
        for session in self.sessions.values_mut() {
            session.enforce(&self.peer, &mut out);
            session.deliver(&self.peer, &mut out);
        }
        self.write(&out)
            .await
            .map_err(|gone| Broken::connection("amqp:connection:forced", gone.to_string()))
    }

    async fn write(&mut self, frames: &[Frame]) -> Result<(), io::Error> {
        for frame in frames {
            frame.write(&mut self.writer).await?;
        }
        Ok(())
    }

    /// Takes a frame; whether it was the last.
    async fn take(&mut self, frame: Frame) -> Result<bool, Stopped> {
        let Some((code, fields)) = frame.performative else {
            return Ok(false);
        };
        if frame.kind != 0 {
            return Err(
                Broken::connection("amqp:connection:framing-error", "no AMQP frame").into(),
            );
        }
        if !self.opened && code != OPEN {
            return Err(
                Broken::connection("amqp:illegal-state", "the connection is not open").into(),
            );
        }
        let mut out = Vec::new();
        let done = match code {
            OPEN => self.open(&fields, &mut out),
            CLOSE => {
                self.write(&[Frame::of(0, CLOSE, Vec::new())]).await?;
                return Ok(true);
            }
            BEGIN => self.begin(frame.channel, &fields, &mut out),
            _ => self.in_session(frame.channel, code, &fields, &frame.payload, &mut out),
        };
        match done {
            Ok(()) => {}
            Err(Broken::Session(condition, text)) => {
                self.sessions.remove(&frame.channel);
                out.push(Frame::of(frame.channel, END, vec![error(condition, text)]));
            }
            Err(broken) => return Err(broken.into()),
        }
        self.write(&out).await?;
        Ok(false)
    }

    fn open(&mut self, fields: &[Value], out: &mut Vec<Frame>) -> Result<(), Broken> {
        if std::mem::replace(&mut self.opened, true) {
            return Err(Broken::connection(
                "amqp:illegal-state",
                "the connection is open already",
            ));
        }
        if field(fields, 0).word().is_none() {
            return Err(Broken::connection(
                "amqp:invalid-field",
                "an open needs a container id",
            ));
        }
        self.peer.host = field(fields, 1).word().unwrap_or("localhost").to_owned();
        let most = field(fields, 2).small().map_or(MOST, |most| most as usize);
        if most < 512 {
            return Err(Broken::connection(
                "amqp:invalid-field",
                "a max-frame-size below 512",
            ));
        }
        self.peer.most = most.min(MOST);
        let idle = field(fields, 4).small().filter(|idle| *idle > 0);
        self.beat = idle.map(|idle| Duration::from_millis(u64::from(idle) / 2));
        out.push(Frame::of(
            0,
            OPEN,
            vec![
                Value::text("simulated-service-bus"),
                Value::Null,
                Value::Uint(65_536),
                Value::Ushort(CHANNELS),
                Value::Uint(self.peer.bus.settings().idle_ms),
            ],
        ));
        Ok(())
    }

    fn begin(
        &mut self,
        channel: u16,
        fields: &[Value],
        out: &mut Vec<Frame>,
    ) -> Result<(), Broken> {
        if channel > CHANNELS || self.sessions.contains_key(&channel) {
            return Err(Broken::connection(
                "amqp:not-allowed",
                "the channel is in use or too high",
            ));
        }
        self.sessions.insert(channel, Session::new(channel, fields));
        let answer = vec![
            Value::Ushort(channel),
            Value::Uint(1),
            Value::Uint(WINDOW),
            Value::Uint(WINDOW),
            Value::Uint(255),
        ];
        out.push(Frame::of(channel, BEGIN, answer));
        Ok(())
    }

    fn in_session(
        &mut self,
        channel: u16,
        code: u64,
        fields: &[Value],
        payload: &[u8],
        out: &mut Vec<Frame>,
    ) -> Result<(), Broken> {
        let peer = &mut self.peer;
        let Some(session) = self.sessions.get_mut(&channel) else {
            // What was under way when the session ended here.
            return Ok(());
        };
        match code {
            ATTACH => session.attach(fields, peer, out),
            DETACH => session.detached(fields, peer, out),
            FLOW => session.flowed(fields, out),
            TRANSFER => session.transferred(fields, payload, peer, out),
            DISPOSITION => session.disposed(fields, peer, out),
            END => {
                self.sessions.remove(&channel);
                out.push(Frame::of(channel, END, Vec::new()));
                Ok(())
            }
            _ => Err(Broken::connection(
                "amqp:not-implemented",
                "an unknown performative",
            )),
        }
    }

    /// Closes with an error, and waits a moment for the client's answer.
    async fn close(mut self, condition: &str, text: &str) -> Result<(), FrameError> {
        let frame = Frame::of(0, CLOSE, vec![error(condition, text)]);
        self.write(&[frame]).await?;
        let answered = async {
            while let Some(Ok(frame)) = self.frames.recv().await {
                if matches!(frame.performative, Some((CLOSE, _))) {
                    return;
                }
            }
        };
        // Whoever does not answer is not waited for.
        drop(tokio::time::timeout(LAST_WORD, answered).await);
        Ok(())
    }
}

/// Waits until a token or a lock ends, or the time to bring a first token is over.
async fn due(peer: &Peer, sessions: &BTreeMap<u16, Session>, deadline: DateTime<Utc>) {
    let now = peer.org.clock.now();
    let tokens = peer.grants.values().filter_map(|grant| grant.expires);
    let tokens = tokens.filter(|end| *end > now);
    let locks = sessions
        .values()
        .filter_map(|session| session.next_expiry(peer));
    let first = (!peer.is_known()).then_some(deadline);
    match tokens.chain(locks).chain(first).min() {
        Some(time) => peer.org.clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Why a frame was not taken.
enum Stopped {
    Broken(Broken),
    Gone(io::Error),
}

impl From<Broken> for Stopped {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<io::Error> for Stopped {
    fn from(gone: io::Error) -> Self {
        Self::Gone(gone)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
