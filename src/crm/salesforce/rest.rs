//! REST calls as the signed-in user: one refresh of a dead token, and what each refusal means.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::budget::{Budget, Grant};
use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::answer::Answer;
use crate::http::incoming::Incoming;
use crate::http::request::{Method, Request};

use super::settings::SalesforceSettings;
use super::sign_in::SignIn;
use super::usage;

/// The longest that the org lets a job's results be on their way (Bulk API 2.0 and Bulk API Developer Guide, "Bulk
/// API 2.0 Limits").
const DOWNLOAD: Duration = Duration::from_mins(20);

/// REST calls of one connection.
pub struct Rest {
    http: Http,
    sign_in: Arc<SignIn>,
    settings: SalesforceSettings,
    budget: Arc<Budget>,
}

/// A call that the CRM refused, with the code that it gave.
#[derive(Debug)]
pub struct Refused {
    /// `errorCode`, if the answer had one.
    pub code: Option<String>,
    /// The HTTP status, 0 if there was no answer.
    pub status: u16,
    /// What it means.
    pub fault: Fault,
}

impl Refused {
    /// Whether the CRM gave this code.
    #[must_use]
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Whether the user may not see what was asked for: the CRM says that there is no such object.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        matches!(
            self.fault.kind(),
            FaultKind::Permission | FaultKind::Missing
        )
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        refused.fault
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self {
            code: None,
            status: 0,
            fault,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    error_code: String,
    #[serde(default)]
    fields: Vec<String>,
}

#[derive(Clone, Copy)]
enum Call<'a> {
    Get,
    Post(&'a str),
    Delete,
    Csv,
}

impl Rest {
    /// REST calls through `http`.
    pub fn new(
        http: Http,
        sign_in: Arc<SignIn>,
        settings: SalesforceSettings,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            http,
            sign_in,
            settings,
            budget,
        }
    }

    /// What grants the calls.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The sign-in behind the calls.
    #[must_use]
    pub const fn sign_in(&self) -> &Arc<SignIn> {
        &self.sign_in
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &SalesforceSettings {
        &self.settings
    }

    /// GETs a path below `/services/data/vXX.X`, query included.
    ///
    /// # Errors
    /// [`Refused`] for every status but 2xx.
    pub async fn get(&self, path: &str) -> Result<Answer, Refused> {
        self.call(&self.versioned(path), Call::Get).await
    }

    /// GETs an absolute path of the instance, as the CRM gave it.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn follow(&self, path: &str) -> Result<Answer, Refused> {
        if !path.starts_with('/') || path.starts_with("//") {
            let shown: String = path.chars().take(80).collect();
            let what = format!("`{shown}` is no path of the instance");
            return Err(Fault::new(FaultKind::Protocol, what).into());
        }
        self.call(path, Call::Get).await
    }

    /// POSTs JSON to a path below `/services/data/vXX.X`.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn post(&self, path: &str, json: &str) -> Result<Answer, Refused> {
        self.call(&self.versioned(path), Call::Post(json)).await
    }

    /// DELETEs a path below `/services/data/vXX.X`.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn delete(&self, path: &str) -> Result<Answer, Refused> {
        self.call(&self.versioned(path), Call::Delete).await
    }

    /// GETs CSV from a path below `/services/data/vXX.X`; the body is taken piece by piece.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn csv(&self, path: &str) -> Result<Incoming, Refused> {
        // The org has done its part when it answers: how long the rows are on their way holds up no other call.
        let (incoming, _grant) = self.open(&self.versioned(path), Call::Csv).await?;
        if incoming.head().is_success() {
            return Ok(incoming);
        }
        Err(self.refused(&self.http.whole(incoming).await?))
    }

    /// GETs the list of API versions: it needs no session and counts against no limit.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn versions(&self) -> Result<Answer, Refused> {
        let token = self.sign_in.token().await?;
        let url = format!("{}/services/data/", token.instance_url);
        let request = Request::get(url).header("Sforce-Call-Options", self.mark());
        let answer = self.http.send(request).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        Err(self.refused(&answer))
    }

    /// What tells our calls from others'.
    fn mark(&self) -> String {
        format!("client={}", self.settings.call_tag)
    }

    fn versioned(&self, path: &str) -> String {
        format!("/services/data/v{}{path}", self.settings.api_version)
    }

    async fn call(&self, path: &str, call: Call<'_>) -> Result<Answer, Refused> {
        let (incoming, _grant) = self.open(path, call).await?;
        let answer = self.http.whole(incoming).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        Err(self.refused(&answer))
    }

    async fn open(&self, path: &str, call: Call<'_>) -> Result<(Incoming, Grant), Refused> {
        let token = self.sign_in.token().await?;
        let grant = self.budget.grant().await?;
        let request = self.request(&token.instance_url, path, call);
        let incoming = self.http.open(request.bearer(&token.access)).await?;
        if incoming.head().status() != 401 {
            self.budget.answered(usage::told(incoming.head()));
            return Ok((incoming, grant));
        }
        // Read to its end, so that the connection serves the next call too.
        self.http.whole(incoming).await?;
        drop(grant);
        // The session ended; once, and with one new token for all who find out.
        let token = self.sign_in.renewed(&token).await?;
        let grant = self.budget.grant().await?;
        let request = self.request(&token.instance_url, path, call);
        let incoming = self.http.open(request.bearer(&token.access)).await?;
        self.budget.answered(usage::told(incoming.head()));
        Ok((incoming, grant))
    }

    /// What a refusal means; where it asks to wait, all calls of the connection do.
    fn refused(&self, answer: &Answer) -> Refused {
        let refused = refusal(answer);
        // The day's bulk jobs have a limit of their own.
        if let Some(wait) = refused.fault.wait_hint()
            && !refused.is("LIMIT_EXCEEDED")
        {
            self.budget.close(wait, &refused.fault);
        }
        refused
    }

    fn request(&self, instance_url: &str, path: &str, call: Call<'_>) -> Request {
        let url = format!("{instance_url}{path}");
        let (request, accept) = match call {
            Call::Get => (Request::get(url), "application/json"),
            Call::Post(json) => (Request::post(url).json(json.to_owned()), "application/json"),
            Call::Delete => (Request::new(Method::Delete, url), "application/json"),
            Call::Csv => (Request::get(url).timeout(DOWNLOAD), "text/csv"),
        };
        request
            .header("Accept", accept)
            .header("Sforce-Call-Options", self.mark())
            .header(
                "Sforce-Query-Options",
                format!("batchSize={}", self.settings.page_size),
            )
    }
}

