//! Scripted faults: what goes wrong, where, how often; matched in the order they were given.
//!
//! A script fires on the first request, message or event that it matches once `after` matches have passed it by, then
//! `times` times. The first script that fires is the only one to do so; those before it count the match, those behind
//! it do not see it.

mod answers;
mod diff;
mod layer;
pub(crate) mod rewrites;
mod rpc;
mod script;

use std::sync::Mutex;

use serde::Serialize;

use super::lock::lock;
pub(crate) use layer::{WhileHeld, apply};
use rpc::RpcMoment;
pub(crate) use rpc::{RpcFault, RpcMatch};
pub(crate) use script::{
    Act, BayeuxFault, Checked, Denial, RequestFault, RequestMatch, Script, ScriptError, Surface,
};

/// The scripts for requests and Bayeux messages that are still to come.
#[derive(Debug, Default)]
pub struct Faults {
    pending: Mutex<Vec<Pending<RequestMatch, RequestAct>>>,
    rpcs: Mutex<Vec<Pending<RpcMatch, RpcFault>>>,
}

/// What a request script does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum RequestAct {
    Request(RequestFault),
    Bayeux(BayeuxFault),
}

/// A script and how much of it is left.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Pending<M, A> {
    pub on: M,
    /// Matches that still pass.
    pub after: u32,
    /// How often it still fires; for ever if absent.
    pub times: Option<u32>,
    #[serde(rename = "do")]
    pub act: A,
}

impl<M, A> Pending<M, A> {
    /// Fires once; tells whether anything is left.
    fn use_up(&mut self) -> bool {
        match &mut self.times {
            None => true,
            Some(times) => {
                *times = times.saturating_sub(1);
                *times > 0
            }
        }
    }
}

impl Faults {
    pub(crate) fn add(&self, pending: Pending<RequestMatch, RequestAct>) {
        lock(&self.pending).push(pending);
    }

    /// What is left, in order.
    pub(crate) fn left(&self) -> Vec<Pending<RequestMatch, RequestAct>> {
        lock(&self.pending).clone()
    }

    pub(crate) fn add_rpc(&self, pending: Pending<RpcMatch, RpcFault>) {
        lock(&self.rpcs).push(pending);
    }

    /// What is left for gRPC calls, in order.
    pub(crate) fn rpcs_left(&self) -> Vec<Pending<RpcMatch, RpcFault>> {
        lock(&self.rpcs).clone()
    }

    pub fn clear(&self) {
        lock(&self.pending).clear();
        lock(&self.rpcs).clear();
    }

    /// Whether any script needs to see the Bayeux messages of a request.
    pub(crate) fn look_into_bodies(&self) -> bool {
        lock(&self.pending).iter().any(|pending| {
            pending.on.message.is_some() && matches!(pending.act, RequestAct::Request(_))
        })
    }

    /// The fault for a request, if any: `messages` are its Bayeux channels.
    pub(crate) fn request(
        &self,
        surface: Surface,
        method: &str,
        path: &str,
        messages: &[String],
    ) -> Option<RequestFault> {
        fire(&mut lock(&self.pending), |on, act| match act {
            RequestAct::Request(fault) if on.matches(surface, method, path, messages) => {
                Some(fault.clone())
            }
            _ => None,
        })
    }

    /// The fault for a gRPC call before it is looked at, if any.
    pub(crate) fn rpc_call(&self, rpc: &str, topic: &str) -> Option<RpcFault> {
        self.rpc(RpcMoment::Call, rpc, topic)
    }

    /// The fault for an answer of a stream, if any.
    pub(crate) fn rpc_answer(&self, rpc: &str, topic: &str) -> Option<RpcFault> {
        self.rpc(RpcMoment::Answer, rpc, topic)
    }

    fn rpc(&self, at: RpcMoment, rpc: &str, topic: &str) -> Option<RpcFault> {
        fire(&mut lock(&self.rpcs), |on, fault| {
            fault.strikes(on, at, rpc, topic).then(|| fault.clone())
        })
    }

    /// The fault for a Bayeux message, if any.
    pub(crate) fn bayeux(&self, channel: &str) -> Option<BayeuxFault> {
        fire(&mut lock(&self.pending), |on, act| match act {
            RequestAct::Bayeux(fault) if on.takes(fault, channel) => Some(fault.clone()),
            _ => None,
        })
    }
}

/// Finds the script that fires, counting the match in those that it passes.
pub(crate) fn fire<M, A, T>(
    pending: &mut Vec<Pending<M, A>>,
    mut matches: impl FnMut(&M, &A) -> Option<T>,
) -> Option<T> {
    for place in 0..pending.len() {
        let script = pending.get_mut(place)?;
        let Some(found) = matches(&script.on, &script.act) else {
            continue;
        };
        if script.after > 0 {
            script.after -= 1;
            continue;
        }
        if !script.use_up() {
            pending.remove(place);
        }
        return Some(found);
    }
    None
}
