//! Who may sign in and how: authorization codes, refresh tokens, and the tokens that came of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::DecodingKey;

use super::clock::SimClock;
use super::lock::lock;
use super::options::SimOptions;
use super::random::{BASE62, Random};

/// An authorization code is good for so long.
const CODE_LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// How users sign in, and what they were given.
pub(crate) struct SignIn {
    pub settings: Settings,
    state: Mutex<State>,
    clock: SimClock,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SignIn").finish_non_exhaustive()
    }
}

/// What the org's administrator has set.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Without one, the username-password flow is off.
    pub password: Option<String>,
    /// Without one, the JWT bearer flow is not approved.
    pub jwt_key: Option<DecodingKey>,
    pub redirect_uri: Option<String>,
    pub auto_approve: bool,
    pub secret_optional: bool,
    pub rotate: bool,
}

/// The key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("reading the JWT public key {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the JWT public key {path} is no RSA public key in PEM")]
    Form {
        path: PathBuf,
        #[source]
        source: jsonwebtoken::errors::Error,
    },
}

struct State {
    codes: HashMap<String, Code>,
    refreshes: HashMap<String, Refresh>,
    random: Random,
}

/// What an authorization code stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    pub redirect_uri: String,
    pub scope: String,
    pub challenge: Option<String>,
    pub issued: DateTime<Utc>,
}

/// What a refresh token has given so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refresh {
    pub scope: String,
    /// Access tokens, which end with it.
    pub access: Vec<String>,
}

impl SignIn {
    pub fn new(options: &SimOptions, clock: SimClock) -> Result<Self, KeyError> {
        let jwt_key = match &options.jwt_public_key {
            Some(path) => Some(key(path)?),
            None => None,
        };
        let mut refreshes = HashMap::new();
        if let Some(token) = &options.refresh_token {
            let refresh = Refresh {
                scope: "api refresh_token".to_owned(),
                access: Vec::new(),
            };
            refreshes.insert(token.clone(), refresh);
        }
        let seed = options.seed ^ clock.now().timestamp_micros().unsigned_abs();
        Ok(Self {
            settings: Settings {
                password: options.password.clone(),
                jwt_key,
                redirect_uri: options.redirect_uri.clone(),
                auto_approve: options.auto_approve,
                secret_optional: options.secret_optional,
                rotate: options.rotate_refresh_tokens,
            },
            state: Mutex::new(State {
                codes: HashMap::new(),
                refreshes,
                random: Random::new(seed, "sign-in"),
            }),
            clock,
        })
    }

    /// A code for what a user has approved.
    pub fn approve(&self, redirect_uri: &str, scope: &str, challenge: Option<&str>) -> String {
        let mut state = lock(&self.state);
        let text = format!("aPrx{}==", state.random.text(BASE62, 60));
        let code = Code {
            redirect_uri: redirect_uri.to_owned(),
            scope: scope.to_owned(),
            challenge: challenge.map(str::to_owned),
            issued: self.clock.now(),
        };
        state.codes.insert(text.clone(), code);
        text
    }

    /// Uses a code up; `None` if it is unknown, used or too old.
    pub fn redeem(&self, code: &str) -> Option<Code> {
        let code = lock(&self.state).codes.remove(code)?;
        (self.clock.now() - code.issued < CODE_LIFETIME).then_some(code)
    }

    /// A new refresh token under which these access tokens were given.
    pub fn remember(&self, scope: &str, access: Vec<String>) -> String {
        let mut state = lock(&self.state);
        let token = format!("5Aep8{}", state.random.text(BASE62, 82));
        let refresh = Refresh {
            scope: scope.to_owned(),
            access,
        };
        state.refreshes.insert(token.clone(), refresh);
        token
    }

    /// What a refresh token stands for, if it is alive.
    pub fn known(&self, token: &str) -> Option<Refresh> {
        lock(&self.state).refreshes.get(token).cloned()
    }

    /// Notes an access token; under rotation the refresh token dies and its successor is handed back.
    pub fn renew(&self, token: &str, access: String) -> Option<String> {
        let rotated = {
            let mut state = lock(&self.state);
            let refresh = state.refreshes.get_mut(token)?;
            refresh.access.push(access);
            self.settings
                .rotate
                .then(|| state.refreshes.remove(token))??
        };
        Some(self.remember(&rotated.scope, rotated.access))
    }

    /// Ends a refresh token; its access tokens end with it.
    pub fn forget(&self, token: &str) -> Option<Vec<String>> {
        let refresh = lock(&self.state).refreshes.remove(token)?;
        Some(refresh.access)
    }

    /// Ends every refresh token and code.
    pub fn forget_all(&self) {
        let mut state = lock(&self.state);
        state.refreshes.clear();
        state.codes.clear();
    }
}

fn key(path: &PathBuf) -> Result<DecodingKey, KeyError> {
    let pem = std::fs::read(path).map_err(|source| KeyError::Read {
        path: path.clone(),
        source,
    })?;
    DecodingKey::from_rsa_pem(&pem).map_err(|source| KeyError::Form {
        path: path.clone(),
        source,
    })
}
