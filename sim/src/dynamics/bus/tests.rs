//! What the bus refuses and keeps to, spoken to frame by frame.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::amqp::frame::{
    ACCEPTED, AMQP, ATTACH, BEGIN, CLOSE, DETACH, DISPOSITION, FLOW, Frame, OPEN, REJECTED, SASL,
    SOURCE, TARGET, TRANSFER,
};
use super::amqp::value::{Value, field};
use super::*;
use crate::dynamics::org::Org;

const KEY: &str = "a2V5";
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that sends what a test wants.
struct Client {
    stream: DuplexStream,
    bus: Arc<Bus>,
    org: Arc<Org>,
}

impl Client {
    fn connect() -> Self {
        let options = SimOptions {
            amqp_listen: Some(([127, 0, 0, 1], 0).into()),
            bus_key: KEY.to_owned(),
            ..SimOptions::default()
        };
        let org = Org::open(&options).unwrap();
        let bus = Arc::clone(org.bus.as_ref().unwrap());
        let (stream, theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(connection::serve(
            Arc::clone(&org),
            Arc::clone(&bus),
            theirs,
        ));
        Self { stream, bus, org }
    }

    /// Signs in with a policy's name, or as nobody, and opens a session; `most` is the largest frame it reads.
    async fn open(policy: Option<&str>, most: u32) -> Self {
        let mut client = Self::connect();
        client.stream.write_all(&SASL).await.unwrap();
        client.header().await;
        client.next().await;
        let (mechanism, response) = match policy {
            Some(name) => ("PLAIN", format!("\0{name}\0{KEY}")),
            None => ("ANONYMOUS", String::new()),
        };
        let init = vec![
            Value::symbol(mechanism),
            Value::Binary(response.into_bytes()),
        ];
        Frame::sasl(0x41, init)
            .write(&mut client.stream)
            .await
            .unwrap();
        let (_, outcome, _) = client.next().await;
        assert_eq!(outcome[0], Value::Ubyte(0));
        client.stream.write_all(&AMQP).await.unwrap();
        assert_eq!(client.header().await, AMQP);
        let open = vec![
            Value::text("test"),
            Value::text("bus.example"),
            Value::Uint(most),
        ];
        client.send(OPEN, open).await;
        client.expect(OPEN).await;
        let begin = vec![
            Value::Null,
            Value::Uint(0),
            Value::Uint(100),
            Value::Uint(100),
        ];
        client.send(BEGIN, begin).await;
        client.expect(BEGIN).await;
        client
    }

    async fn header(&mut self) -> [u8; 8] {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).await.unwrap();
        header
    }

    async fn send(&mut self, code: u64, fields: Vec<Value>) {
        Frame::of(0, code, fields)
            .write(&mut self.stream)
            .await
            .unwrap();
    }

    async fn transfer(&mut self, handle: u32, id: u32, body: &[u8]) {
        let fields = vec![
            Value::Uint(handle),
            Value::Uint(id),
            Value::Binary(id.to_be_bytes().to_vec()),
            Value::Uint(0),
            Value::Bool(false),
        ];
        let mut frame = Frame::of(0, TRANSFER, fields);
        frame.payload = message(body).bytes();
        frame.write(&mut self.stream).await.unwrap();
    }

    async fn next(&mut self) -> (u64, Vec<Value>, Vec<u8>) {
        let read = tokio::time::timeout(PATIENCE, Frame::read(&mut self.stream, 1 << 20));
        let frame = read.await.unwrap().unwrap();
        let (code, fields) = frame.performative.unwrap();
        (code, fields, frame.payload)
    }

    async fn expect(&mut self, wanted: u64) -> (Vec<Value>, Vec<u8>) {
        let (code, fields, payload) = self.next().await;
        assert_eq!(code, wanted, "{code:#x} {fields:?}");
        (fields, payload)
    }

    /// Attaches a link; the client receives, or sends.
    async fn attach(&mut self, handle: u32, receives: bool, address: &str, settled: bool) {
        let of = |code| Value::composite(code, vec![Value::text(address)]);
        let fields = vec![
            Value::text(format!("link {handle}")),
            Value::Uint(handle),
            Value::Bool(receives),
            Value::Ubyte(u8::from(settled)),
            Value::Ubyte(1),
            of(SOURCE),
            of(TARGET),
            Value::Null,
            Value::Null,
            Value::Uint(0),
        ];
        self.send(ATTACH, fields).await;
        self.expect(ATTACH).await;
    }

    async fn credit(&mut self, handle: u32, count: u32, credit: u32, drain: bool) {
        let mut fields = vec![
            Value::Uint(1),
            Value::Uint(100),
            Value::Uint(0),
            Value::Uint(100),
        ];
        fields.extend([Value::Uint(handle), Value::Uint(count), Value::Uint(credit)]);
        fields.extend([Value::Null, Value::Bool(drain)]);
        self.send(FLOW, fields).await;
    }

