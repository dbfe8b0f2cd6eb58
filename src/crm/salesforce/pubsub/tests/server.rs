//! A Pub/Sub server whose subscriptions a test answers by hand, and the org around it.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::crm::port::{Crm, Heard, Listener, Start};
use crate::crm::salesforce::Salesforce;
use crate::crm::salesforce::settings::{SalesforceSettings, Transport};
use crate::crm::salesforce::tests::org::{Org, below, describe};
use crate::fault::Fault;
use crate::http::tests::server::Reply;
use crate::http::tests::trust;
use crate::model::position::Position;

use super::super::eventbus::pub_sub_server::{PubSub, PubSubServer};
use super::super::eventbus::{
    ConsumerEvent, FetchRequest, FetchResponse, ProducerEvent, SchemaInfo, SchemaRequest,
    TopicInfo, TopicRequest,
};
use super::events::{datum, header, schema};

/// Everything waits at most so long.
const SOON: Duration = Duration::from_secs(20);
/// The fields of the tests' Account.
pub const FIELDS: [(&str, &str); 2] = [("Name", "string"), ("Industry", "string")];

/// A subscription, for the test to answer.
pub struct Call {
    pub first: FetchRequest,
    pub token: String,
    requests: mpsc::UnboundedReceiver<FetchRequest>,
    answers: mpsc::UnboundedSender<Result<FetchResponse, Status>>,
}

impl Call {
    /// Sends events, each with its replay id.
    pub fn send(&self, events: Vec<ConsumerEvent>) {
        let latest = events.last().map(|event| event.replay_id.to_vec());
        self.answer(Ok(FetchResponse {
            events,
            latest_replay_id: latest.unwrap_or_default(),
            ..FetchResponse::default()
        }));
    }

    /// Says that there is nothing, up to `id`.
    pub fn keep_alive(&self, id: u8) {
        self.answer(Ok(FetchResponse {
            latest_replay_id: replay_id(id),
            pending_num_requested: 100,
            ..FetchResponse::default()
        }));
    }

    pub fn answer(&self, answer: Result<FetchResponse, Status>) {
        self.answers.send(answer).unwrap();
    }

    /// The credit that is given next.
    pub async fn credit(&mut self) -> FetchRequest {
        soon(self.requests.recv()).await.unwrap()
    }

    /// Whether nothing was asked for since.
    pub fn is_content(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }

    /// Waits until the client has gone.
    pub async fn gone(mut self) {
        soon(async { while self.requests.recv().await.is_some() {} }).await;
    }
}

#[derive(Default)]
pub struct Inner {
    pub schemas: Mutex<HashMap<String, String>>,
    pub dead: Mutex<HashSet<String>>,
    pub seen: Mutex<Vec<String>>,
    /// Answers in place of the next calls of a kind.
    pub refusals: Mutex<Vec<(&'static str, Status)>>,
    pub closed_topics: Mutex<HashSet<String>>,
}

struct Service {
    inner: Arc<Inner>,
    calls: mpsc::UnboundedSender<Call>,
}

impl Service {
    /// The token of a call, which is noted.
    fn admit<T>(
        &self,
        rpc: &'static str,
        what: &str,
        request: &Request<T>,
    ) -> Result<String, Status> {
        let text = |key: &str| {
            let value = request
                .metadata()
                .get(key)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        assert!(
            text("instanceurl").starts_with("http://"),
            "instance URL in metadata"
        );
        assert_eq!(text("tenantid"), "00DA0000006Vm9uMAC");
        let token = text("accesstoken");
        self.inner
            .seen
            .lock()
            .unwrap()
            .push(format!("{rpc} {what}"));
        let mut refusals = self.inner.refusals.lock().unwrap();
        if let Some(at) = refusals.iter().position(|(own, _)| *own == rpc) {
            return Err(refusals.remove(at).1);
        }
        if self.inner.dead.lock().unwrap().contains(&token) {
            return Err(refusal(Code::Unauthenticated, "service.auth.error"));
        }
        Ok(token)
    }
}

#[tonic::async_trait]
impl PubSub for Service {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<FetchRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let token = self.admit("Subscribe", "", &request)?;
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.unwrap_or_default();
        let (asked, requests) = mpsc::unbounded_channel();
        let (answers, mut answered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(request)) = inbound.message().await {
                if asked.send(request).is_err() {
                    break;
                }
            }
        });
        let call = Call {
            first,
            token,
            requests,
            answers,
        };
        self.calls
            .send(call)
            .map_err(|_| Status::aborted("the test is over"))?;
        let answers = futures_util::stream::poll_fn(move |cx| answered.poll_recv(cx));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_schema(
        &self,
        request: Request<SchemaRequest>,
    ) -> Result<Response<SchemaInfo>, Status> {
        let id = request.get_ref().schema_id.clone();
        self.admit("GetSchema", &id, &request)?;
        let schema_json = self.inner.schemas.lock().unwrap().get(&id).cloned();
        let schema_json = schema_json
            .ok_or_else(|| refusal(Code::InvalidArgument, "schema.validation.failed"))?;
        Ok(Response::new(SchemaInfo {
            schema_json,
            schema_id: id,
            ..SchemaInfo::default()
        }))
    }

