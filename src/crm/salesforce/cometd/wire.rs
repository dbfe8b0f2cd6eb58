//! Requests and answers of the stream: one HTTP POST, an array of messages each way.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::answer::Answer;
use crate::http::request::Request;

use super::super::sign_in::Token;
use super::errors::{Trouble, classify};
use super::messages;

/// The way to the server: cookies are kept, HTTP stays at 1.1.
pub struct Wire {
    http: Http,
    api_version: String,
}

/// An answer's body, known to be messages, and the server's clock.
pub struct Heard {
    /// The messages as they came.
    pub body: Bytes,
    /// `Date`.
    pub date: Option<DateTime<Utc>>,
}

impl Wire {
    /// A way through `http`.
    pub const fn new(http: Http, api_version: String) -> Self {
        Self { http, api_version }
    }

    /// Sends messages. An answer that holds messages is handed over whatever its HTTP status: the error is in
    /// them.
    ///
    /// # Errors
    /// [`Trouble`] for an answer without messages.
    pub async fn send(
        &self,
        token: &Token,
        json: String,
        timeout: Duration,
    ) -> Result<Heard, Trouble> {
        let url = format!("{}/cometd/{}/", token.instance_url, self.api_version);
        let request = Request::post(url)
            .header("Accept", "application/json")
            .bearer(&token.access)
            .json(json)
            .timeout(timeout);
        let answer = self.http.send(request).await?;
        match messages::parse(answer.body()) {
            Ok(_) => Ok(Heard {
                body: answer.body().clone(),
                date: answer.date(),
            }),
            Err(error) if answer.is_success() => {
                let what = format!("answer to {} holds no messages", answer.what());
                Err(Fault::new(FaultKind::Protocol, what).source(error).into())
            }
            Err(_) => Err(refused(&answer)),
        }
    }
}

/// An HTTP error without messages. Some of the stream's errors come as plain text.
fn refused(answer: &Answer) -> Trouble {
    let text = std::str::from_utf8(answer.body())
        .unwrap_or_default()
        .trim();
    let coded = text.split_once("::").is_some_and(|(code, _)| {
        !code.is_empty() && code.len() <= 3 && code.bytes().all(|b| b.is_ascii_digit())
    });
    if coded {
        return classify(answer.what(), Some(text), None, None);
    }
    if answer.status() == 401 {
        return Trouble::DeadToken(format!("{} answered HTTP 401", answer.what()));
    }
    Trouble::Fault(answer.fault())
}
