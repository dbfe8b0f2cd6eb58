//! What listening needs of its connection, whatever the transport.

use std::sync::Arc;

use crate::crm::port::Selection;
use crate::fault::Fault;
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
    /// The objects, described, with what of selected fields follows from what events tell.
    ///
    /// # Errors
    /// `Missing` for one that there is not.
    pub async fn described(&self, selections: &[Selection]) -> Result<Objects, Fault> {
        let mut known = Objects::default();
        for selection in selections {
            let object = &selection.object;
            let description = self.describer.get(object).await?;
            known.insert(object.clone(), description);
            known
                .follow(self.describer, object, &selection.fields)
                .await?;
        }
        Ok(known)
    }
}
