//! The Tooling API as far as change data capture needs it: which channels there are, and what they carry.
//!
//! Source: Change Data Capture Developer Guide, "Select Objects for Change Notifications with Metadata API and Tooling
//! API"; Tooling API, "PlatformEventChannel", "PlatformEventChannelMember". An entity that only a custom channel carries
//! is captured for the standard channel too.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::ids;
use super::super::load::Loaded;
use super::super::org::Org;
use super::super::schema::{FieldType, Object};
use super::super::soql;
use super::super::store::Store;
use super::super::value::Value as Cell;
use super::error::ApiError;
use super::permissions::{unsupported, with_ids};
use super::{Caught, Shared, json as parse};

const MEMBER: &str = "PlatformEventChannelMember";
const CHANNEL: &str = "PlatformEventChannel";
/// The channel of `/data/ChangeEvents`.
const STANDARD: &str = "ChangeEvents";
/// Fields that one member may be enriched by.
const ENRICHED: usize = 10;

/// An entity on a channel.
struct Member {
    channel: String,
    object: Arc<Object>,
    enriched: Vec<String>,
}

impl Member {
    /// Two underscores would part a namespace from it.
    fn name(&self) -> String {
        format!("{}_{}", self.channel, self.object.event_name()).replace("__", "_")
    }

    fn id(&self) -> String {
        id("0v8", &self.name())
    }
}

/// An id made of a name.
fn id(prefix: &str, name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ids::nth(prefix, hash % 62_u64.pow(9))
}

fn members(org: &Org) -> Vec<Member> {
    let mut members = Vec::new();
    let mut add = |channel: &str, entity: &str, enriched: Vec<String>| {
        if let Some(object) = org.object(entity) {
            members.push(Member {
                channel: channel.to_owned(),
                object,
                enriched,
            });
        }
    };
    for entity in org.captured() {
        add(STANDARD, &entity, Vec::new());
    }
    for (channel, entities) in org.streaming.channels() {
        for (entity, enriched) in entities {
            add(&channel, &entity, enriched);
        }
    }
    members
}

/// `GET tooling/query`.
pub(super) async fn query(
    State(org): Shared,
    Extension(caller): Caught,
    Query(parameters): Query<HashMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    let text = parameters.get("q").ok_or_else(|| {
        ApiError::bad_request("MALFORMED_QUERY", "A query string has to be specified")
    })?;
    if !org.views_setup() {
        return Err(unsupported(&soql::scope(text)?.object));
    }
    let now = org.clock.now();
    let results = soql::run(&tables(&org), text, false, now)?;
    Ok(Json(json!({
        "size": results.len(),
        "totalSize": results.len(),
        "done": true,
        "queryLocator": null,
        "entityTypeName": results.object(),
        "records": results.page(0, results.len(), &format!("{}/tooling", caller.version)),
    })))
}

/// The metadata as tables, so that queries on it are queries.
fn tables(org: &Org) -> Store {
    let mut store = Store::default();
    let members: Vec<_> = members(org)
        .iter()
        .map(|member| {
            vec![
                member.id(),
                member.name(),
                member.channel.clone(),
                member.object.event_name(),
            ]
        })
        .collect();
    store.add(table(
        MEMBER,
        "0v8",
        &["DeveloperName", "EventChannel", "SelectedEntity"],
        &members,
    ));
    let channels: Vec<_> = org
        .streaming
        .channels()
        .into_keys()
        .map(|name| vec![id("0YL", &name), name.clone(), name, "data".to_owned()])
        .collect();
    store.add(table(
        CHANNEL,
        "0YL",
        &["DeveloperName", "MasterLabel", "ChannelType"],
        &channels,
    ));
    store
}