    async fn get_topic(
        &self,
        request: Request<TopicRequest>,
    ) -> Result<Response<TopicInfo>, Status> {
        let topic_name = request.get_ref().topic_name.clone();
        self.admit("GetTopic", &topic_name, &request)?;
        let can_subscribe = !self
            .inner
            .closed_topics
            .lock()
            .unwrap()
            .contains(&topic_name);
        Ok(Response::new(TopicInfo {
            topic_name,
            can_subscribe,
            ..TopicInfo::default()
        }))
    }
}

/// The server, the org around it, and a wire between that can be cut.
pub struct World {
    pub org: Org,
    pub inner: Arc<Inner>,
    address: String,
    calls: mpsc::UnboundedReceiver<Call>,
    wires: Arc<Mutex<Vec<AbortHandle>>>,
}

impl World {
    pub async fn start() -> Self {
        let org = Org::start(|seen| async move {
            match below(&seen) {
                "/sobjects/Account/describe/" => describe("Account", &FIELDS),
                "/sobjects/Contact/describe/" => describe("Contact", &[("Email", "email")]),
                _ => Reply::error(404, "NOT_FOUND", "no such path"),
            }
        })
        .await;
        let inner = Arc::new(Inner::default());
        let schemas = [
            ("schema-account", schema("AccountChangeEvent", &FIELDS)),
            (
                "schema-contact",
                schema("ContactChangeEvent", &[("Email", "string")]),
            ),
        ];
        for (id, json) in schemas {
            inner.schemas.lock().unwrap().insert(id.to_owned(), json);
        }
        let (sender, calls) = mpsc::unbounded_channel();
        let service = PubSubServer::new(Service {
            inner: Arc::clone(&inner),
            calls: sender,
        })
        .max_encoding_message_size(64 << 20);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", front.local_addr().unwrap());
        let wires: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let held = Arc::clone(&wires);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = front.accept().await {
                let wire = tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::io::copy_bidirectional(&mut near, &mut far)
                        .await
                        .ok();
                });
                held.lock().unwrap().push(wire.abort_handle());
            }
        });
        Self {
            org,
            inner,
            address,
            calls,
            wires,
        }
    }

    /// The same behind TLS, by a certificate of a test's authority; where it is.
    pub async fn behind_tls(&self) -> String {
        let chain = vec![CertificateDer::from_pem_slice(trust::SERVER.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(trust::SERVER_KEY.as_bytes()).unwrap();
        crate::tls::install();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = front.local_addr().unwrap().port();
        let plain = self.address.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((socket, _)) = front.accept().await {
                let (acceptor, plain) = (acceptor.clone(), plain.clone());
                tokio::spawn(async move {
                    // A client that does not trust us hangs up here.
                    if let Ok(mut near) = acceptor.accept(socket).await {
                        let mut far = TcpStream::connect(plain).await.unwrap();
                        tokio::io::copy_bidirectional(&mut near, &mut far)
                            .await
                            .ok();
                    }
                });
            }
        });
        format!("localhost:{port}")
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for wire in self.wires.lock().unwrap().drain(..) {
            wire.abort();
        }
    }

    pub fn connector(&self) -> Salesforce {
        self.with(|_| {})
    }

    pub fn with(&self, change: impl FnOnce(&mut SalesforceSettings)) -> Salesforce {
        self.org.with(|settings| {
            settings.transport = Transport::PubSub;
            settings.pubsub_address.clone_from(&self.address);
            change(settings);
        })
    }

    /// Every token that was given so far is dead.
    pub fn end_tokens(&self) {
        for number in 1..=self.org.sign_ins() {
            self.inner
                .dead
                .lock()
                .unwrap()
                .insert(format!("00DA0000006Vm9uMAC!token{number}"));
        }
    }

    /// The next subscription.
    pub async fn call(&mut self) -> Call {
        soon(self.calls.recv()).await.unwrap()
    }

    /// Opens the stream of Account and Contact, the server's first word being a keep-alive at `id`.
    pub async fn listen(
        &mut self,
        crm: &Salesforce,
        from: Start,
        id: u8,
    ) -> (Box<dyn Listener>, Call) {
        let objects = ["Account".into(), "Contact".into()];
        let opened = crm.listen(&objects, from);
        let answered = async {
            let call = soon(self.calls.recv()).await.unwrap();
            call.keep_alive(id);
            call
        };
        let (listener, call) = tokio::join!(opened, answered);
        (listener.unwrap(), call)
    }

    /// How many calls of a kind there were.
    pub fn count(&self, rpc: &str) -> usize {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.starts_with(rpc)).count()
    }
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("nothing came")
}

