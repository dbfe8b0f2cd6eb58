//! What pushes changes at a connection, from its config.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::connection::ConnectionConfig;
use crate::config::webhook::{WebhookAuth, WebhookConfig};
use crate::crm::dynamics::push::Inbox;
use crate::crm::dynamics::push::webhook::{Proof, Receiver};
use crate::flow::connection::Selected;
use crate::model::name::ConnectionId;
use crate::runtime::clock::Clock;
use crate::state::port::State;
use crate::telemetry::metrics::Metrics;

/// What inboxes stand on.
pub(super) struct Ground {
    pub state: Arc<dyn State>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
}

/// The inbox of a connection; `hinted` wakes its road.
pub(super) fn inbox(
    ground: &Ground,
    id: &ConnectionId,
    wanted: &Selected,
    hinted: &Arc<Notify>,
) -> Inbox {
    Inbox::new(
        id.clone(),
        wanted.keys().cloned().collect(),
        Arc::clone(&ground.state),
        Arc::clone(hinted),
        Arc::clone(&ground.clock),
        ground.metrics.clone(),
    )
}

/// The receiver of a connection's webhook, if it has one.
pub(super) fn receiver(
    connection: &ConnectionConfig,
    inbox: impl FnOnce() -> Inbox,
) -> Option<Receiver> {
    let ConnectionConfig::Dynamics(connection) = connection else {
        return None;
    };
    let webhook = connection.webhook.as_ref()?;
    let secret = webhook.secret.clone();
    let source = Arc::new(move || secret.read());
    Some(Receiver::new(inbox(), proof(webhook), source))
}

/// Where a webhook's calls carry their secret.
pub(super) fn proof(webhook: &WebhookConfig) -> Proof {
    match &webhook.auth {
        WebhookAuth::Key => Proof::Key,
        WebhookAuth::Header(name) => Proof::Header(name.clone()),
        WebhookAuth::Query(name) => Proof::Query(name.clone()),
    }
}
