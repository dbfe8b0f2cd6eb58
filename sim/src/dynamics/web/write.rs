//! POST, PATCH, PUT and DELETE on rows, columns and references.

use std::sync::Arc;

use axum::http::{Method, StatusCode};

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::odata::options::Options;
use super::super::org::Org;
use super::super::schema::Table;
use super::super::transaction::Tx;
use super::super::webhooks::registration;
use super::address::{Address, RowKey, Segment, find, row_key};
use super::payload;
use super::query::Scene;
use super::read::{permit, shown};
use super::rows::etag;
use super::{Call, Caller, ROOT, Reply, bulk, functions};

/// Does a call that changes rows, within a transaction.
pub(crate) fn write(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    address: &Address,
) -> Result<Reply, ApiError> {
    let [head, rest @ ..] = address.segments.as_slice() else {
        return Err(ApiError::not_allowed("The service root takes GET only."));
    };
    if head.name == "EntityDefinitions" {
        return Err(ApiError::not_allowed(
            "Definitions can't be changed by the simulated Web API: use the control API.",
        ));
    }
    if rest.is_empty() && functions::is_action(&head.name) && call.method == Method::POST {
        return functions::act(org, tx, caller, call, &head.name);
    }
    let rows = tx
        .store
        .set(&head.name)
        .ok_or_else(|| ApiError::no_segment(&head.name))?;
    let table = Arc::clone(&rows.table);
    match (&call.method, &head.arguments, rest) {
        (&Method::POST, None, []) => create(org, tx, caller, call, &table),
        (&Method::POST, None, [action]) => bulk::act(org, tx, caller, call, &table, &action.name),
        (&Method::PATCH, Some(arguments), []) => patch(org, tx, caller, call, &table, arguments),
        (&Method::DELETE, Some(arguments), []) => delete(org, tx, caller, call, &table, arguments),
        (&Method::DELETE | &Method::PUT, Some(arguments), [part, tail @ ..]) => {
            one_part(org, tx, caller, call, &table, arguments, part, tail)
        }
        _ => Err(ApiError::not_allowed(format!(
            "The requested resource does not support http method '{}'.",
            call.method
        ))),
    }
}

/// The URL of a row.
pub(crate) fn url(org: &Org, table: &Table, id: Guid) -> String {
    format!("{}{ROOT}{}({id})", org.url(), table.set)
}

fn create(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    table: &Table,
) -> Result<Reply, ApiError> {
    permit(org, caller, "Create", &table.name)?;
    let body = payload::object(&table.set, &call.body)?;
    let set = payload::columns(tx, table, &body)?;
    registration::check(tx, table, &set)?;
    let id = tx.create(&table.name, None, set)?;
    done(org, tx, caller, call, table, id, true)
}

/// 204 with the row's URL, or the row itself if that is preferred.
fn done(
    org: &Org,
    tx: &Tx<'_>,
    caller: Caller,
    call: &Call,
    table: &Table,
    id: Guid,
    created: bool,
) -> Result<Reply, ApiError> {
    let prefer = call.prefer();
    let mut reply = if prefer.representation {
        let rows = tx
            .store
            .table(&table.name)
            .ok_or_else(|| ApiError::no_segment(&table.set))?;
        let scene = Scene::new(org, tx.store, caller, &prefer);
        let body = shown(&scene, rows, id, &Options::read(&call.query)?)?;
        let mut reply = Reply::json(body);
        reply.status = if created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        if let Some(row) = rows.row(id) {
            reply.headers.push(("ETag", etag(row)));
        }
        reply.headers.extend(
            prefer
                .applied()
                .map(|applied| ("Preference-Applied", applied)),
        );
        reply
    } else {
        Reply::empty(StatusCode::NO_CONTENT)
    };
    let url = url(org, table, id);
    if created {
        reply.headers.push(("Location", url.clone()));
    }
    reply.headers.push(("OData-EntityId", url));
    Ok(reply)
}

/// What the two conditional headers demand.
#[derive(Debug, PartialEq, Eq)]
enum Condition<'c> {
    None,
    /// `If-Match: *`: update only.
    Exists,
    /// `If-Match: W/"…"`.
    Version(&'c str),
    /// `If-None-Match: *`: create only.
    Missing,
}

fn condition(call: &Call) -> Result<Condition<'_>, ApiError> {
    let matched = call.header("if-match").filter(|value| !value.is_empty());
    let unmatched = call
        .header("if-none-match")
        .filter(|value| *value != "null" && !value.is_empty());
    match (matched, unmatched) {
        (None, None) => Ok(Condition::None),
        (Some("*"), None) => Ok(Condition::Exists),
        (Some(version), None) => Ok(Condition::Version(version)),
        (None, Some("*")) => Ok(Condition::Missing),
        _ => Err(ApiError::odata(
            "These conditional headers can't be used together, or not with this value.",
        )),
    }
}

/// Refuses another version than the one held.
fn same_version(tx: &Tx<'_>, table: &Table, id: Guid, held: &str) -> Result<(), ApiError> {
    if !table.optimistic {
        return Err(ApiError::argument(format!(
            "Entity {} does not support optimistic concurrency.",
            table.name
        )));
    }
    let row = tx.store.table(&table.name).and_then(|rows| rows.row(id));
    match row {
        Some(row) if etag(row) == held => Ok(()),
        Some(_) => Err(ApiError::version_mismatch()),
        None => Err(ApiError::no_row(&table.name, id)),
    }
}

