//! Push by Azure Service Bus: takes the environment's messages out of a queue over AMQP 1.0.
//!
//! A message is settled once the inbox says that its hint is durable, and not before; a message that is no hint goes
//! to the dead-letter queue with the reason. What is not settled comes again when its lock ends: a hint may come
//! twice, and does no harm.
//!
//! Sources: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide>,
//! <https://learn.microsoft.com/power-apps/developer/data-platform/azure-integration>.

pub mod settings;
pub mod status;

mod exchange;
mod link;
mod message;
mod receive;
mod refusal;
mod sas;
mod socket;

use tokio::time::Instant;

use crate::crm::dynamics::push::Inbox;
use crate::fault::{Fate, Fault};
use crate::runtime::backoff::Attempts;
use crate::runtime::shutdown::StopSignal;
use crate::telemetry::metrics::{self, Metrics};

use link::Link;
use receive::Desk;
use settings::BusSettings;
use status::{BusState, Told};

/// Takes messages until the stop; connects again whenever the connection ends.
///
/// Credentials that are refused, a queue that is not there and the like are said, and tried again only after
/// [`BusSettings::refused_wait`]: the operator may have changed them meanwhile.
pub async fn keep(
    settings: BusSettings,
    inbox: Inbox,
    metrics: Metrics,
    told: Told,
    stop: StopSignal,
) {
    let labels = [("connection", settings.connection.as_str())];
    let connected = metrics.gauge(metrics::PUSH_CONNECTED, &labels);
    let mut attempts = Attempts::new(settings.backoff, settings.seed);
    connected.set(0.0);
    while !stop.is_stopping() {
        told(&BusState::Connecting);
        let began = Instant::now();
        let ended = match stop.or(Box::pin(Link::open(&settings))).await {
            Ok(Ok(mut link)) => {
                tracing::info!(
                    connection = %settings.connection, queue = %settings.queue, "listening to the service bus"
                );
                connected.set(1.0);
                told(&BusState::Connected);
                let desk = Desk::new(&inbox, &told, &stop);
                let ended = receive::run(&mut link, &desk).await;
                connected.set(0.0);
                link.close().await;
                ended
            }
            Ok(Err(fault)) => Err(fault),
            Err(_) => break,
        };
        let Err(fault) = ended else { break };
        if began.elapsed() >= settings.backoff.cap {
            attempts.succeeded();
        }
        let wait = match fault.fate() {
            Fate::Retry => attempts.failed(fault.wait_hint()),
            Fate::Stop | Fate::Ask | Fate::DeadLetter => settings.refused_wait,
        };
        report(&settings, &metrics, &fault);
        told(&BusState::of(fault));
        if stop.or(tokio::time::sleep(wait)).await.is_err() {
            break;
        }
    }
    told(&BusState::Stopped);
}

fn report(settings: &BusSettings, metrics: &Metrics, fault: &Fault) {
    tracing::warn!(
        connection = %settings.connection, queue = %settings.queue, error = %fault.report(),
        "the service bus is not listened to; changes come by polls alone"
    );
    let labels = [
        ("connection", settings.connection.as_str()),
        ("cause", fault.kind().label()),
    ];
    metrics.counter(metrics::FAULTS, &labels).increment(1);
}

#[cfg(test)]
mod tests;
