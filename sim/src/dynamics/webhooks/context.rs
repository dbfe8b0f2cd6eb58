//! The body of a message: a `RemoteExecutionContext` as JSON, in the manner of DataContract.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::super::cell::Cell;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::org::Org;
use super::super::schema::{Column, Kind};
use super::super::store::Row;
use super::super::transaction::{Author, Change, Message};
use super::{Dates, Settings};

const CONTRACTS: &str = "http://schemas.microsoft.com/xrm/2011/Contracts";

/// A registered image.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub alias: String,
    /// 0 before, 1 after, 2 both.
    pub kind: i64,
    /// All columns if empty.
    pub columns: Vec<String>,
}

/// What a context tells.
pub(super) struct Subject<'s> {
    pub org: &'s Org,
    pub change: &'s Change,
    /// The columns of this event.
    pub input: &'s [usize],
    pub author: Author,
    pub settings: Settings,
    pub correlation: Guid,
    pub operation: Guid,
    pub stage: i64,
    pub synchronous: bool,
    pub step: (Guid, &'s str),
    pub images: Vec<Image>,
}

/// The JSON text; `cut` leaves out the four members that may be large.
pub(super) fn body(subject: &Subject<'_>, cut: bool) -> String {
    let parent = match subject.settings.parent_context && !cut {
        true => context(subject, 30, Node::Value(Value::Null), false),
        false => Node::Value(Value::Null),
    };
    let text = context(subject, subject.stage, parent, cut).text();
    // The serializer escapes slashes, and in JSON they stand in texts only.
    text.replace('/', "\\/")
}

fn context(subject: &Subject<'_>, stage: i64, parent: Node, cut: bool) -> Node {
    let Subject {
        org,
        change,
        author,
        ..
    } = subject;
    let empty = || Node::Array(Vec::new());
    let null = || Node::Value(Value::Null);
    let output = match change.message {
        Message::Create => Node::Array(vec![pair("id", Node::from(change.id.to_string()))]),
        _ => empty(),
    };
    let (before, after) = (
        images(subject, Message::Create),
        images(subject, Message::Delete),
    );
    let mut members: Vec<(&str, Node)> = vec![
        (
            "BusinessUnitId",
            Node::from(author.business_unit.to_string()),
        ),
        ("CorrelationId", Node::from(subject.correlation.to_string())),
        ("Depth", Node::from(change.depth)),
    ];
    if subject.settings.newer_members {
        let none = "00000000-0000-0000-0000-000000000000";
        members.push(("InitiatingUserAgent", Node::from("simulator")));
        members.push(("InitiatingUserApplicationId", Node::from(none)));
        members.push((
            "InitiatingUserAzureActiveDirectoryObjectId",
            Node::from(none),
        ));
    }
    members.push(("InitiatingUserId", Node::from(author.user.to_string())));
    if !cut {
        members.push(("InputParameters", Node::Array(vec![target(subject)])));
    }
    members.extend([
        ("IsExecutingOffline", Node::from(false)),
        ("IsInTransaction", Node::from(subject.synchronous && stage < 40)),
        ("IsOfflinePlayback", Node::from(false)),
        ("IsolationMode", Node::from(1)),
        ("MessageName", Node::from(change.message.name())),
        ("Mode", Node::from(i64::from(!subject.synchronous))),
        ("OperationCreatedOn", Node::from(operation_date(org.clock.now(), subject.settings.dates))),
        ("OperationId", Node::from(subject.operation.to_string())),
        ("OrganizationId", Node::from(org.profile.organization.to_string())),
        ("OrganizationName", Node::from(org.profile.name.clone())),
        ("OutputParameters", output),
        ("OwningExtension", Node::Value(json!({
            "Id": subject.step.0, "KeyAttributes": [], "LogicalName": "sdkmessageprocessingstep", "Name": subject.step.1, "RowVersion": null,
        }))),
    ]);
    if !cut {
        members.push(("ParentContext", parent));
        members.push(("PostEntityImages", after));
        members.push(("PreEntityImages", before));
    }
    members.extend([
        ("PrimaryEntityId", Node::from(change.id.to_string())),
        ("PrimaryEntityName", Node::from(change.table.name.clone())),
        ("RequestId", null()),
        ("SecondaryEntityName", Node::from("none")),
        ("SharedVariables", empty()),
        ("Stage", Node::from(stage)),
    ]);
    if subject.settings.newer_members {
        members.push((
            "UserAzureActiveDirectoryObjectId",
            Node::from("00000000-0000-0000-0000-000000000000"),
        ));
    }
    members.push(("UserId", Node::from(author.user.to_string())));
    Node::Object(
        members
            .into_iter()
            .map(|(name, node)| (name.to_owned(), node))
            .collect(),
    )
}

fn pair(key: &str, value: Node) -> Node {
    Node::Object(vec![
        ("key".to_owned(), Node::from(key)),
        ("value".to_owned(), value),
    ])
}

