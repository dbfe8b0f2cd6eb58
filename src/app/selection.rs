//! What a connection's jobs want of its objects, together: fields, and full syncs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::fault::{Fault, FaultKind};

use crate::flow::connection::Selected;
use crate::flow::road::Reading;
use crate::mapping::compile::Mapping;
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::schedule::Timetable;

/// The union of the fields that jobs read, per object.
pub(super) fn selected<'a>(mappings: impl Iterator<Item = &'a Arc<Mapping>>) -> Selected {
    let mut selected = Selected::new();
    for mapping in mappings {
        let plan = mapping.plan();
        let fields = selected.entry(plan.source.clone()).or_default();
        fields.insert(FieldName::new("Id"));
        fields.extend(plan.fields.iter().cloned());
    }
    selected
}

/// What each job reads of its object, and what it does once a field is gone.
pub(super) fn readings<'a>(
    config: &Config,
    mappings: impl Iterator<Item = &'a Arc<Mapping>>,
) -> BTreeMap<ObjectName, Vec<Reading>> {
    let mut found: BTreeMap<ObjectName, Vec<Reading>> = BTreeMap::new();
    for mapping in mappings {
        let plan = mapping.plan();
        let routine = config
            .routines
            .get(&(plan.connection.clone(), plan.job.clone()));
        let reading = Reading {
            job: plan.job.clone(),
            fields: plan.fields.iter().cloned().collect(),
            needed: mapping.needed(),
            on_lost_field: routine.map_or_else(Default::default, |routine| routine.on_lost_field),
            refresh: routine.map_or_else(Default::default, |routine| routine.refresh),
            has_scheduled: plan.has_scheduled(),
        };
        found.entry(plan.source.clone()).or_default().push(reading);
    }
    found
}

/// When full syncs of each object are due, by the jobs that are enabled.
///
/// # Errors
/// `Config` for a cron pattern that names no times.
pub(super) fn timetables(
    config: &Config,
    connection: &ConnectionId,
) -> Result<BTreeMap<ObjectName, Vec<Timetable>>, Fault> {
    let mut found: BTreeMap<ObjectName, Vec<Timetable>> = BTreeMap::new();
    let mine = config
        .jobs
        .iter()
        .filter(|job| job.enabled && job.connection == *connection);
    for job in mine {
        let Some(routine) = config
            .routines
            .get(&(job.connection.clone(), job.id.clone()))
        else {
            continue;
        };
        let table =
            Timetable::new(&routine.full_sync, config.daemon.time_zone).map_err(|error| {
                Fault::new(
                    FaultKind::Config,
                    format!("reading `full_sync` of job {connection}/{}", job.id),
                )
                .source(error)
                .remedy("write \"daily 03:00\" or a cron pattern of five fields")
            })?;
        found
            .entry(job.source.value.clone())
            .or_default()
            .push(table);
    }
    Ok(found)
}
