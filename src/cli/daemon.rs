//! The running daemon, asked over HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::app;
use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::http::request::{Method, Request};
use crate::http::{Http, HttpSettings};
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;

/// The token of a daemon that is named by `--url`.
const TOKEN: &str = "TRIBUTARY_TOKEN";

/// The running daemon.
pub(super) struct Daemon {
    http: Http,
    url: String,
    token: Option<Secret>,
}

#[derive(Deserialize)]
struct Refused {
    kind: String,
    error: String,
    remedy: Option<String>,
}

impl Daemon {
    /// The daemon at `url`, or the one of the config.
    ///
    /// # Errors
    /// `Config` for a config that can't be read.
    pub(super) fn at(config: &Path, url: Option<&str>) -> Result<Self, Fault> {
        match url {
            Some(url) => {
                let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
                Self::new(url.trim_end_matches('/').to_owned(), token.map(Secret::new))
            }
            None => Self::of(&app::load(config)?),
        }
    }

    /// The daemon of a config: at `[admin] listen`, by its token.
    ///
    /// # Errors
    /// `Config` for a token that can't be read.
    pub(super) fn of(config: &Config) -> Result<Self, Fault> {
        let mut address: SocketAddr = config.admin.listen;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let token = config.admin.token.as_ref().map(|token| token.read());
        Self::new(format!("http://{address}"), token.transpose()?)
    }

    fn new(url: String, token: Option<Secret>) -> Result<Self, Fault> {
        let settings = HttpSettings {
            plain_text: url.starts_with("http://"),
            timeout: Duration::from_secs(60),
            ..HttpSettings::new("daemon")
        };
        Ok(Self {
            http: Http::new(settings, &Metrics::none())?,
            url,
            token,
        })
    }

    /// Whether it answers.
    pub(super) async fn is_alive(&self) -> bool {
        let probe = Request::get(format!("{}/healthz", self.url)).timeout(Duration::from_secs(4));
        let answer = self.http.send(probe).await;
        answer.is_ok_and(|answer| answer.is_success())
    }

    /// Asks at a path.
    ///
    /// # Errors
    /// What the daemon says; `Unavailable` if none answers.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, Fault> {
        self.answer(Request::new(method, format!("{}{path}", self.url)))
            .await
    }

    /// Tells it something at a path.
    ///
    /// # Errors
    /// As [`Daemon::call`].
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Fault> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Fault::new(FaultKind::Protocol, "writing JSON").source(error))?;
        self.answer(Request::post(format!("{}{path}", self.url)).json(body))
            .await
    }

    async fn answer<T: DeserializeOwned>(&self, mut request: Request) -> Result<T, Fault> {
        if let Some(token) = &self.token {
            request = request.bearer(token);
        }
        let answer = self.http.send(request).await.map_err(|fault| {
            fault
                .context(format!("asking the daemon at {}", self.url))
                .remedy("start it with `tributary serve`, or name another by --url")
        })?;
        if !answer.is_success() {
            return Err(refused(&answer));
        }
        serde_json::from_slice(answer.body()).map_err(|error| {
            Fault::new(FaultKind::Protocol, "the daemon's answer can't be read")
                .source(error)
                .remedy("run the same build as the daemon")
        })
    }

    /// Opens a page for a person; whether it was not refused.
    ///
    /// # Errors
    /// `Unavailable` if no daemon answers.
    pub(super) async fn visit(&self, path: &str) -> Result<bool, Fault> {
        let request = Request::get(format!("{}{path}", self.url));
        Ok(self.http.send(request).await?.is_success())
    }
}

/// What the daemon says in place of an answer.
fn refused(answer: &Answer) -> Fault {
    if answer.status() == 401 {
        return Fault::new(FaultKind::Credentials, "the daemon refuses the token").remedy(format!(
            "give the token of its `[admin] token`: in the config, or in {TOKEN} beside --url"
        ));
    }
    let Ok(said) = serde_json::from_slice::<Refused>(answer.body()) else {
        return answer.fault();
    };
    let kind = FaultKind::ALL
        .into_iter()
        .find(|kind| kind.label() == said.kind);
    let kind = kind.unwrap_or(FaultKind::Protocol);
    let Some(remedy) = said.remedy else {
        return Fault::new(kind, said.error);
    };
    // The text of an error ends with its remedy.
    let what = said.error.strip_suffix(&format!(" (remedy: {remedy})"));
    Fault::new(kind, what.unwrap_or(&said.error)).remedy(remedy)
}