fn patch(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    table: &Table,
    arguments: &[(Option<String>, String)],
) -> Result<Reply, ApiError> {
    let key = row_key(table, arguments)?;
    let condition = condition(call)?;
    let body = payload::object(&table.set, &call.body)?;
    let set = payload::columns(tx, table, &body)?;
    let (id, created) = upsert(
        org,
        tx,
        caller,
        table,
        &key,
        set,
        |tx, id| match condition {
            Condition::None => Ok(true),
            Condition::Exists => Ok(false),
            Condition::Missing if id.is_some() => Err(ApiError::duplicate_id()),
            Condition::Missing => Ok(true),
            Condition::Version(held) => match id {
                Some(id) => same_version(tx, table, id, held).map(|()| false),
                None => Ok(false),
            },
        },
    )?;
    done(org, tx, caller, call, table, id, created)
}

/// Updates the row that a key names, or creates it if that may be; tells whether it was created.
pub(crate) fn upsert(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    table: &Table,
    key: &RowKey,
    mut set: Vec<(usize, Cell)>,
    may_create: impl FnOnce(&Tx<'_>, Option<Guid>) -> Result<bool, ApiError>,
) -> Result<(Guid, bool), ApiError> {
    let rows = tx
        .store
        .table(&table.name)
        .ok_or_else(|| ApiError::no_segment(&table.set))?;
    let found = find(rows, key);
    let may_create = may_create(tx, found.as_ref().ok().copied())?;
    match found {
        Ok(id) => {
            permit(org, caller, "Write", &table.name)?;
            if let RowKey::Alternate(_, cells) = key {
                // The URL has named the row: the same columns in the body mean nothing.
                set.retain(|(place, _)| !cells.iter().any(|(key, _)| key == place));
            }
            tx.update(&table.name, id, set)?;
            Ok((id, false))
        }
        Err(error) if !may_create => Err(error),
        Err(_) => {
            permit(org, caller, "Create", &table.name)?;
            let id = match key {
                RowKey::Id(id) => Some(*id),
                RowKey::Alternate(_, cells) => {
                    for (place, cell) in cells {
                        // On create the body wins over the URL.
                        if !set.iter().any(|(known, _)| known == place) {
                            set.push((*place, cell.clone()));
                        }
                    }
                    None
                }
            };
            Ok((tx.create(&table.name, id, set)?, true))
        }
    }
}

fn delete(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    table: &Table,
    arguments: &[(Option<String>, String)],
) -> Result<Reply, ApiError> {
    permit(org, caller, "Delete", &table.name)?;
    let rows = tx
        .store
        .table(&table.name)
        .ok_or_else(|| ApiError::no_segment(&table.set))?;
    let id = find(rows, &row_key(table, arguments)?)?;
    match condition(call)? {
        Condition::Version(held) => same_version(tx, table, id, held)?,
        Condition::Missing => {
            return Err(ApiError::odata("If-None-Match can't be used with DELETE."));
        }
        Condition::None | Condition::Exists => {}
    }
    tx.delete(&table.name, id)?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// `DELETE …/nav/$ref`, `PUT …/nav/$ref`, `PUT …/column`, `DELETE …/column`.
#[allow(clippy::too_many_arguments, reason = "a call and what it names")]
fn one_part(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    table: &Table,
    arguments: &[(Option<String>, String)],
    part: &Segment,
    tail: &[Segment],
) -> Result<Reply, ApiError> {
    permit(org, caller, "Write", &table.name)?;
    let rows = tx
        .store
        .table(&table.name)
        .ok_or_else(|| ApiError::no_segment(&table.set))?;
    let id = find(rows, &row_key(table, arguments)?)?;
    let set = match tail {
        [last] if last.name == "$ref" => {
            let (place, targets) = table
                .navigation(&part.name)
                .ok_or_else(|| ApiError::no_segment(&part.name))?;
            if call.method == Method::DELETE {
                (place, Cell::Null)
            } else {
                let body = payload::object(&table.set, &call.body)?;
                let url = body
                    .get("@odata.id")
                    .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
                let wrong =
                    || ApiError::payload(&table.set, "A reference is {\"@odata.id\":\"…\"}.");
                let cell = payload::reference(tx, targets, &url.ok_or_else(wrong)?);
                (place, cell.map_err(|error| error.unwrap_or_else(wrong))?)
            }
        }
        [] => {
            let place = table
                .property(&part.name)
                .ok_or_else(|| ApiError::no_segment(&part.name))?;
            if call.method == Method::DELETE {
                (place, Cell::Null)
            } else {
                let mut body = payload::object(&table.set, &call.body)?;
                let wrong = || ApiError::payload(&table.set, "A column's value is {\"value\":…}.");
                let raw = body.remove("value").ok_or_else(wrong)?;
                let named = payload::Members::from([(part.name.clone(), raw)]);
                payload::columns(tx, table, &named)?
                    .pop()
                    .ok_or_else(wrong)?
            }
        }
        [other, ..] => return Err(ApiError::no_segment(&other.name)),
    };
    tx.update(&table.name, id, vec![set])?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
