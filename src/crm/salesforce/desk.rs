//! What listening needs of its connection, whatever the transport.

use std::sync::Arc;

use crate::fault::Fault;
use crate::model::name::ObjectName;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use super::decode::Objects;
use super::describe::Describer;
use super::rest::Rest;
use super::settings::SalesforceSettings;
use super::sign_in::SignIn;

/// What listening needs of its connection.
pub struct Desk<'a> {
    /// The settings.
    pub settings: &'a SalesforceSettings,
    /// Calls, for the CRM's clock.
    pub rest: &'a Arc<Rest>,
    /// Where tokens come from.
    pub sign_in: &'a Arc<SignIn>,
    /// Descriptions.
    pub describer: &'a Arc<Describer>,
    /// Our own clock.
    pub clock: &'a Arc<dyn Clock>,
    /// The count of calls.
    pub metrics: &'a Metrics,
}

impl Desk<'_> {
    /// The objects, described.
    ///
    /// # Errors
    /// `Missing` for one that there is not.
    pub async fn described(&self, objects: &[ObjectName]) -> Result<Objects, Fault> {
        let mut known = Objects::default();
        for object in objects {
            known.insert(object.clone(), self.describer.get(object).await?);
        }
        Ok(known)
    }
}
