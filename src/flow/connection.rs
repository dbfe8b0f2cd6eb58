//! One connection's life: own it, read the topics back, listen first, then read; start over after a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::budget::Priority;
use crate::fault::{Fate, Fault, FaultKind};
use crate::model::name::{FieldName, ObjectName};
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::shutdown::StopSignal;
use crate::runtime::tasks::Tasks;
use crate::telemetry::metrics;

use super::board::{FaultPicture, Life};
use super::full_sync::Inlet;
use super::gate::Gate;
use super::ingest::{End, Ingest, Lease, QUEUE};
use super::listen::listen;
use super::repair::Repair;
use super::road::Road;

mod allowance;
mod beginning;
pub(in crate::flow) mod lost;
mod metadata;
mod spent;

use beginning::{Begun, begin};

/// How often a daemon that waits for a connection looks, per lease: what a takeover takes beyond the lease.
const STANDBY_LOOKS: u32 = 15;

/// What jobs select, per object.
pub type Selected = BTreeMap<ObjectName, BTreeSet<FieldName>>;

/// Keeps a connection alive until the stop signal: whatever ends it, it is begun again from what is stored.
pub async fn keep(road: Road, selected: Selected, stop: StopSignal) {
    let mut backoff = Attempts::new(
        Backoff {
            first: road.settings.retry_first,
            cap: road.settings.retry_cap,
            ..Backoff::default()
        },
        seed(&road),
    );
    while !stop.is_stopping() {
        let began = Instant::now();
        let ended = run(&road, &selected, &stop).await;
        let Err(fault) = ended else { continue };
        if stop.is_stopping() || fault.kind() == FaultKind::Stopping {
            break;
        }
        // A stream that held for a while is a new story.
        if began.elapsed() > road.settings.retry_cap {
            backoff.succeeded();
        }
        let life = match fault.kind() {
            FaultKind::Credentials => Life::Revoked,
            // Another owner, or a lease that ran out: whoever is free takes it up again.
            FaultKind::Fenced => Life::Retrying,
            // The next life asks for the place, is refused, and writes the hole down.
            FaultKind::PositionLost => Life::Retrying,
            kind if kind.fate() == Fate::Retry => Life::Retrying,
            _ => Life::Failed,
        };
        let wait = match life {
            Life::Retrying => backoff.failed(fault.wait_hint()),
            _ => fault
                .wait_hint()
                .unwrap_or_default()
                .max(road.settings.refused_wait),
        };
        show_fault(&road, life, &fault, wait, "connection ended");
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            () = road.crm.authorised(), if life == Life::Revoked => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    show(&road, Life::Stopped);
}

fn show_fault(road: &Road, life: Life, fault: &Fault, wait: Duration, what: &str) {
    let picture = FaultPicture::of(fault, road.clock.now());
    let labels = [
        ("connection", road.connection.as_str()),
        ("kind", picture.kind),
    ];
    road.metrics.counter(metrics::FAULTS, &labels).increment(1);
    tracing::error!(
        connection = %road.connection, kind = picture.kind, state = life.label(),
        error = picture.text, again_in_seconds = wait.as_secs_f64(), "{what}"
    );
    // The reason comes before the state that asks for one.
    road.board
        .connection(&road.connection, |entry| entry.fault = Some(picture));
    show(road, life);
}

fn show(road: &Road, life: Life) {
    road.board
        .connection(&road.connection, |entry| entry.state = life);
    for state in Life::ALL {
        let labels = [
            ("connection", road.connection.as_str()),
            ("state", state.label()),
        ];
        let value = if state == life { 1.0 } else { 0.0 };
        road.metrics.gauge(metrics::STATE, &labels).set(value);
    }
}

fn show_streaming(road: &Road) {
    road.board
        .connection(&road.connection, |entry| entry.fault = None);
    show(road, Life::Streaming);
}

/// One life under one term.
async fn run(road: &Road, selected: &Selected, stop: &StopSignal) -> Result<(), Fault> {
    show(road, Life::Starting);
    let Some((term, lease)) = acquire(road).await? else {
        show(road, Life::Standby);
        tokio::select! {
            biased;
            () = stop.stopped() => {}
            () = tokio::time::sleep(road.settings.lease / STANDBY_LOOKS) => {}
        }
        return Ok(());
    };
    let mut family = Tasks::new(stop.child());
    family.spawn(
        "keeping the lease",
        renew(
            road.clone(),
            term,
            Arc::clone(&lease),
            family.stop().clone(),
        ),
    );
    family.spawn(
        "showing the budget",
        allowance::show(road.clone(), family.stop().clone()),
    );
    // Without what a stream needs to begin nothing could be repaired.
    let starting = Priority::Repair.scope(start(road, selected, lease, term, &mut family));
    let started = tokio::select! {
        biased;
        () = stop.stopped() => Ok(()),
        started = starting => started,
    };
    let ended = match started {
        Ok(()) => first_fault(&mut family).await,
        Err(fault) => Err(fault),
    };
    let drained = family.drain(road.settings.grace).await;
    if !drained.cut.is_empty() {
        tracing::warn!(connection = %road.connection, cut = ?drained.cut, "tasks did not end in time");
    }
    if let Err(fault) = road.state.release(&road.connection, term).await {
        tracing::debug!(error = %fault, "lease could not be released; it expires");
    }
    ended
}

/// Waits for the first task that ends with a fault; the others are stopped by the caller.
async fn first_fault(family: &mut Tasks) -> Result<(), Fault> {
    while let Some(ended) = family.next().await {
        match ended.outcome {
            Err(fault) if fault.kind() != FaultKind::Stopping => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

/// Spreads the waits of daemons that fail together.
fn seed(road: &Road) -> u64 {
    u64::from(road.clock.now().timestamp_subsec_nanos())
}

async fn acquire(road: &Road) -> Result<Option<(u64, Arc<Lease>)>, Fault> {
    let (now, lease) = (road.clock.now(), road.settings.lease);
    let end = End::after(now, lease);
    let term = road
        .state
        .acquire(&road.connection, &road.settings.owner, now, lease)
        .await?;
    Ok(term.map(|term| (term, Arc::new(Lease::new(end)))))
}

/// Renews the lease; a fault that passes is tried again for as long as the lease holds.
async fn renew(road: Road, term: u64, lease: Arc<Lease>, stop: StopSignal) -> Result<(), Fault> {
    let every = road.settings.lease / 3;
    let mut wait = every;
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        let (now, length) = (road.clock.now(), road.settings.lease);
        let end = End::after(now, length);
        let renewed = road.state.renew(&road.connection, term, now, length);
        match renewed.await {
            Ok(()) => {
                lease.prolong(end);
                wait = every;
            }
            Err(fault)
                if fault.fate() == Fate::Retry && lease.check(&road.connection, now).is_ok() =>
            {
                tracing::warn!(connection = %road.connection, error = %fault, "lease could not be renewed");
                wait = every / 4;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// Starts everything, in the order that loses nothing.
async fn start(
    road: &Road,
    selected: &Selected,
    lease: Arc<Lease>,
    term: u64,
    family: &mut Tasks,
) -> Result<(), Fault> {
    let Begun {
        org,
        objects,
        listener,
        beginning,
    } = begin(road, selected, term, lease).await?;
    let mut covered = beginning.covered.clone();
    for (name, since) in &beginning.deaths_known {
        let covered = covered.entry(name.clone()).or_insert(*since);
        *covered = (*covered).max(*since);
    }
    let owed = Arc::clone(&beginning.owed);
    // Before anything runs that may know better.
    show_streaming(road);
    tracing::info!(connection = %road.connection, term, org, "listening");
    let ingest = Ingest::new(road.clone(), Arc::clone(&objects), beginning);
    let (inlet, inputs) = mpsc::channel(QUEUE);
    family.spawn("ingest", ingest.run(inputs, family.stop().clone()));
    family.spawn(
        "listening",
        listen(listener, inlet.clone(), family.stop().clone()),
    );
    family.spawn(
        "keeping descriptions",
        metadata::keep(
            road.clone(),
            selected.clone(),
            Arc::clone(&objects),
            family.stop().clone(),
        ),
    );
    let gap = road
        .crm
        .whole_reads_begin_streams()
        .then_some(road.settings.read_lag);
    let repair = Arc::new(Repair {
        road: road.clone(),
        objects,
        term,
        covered,
        inlet: Inlet(inlet),
        gate: Gate::new(gap),
        owed,
    });
    family.spawn(
        "reading what is owed",
        Priority::Repair.scope(Arc::clone(&repair).run_quick(family.stop().clone())),
    );
    if road.crm.takes_hints() {
        family.spawn(
            "reading what was pushed",
            Priority::Repair.scope(Arc::clone(&repair).run_hints(family.stop().clone())),
        );
    }
    family.spawn("reading", repair.run_deep(family.stop().clone()));
    family.spawn(
        "asking what is left",
        allowance::look(road.clone(), family.stop().clone()),
    );
    Ok(())
}

#[cfg(test)]
mod tests;
