//! Web API calls as the application user: one refresh of a dead token, and what each refusal means.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use crate::budget::{Budget, Limits};
use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::answer::Answer;
use crate::http::request::{Method, Request};
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use super::pace::Pace;
use super::settings::DynamicsSettings;
use super::sign_in::SignIn;

/// Web API calls of one connection.
pub struct Rest {
    http: Http,
    sign_in: Arc<SignIn>,
    settings: DynamicsSettings,
    budget: Arc<Budget>,
    pace: Pace,
    lag: TimeDelta,
}

/// A call that the CRM refused, with what it said.
#[derive(Debug)]
pub struct Refused {
    /// The HTTP status, 0 if there was no answer.
    pub status: u16,
    /// What it says of the table's change tracking.
    tracking: Option<Tracking>,
    /// An instant of the CRM's clock after the call; our own clock's if there was no answer.
    pub at: DateTime<Utc>,
    /// What it means.
    pub fault: Fault,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        refused.fault
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self {
            status: 0,
            tracking: None,
            at: Utc::now(),
            fault,
        }
    }
}

/// `ExpiredVersionStamp`.
const EXPIRED: u32 = 0x8004_4352;
/// The table has no change tracking.
const NOT_TRACKED: u32 = 0x8007_2491;

/// What a refusal says of a table's change tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracking {
    /// A place in it is no longer taken.
    Expired,
    /// There is none.
    Off,
}

impl Tracking {
    /// The status of an expired place is documented nowhere, so the code, the words, and 410 are all taken for it.
    fn of(code: Option<u32>, status: u16, message: &str) -> Option<Self> {
        if code == Some(NOT_TRACKED) || message.contains("enabled for change tracking") {
            return Some(Self::Off);
        }
        let says = message.contains("Version stamp associated with the client has expired");
        (code == Some(EXPIRED) || says || status == 410).then_some(Self::Expired)
    }
}

impl Refused {
    /// Whether a place in a table's changes is no longer taken.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.tracking == Some(Tracking::Expired)
    }

    /// Whether the table has no change tracking.
    #[must_use]
    pub fn is_not_tracked(&self) -> bool {
        self.tracking == Some(Tracking::Off)
    }
}

impl Rest {
    /// Web API calls through `http`.
    pub fn new(
        http: Http,
        sign_in: Arc<SignIn>,
        settings: DynamicsSettings,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Self {
        let limits = Limits {
            daily: settings.daily_requests,
            ..settings.limits
        };
        let budget = Budget::new(&settings.connection, limits, Arc::clone(&clock), metrics);
        let lag = TimeDelta::from_std(settings.read_lag).unwrap_or_default();
        Self {
            http,
            sign_in,
            settings,
            pace: Pace::new(Arc::clone(&budget), clock),
            budget,
            lag,
        }
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &DynamicsSettings {
        &self.settings
    }

    /// What grants the calls.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How a day's calls are shared.
    #[must_use]
    pub const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// The CRM's clock when it began an answer, less the lag: what a read is true of.
    ///
    /// # Errors
    /// `Protocol` for an answer without a date.
    pub fn as_of(&self, answer: &Answer) -> Result<DateTime<Utc>, Fault> {
        Ok(answer.began()? - self.lag)
    }

    /// GETs a path below `/api/data/vX.X`, query included.
    ///
    /// # Errors
    /// [`Refused`] for every status but 2xx.
    pub async fn get(&self, path: &str, prefer: Option<&str>) -> Result<Answer, Refused> {
        let url = format!(
            "{}/api/data/v{}{path}",
            self.settings.base(),
            self.settings.api_version
        );
        self.call(&url, prefer).await
    }

    /// GETs a link that the CRM gave, unchanged, if it leads to the CRM.
    ///
    /// # Errors
    /// `Protocol` for a link to elsewhere: the token is sent nowhere else. Else as [`Rest::get`].
    pub async fn follow(&self, link: &str, prefer: Option<&str>) -> Result<Answer, Refused> {
        let url = self.own_link(link)?;
        self.call(&url, prefer).await
    }

    /// The CRM's clock by an answer that needs no session and counts against no limit.
    ///
    /// # Errors
    /// The fault of an answer that is none of the CRM's.
    pub async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        let url = self.settings.who_am_i();
        let answer = self.http.send(Request::get(url)).await?;
        if answer.is_success() || answer.status() == 401 {
            return self.as_of(&answer);
        }
        Err(refusal(&answer).fault)
    }

    fn own_link(&self, link: &str) -> Result<String, Fault> {
        let base = self.settings.base();
        let own = [base, self.settings.org_url.as_str()];
        if let Some(path) = own.iter().find_map(|own| path_of(link, own)) {
            return Ok(format!("{base}{path}"));
        }
        let shown: String = link.chars().take_while(|c| *c != '?').take(120).collect();
        Err(Fault::new(
            FaultKind::Protocol,
            format!("the CRM's link `{shown}` leads elsewhere"),
        )
        .remedy("set `org` to the environment's own URL"))
    }

    /// Writes a row below `/api/data/vX.X`; a PATCH changes one that is there and makes none.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, Refused> {
        let url = format!(
            "{}/api/data/v{}{path}",
            self.settings.base(),
            self.settings.api_version
        );
        self.send(|| {
            let mut request = headed(Request::new(method, &url));
            if method == Method::Patch {
                request = request.header("If-Match", "*");
            }
            match body {
                Some(body) => request.json(body.to_string()),
                None => request,
            }
        })
        .await
    }

