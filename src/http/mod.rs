//! The outbound HTTP client: limits on time and size, a count of calls, faults without secrets.
//!
//! Nothing is retried and no redirect is followed here: a bearer token goes where it was sent and nowhere else.

pub mod answer;
pub mod encode;
pub mod incoming;
pub mod one_token;
pub mod raw_row;
pub mod request;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::fault::{Fault, FaultKind};
use crate::telemetry::metrics::{self, Metrics};
use crate::tls;

use answer::Answer;
use incoming::Incoming;
use request::{Body, Request};

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Whose calls these are: the label `connection` of the count of calls.
    pub connection: String,
    /// The longest wait for a connection, TLS included.
    pub connect_timeout: Duration,
    /// The longest a call may take, its answer's body included; a request may set its own.
    pub timeout: Duration,
    /// The largest body of an answer in bytes, after decompression.
    pub max_answer: usize,
    /// Authorities to trust beside the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// Whether `http://` may be used at all.
    pub plain_text: bool,
    /// Whether cookies are kept and sent back.
    pub cookies: bool,
    /// Whether to stay with HTTP/1.1.
    pub http1: bool,
}

impl HttpSettings {
    /// Settings that suit a REST API.
    pub fn new(connection: impl Into<String>) -> Self {
        Self {
            connection: connection.into(),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_mins(3),
            max_answer: 256 * 1024 * 1024,
            ca_file: None,
            plain_text: false,
            cookies: false,
            http1: false,
        }
    }
}

/// A client; clones share connections, cookies and the count.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    settings: HttpSettings,
    calls: ::metrics::Counter,
}

impl Http {
    /// Builds a client.
    ///
    /// # Errors
    /// `Config` for a certificate file that is none, or if the system's certificates can't be loaded.
    pub fn new(settings: HttpSettings, metrics: &Metrics) -> Result<Self, Fault> {
        tls::install();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .gzip(true)
            .tcp_keepalive(Duration::from_secs(30))
            .https_only(!settings.plain_text)
            .cookie_store(settings.cookies);
        if settings.plain_text {
            // Plain text is for peers on the own machine; a proxy is not asked.
            builder = builder.no_proxy();
        }
        if settings.http1 {
            builder = builder.http1_only();
        }
        if let Some(file) = &settings.ca_file {
            let mut roots = Vec::new();
            for der in tls::authorities(file)? {
                roots.push(reqwest::Certificate::from_der(&der).map_err(|error| {
                    let what = format!("certificate file `{}` is refused", file.display());
                    Fault::new(FaultKind::Config, what).source(error)
                })?);
            }
            builder = builder.tls_certs_merge(roots);
        }
        let client = builder.build().map_err(|error| {
            Fault::new(FaultKind::Config, "HTTP client can't be set up")
                .source(error)
                .remedy("install the system's CA certificates, or set `ca_file`")
        })?;
        let labels = [("connection", settings.connection.as_str())];
        let calls = metrics.counter(metrics::CRM_CALLS, &labels);
        Ok(Self {
            client,
            settings,
            calls,
        })
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// `Config` for an address that may not be used; `Unavailable` if the peer is not reached, is too slow, or
    /// cuts its answer; `Protocol` for an answer past the limit. Faults name method, host and path, never the
    /// query, a header or the body.
    pub async fn send(&self, request: Request) -> Result<Answer, Fault> {
        let incoming = self.open(request).await?;
        self.whole(incoming).await
    }

    /// Sends a request and gives its answer's head; the body is taken piece by piece.
    ///
    /// # Errors
    /// As [`Http::send`], without a limit on the body.
    pub async fn open(&self, request: Request) -> Result<Incoming, Fault> {
        let what = request.shown();
        self.check(&request)?;
        let timeout = request.timeout.unwrap_or(self.settings.timeout);
        let mut call = self
            .client
            .request(request.method.into(), &request.url)
            .timeout(timeout);
        for (name, value) in &request.headers {
            call = call.header(*name, value);
        }
        if let Some(bearer) = &request.bearer {
            call = call.bearer_auth(bearer.expose());
        }
        call = match request.body {
            Body::None => call,
            Body::Json(json) => call.header("Content-Type", "application/json").body(json),
            Body::Form(form) => call.form(&form),
        };
        self.calls.increment(1);
        let began = Instant::now();
        let response = call
            .send()
            .await
            .map_err(|error| transport(error, &what, timeout))?;
        let round_trip = began.elapsed();
        let head = Answer {
            what,
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            round_trip,
            body: Bytes::new(),
        };
        Ok(Incoming {
            head,
            response,
            timeout,
        })
    }

    fn check(&self, request: &Request) -> Result<(), Fault> {
        let secure = request.url.starts_with("https://");
        let plain = request.url.starts_with("http://") && self.settings.plain_text;
        if secure || plain {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Config,
            format!("{} is not an https:// address", request.shown()),
        )
        .remedy("use an https:// URL; `plain_text = true` allows http:// for tests"))
    }

    /// Reads the body piece by piece, so that the limit holds also for what a small answer unpacks to.
    ///
    /// # Errors
    /// `Unavailable` for a body that is cut off or too slow; `Protocol` past the limit.
    pub async fn whole(&self, mut incoming: Incoming) -> Result<Answer, Fault> {
        let limit = self.settings.max_answer;
        let mut whole = BytesMut::new();
        while let Some(piece) = incoming.piece().await? {
            if whole.len().saturating_add(piece.len()) > limit {
                let what = &incoming.head.what;
                return Err(Fault::new(
                    FaultKind::Protocol,
                    format!("answer to {what} is larger than {limit} bytes"),
                ));
            }
            whole.extend_from_slice(&piece);
        }
        let mut answer = incoming.head;
        answer.body = whole.freeze();
        Ok(answer)
    }
}

/// What went wrong before there was a whole answer.
fn transport(error: reqwest::Error, what: &str, timeout: Duration) -> Fault {
    // The query may hold what an operator would not want in a log.
    let error = error.without_url();
    if error.is_builder() {
        return Fault::new(FaultKind::Config, format!("{what} can't be sent")).source(error);
    }
    let text = if error.is_timeout() && error.is_connect() {
        format!("{what}: no connection in time")
    } else if error.is_timeout() {
        format!("{what}: no whole answer within {} s", timeout.as_secs_f64())
    } else if error.is_connect() {
        format!("{what}: can't connect")
    } else if error.is_body() || error.is_decode() {
        format!("{what}: the answer was cut off")
    } else {
        format!("{what}: the connection broke")
    };
    let untrusted = chain_mentions(&error, "certificate");
    let fault = Fault::new(FaultKind::Unavailable, text).source(error);
    if untrusted {
        return fault
            .remedy("if the peer's certificate is of an authority of your own, set `ca_file`");
    }
    fault
}

fn chain_mentions(error: &dyn std::error::Error, word: &str) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if inner.to_string().contains(word) {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
pub(crate) mod tests;
