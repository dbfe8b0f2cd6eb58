//! What the user of a Salesforce connection needs to be allowed, by what its jobs select.

use std::collections::BTreeSet;

use crate::crm::port::Selection;
use crate::crm::port::survey::Need;
use crate::model::name::{FieldName, ObjectName};

use super::take::split;

/// Objects that are known to have no change events.
const NEVER_CAPTURED: [&str; 3] = ["AccountTeamMember", "CurrencyType", "OpportunityStage"];

/// Whether no event tells an object's changes.
#[must_use]
pub fn is_never_captured(object: &ObjectName) -> bool {
    NEVER_CAPTURED.contains(&object.as_str())
}

/// What the user needs and nothing more (docs/salesforce.md says why, line by line).
#[must_use]
pub fn needs(selections: &[Selection]) -> Vec<Need> {
    let objects = || selections.iter().map(|of| of.object.as_str());
    let has = |name: &str| objects().any(|object| object == name);
    let mut needs = vec![
        Need::new("API Enabled", "every call"),
        Need::new(
            "Read and View All Records",
            "all records are read, and the stream tells their changes",
        )
        .on(objects().filter(|object| !matches!(*object, "User" | "Task" | "Event"))),
    ];
    if has("User") {
        let why = "as View All Records, for users";
        needs.push(Need::new("View All Users", why).on(["User"]));
    }
    if has("Task") || has("Event") {
        let why = "as View All Records, for activities";
        let activities = objects().filter(|object| matches!(*object, "Task" | "Event"));
        needs.push(Need::new("View All Data", why).on(activities));
    }
    for selection in selections {
        let (parents, own): (Vec<&FieldName>, Vec<&FieldName>) = selection
            .fields
            .iter()
            .filter(|field| field.as_str() != "Id")
            .partition(|field| field.as_str().contains('.'));
        let own: BTreeSet<String> = own
            .iter()
            .map(|field| split(field.as_str()).0.to_owned())
            .collect();
        if !own.is_empty() {
            let permission = format!("View All Fields on {}, or Read on these", selection.object);
            needs.push(Need::new(permission, "a hidden field is missing without a word").on(own));
        }
        if !parents.is_empty() {
            let parents = parents.iter().map(|path| path.as_str().to_owned());
            let parents: BTreeSet<String> = parents.collect();
            let permission = format!(
                "Read on the parents of {} that these lead to",
                selection.object
            );
            needs.push(Need::new(permission, "parents' fields are read with it").on(parents));
        }
    }
    let why = "says what is left of the org's limits and which objects are captured";
    needs.push(Need::new("View Setup and Configuration", why).optional());
    needs.retain(|need| !(need.permission.starts_with("Read and View All") && need.on.is_empty()));
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(object: &str, fields: &[&str]) -> Selection {
        Selection {
            object: object.into(),
            fields: fields.iter().map(FieldName::new).collect(),
        }
    }

    #[test]
    fn the_least_is_told_object_by_object_and_field_by_field() {
        let needs = needs(&[
            selection(
                "Account",
                &[
                    "Id",
                    "Name",
                    "Name@label",
                    "Owner.Email",
                    "OwnerId:User.Name",
                ],
            ),
            selection("User", &["Id", "Email"]),
        ]);
        let on = |permission: &str| -> Vec<String> {
            let mut needs = needs.iter();
            let need = needs.find(|need| need.permission == permission);
            need.unwrap_or_else(|| panic!("{permission}"))
                .on
                .iter()
                .cloned()
                .collect()
        };
        assert_eq!(on("Read and View All Records"), ["Account"]);
        assert_eq!(on("View All Users"), ["User"]);
        assert_eq!(on("View All Fields on Account, or Read on these"), ["Name"]);
        assert_eq!(on("View All Fields on User, or Read on these"), ["Email"]);
        let parents = "Read on the parents of Account that these lead to";
        assert_eq!(on(parents), ["Owner.Email", "OwnerId:User.Name"]);
        assert!(on("API Enabled").is_empty());
        let optional = needs.iter().filter(|need| need.optional);
        assert_eq!(optional.count(), 1);
        assert!(needs.iter().all(|need| need.permission != "View All Data"));
    }
}