/// What the request was about: an entity, or a reference to one that is deleted.
fn target(subject: &Subject<'_>) -> Node {
    let change = subject.change;
    match &change.after {
        None => pair("Target", reference(&change.table.name, change.id)),
        Some(row) => {
            let mut places = subject.input.to_vec();
            places.push(change.table.id_place());
            places.sort_unstable();
            places.dedup();
            let entity = entity(subject, row, &places, true);
            pair("Target", entity)
        }
    }
}

/// The registered images of the row before or after: `without` is the message that has none.
fn images(subject: &Subject<'_>, without: Message) -> Node {
    let change = subject.change;
    let before = without == Message::Create;
    let row = if before {
        &change.before
    } else {
        &change.after
    };
    let (Some(row), true) = (row, before || subject.stage == 40) else {
        return Node::Array(Vec::new());
    };
    let wanted = subject
        .images
        .iter()
        .filter(|image| image.kind == 2 || (image.kind == 0) == before);
    let shown = wanted.map(|image| {
        let named = |place: &usize| {
            let name = &change.table.columns[*place].name;
            (image.columns.is_empty() || image.columns.contains(name))
                && !row.cell(*place).is_null()
        };
        let places: Vec<usize> = (0..change.table.columns.len()).filter(named).collect();
        pair(&image.alias, entity(subject, row, &places, false))
    });
    Node::Array(shown.collect())
}

/// A row as an entity: a parameter names its type, an image does not.
fn entity(subject: &Subject<'_>, row: &Row, places: &[usize], typed: bool) -> Node {
    let table = &subject.change.table;
    let dates = subject.settings.dates;
    let attributes = places.iter().map(|place| {
        let column = &table.columns[*place];
        pair(&column.name, value(column, row.cell(*place), dates))
    });
    let mut members = Vec::new();
    if typed {
        members.push((
            "__type".to_owned(),
            Node::from(format!("Entity:{CONTRACTS}")),
        ));
    }
    members.extend([
        ("Attributes".to_owned(), Node::Array(attributes.collect())),
        ("EntityState".to_owned(), Node::Value(Value::Null)),
        ("FormattedValues".to_owned(), Node::Array(Vec::new())),
        ("Id".to_owned(), Node::from(subject.change.id.to_string())),
        ("KeyAttributes".to_owned(), Node::Array(Vec::new())),
        ("LogicalName".to_owned(), Node::from(table.name.clone())),
        ("RelatedEntities".to_owned(), Node::Array(Vec::new())),
        ("RowVersion".to_owned(), Node::Value(Value::Null)),
    ]);
    Node::Object(members)
}

fn reference(table: &str, id: Guid) -> Node {
    Node::Object(vec![
        (
            "__type".to_owned(),
            Node::from(format!("EntityReference:{CONTRACTS}")),
        ),
        ("Id".to_owned(), Node::from(id.to_string())),
        ("KeyAttributes".to_owned(), Node::Array(Vec::new())),
        ("LogicalName".to_owned(), Node::from(table)),
        ("Name".to_owned(), Node::Value(Value::Null)),
        ("RowVersion".to_owned(), Node::Value(Value::Null)),
    ])
}

fn wrapped(kind: &str, value: Node) -> Node {
    Node::Object(vec![
        (
            "__type".to_owned(),
            Node::from(format!("{kind}:{CONTRACTS}")),
        ),
        ("Value".to_owned(), value),
    ])
}

fn value(column: &Column, cell: &Cell, dates: Dates) -> Node {
    match cell {
        Cell::Ref(table, id) => reference(table, *id),
        Cell::Decimal(_) if column.kind == Kind::Money => wrapped("Money", cell.json()),
        Cell::Int(_) if column.kind.has_options() => wrapped("OptionSetValue", cell.json()),
        Cell::Choices(values) => {
            let one = |value: &i32| wrapped("OptionSetValue", Node::from(*value));
            Node::Array(values.iter().map(one).collect())
        }
        Cell::Time(time) => Node::from(date(*time, dates)),
        Cell::Date(day) => Node::from(date(day.and_time(chrono::NaiveTime::MIN).and_utc(), dates)),
        _ => cell.json(),
    }
}

fn date(time: DateTime<Utc>, dates: Dates) -> String {
    match dates {
        Dates::Milliseconds => format!("/Date({})/", time.timestamp_millis()),
        Dates::Offset => format!("/Date({}+0000)/", time.timestamp_millis()),
        Dates::Iso => time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    }
}

/// When the job was made: the server wrote its own time of day as if it were universal, seven hours off.
fn operation_date(now: DateTime<Utc>, dates: Dates) -> String {
    match dates {
        Dates::Iso => now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        _ => format!(
            "/Date({}-0700)/",
            (now + TimeDelta::hours(7)).timestamp_millis()
        ),
    }
}
