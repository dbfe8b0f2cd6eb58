//! A client of the streaming surface: its session, its cookies, its deadline.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::delivery::Subscription;
use super::message::Name;

/// A client must poll again within this time of an answer, or its session is gone.
pub(super) const REPOLL: TimeDelta = TimeDelta::seconds(40);
/// How long a poll is held, unless the org is started with another time.
pub(super) const HOLD: TimeDelta = TimeDelta::seconds(110);

/// The cookie that names the browser, as CometD has it.
pub(super) const BROWSER: &str = "BAYEUX_BROWSER";
/// The cookie by which a balancer finds the server that keeps the session.
pub(super) const BALANCER: &str = "SIMLB";

/// The cookies of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cookies {
    pub browser: Option<String>,
    pub balancer: Option<String>,
}

impl Cookies {
    /// Those of ours in the request's `Cookie` headers.
    pub fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let mut cookies = Self::default();
        let pairs = headers
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        for (name, value) in pairs {
            let place = match name {
                BROWSER => &mut cookies.browser,
                BALANCER => &mut cookies.balancer,
                _ => continue,
            };
            *place = Some(value.to_owned());
        }
        cookies
    }

    /// The name of the first cookie that is not as `self` demands.
    pub fn missing_from(&self, sent: &Self) -> Option<&'static str> {
        if sent.browser != self.browser {
            return Some(BROWSER);
        }
        (sent.balancer != self.balancer).then_some(BALANCER)
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Client {
    pub id: Name,
    /// The 18-character id of the user that shook hands.
    pub user: String,
    pub cookies: Cookies,
    /// Whether `ext.replay` was agreed on.
    pub replay: bool,
    pub subscriptions: Vec<Subscription>,
    /// The number of the newest poll; an older one that is still held is let go.
    pub poll: u64,
    pub held: bool,
    /// When the session is dropped, unless a poll is held.
    pub deadline: DateTime<Utc>,
    /// The server has ended the session; the next poll tells it.
    pub dismissed: bool,
}

impl Client {
    pub fn new(
        id: String,
        user: String,
        cookies: Cookies,
        replay: bool,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: id.into(),
            user,
            cookies,
            replay,
            subscriptions: Vec::new(),
            poll: 0,
            held: false,
            deadline: now + REPOLL,
            dismissed: false,
        }
    }

    pub fn is_gone(&self, now: DateTime<Utc>) -> bool {
        !self.held && now >= self.deadline
    }

    /// A poll is answered, or its connection is gone: the time to come back begins.
    pub fn answered(&mut self, now: DateTime<Utc>) {
        self.held = false;
        self.deadline = now + REPOLL;
    }

    pub fn subscription(&mut self, name: &str) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|subscription| &*subscription.name == name)
    }

    pub fn shown(&self) -> ClientState {
        ClientState {
            client_id: Arc::clone(&self.id),
            user: self.user.clone(),
            held: self.held,
            polls: self.poll,
            deadline: self.deadline,
            subscriptions: self
                .subscriptions
                .iter()
                .map(|subscription| SubscriptionState {
                    channel: Arc::clone(&subscription.name),
                    replay_id: subscription.cursor,
                })
                .collect(),
        }
    }
}

/// A session as the control API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientState {
    pub client_id: Name,
    pub user: String,
    /// Whether a poll waits.
    pub held: bool,
    pub polls: u64,
    pub deadline: DateTime<Utc>,
    pub subscriptions: Vec<SubscriptionState>,
}

/// A subscription as the control API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionState {
    pub channel: Name,
    /// Served up to here.
    pub replay_id: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_read_and_demanded() {
        let sent = Cookies::read(["a=1; BAYEUX_BROWSER=x", "SIMLB=y"].into_iter());
        let mut wanted = sent.clone();
        assert_eq!(wanted.missing_from(&sent), None);
        assert_eq!(wanted.missing_from(&Cookies::default()), Some(BROWSER));
        wanted.balancer = Some("z".into());
        assert_eq!(wanted.missing_from(&sent), Some(BALANCER));
    }

    #[test]
    fn a_client_is_gone_forty_seconds_after_an_answer_unless_held() {
        let start = DateTime::UNIX_EPOCH;
        let mut client = Client::new("c".into(), "u".into(), Cookies::default(), true, start);
        assert!(!client.is_gone(start + TimeDelta::seconds(39)));
        assert!(client.is_gone(start + REPOLL));
        client.held = true;
        assert!(!client.is_gone(start + TimeDelta::hours(1)));
        client.answered(start + HOLD);
        assert!(!client.is_gone(start + HOLD + TimeDelta::seconds(39)));
        assert!(client.is_gone(start + HOLD + REPOLL));
    }
}