    async fn call(&self, url: &str, prefer: Option<&str>) -> Result<Answer, Refused> {
        self.send(|| request(url, prefer)).await
    }

    async fn send(&self, request: impl Fn() -> Request) -> Result<Answer, Refused> {
        let token = self.sign_in.token().await?;
        let grant = self.budget.grant().await?;
        let call = request().bearer(&token.access);
        let answer = self.http.send(call).await?;
        if answer.status() != 401 {
            return self.told(answer);
        }
        drop(grant);
        // The token ended; once, and with one new one for all who find out.
        let token = self.sign_in.renewed(&token).await?;
        let _grant = self.budget.grant().await?;
        let call = request().bearer(&token.access);
        self.told(self.http.send(call).await?)
    }

    /// What an answer means; where it asks to wait, all calls of the connection do.
    fn told(&self, answer: Answer) -> Result<Answer, Refused> {
        self.budget.answered(None);
        let burst = answer.header("x-ms-ratelimit-burst-remaining-xrm-requests");
        if let Some(left) = burst.and_then(|left| left.trim().parse().ok()) {
            self.budget.burst_left(left);
        }
        if answer.is_success() {
            return Ok(answer);
        }
        let refused = refusal(&answer);
        if let Some(wait) = refused.fault.wait_hint() {
            self.budget.close(wait, &refused.fault);
        }
        Err(refused)
    }
}

fn request(url: &str, prefer: Option<&str>) -> Request {
    let request = headed(Request::get(url)).header("If-None-Match", "null");
    match prefer {
        Some(prefer) => request.header("Prefer", prefer),
        None => request,
    }
}

/// Headers of every call (Power Apps developer guide, "Compose HTTP requests and handle errors").
fn headed(request: Request) -> Request {
    request
        .header("Accept", "application/json")
        .header("OData-Version", "4.0")
        .header("OData-MaxVersion", "4.0")
}

/// The path of a link whose scheme, host and port are those of `own`.
fn path_of<'a>(link: &'a str, own: &str) -> Option<&'a str> {
    let (scheme, rest) = link.split_once("://")?;
    let (own_scheme, own_host) = own.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/')?);
    let default = if own_scheme == "https" { ":443" } else { ":80" };
    let plain = |host: &str| {
        let host = host.to_ascii_lowercase();
        host.strip_suffix(default)
            .map(str::to_owned)
            .unwrap_or(host)
    };
    let same = scheme.eq_ignore_ascii_case(own_scheme) && plain(host) == plain(own_host);
    same.then_some(path)
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ApiError,
}

