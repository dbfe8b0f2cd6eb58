//! What the signed-in user may read: privileges by table, and columns under column security.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::crm::port::Selection;
use crate::crm::port::survey::{Finding, Need};
use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::model::name::{FieldName, ObjectName};

use super::describe::{ID, logical_name};
use super::rest::{Refused, Rest};

/// `Read` of tables whose schema names are known without asking. Other tables' are `prvRead` and their schema name
/// (Power Apps developer guide, "Verifying access in code"); a user's table is called `User` there.
const READ: [(&str, &str); 12] = [
    ("account", "prvReadAccount"),
    ("businessunit", "prvReadBusinessUnit"),
    ("contact", "prvReadContact"),
    ("incident", "prvReadIncident"),
    ("lead", "prvReadLead"),
    ("opportunity", "prvReadOpportunity"),
    ("organization", "prvReadOrganization"),
    ("product", "prvReadProduct"),
    ("systemuser", "prvReadUser"),
    ("task", "prvReadActivity"),
    ("team", "prvReadTeam"),
    ("transactioncurrency", "prvReadTransactionCurrency"),
];

/// The depth that change tracking needs (Power Apps developer guide, "Use change tracking to synchronize data with
/// external systems").
const WHOLE: &str = "Global";

/// `Allowed`, of a permission on a column (FieldPermissionType).
const ALLOWED: i64 = 4;

/// What the user of a connection needs to be allowed, by what its jobs select.
#[must_use]
pub fn needs(selections: &[Selection]) -> Vec<Need> {
    let mut needs: Vec<Need> = selections
        .iter()
        .map(|selection| {
            let table = selection.object.as_str();
            let known = READ.iter().find(|(name, _)| *name == table);
            let permission = known.map_or_else(
                || {
                    format!(
                        "Read on {table} (prvRead and the table's schema name), scope Organization"
                    )
                },
                |(_, privilege)| format!("{privilege}, scope Organization"),
            );
            Need::new(
                permission,
                "change tracking tells the table's rows to whom may read them all",
            )
            .on([table])
        })
        .collect();
    needs.push(
        Need::new(
            "prvReadOrganization, scope Organization",
            "says how long deletes are kept",
        )
        .on(["organization"])
        .optional(),
    );
    for selection in selections {
        let fields = selection.fields.iter().filter(|field| field.as_str() != ID);
        let columns: BTreeSet<String> = fields.map(|field| column_of(field).to_owned()).collect();
        if !columns.is_empty() {
            let permission = format!(
                "a column security profile with Read on those of {} that are secured",
                selection.object
            );
            let why = "a secured column is missing without a word";
            needs.push(Need::new(permission, why).on(columns));
        }
    }
    needs
}