    async fn dispose(&mut self, delivery: u32, state: Value) {
        let id = Value::Uint(delivery);
        let fields = vec![Value::Bool(true), id.clone(), id, Value::Bool(false), state];
        self.send(DISPOSITION, fields).await;
    }

    /// The condition that a detach or a close comes with.
    async fn refused(&mut self, code: u64) -> String {
        let (fields, _) = self.expect(code).await;
        let place = if code == CLOSE { 0 } else { 2 };
        let (_, error) = field(&fields, place).parts().unwrap();
        field(error.list(), 0).word().unwrap().to_owned()
    }

    fn push(&self, body: &[u8]) {
        let node = Node::parse("changes").unwrap();
        assert!(self.bus.push(&node, message(body), self.org.clock.now()));
    }

    fn counts(&self) -> queue::Counts {
        let node = Node::parse("changes").unwrap();
        self.bus.with(&node, |queue, _| queue.counts()).unwrap()
    }
}

fn message(body: &[u8]) -> Message {
    Message::data(body.to_vec(), "m".to_owned(), "application/json", &[])
}

fn accepted() -> Value {
    Value::composite(ACCEPTED, Vec::new())
}

#[tokio::test]
async fn another_protocol_and_amqp_without_sasl_are_told_what_is_spoken() {
    for header in [AMQP, *b"HTTP/1.1"] {
        let mut client = Client::connect();
        client.stream.write_all(&header).await.unwrap();
        assert_eq!(client.header().await, SASL);
        assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_sasl() {
    let mut client = Client::connect();
    client.stream.write_all(&SASL).await.unwrap();
    client.header().await;
    client.next().await;
    let response = Value::Binary(b"\0listen\0wrong".to_vec());
    let init = vec![Value::symbol("PLAIN"), response];
    Frame::sasl(0x41, init)
        .write(&mut client.stream)
        .await
        .unwrap();
    let (_, outcome, _) = client.next().await;
    assert_eq!(outcome[0], Value::Ubyte(1));
}

#[tokio::test]
async fn a_connection_without_a_token_is_closed_in_time() {
    let mut client = Client::open(None, 65_536).await;
    client.org.clock.advance(Duration::from_secs(21));
    assert_eq!(client.refused(CLOSE).await, "amqp:connection:forced");
}

#[tokio::test]
async fn links_without_a_right_or_an_entity_are_attached_and_detached() {
    let mut nobody = Client::open(None, 65_536).await;
    nobody.attach(0, true, "changes", false).await;
    assert_eq!(nobody.refused(DETACH).await, "amqp:unauthorized-access");
    let mut sender = Client::open(Some("send"), 65_536).await;
    sender.attach(0, true, "changes", false).await;
    assert_eq!(sender.refused(DETACH).await, "amqp:unauthorized-access");
    let mut all = Client::open(Some("RootManageSharedAccessKey"), 65_536).await;
    all.attach(0, true, "chagnes", false).await;
    assert_eq!(all.refused(DETACH).await, "amqp:not-found");
    all.attach(1, false, "changes/$deadletterqueue", false)
        .await;
    assert_eq!(all.refused(DETACH).await, "amqp:not-allowed");
}

#[tokio::test]
async fn a_connection_has_one_pair_of_links_to_cbs() {
    let mut client = Client::open(None, 65_536).await;
    client.attach(0, true, "$cbs", false).await;
    client.attach(1, true, "$cbs", false).await;
    assert_eq!(client.refused(DETACH).await, "amqp:not-allowed");
}

#[tokio::test]
async fn credit_is_kept_to_and_given_back_when_drained() {
    let mut client = Client::open(Some("listen"), 65_536).await;
    for number in 0..5 {
        client.push(&[number]);
    }
    client.attach(0, true, "changes", false).await;
    client.credit(0, 0, 2, false).await;
    client.expect(TRANSFER).await;
    client.expect(TRANSFER).await;
    assert_eq!(client.counts().locked, 2);
    // Ten more, three of which there are: the rest comes back.
    client.credit(0, 2, 10, true).await;
    for _ in 0..3 {
        client.expect(TRANSFER).await;
    }
    let (flow, _) = client.expect(FLOW).await;
    assert_eq!((flow[5].small(), flow[6].small()), (Some(12), Some(0)));
}

#[tokio::test]
async fn a_delivery_is_cut_to_the_clients_frames_and_settled_once() {
    let mut client = Client::open(Some("listen"), 512).await;
    client.push(&[7; 1000]);
    client.attach(0, true, "changes", false).await;
    client.credit(0, 0, 1, false).await;
    let mut bytes = Vec::new();
    loop {
        let (transfer, payload) = client.expect(TRANSFER).await;
        assert!(payload.len() < 512);
        bytes.extend(payload);
        if !field(&transfer, 5).is_true() {
            break;
        }
    }
    assert_eq!(Message::parse(&bytes).unwrap(), message(&[7; 1000]));
    client.dispose(0, accepted()).await;
    let (told, _) = client.expect(DISPOSITION).await;
    assert_eq!((&told[3], &told[4]), (&Value::Bool(true), &accepted()));
    assert_eq!(client.counts().completed, 1);
}

#[tokio::test]
async fn a_settlement_after_the_lock_is_refused_and_the_message_comes_again() {
    let mut client = Client::open(Some("listen"), 65_536).await;
    client.push(&[1]);
    client.attach(0, true, "changes", false).await;
    client.credit(0, 0, 1, false).await;
    client.expect(TRANSFER).await;
    client.org.clock.advance(Duration::from_secs(61));
    client.dispose(0, accepted()).await;
    let (told, _) = client.expect(DISPOSITION).await;
    let (code, _) = told[4].parts().unwrap();
    assert_eq!(code, REJECTED);
    client.credit(0, 1, 1, false).await;
    let (_, payload) = client.expect(TRANSFER).await;
    // The header says that a delivery failed: durable, …, delivery-count 1.
    assert!(
        payload.windows(2).any(|pair| pair == [0x52, 1]),
        "{payload:?}"
    );
}

#[tokio::test]
async fn receive_and_delete_takes_messages_as_they_are_sent() {
    let mut client = Client::open(Some("listen"), 65_536).await;
    client.push(&[1]);
    client.attach(0, true, "changes", true).await;
    client.credit(0, 0, 1, false).await;
    let (transfer, _) = client.expect(TRANSFER).await;
    assert!(field(&transfer, 4).is_true());
    let counts = client.counts();
    assert_eq!((counts.ready, counts.locked, counts.completed), (0, 0, 1));
}

#[tokio::test]
async fn a_sender_keeps_to_its_credit_and_to_the_size() {
    let mut client = Client::open(Some("send"), 65_536).await;
    client.attach(0, false, "changes", false).await;
    let (flow, _) = client.expect(FLOW).await;
    assert_eq!(flow[6].small(), Some(100));
    client.transfer(0, 0, b"{}").await;
    let (told, _) = client.expect(DISPOSITION).await;
    assert_eq!(told[4], accepted());
    assert_eq!(client.counts().ready, 1);
    // More than a message may have, in frames that are small enough.
    let part = vec![0; 60_000];
    for _ in 0..5 {
        let mut fields = vec![Value::Uint(0), Value::Uint(1), Value::Binary(vec![1])];
        fields.extend([Value::Uint(0), Value::Bool(false), Value::Bool(true)]);
        let mut frame = Frame::of(0, TRANSFER, fields);
        frame.payload.clone_from(&part);
        frame.write(&mut client.stream).await.unwrap();
    }
    assert_eq!(
        client.refused(DETACH).await,
        "amqp:link:message-size-exceeded"
    );
}

#[tokio::test]
async fn a_frame_beyond_the_limit_and_one_before_the_open_end_the_connection() {
    let mut client = Client::open(Some("listen"), 65_536).await;
    client
        .stream
        .write_all(&[0, 2, 0, 0, 2, 0, 0, 0])
        .await
        .unwrap();
    assert_eq!(client.refused(CLOSE).await, "amqp:connection:framing-error");
    let mut client = Client::open(Some("listen"), 65_536).await;
    client.send(OPEN, vec![Value::text("again")]).await;
    assert_eq!(client.refused(CLOSE).await, "amqp:illegal-state");
}

#[tokio::test]
async fn a_silent_client_is_left() {
    let mut client = Client::open(Some("listen"), 65_536).await;
    client.bus.set(Settings {
        idle_ms: 50,
        ..Settings::default()
    });
    client.attach(0, true, "changes", false).await;
    assert_eq!(client.refused(CLOSE).await, "amqp:connection:forced");
}

#[tokio::test]
async fn a_topics_messages_go_to_each_subscription_and_nowhere_if_there_is_none() {
    let client = Client::open(Some("listen"), 65_536).await;
    let post = |entity: &str| BusMessage {
        endpoint: client.org.draw(),
        entity: entity.to_owned(),
        contract: 5,
        content_type: "application/json",
        body: "{}".to_owned(),
        properties: Vec::new(),
        enqueued: client.org.clock.now(),
    };
    assert!(!client.bus.post(&post("t")));
    for name in ["t/Subscriptions/a", "t/Subscriptions/b"] {
        assert!(client.bus.create(name) && !client.bus.create(name));
    }
    assert!(client.bus.post(&post("T")));
    for name in ["t/Subscriptions/a", "t/subscriptions/B"] {
        let node = Node::parse(name).unwrap();
        let ready = client.bus.with(&node, |queue, _| queue.counts().ready);
        assert_eq!(ready, Some(1));
    }
    assert_eq!(client.counts().ready, 0);
}
