//! What Setup says that a sync depends on: what is left, what is captured, what the user may see. Read only, and only
//! as far as the user may look at Setup.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::crm::port::survey::Quota;
use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::model::name::ObjectName;

use super::place::channel_of;
use super::read::query_path;
use super::rest::{Refused, Rest};
use super::settings::Channels;
use super::soql::literal;

/// The allowances that a sync spends, by their names in the answer (REST API Developer Guide, "Limits").
const SPENT: [(&str, &str); 3] = [
    ("DailyApiRequests", "API calls in 24 hours"),
    ("DailyBulkV2QueryJobs", "bulk queries in 24 hours"),
    (
        "DailyDeliveredPlatformEvents",
        "delivered events in 24 hours",
    ),
];

/// The standard channel's name in Setup.
pub const STANDARD: &str = "ChangeEvents";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Limit {
    max: u64,
    remaining: u64,
}

/// What is left of the org's allowances. It needs "View Setup and Configuration".
///
/// # Errors
/// [`Refused`], as for any call.
pub async fn limits(rest: &Rest) -> Result<Vec<Quota>, Refused> {
    let answer = rest.get("/limits").await?;
    let told: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(answer.body()).map_err(|error| unreadable("/limits", error))?;
    let quotas = SPENT.iter().filter_map(|(key, name)| {
        let limit = Limit::deserialize(told.get(*key)?).ok()?;
        Some(Quota {
            name,
            max: Some(limit.max),
            left: limit.remaining,
        })
    });
    Ok(quotas.collect())
}

/// An entity on a channel (Tooling API, "PlatformEventChannelMember").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// Its own id.
    pub id: String,
    /// `ChangeEvents`, or a custom channel's name.
    pub event_channel: String,
    /// The event's name: `AccountChangeEvent`.
    pub selected_entity: String,
}

impl Member {
    /// Whether it is an object's.
    #[must_use]
    pub fn is_of(&self, object: &ObjectName) -> bool {
        channel_of(object).strip_prefix("/data/") == Some(self.selected_entity.as_str())
    }

    /// Whether a subscription to these channels is told its changes.
    #[must_use]
    pub fn is_heard_on(&self, channels: &Channels) -> bool {
        match channels {
            Channels::Standard => self.event_channel == STANDARD,
            Channels::Named(name) => {
                name.strip_prefix("/data/") == Some(self.event_channel.as_str())
            }
            Channels::PerObject => true,
        }
    }
}

/// Every entity on every channel. It needs "View Setup and Configuration".
///
/// # Errors
/// [`Refused`], as for any call.
pub async fn members(rest: &Rest) -> Result<Vec<Member>, Refused> {
    let text = "SELECT Id, EventChannel, SelectedEntity FROM PlatformEventChannelMember";
    rows(rest, format!("/tooling/query?q={}", percent(text))).await
}

/// What the user may see beyond what is shared with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// "View All Data".
    all: bool,
    /// "View All Users".
    users: bool,
    /// Objects with "View All Records".
    objects: BTreeSet<String>,
}

