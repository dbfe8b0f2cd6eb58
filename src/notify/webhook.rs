//! Webhooks: a notice as JSON, to a URL that is a secret and shows nowhere.

use std::time::Duration;

use serde_json::json;

use super::notice::Notice;
use crate::config::notify::RecipientConfig;
use crate::config::secret::SecretRef;
use crate::fault::{Fault, FaultKind};
use crate::http::request::Request;
use crate::http::{Http, HttpSettings};
use crate::telemetry::metrics::Metrics;

/// The longest that a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of an answer at most, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The webhook of one name.
pub(super) struct Hook {
    name: String,
    url: SecretRef,
    http: Http,
}

impl Hook {
    /// The webhook of `recipient`, if it has one.
    ///
    /// # Errors
    /// `Config` for a certificate file that is none.
    pub fn new(name: &str, recipient: &RecipientConfig) -> Result<Option<Self>, Fault> {
        let Some(url) = recipient.webhook.clone() else {
            return Ok(None);
        };
        let settings = HttpSettings {
            connect_timeout: TIMEOUT,
            timeout: TIMEOUT,
            max_answer: MAX_ANSWER,
            ca_file: recipient.ca_file.clone(),
            plain_text: recipient.plain_text,
            ..HttpSettings::new(name)
        };
        // The count of calls is for CRMs.
        let http = Http::new(settings, &Metrics::none())
            .map_err(|fault| fault.context(format_args!("`[notify.{name}]`")))?;
        Ok(Some(Self {
            name: name.to_owned(),
            url,
            http,
        }))
    }

    /// Calls it; what it answered.
    pub async fn call(&self, id: &str, notice: &Notice) -> Result<String, Fault> {
        let url = self.url.read().map_err(|fault| {
            fault.context(format_args!("reading the URL of `[notify.{}]`", self.name))
        })?;
        let body = json!({
            "v": 1, "id": id, "event": notice.event, "outcome": notice.outcome, "connection": notice.connection,
            "job": notice.job, "at": notice.at, "title": notice.title, "text": notice.text(),
        });
        let request = Request::post(url.expose()).json(body.to_string());
        // A fault's own text names the URL.
        let answer = self
            .http
            .send(request)
            .await
            .map_err(|fault| self.fault(fault.kind(), unheard(fault.kind())))?;
        let status = answer.status();
        if answer.is_success() {
            return Ok(format!("HTTP {status}"));
        }
        let kind = answer.fault().kind();
        Err(self.fault(kind, &format!("answered HTTP {status}")))
    }

    fn fault(&self, kind: FaultKind, what: &str) -> Fault {
        Fault::new(kind, format!("webhook of `[notify.{}]` {what}", self.name))
    }
}

const fn unheard(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Config => "has no https:// URL (`plain_text = true` allows http:// for tests)",
        FaultKind::Unavailable => "is not reached, or gives no whole answer in time",
        _ => "gives an answer that can't be read",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use chrono::DateTime;

    use super::*;
    use crate::http::tests::server::{Reply, Server};
    use crate::notify::notice::Event;

    /// A webhook whose URL is kept in a file, which lives as long as it is used.
    fn hook(url: &str, plain_text: bool) -> (Hook, tempfile::NamedTempFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(url.as_bytes()).unwrap();
        let recipient = RecipientConfig {
            mail: Vec::new(),
            webhook: Some(SecretRef::File(file.path().to_owned())),
            every: None,
            ca_file: None,
            plain_text,
        };
        (Hook::new("pager", &recipient).unwrap().unwrap(), file)
    }

    fn notice() -> Notice {
        Notice::new(Event::Test, "success", "hello", DateTime::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_notice_is_posted_as_json() {
        let server = Server::start(|_| async { Reply::new(204, "") }).await;
        let (hook, _file) = hook(&format!("{}/s3cret?key=hunter2\n", server.url), true);
        assert_eq!(hook.call("an id", &notice()).await.unwrap(), "HTTP 204");
        let seen = &server.seen()[0];
        assert_eq!((&*seen.method, &*seen.path), ("POST", "/s3cret"));
        assert_eq!(seen.query["key"], "hunter2");
        let told = seen.json();
        assert_eq!(told["event"], "test");
        assert_eq!(told["id"], "an id");
        assert_eq!(told["at"], "1970-01-01T00:00:00Z");
        assert!(told["text"].as_str().unwrap().starts_with("hello\n"));
    }

    #[tokio::test]
    async fn no_fault_shows_the_url() {
        let refusing = Server::start(|_| async { Reply::new(403, "s3cret") }).await;
        let closed = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", gone.local_addr().unwrap())
        };
        for (url, plain_text, kind) in [
            (refusing.url.as_str(), true, FaultKind::Permission),
            (closed.as_str(), true, FaultKind::Unavailable),
            (closed.as_str(), false, FaultKind::Config),
            ("ftp://127.0.0.1", true, FaultKind::Config),
        ] {
            let (hook, _file) = hook(&format!("{url}/s3cret?key=hunter2"), plain_text);
            let fault = hook.call("x", &notice()).await.unwrap_err();
            assert_eq!(fault.kind(), kind, "{url}");
            let shown = format!("{} {fault:?}", fault.report());
            for secret in ["s3cret", "hunter2", "127.0.0.1"] {
                assert!(!shown.contains(secret), "{shown}");
            }
            assert!(shown.contains("[notify.pager]"), "{shown}");
        }
    }
}
