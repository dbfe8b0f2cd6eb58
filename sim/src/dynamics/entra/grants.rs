//! Codes, refresh tokens and access tokens: what was given out, to whom, until when.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::guid::Guid;
use super::refusal::Refusal;
use crate::salesforce::random::{BASE62, Random};

/// Who a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// A person, by the `systemuserid`.
    User(Guid),
    /// The application itself.
    Application,
}

/// An access token's content.
#[derive(Debug, Clone)]
pub struct Access {
    pub principal: Principal,
    /// The resource, without a slash at its end.
    pub audience: String,
    pub expires: DateTime<Utc>,
}

/// What a code was given for.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub redirect_uri: String,
    /// The challenge, and whether it is a digest.
    pub challenge: Option<(String, bool)>,
    pub resource: String,
    pub scopes: Vec<String>,
    pub user: Guid,
    pub expires: DateTime<Utc>,
    pub redeemed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Refresh {
    pub resource: String,
    pub user: Guid,
    pub used: DateTime<Utc>,
    /// A single-page application's token ends then, used or not.
    pub ends: Option<DateTime<Utc>>,
    pub revoked: bool,
}

/// How long things live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub access: TimeDelta,
    /// Without use.
    pub refresh: TimeDelta,
    pub code: TimeDelta,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access: TimeDelta::seconds(3599),
            refresh: TimeDelta::days(90),
            code: TimeDelta::minutes(10),
        }
    }
}

/// Life of a refresh token for a redirect URI of type `spa`.
const SPA: TimeDelta = TimeDelta::hours(24);

/// Everything given out.
#[derive(Debug)]
pub(crate) struct Grants {
    pub lifetimes: Lifetimes,
    pub consented: bool,
    /// Redirect URIs are of type `spa`.
    pub spa: bool,
    random: Random,
    codes: HashMap<String, Code>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
}

impl Grants {
    pub fn new(random: Random) -> Self {
        Self {
            lifetimes: Lifetimes::default(),
            consented: true,
            spa: false,
            random,
            codes: HashMap::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
        }
    }

    pub fn add_code(&mut self, code: Code) -> String {
        let text = format!("0.A{}", self.random.text(BASE62, 90));
        self.codes.insert(text.clone(), code);
        text
    }

    /// Uses a code up; a second use is told from a wrong code.
    pub fn redeem(&mut self, text: &str, now: DateTime<Utc>) -> Result<Code, Refusal> {
        let code = self
            .codes
            .get_mut(text)
            .ok_or_else(|| Refusal::usual(70000))?;
        if code.redeemed {
            return Err(Refusal::usual(54005));
        }
        if now >= code.expires {
            return Err(Refusal::usual(70008));
        }
        code.redeemed = true;
        Ok(code.clone())
    }

    pub fn add_refresh(
        &mut self,
        given: Option<String>,
        resource: &str,
        user: Guid,
        now: DateTime<Utc>,
        ends: Option<DateTime<Utc>>,
    ) -> String {
        let text = given.unwrap_or_else(|| format!("1.A{}", self.random.text(BASE62, 120)));
        let refresh = Refresh {
            resource: resource.to_owned(),
            user,
            used: now,
            ends: ends.or_else(|| self.spa.then(|| now + SPA)),
            revoked: false,
        };
        self.refresh.insert(text.clone(), refresh);
        text
    }

    /// Uses a refresh token, which stays alive.
    pub fn refresh(&mut self, text: &str, now: DateTime<Utc>) -> Result<Refresh, Refusal> {
        let inactive = self.lifetimes.refresh;
        let token = self
            .refresh
            .get_mut(text)
            .ok_or_else(|| Refusal::usual(70000))?;
        if token.revoked {
            return Err(Refusal::usual(50173));
        }
        if token.ends.is_some_and(|end| now >= end) {
            return Err(Refusal::usual(700_084));
        }
        if now - token.used >= inactive {
            return Err(Refusal::usual(700_082));
        }
        token.used = now;
        Ok(token.clone())
    }

    pub fn add_access(&mut self, access: Access, claims: &str) -> String {
        // Shaped like a JWT, and opaque to clients all the same.
        let text = format!(
            "eyJ0eXAiOiJKV1QifQ.{claims}.{}",
            self.random.text(BASE62, 86)
        );
        self.access.insert(text.clone(), access);
        text
    }

    /// An access token that is alive.
    pub fn access(&self, text: &str, now: DateTime<Utc>) -> Option<Access> {
        self.access
            .get(text)
            .filter(|access| now < access.expires)
            .cloned()
    }

    /// Ends every access token; the refresh tokens stay.
    pub fn expire_access(&mut self) {
        self.access.clear();
    }

    /// What "revoke sessions" does: every refresh token is dead.
    pub fn revoke(&mut self) {
        for token in self.refresh.values_mut() {
            token.revoked = true;
        }
    }
}