/// What a refusal means (REST API Developer Guide, "Status Codes and Error Responses"; SOAP API Developer
/// Guide, "ExceptionCode"). Gateways answer with pages, or with nothing.
fn refusal(answer: &Answer) -> Refused {
    let errors: Vec<ApiError> = serde_json::from_slice(answer.body()).unwrap_or_default();
    let Some(error) = errors
        .into_iter()
        .find(|error| !error.error_code.is_empty())
    else {
        return Refused {
            code: None,
            status: answer.status(),
            fault: answer.fault(),
        };
    };
    let message: String = error.message.chars().take(500).collect();
    let mut text = format!("{}: {message}", error.error_code);
    if !error.fields.is_empty() {
        text.push_str(" (fields ");
        text.push_str(&error.fields.join(", "));
        text.push(')');
    }
    let (kind, remedy) = meaning(answer, &error);
    let mut fault = Fault::new(kind, text);
    if let Some(remedy) = remedy {
        fault = fault.remedy(remedy);
    }
    let wait = answer.retry_after().or_else(|| own_wait(&error));
    if let (FaultKind::Throttled | FaultKind::Unavailable, Some(wait)) = (kind, wait) {
        fault = fault.retry_after(wait);
    }
    Refused {
        code: Some(error.error_code),
        status: answer.status(),
        fault,
    }
}

fn meaning(answer: &Answer, error: &ApiError) -> (FaultKind, Option<&'static str>) {
    let code = error.error_code.as_str();
    match code {
        "INVALID_SESSION_ID" | "INVALID_AUTH_HEADER" => (
            FaultKind::Credentials,
            Some(
                "the CRM refuses a token that it has just given: check the session settings, the IP ranges of the \
                 Run-As user, and that `instance_url` is this org's",
            ),
        ),
        "REQUEST_LIMIT_EXCEEDED" => (
            FaultKind::Throttled,
            Some("Setup → System Overview shows who spends the org's API calls"),
        ),
        "LIMIT_EXCEEDED" => (
            FaultKind::Throttled,
            Some("Setup → Bulk Data Load Jobs shows who spends the day's bulk queries"),
        ),
        "API_DISABLED_FOR_ORG" | "API_CURRENTLY_DISABLED" => (
            FaultKind::Permission,
            Some("the org's edition or the user's profile has no API access: enable it"),
        ),
        "TXN_SECURITY_METERING_ERROR" => (
            FaultKind::Permission,
            Some("a transaction security policy blocks the user: let an admin except it"),
        ),
        code if code.starts_with("INSUFFICIENT_ACCESS") => (
            FaultKind::Permission,
            Some(
                "give the connection's user View All on the object, and read access to its fields",
            ),
        ),
        "INVALID_FIELD" | "INVALID_TYPE" | "INVALID_FIELD_FOR_INSERT_UPDATE" | "NOT_FOUND" => (
            FaultKind::Missing,
            Some("check the spelling, and that the connection's user may read it"),
        ),
        "QUERY_TIMEOUT"
        | "UNKNOWN_EXCEPTION"
        | "SERVER_UNAVAILABLE"
        | "REQUEST_RUNNING_TOO_LONG"
        | "UNABLE_TO_LOCK_ROW" => (FaultKind::Unavailable, None),
        "UNSUPPORTED_API_VERSION" => (
            FaultKind::Config,
            Some("set `api_version` to one that the org serves"),
        ),
        _ => (answer.fault().kind(), None),
    }
}

/// How long to stay away where the CRM does not say: its daily quota rolls over 24 hours, its limit on
/// concurrent calls passes with them.
fn own_wait(error: &ApiError) -> Option<Duration> {
    if !matches!(
        error.error_code.as_str(),
        "REQUEST_LIMIT_EXCEEDED" | "LIMIT_EXCEEDED"
    ) {
        return None;
    }
    if error.message.contains("Concurrent") {
        Some(Duration::from_secs(30))
    } else {
        Some(Duration::from_mins(15))
    }
}
