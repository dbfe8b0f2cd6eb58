//! What is left of the org's allowances (REST API Developer Guide, "Limits"): its calls, and the events it delivers.

use std::time::Duration;

use serde::Deserialize;

use crate::budget::Usage;
use crate::crm::port::DeliverySpent;
use crate::fault::{Fault, FaultKind};

use super::rest::Rest;

/// What is read of the answer; an edition that lacks an allowance leaves it out.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Limits {
    daily_api_requests: Option<Allowance>,
    daily_delivered_platform_events: Option<Allowance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allowance {
    max: u64,
    /// Below zero where an org may exceed it for a while.
    remaining: i64,
}

impl From<Allowance> for Usage {
    fn from(allowance: Allowance) -> Self {
        Self {
            left: u64::try_from(allowance.remaining).unwrap_or_default(),
            limit: allowance.max,
        }
    }
}

/// Asks the org; the budget notes what it tells. A user that may not see it (View Setup) learns of the calls alone,
/// which every answer's header tells.
///
/// # Errors
/// As for any call.
pub async fn look(rest: &Rest) -> Result<(), Fault> {
    let answer = match rest.get("/limits").await {
        Ok(answer) => answer,
        Err(refused) if refused.fault.kind() == FaultKind::Permission => return Ok(()),
        Err(refused) => return Err(refused.fault.context("asking for the org's limits")),
    };
    let limits: Limits = serde_json::from_slice(answer.body()).map_err(|error| {
        let what = format!("answer to {} can't be read", answer.what());
        Fault::new(FaultKind::Protocol, what).source(error)
    })?;
    rest.budget()
        .answered(limits.daily_api_requests.map(Usage::from));
    if let Some(events) = limits.daily_delivered_platform_events {
        rest.budget().deliveries(events.into());
    }
    Ok(())
}

/// The fault of a stream that is refused because the org's event deliveries of a day are spent.
#[must_use]
pub fn delivery_spent(shown: &str) -> Fault {
    Fault::new(FaultKind::Throttled, shown)
        .retry_after(Duration::from_hours(1))
        .source(DeliverySpent)
        .remedy(
            "raise it, or let fewer subscribers listen; objects are read by windows meanwhile, and events come \
             later, as they are held for three days",
        )
}
