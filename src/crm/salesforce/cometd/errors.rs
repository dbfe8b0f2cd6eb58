//! What a refused message means (Streaming API Developer Guide, "Streaming API Error Codes").

use std::time::Duration;

use crate::crm::salesforce::limits::delivery_spent;
use crate::fault::{Fault, FaultKind};
use crate::http::answer::status_kind;

/// What ends a request.
#[derive(Debug)]
pub enum Trouble {
    /// The server forgot the client: a new handshake helps.
    Forgotten(String),
    /// The token is dead: a new one and a new handshake help.
    DeadToken(String),
    /// It is for the caller.
    Fault(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Classifies an error text of the form `code::text` or `code:args:text`. The reason that an extension gives
/// comes first: a busy server says `401` in the error and `503` in the reason.
#[must_use]
pub fn classify(
    what: &str,
    error: Option<&str>,
    reason: Option<&str>,
    reconnect: Option<&str>,
) -> Trouble {
    let told = reason
        .filter(|reason| !reason.trim().is_empty())
        .or(error)
        .unwrap_or("no reason given");
    let told: String = told.chars().take(500).collect();
    let code: u16 = told
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or(0);
    let words = told.to_ascii_lowercase();
    let says = |text: &str| words.contains(text);
    let shown = format!("{what}: {told}");

    if code == 503 || says("server is too busy") {
        let fault = Fault::new(FaultKind::Unavailable, shown).retry_after(Duration::from_mins(2));
        return Trouble::Fault(fault);
    }
    if code == 401 {
        return Trouble::DeadToken(shown);
    }
    let forgotten = says("unknown client")
        || says("has not completed handshake")
        || (says("has established a session") && says("cookie"));
    if forgotten {
        return Trouble::Forgotten(shown);
    }
    if says("the replayid") && says("invalid") {
        return Trouble::Fault(Fault::new(FaultKind::PositionLost, shown));
    }
    if let Some(fault) = limit(&words, &shown).or_else(|| setting(&words, &shown)) {
        return Trouble::Fault(fault);
    }
    if reconnect == Some("handshake") {
        return Trouble::Forgotten(shown);
    }
    let kind = match status_kind(code) {
        // 404 is a channel there is not.
        FaultKind::Missing => FaultKind::Config,
        kind => kind,
    };
    Trouble::Fault(Fault::new(kind, shown))
}

fn limit(words: &str, shown: &str) -> Option<Fault> {
    if words.contains("daily limit") {
        return Some(delivery_spent(shown));
    }
    if !words.contains("limit") {
        return None;
    }
    let fault = Fault::new(FaultKind::Throttled, shown).retry_after(Duration::from_mins(5));
    let remedy = "too many streaming clients are signed in to the org: sessions that were not closed end after minutes";
    Some(fault.remedy(remedy))
}

fn setting(words: &str, shown: &str) -> Option<Fault> {
    let (kind, remedy) =
        if words.contains("not allowed to subscribe") || words.contains("view all data") {
            (
                FaultKind::Permission,
                "give the connection's user View All Data, or View All on each object",
            )
        } else if words.contains("requested to subscribe to doesn't exist")
            || words.contains("create_denied")
            || words.contains("cannot create channel")
            || words.contains("restricted channel")
        {
            (
                FaultKind::Config,
                "check the channel's name, and select the object in Setup → Change Data Capture",
            )
        } else if words.contains("api version") {
            (
                FaultKind::Config,
                "set `api_version` to one that the org serves",
            )
        } else {
            return None;
        };
    Some(Fault::new(kind, shown).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: &str) -> Option<FaultKind> {
        match classify("subscribing", Some(error), None, None) {
            Trouble::Fault(fault) => Some(fault.kind()),
            _ => None,
        }
    }

    #[test]
    fn the_table() {
        for (error, expected) in [
            (
                "400::The replayId {4711} you provided was invalid.  Please provide a valid ID, -2 to replay all \
                 events, or -1 to replay only new events.",
                FaultKind::PositionLost,
            ),
            (
                "400::The replayId {4711} you provided was invalid. Please",
                FaultKind::PositionLost,
            ),
            (
                "400::The channel you requested to subscribe to doesn't exist {/data/X}",
                FaultKind::Config,
            ),
            (
                "403:denied_by_security_policy:create_denied",
                FaultKind::Config,
            ),
            ("403::Cannot create channel", FaultKind::Config),
            ("403::Restricted channel", FaultKind::Config),
            (
                "403::User not allowed to subscribe CDC without View All Data permissions",
                FaultKind::Permission,
            ),
            (
                "403::Organization concurrent user limit exceeded",
                FaultKind::Throttled,
            ),
            (
                "403::Organization total events daily limit exceeded",
                FaultKind::Throttled,
            ),
            (
                "503::Server is too busy. Please try again later.",
                FaultKind::Unavailable,
            ),
            (
                "400::API version in the URI is mandatory. URI format: '/cometd/43.0'",
                FaultKind::Config,
            ),
            (
                "400::Unsupported API version. Only API versions '23.0' and above",
                FaultKind::Config,
            ),
            ("413::Maximum Request Size Exceeded", FaultKind::Protocol),
            ("500::Internal", FaultKind::Unavailable),
            ("403::Something new", FaultKind::Permission),
            ("", FaultKind::Protocol),
        ] {
            assert_eq!(kind(error), Some(expected), "{error}");
        }
    }

    #[test]
    fn what_a_handshake_heals() {
        for error in [
            "403::Unknown client",
            "403::Client has not completed handshake",
            "400::Client 3ll1 has established a session, but no BAYEUX_BROWSER cookie present",
        ] {
            let trouble = classify("connecting", Some(error), None, None);
            assert!(matches!(trouble, Trouble::Forgotten(_)), "{error}");
        }
        let trouble = classify("connecting", Some("402::Odd"), None, Some("handshake"));
        assert!(matches!(trouble, Trouble::Forgotten(_)));
        let trouble = classify(
            "connecting",
            Some("401::Authentication invalid"),
            None,
            Some("none"),
        );
        assert!(matches!(trouble, Trouble::DeadToken(_)));
    }

    #[test]
    fn the_reason_comes_before_the_error() {
        let busy = classify(
            "connecting",
            Some("401::Authentication invalid"),
            Some("503::Server is too busy. Please try your request again later."),
            Some("none"),
        );
        assert!(
            matches!(&busy, Trouble::Fault(fault) if fault.kind() == FaultKind::Unavailable && fault.wait_hint().is_some())
        );
        let denied = classify(
            "handshaking",
            Some("403::Handshake denied"),
            Some("401::Authentication invalid"),
            Some("none"),
        );
        assert!(matches!(denied, Trouble::DeadToken(_)));
    }
}
