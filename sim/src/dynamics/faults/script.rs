//! The language of fault scripts, strict about every key.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Pending;

/// A script as it is sent to the control API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    #[serde(default)]
    on: Match,
    #[serde(default)]
    after: u32,
    times: Option<u32>,
    #[serde(default)]
    forever: bool,
    #[serde(rename = "do")]
    act: Map<String, Value>,
}

/// Why a script was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("a script is `{{\"on\":…,\"after\":…,\"times\":…,\"do\":…}}`")]
    Form(#[source] serde_json::Error),
    #[error("`do` is no fault that the control API documents")]
    Act(#[source] serde_json::Error),
    #[error("`times` is 0 or stands beside `forever`; leave it out for once")]
    Times,
    #[error("{0} is no HTTP status that an answer can have")]
    Status(u16),
}

/// What a fault is for; what is absent matches all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Match {
    /// `entra`, `web_api`, `discovery` or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface: Option<String>,
    /// The path's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A sign-in call: `authorize`, `token`, `adminconsent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// A webhook's table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// A webhook's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

fn fits(wanted: Option<&String>, found: &str) -> bool {
    wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
}

impl Match {
    pub fn request(&self, surface: &str, method: &str, path: &str) -> bool {
        fits(self.surface.as_ref(), surface)
            && fits(self.method.as_ref(), method)
            && self
                .path
                .as_deref()
                .is_none_or(|begin| path.starts_with(begin))
    }

    pub fn call(&self, call: &str) -> bool {
        fits(self.call.as_ref(), call)
    }

    pub fn webhook(&self, table: &str, message: &str) -> bool {
        fits(self.table.as_ref(), table) && fits(self.message.as_ref(), message)
    }
}

/// What a script does.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Act {
    Request(Fault),
    SignIn { aadsts: u32 },
    Webhook(WebhookFault),
}

/// When tokens end, seen from a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Moment {
    #[default]
    Before,
    After,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// Answers this status, unexecuted.
    Status {
        status: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// Ends all access tokens before or after the request.
    ExpireTokens {
        #[serde(default)]
        when: Moment,
    },
    /// Waits on the organization's clock before the request is executed.
    Slow { seconds: u64 },
    /// Sends so many bytes of the body (half of it, if absent), then cuts the connection.
    Cut {
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<usize>,
    },
    /// Executes the request and cuts the connection instead of an answer.
    LostReply {},
    /// Cuts the connection, unexecuted.
    LostRequest {},
    /// Never answers, unexecuted.
    Stall {},
}

/// What happens to a webhook or a queue's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum WebhookFault {
    /// It is never sent.
    Lose {},
    /// It is sent twice.
    Double {},
    /// It waits until so many others of later writes were sent.
    Hold { behind: usize },
    /// It waits on the organization's clock.
    Delay { seconds: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum SignIn {
    SignIn { aadsts: u32 },
}

impl Script {
    pub fn check(self) -> Result<Pending, ScriptError> {
        if self.times == Some(0) || self.forever && self.times.is_some() {
            return Err(ScriptError::Times);
        }
        let act = Value::Object(self.act);
        let kind = act.get("kind").and_then(Value::as_str).unwrap_or_default();
        let act = match kind {
            "lose" | "double" | "hold" | "delay" => Deserialize::deserialize(act).map(Act::Webhook),
            "sign_in" => {
                SignIn::deserialize(act).map(|SignIn::SignIn { aadsts }| Act::SignIn { aadsts })
            }
            _ => Fault::deserialize(act).map(Act::Request),
        };
        let act = act.map_err(ScriptError::Act)?;
        if let Act::Request(Fault::Status { status, .. }) = &act
            && !(200..600).contains(status)
        {
            return Err(ScriptError::Status(*status));
        }
        Ok(Pending {
            on: self.on,
            after: self.after,
            times: if self.forever {
                None
            } else {
                Some(self.times.unwrap_or(1))
            },
            act,
        })
    }
}
