//! One connection's life: own it, read the topics back, listen first, then read; start over after a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::crm::port::{Listener, Start};
use crate::fault::{Fate, Fault, FaultKind};
use crate::model::name::{FieldName, ObjectName};
use crate::runtime::backoff::{Attempts, Backoff};
use crate::runtime::shutdown::StopSignal;
use crate::runtime::tasks::Tasks;
use crate::state::port::{HoleCause, HoleScope, NewHole, StoredPosition};
use crate::telemetry::metrics;

use super::board::{FaultPicture, Life};
use super::catch_up::catch_up;
use super::full_sync::Inlet;
use super::ingest::{Ingest, Input, QUEUE, Redelivery};
use super::listen::listen;
use super::repair::Repair;
use super::road::{ObjectRoad, Objects, Road};

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
        let began = std::time::Instant::now();
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
        show_fault(&road, life, &fault, wait);
        tokio::select! {
            () = stop.stopped() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    show(&road, Life::Stopped);
}

fn show_fault(road: &Road, life: Life, fault: &Fault, wait: Duration) {
    show(road, life);
    let picture = FaultPicture::of(fault, road.clock.now());
    let labels = [
        ("connection", road.connection.as_str()),
        ("kind", picture.kind),
    ];
    road.metrics.counter(metrics::FAULTS, &labels).increment(1);
    tracing::error!(
        connection = %road.connection, kind = picture.kind, state = life.label(),
        error = picture.text, again_in_seconds = wait.as_secs_f64(), "connection ended"
    );
    road.board
        .connection(&road.connection, |entry| entry.fault = Some(picture));
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

/// One life under one term.
async fn run(road: &Road, selected: &Selected, stop: &StopSignal) -> Result<(), Fault> {
    show(road, Life::Starting);
    let Some(term) = acquire(road).await? else {
        show(road, Life::Standby);
        tokio::select! {
            () = stop.stopped() => {}
            () = tokio::time::sleep(road.settings.lease / 3) => {}
        }
        return Ok(());
    };
    let mut family = Tasks::new(stop.child());
    family.spawn(
        "keeping the lease",
        renew(road.clone(), term, family.stop().clone()),
    );
    let started = tokio::select! {
        () = stop.stopped() => Ok(()),
        started = start(road, selected, term, &mut family) => started,
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

async fn acquire(road: &Road) -> Result<Option<u64>, Fault> {
    let now = road.clock.now();
    let until = now + road.settings.lease;
    road.state
        .acquire(&road.connection, &road.settings.owner, now, until)
        .await
}

async fn renew(road: Road, term: u64, stop: StopSignal) -> Result<(), Fault> {
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return Ok(()),
            () = tokio::time::sleep(road.settings.lease / 3) => {}
        }
        let until = road.clock.now() + road.settings.lease;
        road.state.renew(&road.connection, term, until).await?;
    }
}

/// Starts everything, in the order that loses nothing.
async fn start(
    road: &Road,
    selected: &Selected,
    term: u64,
    family: &mut Tasks,
) -> Result<(), Fault> {
    let identity = road.crm.identify().await?;
    road.board.connection(&road.connection, |entry| {
        entry.org = Some(identity.org_id.clone())
    });
    let objects = Arc::new(describe(road, selected).await?);
    let stored = road.state.position(&road.connection).await?;
    let mut redelivery = Redelivery::none();
    let mut holes = Vec::new();
    for object in objects.values() {
        let caught_up = catch_up(road, object, &mut redelivery).await?;
        if caught_up.recreated {
            holes.push((object.key.object.clone(), HoleCause::TopicRecreated));
        }
        if caught_up.read > 0 {
            tracing::info!(object = %object.key, records = caught_up.read, "topic read back");
        }
    }
    mark_imaged(road, stored.as_ref(), &mut redelivery).await?;
    holes.extend(grown_selections(road, &objects).await?);

    let Opened {
        listener,
        beginning: opened,
    } = open_stream(road, &objects, stored.as_ref()).await?;
    let mut resumed = stored.clone();
    if opened.broken.is_some() {
        redelivery = Redelivery::none();
        // A position that is lost once stays lost: the next start must not open the same hole again.
        if let Some(resumed) = &mut resumed {
            resumed.position = None;
        }
    }
    let owed = Arc::new(Notify::new());
    let mut ingest = Ingest::new(
        road.clone(),
        Arc::clone(&objects),
        redelivery,
        term,
        resumed,
        Arc::clone(&owed),
    );
    let missed = holes_of(road, &objects, opened, stored.as_ref(), holes).await?;
    for (name, since) in cover(road, &objects, term, opened).await? {
        ingest.cover(name, since);
    }

    let (inlet, inputs) = mpsc::channel(QUEUE);
    family.spawn("ingest", ingest.run(inputs, family.stop().clone()));
    // The holes and the stream's beginning are durable before its first event is merged.
    let (done, durable) = oneshot::channel();
    let first = Input::Missed {
        holes: missed,
        confirmed_at: opened.since,
        done,
    };
    if inlet.send(first).await.is_ok() {
        durable.await.ok();
    }
    family.spawn(
        "listening",
        listen(listener, inlet.clone(), family.stop().clone()),
    );
    let repair = Arc::new(Repair {
        road: road.clone(),
        objects: Arc::clone(&objects),
        term,
        inlet: Inlet(inlet),
        owed,
    });
    family.spawn(
        "reading what is owed",
        Arc::clone(&repair).run_quick(family.stop().clone()),
    );
    family.spawn("reading", repair.run_deep(family.stop().clone()));
    road.board
        .connection(&road.connection, |entry| entry.fault = None);
    show(road, Life::Streaming);
    tracing::info!(connection = %road.connection, term, org = identity.org_id, "listening");
    Ok(())
}

async fn describe(road: &Road, selected: &Selected) -> Result<Objects, Fault> {
    let mut objects = Objects::new();
    for (name, fields) in selected {
        let schema = road.crm.describe(name).await?;
        let object = ObjectRoad::new(&road.connection, &road.settings.prefix, fields, &schema)?;
        let synced = road.state.object(&road.connection, name).await?.synced_at;
        road.board.object(&road.connection, name, |entry| {
            entry.synced_at = synced;
            entry.state = if synced.is_some() {
                Life::Streaming
            } else {
                Life::Starting
            };
        });
        objects.insert(name.clone(), object);
    }
    Ok(objects)
}

/// Images are stored before the position; after a crash between the two they are ahead.
async fn mark_imaged(
    road: &Road,
    stored: Option<&StoredPosition>,
    redelivery: &mut Redelivery,
) -> Result<(), Fault> {
    let imaged = road.images.position(&road.connection).await?;
    let position = stored.and_then(|stored| stored.position.as_ref());
    if let (Some(imaged), Some(_)) = (imaged, position)
        && Some(&imaged) != position
    {
        redelivery.imaged_up_to(imaged);
    }
    Ok(())
}

/// Objects whose selection has more fields than their images hold.
async fn grown_selections(
    road: &Road,
    objects: &Objects,
) -> Result<Vec<(ObjectName, HoleCause)>, Fault> {
    let mut grown = Vec::new();
    for (name, object) in objects {
        let state = road.state.object(&road.connection, name).await?;
        let more = object
            .selection
            .fields
            .iter()
            .any(|field| !state.fields.contains(field));
        if state.synced_at.is_some() && more {
            grown.push((name.clone(), HoleCause::NewField));
        }
    }
    Ok(grown)
}

struct Opened {
    listener: Box<dyn Listener>,
    beginning: Beginning,
}

/// How a stream begins.
#[derive(Clone, Copy)]
struct Beginning {
    /// CRM time since which this stream tells everything.
    since: DateTime<Utc>,
    /// Set when the stream does not go on where the stored one ended.
    broken: Option<HoleCause>,
}

async fn open_stream(
    road: &Road,
    objects: &Objects,
    stored: Option<&StoredPosition>,
) -> Result<Opened, Fault> {
    let names: Vec<ObjectName> = objects.keys().cloned().collect();
    let (start, mut broken) = match stored {
        None => (Start::Now, None),
        Some(StoredPosition {
            position: Some(position),
            ..
        }) => (Start::After(position.clone()), None),
        // The stream began "now" and ended before it told a position: whatever the CRM still holds comes
        // again, older events are dropped by the tables, and the window is read besides.
        Some(StoredPosition { position: None, .. }) => {
            (Start::Earliest, Some(HoleCause::NoPosition))
        }
    };
    let listener = match road.crm.listen(&names, start).await {
        Err(fault) if fault.kind() == FaultKind::PositionLost => {
            tracing::warn!(
                connection = %road.connection, error = %fault,
                "stored position is no longer valid: opening a hole and listening from the earliest event"
            );
            broken = Some(HoleCause::ExpiredPosition);
            road.crm.listen(&names, Start::Earliest).await?
        }
        listener => listener?,
    };
    // The clock is behind by the lag and cut to whole seconds: what is committed from `since` on is told.
    let lag = TimeDelta::from_std(road.settings.read_lag).unwrap_or_default();
    let since = road.crm.clock().await? + lag + TimeDelta::seconds(1);
    Ok(Opened {
        listener,
        beginning: Beginning { since, broken },
    })
}

/// The holes to open before the first event is merged.
async fn holes_of(
    road: &Road,
    objects: &Objects,
    opened: Beginning,
    stored: Option<&StoredPosition>,
    others: Vec<(ObjectName, HoleCause)>,
) -> Result<Vec<NewHole>, Fault> {
    let opened_at = road.clock.now();
    let mut holes: Vec<NewHole> = others
        .into_iter()
        .map(|(object, cause)| NewHole {
            object,
            cause,
            scope: HoleScope::Object { to: opened.since },
            opened_at,
        })
        .collect();
    let Some(cause) = opened.broken else {
        return Ok(holes);
    };
    for name in objects.keys() {
        let state = road.state.object(&road.connection, name).await?;
        // An object that was never synced is read whole anyway.
        if state.synced_at.is_none() && state.snapshot.is_none() {
            continue;
        }
        let from = stored.map_or(opened.since, |stored| stored.confirmed_at);
        holes.push(NewHole {
            object: name.clone(),
            cause,
            scope: HoleScope::Window {
                from,
                to: opened.since,
            },
            opened_at,
        });
    }
    Ok(holes)
}

/// Since when each object's stream is unbroken; stored, so that a restart need not forget it.
async fn cover(
    road: &Road,
    objects: &Objects,
    term: u64,
    opened: Beginning,
) -> Result<Vec<(ObjectName, DateTime<Utc>)>, Fault> {
    let mut covered = Vec::new();
    for name in objects.keys() {
        let mut state = road.state.object(&road.connection, name).await?;
        let since = match state.covered {
            Some(since) if opened.broken.is_none() => since,
            _ => opened.since,
        };
        if state.covered != Some(since) {
            state.covered = Some(since);
            road.state
                .put_object(&road.connection, term, name, state)
                .await?;
        }
        covered.push((name.clone(), since));
    }
    Ok(covered)
}

#[cfg(test)]
mod tests;
