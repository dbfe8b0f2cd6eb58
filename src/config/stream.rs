//! `transport`, `channel`, `pubsub_address` and `stream_silence` of a Salesforce connection: how its changes come.

use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};

/// `transport`: how changes come. Chosen, never switched by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// `"cometd"`: the Streaming API's long poll.
    Cometd,
    /// `"pubsub"`: the Pub/Sub API, over gRPC.
    #[default]
    PubSub,
}

/// `channel`: what the stream subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Channel {
    /// `"/data/ChangeEvents"`: the standard channel.
    #[default]
    Standard,
    /// `"objects"`: a channel for each object.
    PerObject,
    /// A custom channel, `"/data/Sales__chn"`.
    Custom(String),
}

/// How a connection's changes come.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub transport: Transport,
    pub channel: Channel,
    pub pubsub_address: Option<String>,
    pub silence: Option<Duration>,
}

impl Stream {
    pub(super) fn parse(reader: &mut Reader<'_>, plain_text: bool) -> Self {
        let transport = transport(reader);
        let (least, most) = (least_silence(transport, plain_text), MOST_SILENCE);
        Self {
            transport,
            channel: channel(reader),
            pubsub_address: pubsub_address(reader, plain_text),
            silence: reader.duration("stream_silence", least, most),
        }
    }
}

/// How long a silent stream may be waited for.
const MOST_SILENCE: Duration = Duration::from_hours(1);

/// What is shorter is no silence yet: keep-alives come within 270 s (Pub/Sub API Developer Guide, "Pull Subscription and
/// Flow Control"), a poll is held for 110 s and answered within 120 s (Streaming API Developer Guide, "Client
/// connection"). Only tests have streams that say something sooner.
const fn least_silence(transport: Transport, plain_text: bool) -> Duration {
    match transport {
        _ if plain_text => Duration::from_secs(1),
        Transport::PubSub => Duration::from_secs(280),
        Transport::Cometd => Duration::from_secs(125),
    }
}

fn transport(reader: &mut Reader<'_>) -> Transport {
    let Some(text) = reader.text("transport") else {
        return Transport::default();
    };
    match text.value.as_str() {
        "cometd" => Transport::Cometd,
        "pubsub" => Transport::PubSub,
        _ => {
            let remedy = "write \"pubsub\" or \"cometd\", or remove the key";
            let problem = Problem::new(&text.spot, "no transport", remedy);
            reader.report.add(problem.value(shown(&text.value)));
            Transport::default()
        }
    }
}

/// Names have the case that Setup shows (CDC Developer Guide, "Subscription Channels").
fn channel(reader: &mut Reader<'_>) -> Channel {
    let Some(text) = reader.text("channel") else {
        return Channel::Standard;
    };
    let is_custom = |name: &str| {
        name.strip_prefix("/data/")
            .and_then(|name| name.strip_suffix("__chn"))
            .is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            })
    };
    match text.value.as_str() {
        "/data/ChangeEvents" => Channel::Standard,
        "objects" => Channel::PerObject,
        name if is_custom(name) => Channel::Custom(name.to_owned()),
        _ => {
            let remedy = "write \"/data/ChangeEvents\", \"objects\" for a channel per object, or a custom channel like \
                 \"/data/Sales__chn\"";
            let problem = Problem::new(&text.spot, "no channel of change events", remedy);
            reader.report.add(problem.value(shown(&text.value)));
            Channel::Standard
        }
    }
}

fn pubsub_address(reader: &mut Reader<'_>, plain_text: bool) -> Option<String> {
    let text = reader.text("pubsub_address")?;
    let address = match text.value.split_once("://") {
        None => Some(text.value.as_str()),
        Some(("https", address)) => Some(address),
        Some(("http", address)) if plain_text => Some(address),
        Some(_) => None,
    };
    let is_address = address.is_some_and(|address| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "443"));
        let is_host = !host.is_empty()
            && host.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':')
            });
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_address {
        return Some(text.value);
    }
    let remedy = "write a host and a port: \"api.pubsub.salesforce.com:7443\"";
    let problem = Problem::new(&text.spot, "no address of the Pub/Sub API", remedy);
    reader.report.add(problem.value(shown(&text.value)));
    None
}