#[derive(Deserialize, Default)]
struct ApiError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a refusal means. Gateways answer with pages, or with nothing; `code` may be empty.
fn refusal(answer: &Answer) -> Refused {
    let said = serde_json::from_slice::<ErrorAnswer>(answer.body());
    let Ok(ErrorAnswer { error }) = said else {
        return Refused {
            status: answer.status(),
            tracking: Tracking::of(None, answer.status(), ""),
            at: after(answer),
            fault: answer.fault(),
        };
    };
    let code = error_code(&error.code);
    let message: String = error.message.chars().take(500).collect();
    let (kind, remedy) = meaning(answer, code, &message);
    let mut fault = Fault::new(kind, format!("{} ({message})", error.code));
    if error.code.is_empty() {
        fault = Fault::new(kind, format!("HTTP {} ({message})", answer.status()));
    }
    if let Some(remedy) = remedy {
        fault = fault.remedy(remedy);
    }
    if let (FaultKind::Throttled | FaultKind::Unavailable, Some(wait)) =
        (kind, answer.retry_after())
    {
        fault = fault.retry_after(wait);
    }
    Refused {
        status: answer.status(),
        tracking: Tracking::of(code, answer.status(), &message),
        at: after(answer),
        fault,
    }
}

/// Dates are cut to whole seconds.
fn after(answer: &Answer) -> DateTime<Utc> {
    answer.date().unwrap_or_else(Utc::now) + TimeDelta::seconds(1)
}

/// A code as the Web API writes it (`0x80040217`) or as older parts do (`-2147220969`).
fn error_code(text: &str) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(hex, 16).ok();
    }
    text.parse::<i32>().ok().map(i32::cast_unsigned)
}

/// Power Apps developer guide, "Compose HTTP requests and handle errors", "Service protection API limits".
fn meaning(answer: &Answer, code: Option<u32>, message: &str) -> (FaultKind, Option<&'static str>) {
    match (code, answer.status()) {
        (Some(0x8007_2321 | 0x8007_2322 | 0x8007_2326), _) | (_, 429) => (
            FaultKind::Throttled,
            Some("give the connection an application user of its own: limits are per user"),
        ),
        (Some(EXPIRED), _) => (FaultKind::PositionLost, None),
        (Some(NOT_TRACKED), _) => (
            FaultKind::Config,
            Some("turn on \"Track changes\" in the table's properties (Power Apps)"),
        ),
        (Some(0x8007_2560), _) => (
            FaultKind::Permission,
            Some(
                "make an application user for the app in the Power Platform admin centre, and give it a security role",
            ),
        ),
        (Some(0x8004_0220), _) => (
            FaultKind::Permission,
            Some("give the application user's role Read on the table, for the whole organisation"),
        ),
        (_, 401) => (
            FaultKind::Credentials,
            Some(
                "the CRM refuses a token that it has just been given: check that `org` is the environment's own URL",
            ),
        ),
        (_, 400) if message.contains("Could not find a property named") => (
            FaultKind::Missing,
            Some("check the column's logical name, and that the table still has it"),
        ),
        _ => (answer.fault().kind(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_two_spellings() {
        assert_eq!(error_code("0x80044352"), Some(EXPIRED));
        assert_eq!(error_code("-2147204270"), Some(EXPIRED));
        assert_eq!(error_code("-2147015535"), Some(NOT_TRACKED));
        for text in ["", "0x", "expired", "0x1FFFFFFFF"] {
            assert_eq!(error_code(text), None, "{text}");
        }
    }

    #[test]
    fn links_lead_to_the_same_host_and_port() {
        let own = "https://contoso.crm.dynamics.com";
        for link in [
            "https://contoso.crm.dynamics.com/api/data/v9.2/accounts?$skiptoken=x",
            "https://Contoso.crm.dynamics.com:443/api/data/v9.2/accounts?$skiptoken=x",
        ] {
            let path = path_of(link, own).unwrap();
            assert_eq!(path, "/api/data/v9.2/accounts?$skiptoken=x");
        }
        for link in [
            "http://contoso.crm.dynamics.com/api",
            "https://contoso.crm.dynamics.com:8443/api",
            "https://contoso.crm.dynamics.com.evil.example/api",
            "https://contoso.crm.dynamics.com@evil.example/api",
            "https://contoso.crm.dynamics.com",
            "/api/data/v9.2/accounts",
            "",
        ] {
            assert!(path_of(link, own).is_none(), "{link}");
        }
        assert!(path_of("http://127.0.0.1:80/x", "http://127.0.0.1").is_some());
        assert!(path_of("http://127.0.0.1:81/x", "http://127.0.0.1").is_none());
    }
}
