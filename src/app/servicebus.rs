//! A connection's service bus from its config: the task that listens to its queue.

use std::sync::Arc;

use crate::config::connection::ConnectionConfig;
use crate::config::dynamics::DynamicsConfig;
use crate::config::servicebus::{BusTransport, ServiceBusConfig};
use crate::crm::dynamics::bus;
use crate::crm::dynamics::bus::settings::{BusSettings, Transport};
use crate::crm::dynamics::bus::status::{BusState, Told};
use crate::crm::dynamics::push::Inbox;
use crate::fault::Fault;
use crate::flow::board::{Board, BusPicture, FaultPicture};
use crate::flow::road::Road;
use crate::model::name::ConnectionId;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;

/// The task that listens to the queue of a connection that has one. It needs no owner: whoever reads the queue first
/// notes the hint, and the owner resolves it.
pub(super) fn listener(
    connection: &ConnectionConfig,
    inbox: &dyn Fn() -> Inbox,
    road: &Road,
    stop: StopSignal,
) -> Option<impl Future<Output = Result<(), Fault>> + Send + use<>> {
    let ConnectionConfig::Dynamics(connection) = connection else {
        return None;
    };
    let settings = settings(connection, connection.servicebus.as_ref()?);
    let inbox = inbox();
    let metrics = road.metrics.clone();
    let told = told(&connection.id, &road.board, &road.clock);
    Some(async move {
        Box::pin(bus::keep(settings, inbox, metrics, told, stop)).await;
        Ok(())
    })
}

fn settings(connection: &DynamicsConfig, config: &ServiceBusConfig) -> BusSettings {
    let key = config.key.clone();
    let mut settings = BusSettings::new(
        connection.id.clone(),
        config.host.as_str(),
        config.queue.as_str(),
        config.key_name.as_str(),
        Arc::new(move || key.read()),
    );
    settings.port = config.port;
    settings.encrypted = config.encrypted;
    settings.transport = match config.transport {
        BusTransport::WebSocket => Transport::WebSocket,
        BusTransport::Tcp => Transport::Tcp,
    };
    settings.ca_file.clone_from(&connection.ca_file);
    settings.seed = u64::from(std::process::id());
    settings
}

/// Shows what the listener says in health.
fn told(id: &ConnectionId, board: &Arc<Board>, clock: &Arc<dyn Clock>) -> Told {
    let (id, board, clock) = (id.clone(), Arc::clone(board), Arc::clone(clock));
    Arc::new(move |state: &BusState| {
        let fault = state
            .fault()
            .map(|fault| FaultPicture::of(fault, clock.now()));
        let state = state.label();
        board.connection(&id, |entry| {
            // What went wrong stays to be seen while it is tried again.
            let before = entry.servicebus.take().and_then(|picture| picture.fault);
            let kept = before.filter(|_| state == "connecting");
            entry.servicebus = Some(BusPicture {
                state,
                fault: fault.or(kept),
            });
        });
    })
}