impl Sight {
    /// Whether every record of an object is seen.
    #[must_use]
    pub fn is_whole(&self, object: &ObjectName) -> bool {
        self.all
            || self.objects.contains(object.as_str())
            || (self.users && object.as_str() == "User")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assignment {
    permission_set_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UserPermissions {
    permissions_view_all_data: bool,
    permissions_view_all_users: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectPermissions {
    sobject_type: String,
}

/// What the user's profile and permission sets let them see: each is a permission set (Object Reference,
/// "PermissionSetAssignment", "ObjectPermissions"). It needs "View Setup and Configuration".
///
/// # Errors
/// [`Refused`], as for any call.
pub async fn sight(rest: &Rest, user: &str) -> Result<Sight, Refused> {
    let text = format!(
        "SELECT PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = {}",
        literal(user)
    );
    let assigned: Vec<Assignment> = rows(rest, query_path(&text)).await?;
    let sets: Vec<String> = assigned
        .iter()
        .map(|assigned| literal(&assigned.permission_set_id))
        .collect();
    let mut sight = Sight::default();
    // A query of so many ids is one that a URL bears.
    for sets in sets.chunks(200) {
        let sets = sets.join(",");
        let text = format!(
            "SELECT PermissionsViewAllData, PermissionsViewAllUsers FROM PermissionSet WHERE Id IN ({sets})"
        );
        let user: Vec<UserPermissions> = rows(rest, query_path(&text)).await?;
        sight.all |= user.iter().any(|of| of.permissions_view_all_data);
        sight.users |= user.iter().any(|of| of.permissions_view_all_users);
        let text = format!(
            "SELECT SobjectType FROM ObjectPermissions WHERE PermissionsViewAllRecords = true AND ParentId IN ({sets})"
        );
        let objects: Vec<ObjectPermissions> = rows(rest, query_path(&text)).await?;
        let objects = objects.into_iter().map(|of| of.sobject_type);
        sight.objects.extend(objects);
    }
    Ok(sight)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FieldPermissions {
    field: String,
}

/// Which of an object's fields are there for somebody: a permission set grants them (Object Reference,
/// "FieldPermissions"). It needs "View Setup and Configuration".
///
/// # Errors
/// [`Refused`], as for any call.
pub async fn granted(
    rest: &Rest,
    object: &ObjectName,
    fields: &[&str],
) -> Result<BTreeSet<String>, Refused> {
    let whole = fields
        .iter()
        .map(|field| literal(&format!("{object}.{field}")));
    let text = format!(
        "SELECT Field FROM FieldPermissions WHERE SobjectType = {} AND Field IN ({})",
        literal(object.as_str()),
        whole.collect::<Vec<_>>().join(",")
    );
    let found: Vec<FieldPermissions> = rows(rest, query_path(&text)).await?;
    let fields = found.into_iter().filter_map(|of| {
        let (_, field) = of.field.split_once('.')?;
        Some(field.to_owned())
    });
    Ok(fields.collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UserRow {
    username: String,
}

/// A user's name.
///
/// # Errors
/// [`Refused`], as for any call.
pub async fn user_name(rest: &Rest, user: &str) -> Result<Option<String>, Refused> {
    let text = format!("SELECT Username FROM User WHERE Id = {}", literal(user));
    let mut found: Vec<UserRow> = rows(rest, query_path(&text)).await?;
    Ok(found.pop().map(|user| user.username))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MailRow {
    email: Option<String>,
}

/// A user's e-mail address. Users see their own record (Salesforce Help, "User Sharing"), so that scope `api` suffices;
/// the identity URL asks for another one.
///
/// # Errors
/// [`Refused`], as for any call.
pub async fn user_email(rest: &Rest, user: &str) -> Result<Option<String>, Refused> {
    let text = format!("SELECT Email FROM User WHERE Id = {}", literal(user));
    let mut found: Vec<MailRow> = rows(rest, query_path(&text)).await?;
    Ok(found.pop().and_then(|user| user.email))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered<T> {
    #[serde(default = "done")]
    done: bool,
    next_records_url: Option<String>,
    records: Vec<T>,
}

const fn done() -> bool {
    true
}

/// Every row of a query.
async fn rows<T: DeserializeOwned>(rest: &Rest, path: String) -> Result<Vec<T>, Refused> {
    let mut answer = rest.get(&path).await?;
    let mut all = Vec::new();
    loop {
        let page: Answered<T> = serde_json::from_slice(answer.body())
            .map_err(|error| unreadable("a query of Setup", error))?;
        all.extend(page.records);
        match page.next_records_url {
            Some(next) if !page.done => answer = rest.follow(&next).await?,
            _ => return Ok(all),
        }
    }
}

fn unreadable(what: &str, error: serde_json::Error) -> Fault {
    Fault::new(
        FaultKind::Protocol,
        format!("the answer to {what} can't be read"),
    )
    .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(channel: &str, entity: &str) -> Member {
        Member {
            id: "0v8000000000001AAA".to_owned(),
            event_channel: channel.to_owned(),
            selected_entity: entity.to_owned(),
        }
    }

    #[test]
    fn a_member_is_its_objects_and_heard_on_its_channel() {
        let account = member(STANDARD, "AccountChangeEvent");
        assert!(account.is_of(&"Account".into()));
        assert!(!account.is_of(&"AccountContactRelation".into()));
        assert!(member(STANDARD, "Plan__ChangeEvent").is_of(&"Plan__c".into()));
        let sales = Channels::Named("/data/Sales__chn".to_owned());
        assert!(account.is_heard_on(&Channels::Standard));
        assert!(!account.is_heard_on(&sales));
        let custom = member("Sales__chn", "AccountChangeEvent");
        assert!(custom.is_heard_on(&sales) && custom.is_heard_on(&Channels::PerObject));
        assert!(!custom.is_heard_on(&Channels::Standard));
    }
}