/// The column that a field is, or follows from.
fn column_of(field: &FieldName) -> &str {
    let text = field.as_str();
    text.split(['@', ':']).next().unwrap_or(text)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Held {
    role_privileges: Vec<RolePrivilege>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RolePrivilege {
    privilege_id: String,
    depth: String,
}

/// The privileges of a user, by id, with their greatest depth (Web API, "RetrieveUserPrivileges function").
#[derive(Debug, Default)]
pub(super) struct Privileges(BTreeMap<String, String>);

impl Privileges {
    /// Asks for all that `user` has through roles and teams.
    pub(super) async fn of(rest: &Rest, user: &str) -> Result<Self, Refused> {
        let path = format!("/systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges");
        let answer = rest.get(&path, None).await?;
        let held: Held = read(&answer, "the user's privileges")?;
        let mut privileges = Self::default();
        for one in held.role_privileges {
            let id = one.privilege_id.to_ascii_lowercase();
            let known = privileges.0.entry(id).or_insert_with(|| one.depth.clone());
            if one.depth == WHOLE {
                *known = one.depth;
            }
        }
        Ok(privileges)
    }

    /// What is missing to read all rows of a table.
    pub(super) fn lacks(&self, table: &ObjectName, read: &Privilege) -> Option<String> {
        match self.0.get(&read.privilege_id.to_ascii_lowercase()) {
            None => Some(format!(
                "the user lacks the privilege {} on table {table}",
                read.name
            )),
            Some(depth) if depth != WHOLE => Some(format!(
                "the user has the privilege {} on table {table} with depth {depth}, and all rows take {WHOLE}",
                read.name
            )),
            Some(_) => None,
        }
    }
}

/// A table's privilege (Web API, "SecurityPrivilegeMetadata").
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Privilege {
    /// `prvReadAccount`.
    pub name: String,
    privilege_id: String,
    privilege_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireTable {
    #[serde(default)]
    privileges: Vec<Privilege>,
    can_change_tracking_be_enabled: Option<Managed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Managed {
    value: bool,
}

/// What a table asks of who reads it.
#[derive(Debug)]
pub(super) struct Terms {
    /// The privilege to read it, if it has one.
    pub read: Option<Privilege>,
    /// Whether change tracking may be turned on.
    pub can_be_tracked: bool,
}

impl Terms {
    /// Asks for a table's.
    pub(super) async fn of(rest: &Rest, table: &str) -> Result<Self, Refused> {
        let path = format!(
            "/EntityDefinitions(LogicalName='{}')?$select=LogicalName,Privileges,CanChangeTrackingBeEnabled",
            logical_name(table)?
        );
        let told: WireTable = read(&rest.get(&path, None).await?, "a table's privileges")?;
        let mut privileges = told.privileges.into_iter();
        Ok(Self {
            read: privileges.find(|one| one.privilege_type == "Read"),
            can_be_tracked: told
                .can_change_tracking_be_enabled
                .is_none_or(|managed| managed.value),
        })
    }
}

#[derive(Deserialize)]
struct Columns {
    value: Vec<SecuredColumn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecuredColumn {
    logical_name: String,
    metadata_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Granted {
    attribute_privileges: Vec<AttributePrivilege>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributePrivilege {
    attribute_id: String,
    can_read: i64,
}

/// A finding for each selected column that column security hides from the user (Web API,
/// "RetrievePrincipalAttributePrivileges function").
pub(super) async fn secured(
    rest: &Rest,
    user: &str,
    selection: &Selection,
) -> Result<Vec<Finding>, Refused> {
    let table = logical_name(selection.object.as_str())?;
    let path = format!(
        "/EntityDefinitions(LogicalName='{table}')/Attributes?$select=LogicalName,MetadataId&$filter=IsSecured%20eq%20true"
    );
    let secured: Columns = read(&rest.get(&path, None).await?, "secured columns")?;
    let fields_of = |column: &str| {
        let column = column.to_owned();
        let fields = selection.fields.iter();
        fields.filter(move |field| column_of(field) == column)
    };
    let mut secured = secured.value;
    secured.retain(|column| fields_of(&column.logical_name).next().is_some());
    if secured.is_empty() {
        return Ok(Vec::new());
    }
    let path =
        format!("/systemusers({user})/Microsoft.Dynamics.CRM.RetrievePrincipalAttributePrivileges");
    let granted: Granted = read(&rest.get(&path, None).await?, "column security")?;
    let may_read = |column: &SecuredColumn| {
        let mut granted = granted.attribute_privileges.iter();
        granted.any(|one| {
            one.can_read == ALLOWED && one.attribute_id.eq_ignore_ascii_case(&column.metadata_id)
        })
    };
    let mut findings = Vec::new();
    for column in secured.iter().filter(|column| !may_read(column)) {
        for field in fields_of(&column.logical_name) {
            let what = format!("column security hides `{field}` of {table} from the user");
            let finding = Finding::broken(what).remedy(
                "add the application user to a column security profile with Read on the column (Power Platform admin \
                 centre → Settings → Column security profiles)",
            );
            findings.push(finding.field(field));
        }
    }
    Ok(findings)
}

pub(super) fn read<'a, T: Deserialize<'a>>(answer: &'a Answer, what: &str) -> Result<T, Fault> {
    serde_json::from_slice(answer.body()).map_err(|error| {
        Fault::new(
            FaultKind::Protocol,
            format!("the answer about {what} can't be read"),
        )
        .source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privilege(id: &str) -> Privilege {
        Privilege {
            name: "prvReadAccount".to_owned(),
            privilege_id: id.to_owned(),
            privilege_type: "Read".to_owned(),
        }
    }

    #[test]
    fn a_privilege_is_held_for_the_whole_organisation_or_named() {
        let held = Privileges(BTreeMap::from([
            ("aa".to_owned(), "Global".to_owned()),
            ("bb".to_owned(), "Local".to_owned()),
        ]));
        let account: ObjectName = "account".into();
        assert_eq!(held.lacks(&account, &privilege("AA")), None);
        let local = held.lacks(&account, &privilege("bb")).unwrap();
        assert!(
            local.contains("prvReadAccount") && local.contains("Local"),
            "{local}"
        );
        let none = held.lacks(&account, &privilege("cc")).unwrap();
        assert!(
            none.contains("lacks the privilege prvReadAccount"),
            "{none}"
        );
    }

    #[test]
    fn the_least_is_told_table_by_table() {
        let select = |object: &str, fields: &[&str]| Selection {
            object: object.into(),
            fields: fields.iter().map(FieldName::new).collect(),
        };
        let needs = needs(&[
            select("systemuser", &["Id", "fullname"]),
            select(
                "new_plan",
                &["Id", "new_account:account", "statecode@label"],
            ),
        ]);
        let has = |text: &str| needs.iter().any(|need| need.permission.contains(text));
        assert!(has("prvReadUser, scope Organization"));
        assert!(has("Read on new_plan"));
        let columns = needs
            .iter()
            .find(|need| need.on.contains("new_account"))
            .unwrap();
        assert!(columns.on.contains("statecode") && !columns.on.contains("Id"));
        assert_eq!(needs.iter().filter(|need| need.optional).count(), 1);
    }
}
