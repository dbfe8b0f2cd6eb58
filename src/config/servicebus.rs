//! `servicebus_url` and `servicebus` of a Dynamics connection: the queue that the environment's messages come by.

use std::path::Path;

use crate::config::document::{Node, Report};
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;
use crate::config::web::WebUrl;

/// A queue, and how to get at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceBusConfig {
    /// `servicebus_url`'s host.
    pub host: String,
    /// `servicebus_url`'s port, if another than the transport's own.
    pub port: Option<u16>,
    /// Whether TLS is spoken.
    pub encrypted: bool,
    /// `queue`: its name, or `topic/Subscriptions/name`.
    pub queue: String,
    /// `key_name`: the shared access policy.
    pub key_name: String,
    /// `key`: the policy's primary or secondary key.
    pub key: SecretRef,
    /// `transport`.
    pub transport: BusTransport,
}

/// How AMQP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusTransport {
    /// `"websocket"`: port 443.
    WebSocket,
    /// `"tcp"`: port 5671.
    Tcp,
}

const URL: &str = "write the namespace's address: \"sb://<name>.servicebus.windows.net\"";
const TABLE: &str = "write servicebus = { queue = \"…\", key_name = \"…\", key = { env = \"…\" } }";

impl ServiceBusConfig {
    /// Reads both keys of a connection; neither is there without the other.
    pub(super) fn take(reader: &mut Reader<'_>, plain_text: bool, root: &Path) -> Option<Self> {
        let report = reader.report;
        let address = reader.text("servicebus_url");
        let table = reader.take("servicebus");
        match (&address, table) {
            (None, None) => return None,
            (None, Some(_)) => reader.missing("servicebus_url", URL),
            (Some(_), None) => reader.missing("servicebus", TABLE),
            (Some(_), Some(_)) => {}
        }
        let url = address.and_then(|text| url(&text, plain_text, report));
        let table = table.and_then(|node| Queue::parse(node, root, report));
        let (url, table) = (url?, table?);
        Some(Self {
            host: url.host().to_owned(),
            port: url.port(),
            encrypted: url.is_encrypted(),
            queue: table.queue,
            key_name: table.key_name,
            key: table.key,
            transport: table.transport,
        })
    }
}

/// The table `servicebus`.
struct Queue {
    queue: String,
    key_name: String,
    key: SecretRef,
    transport: BusTransport,
}

impl Queue {
    fn parse(node: &Node, root: &Path, report: &Report) -> Option<Self> {
        let mut reader = Reader::open(node, report)?;
        let queue = reader
            .required_text(
                "queue",
                "write the queue's name, or \"topic/Subscriptions/name\"",
            )
            .and_then(|text| queue(text, report));
        let key_name = reader.required_text("key_name", "write the shared access policy's name");
        let key = match reader.take("key") {
            Some(node) => SecretRef::parse(node, root, report),
            None => {
                reader.missing(
                    "key",
                    "write key = { env = \"NAME\" }: the policy's primary key",
                );
                None
            }
        };
        let words = [
            ("websocket", BusTransport::WebSocket),
            ("tcp", BusTransport::Tcp),
        ];
        let transport = reader.word("transport", &words);
        reader.close();
        Some(Self {
            queue: queue?,
            key_name: key_name?.value,
            key: key?,
            transport: transport.unwrap_or(BusTransport::WebSocket),
        })
    }
}

/// The namespace's address, as a connection string, the portal or a client writes it.
fn url(text: &Located<String>, plain_text: bool, report: &Report) -> Option<WebUrl> {
    let (scheme, rest) = text.value.split_once("://").unwrap_or_default();
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "sb" | "amqps" | "wss" | "https" => "https",
        "amqp" | "ws" | "http" => "http",
        _ => {
            let problem = Problem::new(&text.spot, "no address of a namespace", URL);
            report.add(problem.value(shown(&text.value)));
            return None;
        }
    };
    let web = Located::new(format!("{scheme}://{rest}"), text.spot.clone());
    let url = WebUrl::parse(&web, plain_text, report)?;
    if url.as_str().matches('/').count() > 2 {
        let remedy = "write the address up to the host, and the queue's name in `servicebus.queue`";
        let problem = Problem::new(&text.spot, "more than a namespace", remedy);
        report.add(problem.value(shown(&text.value)));
        return None;
    }
    Some(url)
}

fn queue(text: Located<String>, report: &Report) -> Option<String> {
    let name = text.value.trim();
    let is_name = |part: &str| {
        !part.is_empty() && !part.contains(['$', '\\', '?', '#', ' ']) && !part.contains("://")
    };
    if name.split('/').all(is_name) && name.len() <= 260 {
        return Some(name.to_owned());
    }
    let remedy = "write the queue's name, or \"topic/Subscriptions/name\"";
    let problem = Problem::new(&text.spot, "no name of a queue or a subscription", remedy);
    report.add(problem.value(shown(&text.value)));
    None
}