/// Rows of an id and these fields' texts.
fn table(name: &str, prefix: &str, fields: &[&str], rows: &[Vec<String>]) -> Loaded {
    let fields: Vec<_> = fields
        .iter()
        .map(|name| (*name, FieldType::String))
        .collect();
    let rows = rows.iter().map(|texts| {
        let mut cells: Vec<_> = texts.iter().map(|text| Cell::text(text)).collect();
        if let (Some(id), Some(text)) = (cells.first_mut(), texts.first()) {
            *id = Cell::id(text);
        }
        cells
    });
    with_ids(name, prefix, &fields, rows.collect())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Order<M> {
    full_name: String,
    metadata: M,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MemberOrder {
    event_channel: String,
    selected_entity: String,
    #[serde(default)]
    enriched_fields: Vec<EnrichedField>,
    /// Taken and not applied.
    #[serde(default, rename = "filterExpression")]
    filter: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrichedField {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChannelOrder {
    channel_type: String,
    label: String,
}

/// `POST tooling/sobjects/{object}`.
pub(super) async fn create(
    State(org): Shared,
    Path((_, object)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    if !org.views_setup() {
        return Err(ApiError::not_found());
    }
    let id = match object.as_str() {
        MEMBER => parse(&headers, &body).and_then(|order| create_member(&org, order))?,
        CHANNEL => parse(&headers, &body).and_then(|order| create_channel(&org, &order))?,
        _ => return Err(ApiError::not_found()),
    };
    let answer = json!({"id": id, "success": true, "errors": [], "warnings": [], "infos": []});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn refused(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::bad_request(code, message)
}

fn create_member(org: &Org, order: Order<MemberOrder>) -> Result<String, ApiError> {
    let MemberOrder {
        event_channel: channel,
        selected_entity: entity,
        enriched_fields,
        filter,
    } = order.metadata;
    if filter.is_some() {
        return Err(refused(
            "FIELD_INTEGRITY_EXCEPTION",
            "Filter expressions are not simulated",
        ));
    }
    let object = org
        .objects()
        .into_iter()
        .find(|object| object.event_name() == entity)
        .ok_or_else(|| {
            let message = format!("The selected entity, {entity}, isn't valid.");
            refused("INVALID_INPUT", message)
        })?;
    let enriched: Vec<_> = enriched_fields
        .into_iter()
        .map(|field| field.name)
        .collect();
    let member = Member {
        channel,
        object,
        enriched,
    };
    if order.full_name != member.name() {
        let message = format!("The full name must be {}", member.name());
        return Err(refused("INVALID_INPUT", message));
    }
    let known = members(org);
    if known.iter().any(|known| known.name() == member.name()) {
        return Err(refused(
            "DUPLICATE_DEVELOPER_NAME",
            "This entity is already selected on the channel.",
        ));
    }
    check_limit(org, &known, &member)?;
    check_enriched(&member)?;
    if member.channel != STANDARD {
        let mut channels = org.streaming.channels();
        let Some(entities) = channels.get_mut(&member.channel) else {
            let message = format!("The channel {} doesn't exist.", member.channel);
            return Err(refused("INVALID_INPUT", message));
        };
        entities.insert(member.object.name.clone(), member.enriched.clone());
        org.streaming
            .define_channel(&member.channel, entities.clone());
    }
    org.capture(&member.object.name);
    Ok(member.id())
}

/// Each entity counts once, however many channels carry it.
fn check_limit(org: &Org, known: &[Member], member: &Member) -> Result<(), ApiError> {
    let Some(limit) = org.profile.capture_limit else {
        return Ok(());
    };
    let mut names: Vec<_> = known.iter().map(|known| &known.object.name).collect();
    names.push(&member.object.name);
    names.sort();
    names.dedup();
    if names.len() > limit {
        return Err(refused(
            "LIMIT_EXCEEDED",
            format!("You can select up to {limit} entities for change notifications."),
        ));
    }
    Ok(())
}

fn check_enriched(member: &Member) -> Result<(), ApiError> {
    if member.channel == STANDARD && !member.enriched.is_empty() {
        return Err(refused(
            "INVALID_INPUT",
            "Enriched fields need a custom channel.",
        ));
    }
    if member.enriched.len() > ENRICHED {
        return Err(refused(
            "LIMIT_EXCEEDED",
            format!("You can enrich by up to {ENRICHED} fields."),
        ));
    }
    let unfit = member.enriched.iter().find(|name| {
        !member.object.field(name).is_some_and(|(_, field)| {
            field.name == **name && field.in_events() && field.compound.is_none()
        })
    });
    match unfit {
        None => Ok(()),
        Some(name) => Err(refused(
            "INVALID_INPUT",
            format!("The enriched field, {name}, isn't valid."),
        )),
    }
}

fn create_channel(org: &Org, order: &Order<ChannelOrder>) -> Result<String, ApiError> {
    let name = &order.full_name;
    if name.len() <= "__chn".len() || !name.ends_with("__chn") {
        return Err(refused(
            "INVALID_INPUT",
            "A custom channel's name ends in __chn",
        ));
    }
    if order.metadata.channel_type != "data" || order.metadata.label.is_empty() {
        return Err(refused(
            "INVALID_INPUT",
            "Give the channelType data and a label",
        ));
    }
    if org.streaming.channels().contains_key(name) {
        return Err(refused(
            "DUPLICATE_DEVELOPER_NAME",
            "This channel already exists.",
        ));
    }
    org.streaming
        .define_channel(name, HashMap::new().into_iter().collect());
    Ok(id("0YL", name))
}

/// `GET tooling/sobjects/{object}/{id}`.
pub(super) async fn read(
    State(org): Shared,
    Path((_, object, wanted)): Path<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let wanted = ids::normalise(&wanted).ok_or_else(ApiError::not_found)?;
    if object != MEMBER {
        return Err(ApiError::not_found());
    }
    let member = members(&org)
        .into_iter()
        .find(|member| member.id() == wanted)
        .ok_or_else(ApiError::not_found)?;
    let enriched = member.enriched.iter().map(|name| json!({"name": name}));
    Ok(Json(json!({
        "Id": wanted,
        "DeveloperName": member.name(),
        "FullName": member.name(),
        "EventChannel": member.channel,
        "SelectedEntity": member.object.event_name(),
        "Metadata": {
            "eventChannel": member.channel,
            "selectedEntity": member.object.event_name(),
            "enrichedFields": enriched.collect::<Vec<_>>(),
            "filterExpression": null,
        },
    })))
}

/// `DELETE tooling/sobjects/{object}/{id}`.
pub(super) async fn delete(
    State(org): Shared,
    Path((_, object, wanted)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let wanted = ids::normalise(&wanted).ok_or_else(ApiError::not_found)?;
    match object.as_str() {
        MEMBER => {
            let member = members(&org)
                .into_iter()
                .find(|member| member.id() == wanted)
                .ok_or_else(ApiError::not_found)?;
            if member.channel == STANDARD {
                org.release(&member.object.name);
            } else if let Some(mut entities) = org.streaming.channels().remove(&member.channel) {
                entities.remove(&member.object.name);
                org.streaming.define_channel(&member.channel, entities);
            }
        }
        CHANNEL => {
            let channels = org.streaming.channels();
            let name = channels.keys().find(|name| id("0YL", name) == wanted);
            org.streaming
                .drop_channel(name.ok_or_else(ApiError::not_found)?);
        }
        _ => return Err(ApiError::not_found()),
    }
    Ok(StatusCode::NO_CONTENT)
}
