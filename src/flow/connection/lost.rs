//! Fields that jobs select and that the CRM no longer shows: told by name; jobs go on without them, or pause.

use std::collections::BTreeSet;

use crate::fault::Fault;
use crate::flow::road::Road;
use crate::model::name::{FieldName, JobId, ObjectName};
use crate::model::policy::OnLostField;
use crate::state::orders::{Order, Standing};
use crate::state::port::ObjectState;
use crate::telemetry::metrics;

/// Who such a pause says that it is by.
pub(in crate::flow) const BY: &str = "tributary";

/// Which of the lacking fields were there once. Others are mistakes of the config.
pub(super) fn known_once(
    lacking: BTreeSet<FieldName>,
    known: Option<&ObjectState>,
) -> BTreeSet<FieldName> {
    let Some(known) = known else {
        return BTreeSet::new();
    };
    lacking
        .into_iter()
        .filter(|field| known.fields.contains(field) || known.lost.contains(field))
        .collect()
}

/// Shows what is lost of an object, and pauses the jobs that can't do without what is lost since `before`.
///
/// # Errors
/// A fault of the state.
pub(super) async fn tell(
    road: &Road,
    object: &ObjectName,
    lost: &[FieldName],
    before: &[FieldName],
) -> Result<(), Fault> {
    let labels = [
        ("connection", road.connection.as_str()),
        ("object", object.as_str()),
    ];
    let gauge = road.metrics.gauge(metrics::LOST_FIELDS, &labels);
    gauge.set(lost.len() as f64);
    road.board.object(&road.connection, object, |entry| {
        entry.lost_fields = lost.to_vec();
    });
    let new: Vec<&FieldName> = lost
        .iter()
        .filter(|field| !before.contains(field))
        .collect();
    let back: Vec<&str> = before
        .iter()
        .filter(|field| !lost.contains(field))
        .map(FieldName::as_str)
        .collect();
    if !back.is_empty() {
        tracing::info!(
            connection = %road.connection, %object, fields = back.join(", "), "fields are there again, and are read"
        );
    }
    if new.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = new.iter().map(|field| field.as_str()).collect();
    let names = names.join(", ");
    tracing::warn!(
        connection = %road.connection, %object, fields = names,
        "the CRM no longer shows fields that jobs read: they were renamed or deleted, or are hidden from the \
         connection's user"
    );
    for reading in road.settings.readings_of(object) {
        let hit = |fields: &BTreeSet<FieldName>| new.iter().any(|field| fields.contains(*field));
        let must = hit(&reading.needed);
        if must || (reading.on_lost_field == OnLostField::Pause && hit(&reading.fields)) {
            let reason = format!("{object} has no field {names} any more");
            pause(road, &reading.job, &reason).await?;
        }
    }
    Ok(())
}

/// An earlier order to pause stays, with its reason.
async fn pause(road: &Road, job: &JobId, reason: &str) -> Result<(), Fault> {
    loop {
        let Standing { revision, order } = road.state.standing(&road.connection, job).await?;
        if order.paused {
            return Ok(());
        }
        let order = Order {
            paused: true,
            reason: Some(reason.to_owned()),
            by: Some(BY.to_owned()),
            since: Some(road.clock.now()),
            braked: None,
            accepted: order.accepted,
            replay: order.replay,
        };
        let given = road.state.give(&road.connection, job, revision, order);
        // Whoever was quicker may have said the same.
        if given.await? {
            tracing::warn!(connection = %road.connection, %job, reason, "job paused");
            return Ok(());
        }
    }
}
