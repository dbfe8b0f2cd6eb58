//! `CreateMultiple`, `UpdateMultiple`, `UpsertMultiple`: all rows or none.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::org::Org;
use super::super::schema::Table;
use super::super::transaction::Tx;
use super::address::{Address, RowKey, row_key};
use super::payload::{self, Members};
use super::read::permit;
use super::write::upsert;
use super::{Call, Caller, ROOT, Reply};

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Targets")]
    targets: Vec<Members>,
}

/// Does one of the three.
pub(crate) fn act(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    table: &Table,
    action: &str,
) -> Result<Reply, ApiError> {
    let name = action
        .strip_prefix("Microsoft.Dynamics.CRM.")
        .ok_or_else(|| ApiError::no_segment(action))?;
    if !matches!(name, "CreateMultiple" | "UpdateMultiple" | "UpsertMultiple") {
        return Err(ApiError::no_segment(action));
    }
    if !table.bulk {
        return Err(ApiError::argument(format!(
            "The message {name} is not available for {}.",
            table.name
        )));
    }
    let body: Body = serde_json::from_slice(&call.body)
        .map_err(|error| ApiError::payload(&table.set, &error.to_string()))?;
    if body.targets.is_empty() {
        return Err(ApiError::argument(
            "The Targets must hold at least one row.",
        ));
    }
    let mut ids = Vec::with_capacity(body.targets.len());
    for mut target in body.targets {
        typed(table, &target)?;
        let id = match name {
            "CreateMultiple" => {
                permit(org, caller, "Create", &table.name)?;
                let set = payload::columns(tx, table, &target)?;
                tx.create(&table.name, None, set)?
            }
            "UpdateMultiple" => {
                permit(org, caller, "Write", &table.name)?;
                let key = key(table, &mut target)?;
                let set = payload::columns(tx, table, &target)?;
                upsert(org, tx, caller, table, &key, set, |_, _| Ok(false))?.0
            }
            _ => {
                let key = key(table, &mut target)?;
                let set = payload::columns(tx, table, &target)?;
                upsert(org, tx, caller, table, &key, set, |_, _| Ok(true))?.0
            }
        };
        ids.push(id);
    }
    if name != "CreateMultiple" {
        return Ok(Reply::empty(StatusCode::NO_CONTENT));
    }
    let context = format!(
        "{}{ROOT}$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse",
        org.url()
    );
    let ids = ids
        .iter()
        .map(|id: &Guid| Node::from(id.to_string()))
        .collect();
    Ok(Reply::json(Node::Object(vec![
        ("@odata.context".to_owned(), Node::from(context)),
        ("Ids".to_owned(), Node::Array(ids)),
    ])))
}

/// Every target names its type.
fn typed(table: &Table, target: &Members) -> Result<(), ApiError> {
    let named = target.get("@odata.type").and_then(|raw| text(raw));
    match named {
        Some(name) if name.trim_start_matches('#') == table.type_name() => Ok(()),
        Some(name) => Err(ApiError::payload(
            &table.set,
            &format!(
                "A target of the type '{name}' is no '{}'.",
                table.type_name()
            ),
        )),
        None => Err(ApiError::payload(
            &table.set,
            "A type named in '@odata.type' is missing on a target.",
        )),
    }
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The row that a target names: by `@odata.id`, or by its primary key.
fn key(table: &Table, target: &mut Members) -> Result<RowKey, ApiError> {
    let missing = || {
        ApiError::payload(
            &table.set,
            "A target names its row by its primary key or by '@odata.id'.",
        )
    };
    if let Some(raw) = target.remove("@odata.id") {
        let url = text(&raw).ok_or_else(missing)?;
        let path = url.split_once(ROOT).map_or(url.as_str(), |(_, path)| path);
        let address = Address::read(path.trim_start_matches('/'))?;
        return match address.segments.as_slice() {
            [segment] if segment.name == table.set => {
                row_key(table, segment.arguments.as_deref().unwrap_or_default())
            }
            _ => Err(missing()),
        };
    }
    let raw = target.remove(&table.primary_id).ok_or_else(missing)?;
    let id = text(&raw)
        .and_then(|id| id.parse().ok())
        .ok_or_else(missing)?;
    Ok(RowKey::Id(id))
}