pub async fn hear(listener: &mut Box<dyn Listener>) -> Heard {
    soon(listener.next()).await.unwrap()
}

pub async fn ends(listener: &mut Box<dyn Listener>) -> Fault {
    loop {
        if let Err(fault) = soon(listener.next()).await {
            return fault;
        }
    }
}

/// A replay id as Salesforce makes them: a number and two bytes more.
pub fn replay_id(id: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, 0, 0, 0, id, 0, 0]
}

pub fn position(id: u8) -> Position {
    let text = super::super::subscription::text_of(&replay_id(id)).unwrap();
    Position::new(format!("pubsub:{text}"))
}

pub fn after(id: u8) -> Start {
    Start::After(position(id))
}

/// An update of Account's Industry.
pub fn update(id: u8, industry: &str) -> ConsumerEvent {
    let mut head = header("Account", "UPDATE");
    head["transactionKey"] = json!(format!("key-{id}"));
    head["changedFields"] = json!(["0x04"]);
    event(
        id,
        "schema-account",
        &schema("AccountChangeEvent", &FIELDS),
        &head,
        &json!({"Industry": industry}),
    )
}

/// A create, which shares its replay id with none.
pub fn create(id: u8, name: &str) -> ConsumerEvent {
    let head = header("Account", "CREATE");
    event(
        id,
        "schema-account",
        &schema("AccountChangeEvent", &FIELDS),
        &head,
        &json!({"Name": name}),
    )
}

pub fn event(id: u8, schema_id: &str, schema: &str, header: &Json, fields: &Json) -> ConsumerEvent {
    raw(id, schema_id, datum(schema, header, fields))
}

pub fn raw(id: u8, schema_id: &str, payload: Vec<u8>) -> ConsumerEvent {
    ConsumerEvent {
        event: Some(ProducerEvent {
            id: format!("event-{id}"),
            schema_id: schema_id.to_owned(),
            payload: payload.into(),
            headers: Vec::new(),
        }),
        replay_id: replay_id(id).into(),
    }
}

/// A refusal as the API words it.
pub fn refusal(code: Code, suffix: &str) -> Status {
    let mut status = Status::new(code, "It was refused. rpcId: 0-1");
    let suffix = format!("sfdc.platform.eventbus.grpc.{suffix}");
    status
        .metadata_mut()
        .insert("error-code", suffix.parse().unwrap());
    status
}
