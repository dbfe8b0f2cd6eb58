//! Descriptions are read anew when they are seven days old, when somebody asks, or by who needs a younger one: a
//! connection begins anew where what jobs select is no longer what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::crm::port::shelf::KEPT;
use crate::fault::{Fault, FaultKind};
use crate::flow::road::{ObjectRoad, Objects, Road, lacking};
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::ObjectSchema;
use crate::runtime::shutdown::StopSignal;

use super::Selected;

/// How often it is looked whether somebody asked.
const LOOK: Duration = Duration::from_secs(1);
/// The wait after a fault.
const AFTER_FAULT: Duration = Duration::from_secs(60);

/// Keeps descriptions young until the stop signal.
///
/// # Errors
/// `Unavailable` once an object is no longer what this life took it for.
pub(super) async fn keep(
    road: Road,
    selected: Selected,
    objects: Arc<Objects>,
    stop: StopSignal,
) -> Result<(), Fault> {
    let (mut wait, mut looked) = (LOOK, Looked::new());
    while stop.or(tokio::time::sleep(wait)).await.is_ok() {
        let Ok(renewed) = stop
            .or(renew(&road, &selected, &objects, &mut looked))
            .await
        else {
            break;
        };
        wait = match renewed {
            Ok(None) => LOOK,
            Ok(Some(object)) => {
                let what = format!("the fields of {object} changed: the connection begins anew");
                return Err(Fault::new(FaultKind::Unavailable, what));
            }
            Err(fault) => {
                tracing::warn!(connection = %road.connection, error = %fault, "an object is not described anew");
                AFTER_FAULT
            }
        };
    }
    Ok(())
}

/// When the descriptions were read that were compared last.
type Looked = BTreeMap<ObjectName, DateTime<Utc>>;

/// Reads anew what is due; the first object that differs.
async fn renew(
    road: &Road,
    selected: &Selected,
    objects: &Objects,
    looked: &mut Looked,
) -> Result<Option<ObjectName>, Fault> {
    let asked = road.state.refresh_asked(&road.connection).await?;
    let old = road.clock.now() - KEPT;
    for (name, read_at) in road.state.described(&road.connection).await? {
        let Some(object) = objects.get(&name) else {
            continue;
        };
        let schema = if read_at > old && asked.is_none_or(|asked| read_at > asked) {
            if looked.get(&name) == Some(&read_at) {
                continue;
            }
            road.crm.describe(&name).await?
        } else {
            let schema = road.crm.describe_anew(&name).await?;
            tracing::info!(connection = %road.connection, object = %name, "described anew");
            schema
        };
        if differs(road, selected, object, &schema) {
            return Ok(Some(name));
        }
        looked.insert(name, read_at);
    }
    Ok(None)
}

/// Whether a life that began now would take an object for something else.
fn differs(road: &Road, selected: &Selected, object: &ObjectRoad, schema: &ObjectSchema) -> bool {
    let Some(fields) = selected.get(&object.key.object) else {
        return false;
    };
    // What joining takes is selected besides; to whom it ties an object is no matter of this schema alone.
    let wanted = fields.iter().chain(&object.selection.fields);
    let wanted: BTreeSet<FieldName> = wanted.cloned().collect();
    let found = &wanted - &lacking(&wanted, schema);
    let readings = road.settings.readings_of(&object.key.object);
    let prefix = &road.settings.prefix;
    let Ok(mut next) = ObjectRoad::new(&road.connection, prefix, &found, schema, readings) else {
        return true;
    };
    next.joins.clone_from(&object.joins);
    next.followers.clone_from(&object.followers);
    next != *object
}
