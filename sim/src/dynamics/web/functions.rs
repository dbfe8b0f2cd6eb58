//! Functions and actions that are bound to nothing.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::odata::percent;
use super::super::org::Org;
use super::super::schema::Target;
use super::super::transaction::Tx;
use super::address::Segment;
use super::metadata::{VERBS, privilege_id};
use super::payload::{Members, reference};
use super::query::Scene;
use super::{Call, Caller, ROOT, Reply};
use crate::salesforce::lock::lock;

/// Whether a segment names a function.
pub(crate) fn is_function(name: &str) -> bool {
    matches!(
        name,
        "WhoAmI" | "RetrieveTotalRecordCount" | "RetrieveVersion"
    )
}

/// Calls a function that is bound to a user: `systemusers(…)/Microsoft.Dynamics.CRM.RetrieveUserPrivileges`.
pub(crate) fn of_user(scene: &Scene<'_>, name: &str) -> Result<Reply, ApiError> {
    let org = scene.org;
    let (member, rows) = match name {
        "RetrieveUserPrivileges" => ("RolePrivileges", held(scene)),
        // Nobody has a column security profile.
        "RetrievePrincipalAttributePrivileges" => ("AttributePrivileges", Vec::new()),
        _ => return Err(ApiError::no_segment(name)),
    };
    let context = format!(
        "{}{ROOT}$metadata#Microsoft.Dynamics.CRM.{name}Response",
        org.url()
    );
    Ok(Reply::json(Node::Object(vec![
        ("@odata.context".to_owned(), Node::from(context)),
        (
            member.to_owned(),
            Node::Value(serde_json::Value::Array(rows)),
        ),
    ])))
}

/// Every privilege that was not taken away, for the whole organization.
fn held(scene: &Scene<'_>) -> Vec<serde_json::Value> {
    let denied = lock(&scene.org.switches).denied.clone();
    let mut held = BTreeMap::new();
    for rows in scene.store.tables() {
        let table = &rows.table;
        for verb in VERBS {
            if denied.contains(&(verb.to_owned(), table.name.clone())) {
                continue;
            }
            let id = privilege_id(table, verb).to_string();
            let row = json!({
                "Depth": "Global",
                "PrivilegeId": id,
                "BusinessUnitId": scene.org.profile.business_unit.to_string(),
                "PrivilegeName": table.privilege(verb),
                "RecordFilterId": "00000000-0000-0000-0000-000000000000",
                "RecordFilterUniqueName": "",
            });
            held.insert(id, row);
        }
    }
    held.into_values().collect()
}

/// Whether a segment names an action.
pub(crate) fn is_action(name: &str) -> bool {
    matches!(name, "CloseIncident" | "PublishXml" | "PublishAllXml")
}

/// Calls a function.
pub(crate) fn call(
    scene: &Scene<'_>,
    caller: Caller,
    call: &Call,
    segment: &Segment,
) -> Result<Reply, ApiError> {
    let org = scene.org;
    let context = |name: &str| {
        Node::from(format!(
            "{}{ROOT}$metadata#Microsoft.Dynamics.CRM.{name}Response",
            org.url()
        ))
    };
    let members = match segment.name.as_str() {
        "WhoAmI" => vec![
            (
                "BusinessUnitId",
                Node::from(org.profile.business_unit.to_string()),
            ),
            ("UserId", Node::from(caller.user.to_string())),
            (
                "OrganizationId",
                Node::from(org.profile.organization.to_string()),
            ),
        ],
        "RetrieveVersion" => vec![("Version", Node::from("9.2.25061.00000"))],
        _ => vec![(
            "EntityRecordCountCollection",
            Node::Value(record_counts(scene, call, segment)?),
        )],
    };
    let mut body = vec![("@odata.context".to_owned(), context(&segment.name))];
    body.extend(
        members
            .into_iter()
            .map(|(name, node)| (name.to_owned(), node)),
    );
    Ok(Reply::json(Node::Object(body)))
}

/// `RetrieveTotalRecordCount(EntityNames=['account'])`, or with a parameter alias.
fn record_counts(
    scene: &Scene<'_>,
    call: &Call,
    segment: &Segment,
) -> Result<serde_json::Value, ApiError> {
    let wrong =
        || ApiError::odata("RetrieveTotalRecordCount takes EntityNames, a list of logical names.");
    let arguments = segment.arguments.as_deref().unwrap_or_default();
    // A list holds commas: the parts belong together again.
    let parts: Vec<_> = arguments.iter().map(|(_, value)| value.as_str()).collect();
    let mut text = parts.join(",");
    if text.starts_with('@') {
        let wanted = format!("{text}=");
        let given = percent::decode(&call.query);
        let value = given.split('&').find_map(|pair| pair.strip_prefix(&wanted));
        text = value.ok_or_else(wrong)?.to_owned();
    }
    let names: Vec<String> =
        serde_json::from_str(&text.replace('\'', "\"")).map_err(|_| wrong())?;
    let mut values = Vec::new();
    for name in &names {
        let rows = scene.store.table(name).ok_or_else(|| {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "0x80040217",
                format!("The entity with a name = '{name}' was not found in the MetadataCache."),
            )
        })?;
        values.push(rows.len());
    }
    Ok(json!({"Count": names.len(), "IsReadOnly": false, "Keys": names, "Values": values}))
}

#[derive(Deserialize)]
struct Closing {
    #[serde(rename = "IncidentResolution")]
    resolution: Members,
    #[serde(rename = "Status")]
    status: i64,
}

/// Does an action.
pub(crate) fn act(
    org: &Org,
    tx: &mut Tx<'_>,
    caller: Caller,
    call: &Call,
    name: &str,
) -> Result<Reply, ApiError> {
    super::read::permit(org, caller, "Write", "incident")?;
    if name != "CloseIncident" {
        // What is customized is public at once.
        return Ok(Reply::empty(StatusCode::NO_CONTENT));
    }
    let closing: Closing = serde_json::from_slice(&call.body)
        .map_err(|error| ApiError::payload("incidents", &error.to_string()))?;
    let wrong = || {
        ApiError::payload(
            "incidents",
            "IncidentResolution binds incidentid@odata.bind to a case.",
        )
    };
    let url = closing
        .resolution
        .get("incidentid@odata.bind")
        .ok_or_else(wrong)?;
    let url: String = serde_json::from_str(url.get()).map_err(|_| wrong())?;
    let target = Target {
        table: "incident".to_owned(),
        navigation: String::new(),
        back: String::new(),
    };
    let case = reference(tx, &[target], &url).map_err(|error| error.unwrap_or_else(wrong))?;
    let id: Guid = case.id().ok_or_else(wrong)?;
    let table = tx
        .store
        .table("incident")
        .map(|rows| std::sync::Arc::clone(&rows.table))
        .ok_or_else(wrong)?;
    let status = if closing.status < 0 {
        5
    } else {
        closing.status
    };
    let (Some(state_place), Some(status_place)) =
        (table.place("statecode"), table.place("statuscode"))
    else {
        return Err(wrong());
    };
    tx.update(
        "incident",
        id,
        vec![
            (state_place, Cell::Int(1)),
            (status_place, Cell::Int(status)),
        ],
    )?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
