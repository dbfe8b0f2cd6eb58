//! Calls of the Pub/Sub API: one connection, the token in every call's metadata, a bound on what is read.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::fault::{Fault, FaultKind};
use crate::tls;

use super::super::settings::SalesforceSettings;
use super::super::sign_in::Token;
use super::eventbus::pub_sub_client::PubSubClient;
use super::eventbus::{
    FetchRequest, FetchResponse, SchemaInfo, SchemaRequest, TopicInfo, TopicRequest,
};

/// The largest message that is read: an answer has at most 3 MB, tonic's own bound is 4 MB.
const LARGEST: usize = 16 << 20;
/// How often a connection is asked whether it lives, and how long it has for its answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);

/// A subscription that is being opened. The server's first word may be its first event.
pub type Opening = BoxFuture<'static, Result<Streaming<FetchResponse>, Status>>;

/// Calls over one connection.
#[derive(Clone)]
pub struct Wire {
    client: PubSubClient<Channel>,
    call_timeout: Duration,
}

impl Wire {
    /// Calls to the address of `settings`. Nothing is sent before the first.
    ///
    /// # Errors
    /// `Config` for an address or a certificate file that can't be used.
    pub fn new(settings: &SalesforceSettings) -> Result<Self, Fault> {
        let address = &settings.pubsub_address;
        let unusable = |error: tonic::transport::Error| {
            let what = format!("`pubsub_address = \"{address}\"` can't be used");
            Fault::new(FaultKind::Config, what).source(error)
        };
        let mut endpoint = Endpoint::from_shared(address.clone())
            .map_err(unusable)?
            .connect_timeout(settings.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WAIT)
            .keep_alive_while_idle(true);
        if !address.starts_with("http://") {
            endpoint = with_tls(endpoint, settings)?;
        }
        let client = PubSubClient::new(endpoint.connect_lazy());
        Ok(Self {
            client: client.max_decoding_message_size(LARGEST),
            call_timeout: settings.call_timeout,
        })
    }

    /// What there is to know of a topic.
    ///
    /// # Errors
    /// The call's status.
    pub async fn topic(&self, token: &Token, topic: &str) -> Result<TopicInfo, Status> {
        let topic_name = topic.to_owned();
        let mut request = signed(TopicRequest { topic_name }, token)?;
        request.set_timeout(self.call_timeout);
        let answer = self.client.clone().get_topic(request).await?;
        Ok(answer.into_inner())
    }

    /// The schema of an id.
    ///
    /// # Errors
    /// The call's status.
    pub async fn schema(&self, token: &Token, id: &str) -> Result<SchemaInfo, Status> {
        let schema_id = id.to_owned();
        let mut request = signed(SchemaRequest { schema_id }, token)?;
        request.set_timeout(self.call_timeout);
        let answer = self.client.clone().get_schema(request).await?;
        Ok(answer.into_inner())
    }

    /// Begins a subscription; its requests come from `requests`.
    ///
    /// # Errors
    /// For a token that fits no header.
    pub fn subscribe(
        &self,
        token: &Token,
        mut requests: mpsc::Receiver<FetchRequest>,
    ) -> Result<Opening, Status> {
        let requests = futures_util::stream::poll_fn(move |cx| requests.poll_recv(cx));
        let request = signed(requests, token)?;
        let mut client = self.client.clone();
        Ok(Box::pin(async move {
            let answer = client.subscribe(request).await?;
            Ok(answer.into_inner())
        }))
    }
}

/// The system's authorities, and those of `ca_file` beside them, or alone where the system has none.
fn with_tls(endpoint: Endpoint, settings: &SalesforceSettings) -> Result<Endpoint, Fault> {
    let unusable = |error: tonic::transport::Error| {
        Fault::new(FaultKind::Config, "no authorities to trust are found")
            .source(error)
            .remedy("install the system's certificates (ca-certificates), or set `ca_file`")
    };
    let system = ClientTlsConfig::new().with_native_roots();
    let Some(file) = &settings.ca_file else {
        return endpoint.tls_config(system).map_err(unusable);
    };
    // Says what is wrong with the file.
    tls::authorities(file)?;
    let pem = std::fs::read(file).map_err(|error| {
        let what = format!("certificate file `{}` can't be read", file.display());
        Fault::new(FaultKind::Config, what).source(error)
    })?;
    let own = Certificate::from_pem(pem);
    endpoint
        .clone()
        .tls_config(system.ca_certificate(own.clone()))
        .or_else(|_| endpoint.tls_config(ClientTlsConfig::new().ca_certificate(own)))
        .map_err(unusable)
}

/// Adds the metadata by which every call is signed (Pub/Sub API Developer Guide, "Authentication").
fn signed<T>(message: T, token: &Token) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let mut access = value(token.access.expose())?;
    access.set_sensitive(true);
    let metadata = request.metadata_mut();
    metadata.insert("accesstoken", access);
    metadata.insert("instanceurl", value(&token.instance_url)?);
    metadata.insert("tenantid", value(&token.org_id)?);
    Ok(request)
}

fn value(text: &str) -> Result<MetadataValue<Ascii>, Status> {
    // The text itself may be a secret.
    text.parse()
        .map_err(|_| Status::unauthenticated("the token answer holds what no header can hold"))
}
