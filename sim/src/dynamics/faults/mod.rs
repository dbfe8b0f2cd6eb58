//! Scripted faults: what goes wrong, where, how often; matched in the order they were given.
//!
//! A script fires on the first request, sign-in or webhook that it matches once `after` matches have passed it by, then
//! `times` times. The first script that fires is the only one to do so; those before it count the match, those behind
//! it do not see it.

mod layer;
mod script;

use std::sync::Mutex;

pub(crate) use layer::apply;
pub(crate) use script::{Act, Fault, Match, Script, ScriptError, WebhookFault};

use crate::salesforce::lock::lock;

/// The scripts that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pending: Mutex<Vec<Pending>>,
}

/// A script and how much of it is left.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Pending {
    pub on: Match,
    /// Matches that still pass.
    pub after: u32,
    /// How often it still fires; for ever if absent.
    pub times: Option<u32>,
    #[serde(rename = "do")]
    pub act: Act,
}

impl Faults {
    pub fn add(&self, pending: Pending) {
        lock(&self.pending).push(pending);
    }

    /// What is left, in order.
    pub fn left(&self) -> Vec<Pending> {
        lock(&self.pending).clone()
    }

    pub fn clear(&self) {
        lock(&self.pending).clear();
    }

    /// The fault for a request, if any.
    pub fn request(&self, surface: &str, method: &str, path: &str) -> Option<Fault> {
        self.fire(|on, act| match act {
            Act::Request(fault) if on.request(surface, method, path) => Some(fault.clone()),
            _ => None,
        })
    }

    /// The number of the refusal for a sign-in call (`authorize`, `token`, `adminconsent`), if any.
    pub fn sign_in(&self, call: &str) -> Option<u32> {
        self.fire(|on, act| match act {
            Act::SignIn { aadsts } if on.call(call) => Some(*aadsts),
            _ => None,
        })
    }

    /// The fault for a webhook, if any.
    pub fn webhook(&self, table: &str, message: &str) -> Option<WebhookFault> {
        self.fire(|on, act| match act {
            Act::Webhook(fault) if on.webhook(table, message) => Some(fault.clone()),
            _ => None,
        })
    }

    /// Finds the script that fires, counting the match in those that it passes.
    fn fire<T>(&self, matches: impl Fn(&Match, &Act) -> Option<T>) -> Option<T> {
        let mut pending = lock(&self.pending);
        for place in 0..pending.len() {
            let script = pending.get_mut(place)?;
            let Some(found) = matches(&script.on, &script.act) else {
                continue;
            };
            if script.after > 0 {
                script.after -= 1;
                continue;
            }
            if let Some(times) = &mut script.times {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    pending.remove(place);
                }
            }
            return Some(found);
        }
        None
    }
}
