//! Access tokens: issued to a user, good until they lapse, are revoked, or a test expires them.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};

use super::clock::SimClock;
use super::lock::lock;
use super::random::{BASE62, Random};

/// Session policy's default: two hours without a call.
const IDLE: TimeDelta = TimeDelta::hours(2);

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 18-character id.
    pub id: String,
    pub username: String,
    /// Holds "View All Data", without which change events are not delivered.
    pub view_all_data: bool,
}

/// The org's sessions.
#[derive(Debug)]
pub struct Sessions {
    state: Mutex<State>,
    clock: SimClock,
    /// Tokens begin with the org's 15-character id and `!`.
    org_id: String,
}

#[derive(Debug)]
struct State {
    sessions: HashMap<String, Session>,
    lifetime: TimeDelta,
    random: Random,
}

#[derive(Debug)]
struct Session {
    user: User,
    used: DateTime<Utc>,
}

impl Sessions {
    pub(crate) fn new(seed: u64, clock: SimClock, org_id: &str) -> Self {
        Self {
            state: Mutex::new(State {
                sessions: HashMap::new(),
                lifetime: IDLE,
                random: Random::new(
                    seed ^ clock.now().timestamp_micros().unsigned_abs(),
                    "tokens",
                ),
            }),
            clock,
            org_id: org_id.chars().take(15).collect(),
        }
    }

    /// A new token.
    pub fn issue(&self, user: User) -> String {
        let mut state = lock(&self.state);
        let secret = state.random.text(BASE62, 88);
        let token = format!("{}!AQ{secret}", self.org_id);
        let used = self.clock.now();
        state.sessions.insert(token.clone(), Session { user, used });
        token
    }

    /// The token's user, if the token is alive; counts as use, which prolongs it.
    pub fn check(&self, token: &str) -> Option<User> {
        let mut state = lock(&self.state);
        let (now, lifetime) = (self.clock.now(), state.lifetime);
        let session = state.sessions.get_mut(token)?;
        if now - session.used >= lifetime {
            state.sessions.remove(token);
            return None;
        }
        session.used = now;
        Some(session.user.clone())
    }

    /// Ends one session; tells whether there was one.
    pub fn revoke(&self, token: &str) -> bool {
        lock(&self.state).sessions.remove(token).is_some()
    }

    /// Ends every session.
    pub fn expire_all(&self) {
        lock(&self.state).sessions.clear();
    }

    /// How long a session lives without a call, from here on and for those open.
    pub fn set_lifetime(&self, lifetime: TimeDelta) {
        lock(&self.state).lifetime = lifetime;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_session_lapses_when_idle_and_lives_by_use() {
        let clock = SimClock::default();
        clock.freeze();
        let sessions = Sessions::new(1, clock.clone(), "00D000000000001EAA");
        let user = User {
            id: "005000000000001AAA".into(),
            username: "sync@acme.example".into(),
            view_all_data: true,
        };
        let token = sessions.issue(user.clone());
        assert!(token.starts_with("00D000000000001!"));
        clock.advance(Duration::from_secs(7199));
        assert_eq!(sessions.check(&token), Some(user.clone()));
        clock.advance(Duration::from_secs(7199));
        assert!(sessions.check(&token).is_some());
        clock.advance(Duration::from_secs(7200));
        assert_eq!(sessions.check(&token), None);

        let (one, two) = (sessions.issue(user.clone()), sessions.issue(user));
        assert_ne!(one, two);
        assert!(sessions.revoke(&one) && !sessions.revoke(&one));
        sessions.expire_all();
        assert_eq!(sessions.check(&two), None);
    }
}
