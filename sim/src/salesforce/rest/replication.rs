//! getUpdated and getDeleted: the ids that changed in a window of whole minutes.
//!
//! Source: SOAP API Developer Guide, "Data Replication"; REST API Developer Guide, "sObject Get Updated / Get Deleted".

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::org::Org;
use super::super::value::{parse_datetime, rest_datetime};
use super::Shared;
use super::error::ApiError;

const UPDATED_WINDOW: TimeDelta = TimeDelta::days(30);
const DELETED_WINDOW: TimeDelta = TimeDelta::days(15);
const MINUTE: TimeDelta = TimeDelta::minutes(1);
const MOST_IDS: usize = 600_000;

type Parameters = Query<HashMap<String, String>>;
type Answer = Result<Json<Value>, ApiError>;

struct Window {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    /// Up to here the answer is complete.
    covered: DateTime<Utc>,
}

pub(super) async fn updated(
    State(org): Shared,
    Path((_, object)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Answer {
    answer_updated(&org, &object, &parameters)
}

fn answer_updated(org: &Org, object: &str, parameters: &HashMap<String, String>) -> Answer {
    let now = org.clock.now();
    let store = org.store();
    let table = store.table(object).ok_or_else(ApiError::not_found)?;
    let window = window(org, parameters, now, UPDATED_WINDOW, TimeDelta::zero())?;
    let mut ids: Vec<_> = table
        .all_at(now)
        .filter(|record| !table.is_deleted(record))
        .filter(|record| (window.start..window.end).contains(&table.stamp(record)))
        .filter_map(|record| table.id(record))
        .collect();
    check_count(ids.len())?;
    ids.sort();
    Ok(Json(json!({
        "ids": ids.iter().map(|id| &**id).collect::<Vec<_>>(),
        "latestDateCovered": rest_datetime(window.covered),
    })))
}

pub(super) async fn deleted(
    State(org): Shared,
    Path((_, object)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Answer {
    answer_deleted(&org, &object, &parameters)
}

fn answer_deleted(org: &Org, object: &str, parameters: &HashMap<String, String>) -> Answer {
    let now = org.clock.now();
    let store = org.store();
    let table = store.table(object).ok_or_else(ApiError::not_found)?;
    let window = window(org, parameters, now, DELETED_WINDOW, MINUTE)?;
    let binned = table
        .all_at(now)
        .filter(|record| table.is_deleted(record))
        .filter_map(|record| Some((table.id(record)?, table.stamp(record))));
    let purged = table
        .purged()
        .iter()
        .map(|(id, deleted)| (id.clone(), *deleted));
    let mut records: Vec<_> = binned
        .chain(purged)
        .filter(|(_, deleted)| (window.start..window.end).contains(deleted))
        .collect();
    check_count(records.len())?;
    records.sort();
    let records: Vec<_> = records
        .iter()
        .map(|(id, deleted)| json!({"id": &**id, "deletedDate": rest_datetime(*deleted)}))
        .collect();
    Ok(Json(json!({
        "deletedRecords": records,
        "earliestDateAvailable": rest_datetime(minute(now - DELETED_WINDOW)),
        "latestDateCovered": rest_datetime(window.covered),
    })))
}

fn window(
    org: &Org,
    parameters: &HashMap<String, String>,
    now: DateTime<Utc>,
    reach: TimeDelta,
    shortest: TimeDelta,
) -> Result<Window, ApiError> {
    let bad = |message: String| ApiError::bad_request("INVALID_REPLICATION_DATE", message);
    let date = |name: &str| {
        let text = parameters.get(name).ok_or_else(|| {
            ApiError::bad_request("MISSING_ARGUMENT", format!("{name} has to be specified"))
        })?;
        parse_datetime(text)
            .map(minute)
            .ok_or_else(|| bad(format!("{name} date is not a valid dateTime: {text}")))
    };
    let (start, end) = (date("start")?, date("end")?);
    if end - start <= shortest {
        return Err(bad(if shortest.is_zero() {
            "startDate must be before endDate".to_owned()
        } else {
            "endDate must be at least one minute greater than startDate".to_owned()
        }));
    }
    if start < minute(now - reach) {
        return Err(bad(format!(
            "startDate is before the earliest date available, {} days ago",
            reach.num_days()
        )));
    }
    // What an open transaction has stamped is not there yet: it ends what is covered.
    let oldest = org.oldest_open().map_or(now, |open| open.min(now));
    Ok(Window {
        start,
        end,
        covered: minute(oldest.min(end)),
    })
}

fn minute(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(MINUTE).unwrap_or(time)
}

fn check_count(ids: usize) -> Result<(), ApiError> {
    if ids <= MOST_IDS {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "EXCEEDED_ID_LIMIT",
        format!("the window holds more than {MOST_IDS} ids"),
    ))
}
