//! An answer: status, what its headers say, and the faults that an HTTP status alone tells.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::HeaderMap;

use crate::fault::{Fault, FaultKind};

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub(super) what: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) round_trip: Duration,
    pub(super) body: Bytes,
}

impl Answer {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// The body, decompressed.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Method, host and path of the request.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The time from the request's first byte to the answer's head.
    #[must_use]
    pub const fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The peer's clock when it answered (`Date`), cut to whole seconds.
    #[must_use]
    pub fn date(&self) -> Option<DateTime<Utc>> {
        http_date(self.header("Date")?)
    }

    /// A lower bound of the peer's clock when it began to work on the request: `Date` less the round trip.
    ///
    /// # Errors
    /// `Protocol` if the answer has no `Date`.
    pub fn began(&self) -> Result<DateTime<Utc>, Fault> {
        let date = self.date().ok_or_else(|| {
            Fault::new(
                FaultKind::Protocol,
                format!("answer to {} has no `Date`", self.what),
            )
            .remedy("a proxy on the way must not remove the `Date` header")
        })?;
        Ok(date - TimeDelta::from_std(self.round_trip).unwrap_or_default())
    }

    /// How long the peer asks us to wait (`Retry-After`, in seconds or as a date).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header("Retry-After")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        // The date is on the peer's clock; an answer without `Date` can't be measured by it.
        (http_date(text)? - self.date()?).to_std().ok()
    }

    /// The fault that the status tells, for an answer that says nothing better.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let kind = status_kind(self.status);
        let mut fault = Fault::new(kind, format!("{} answered HTTP {}", self.what, self.status));
        if let (300..=399, Some(location)) = (self.status, self.header("Location")) {
            let end = location.find('?').unwrap_or(location.len());
            fault = fault.remedy(format!(
                "the address has moved to `{}`: use that in the config",
                &location[..end]
            ));
        }
        match self.retry_after() {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        }
    }
}

/// The fault kind of an HTTP status.
#[must_use]
pub const fn status_kind(status: u16) -> FaultKind {
    match status {
        300..=399 => FaultKind::Config,
        401 => FaultKind::Credentials,
        403 => FaultKind::Permission,
        404 | 410 => FaultKind::Missing,
        420 | 429 => FaultKind::Throttled,
        // Gateways answer 406 for a moment of overload, without a word.
        406 | 408 | 425 | 500..=599 => FaultKind::Unavailable,
        _ => FaultKind::Protocol,
    }
}

/// An HTTP date (RFC 9110, "Date/Time Formats").
fn http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text.trim())
        .ok()
        .map(|date| date.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        Answer {
            what: "GET https://acme.example/x".to_owned(),
            status,
            headers: headers
                .iter()
                .map(|(name, value)| {
                    let name: reqwest::header::HeaderName = name.parse().unwrap();
                    (name, value.parse().unwrap())
                })
                .collect(),
            round_trip: Duration::from_millis(1500),
            body: Bytes::new(),
        }
    }

    #[test]
    fn the_clock_is_taken_back_by_the_round_trip() {
        let answer = answer(200, &[("date", "Mon, 05 Jan 2026 10:11:12 GMT")]);
        let began = answer.began().unwrap().to_rfc3339();
        assert_eq!(began, "2026-01-05T10:11:10.500+00:00");
    }

    #[test]
    fn no_date_no_clock() {
        let fault = answer(200, &[]).began().unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Protocol);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let wait = |value| {
            let date = ("date", "Mon, 05 Jan 2026 10:11:12 GMT");
            answer(429, &[date, ("retry-after", value)])
                .fault()
                .wait_hint()
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            wait("Mon, 05 Jan 2026 10:12:12 GMT"),
            Some(Duration::from_mins(1))
        );
        assert_eq!(wait("Mon, 05 Jan 2026 10:10:12 GMT"), None);
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn statuses_have_their_kinds() {
        for (status, kind) in [
            (301, FaultKind::Config),
            (400, FaultKind::Protocol),
            (401, FaultKind::Credentials),
            (403, FaultKind::Permission),
            (404, FaultKind::Missing),
            (406, FaultKind::Unavailable),
            (420, FaultKind::Throttled),
            (429, FaultKind::Throttled),
            (500, FaultKind::Unavailable),
            (503, FaultKind::Unavailable),
        ] {
            assert_eq!(answer(status, &[]).fault().kind(), kind, "{status}");
        }
    }

    #[test]
    fn a_redirect_names_where_to_without_its_query() {
        let fault = answer(302, &[("location", "https://b.example/y?token=1")]).fault();
        assert!(fault.report().contains("https://b.example/y"));
        assert!(!fault.report().contains("token"));
    }
}
