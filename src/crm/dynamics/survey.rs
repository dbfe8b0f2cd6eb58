//! A Dataverse environment, looked over before it is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use crate::crm::port::survey::{
    Changes, Finding, FirstSync, ObjectSurvey, Quota, Severity, Survey, Surveyor, did_you_mean,
};
use crate::crm::port::{OrgIdentity, Selection};
use crate::fault::{Fault, FaultKind};
use crate::model::name::FieldName;

use super::Dynamics;
use super::describe::{Description, ID, logical_name};
use super::plan::{self, Take};
use super::privileges::{Privileges, Terms, read, secured};

/// What is left of the requests that a user may make of the server that answered. It is told for debugging: other
/// servers have budgets of their own (Power Apps developer guide, "Service protection API limits").
const LEFT: &str = "x-ms-ratelimit-burst-remaining-xrm-requests";

/// Calls that describe a table.
const DESCRIBED: u64 = 2;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct UserRow {
    fullname: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Counted {
    entity_record_count_collection: Counts,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Counts {
    keys: Vec<String>,
    values: Vec<u64>,
}

#[derive(Deserialize)]
struct Tables {
    value: Vec<TableName>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TableName {
    logical_name: String,
}

#[async_trait]
impl Surveyor for Dynamics {
    async fn survey(&self, selections: &[Selection]) -> Result<Survey, Fault> {
        let who = self.who_am_i().await?;
        let mut findings = Vec::new();
        let (version, quotas) = self.version().await;
        let privileges = match Privileges::of(&self.rest, &who.user_id).await {
            Ok(privileges) => Some(privileges),
            Err(refused) => {
                let fault = refused.fault.context("looking up the user's privileges");
                findings.push(Finding {
                    severity: Severity::Warning,
                    ..Finding::of(&fault)
                });
                None
            }
        };
        findings.extend(self.organisation(privileges.as_ref()).await);
        let mut objects = Vec::with_capacity(selections.len());
        for selection in selections {
            let survey = self.look_at(selection, &who.user_id, privileges.as_ref());
            objects.push(survey.await);
        }
        self.count(selections, &mut objects, &mut findings).await;
        Ok(Survey {
            user_name: self.user_name(&who.user_id).await,
            identity: OrgIdentity {
                org_id: who.organization_id,
                user_id: who.user_id,
                instance_url: self.settings.base().to_owned(),
            },
            api_version: match version {
                Some(version) => format!("{} (server {version})", self.settings.api_version),
                None => self.settings.api_version.clone(),
            },
            quotas,
            findings,
            objects,
        })
    }
}

impl Dynamics {
    /// The server's version, and what it says is left.
    async fn version(&self) -> (Option<String>, Vec<Quota>) {
        let Ok(answer) = self.rest.get("/RetrieveVersion", None).await else {
            return (None, Vec::new());
        };
        let left = answer.header(LEFT).and_then(|left| left.parse().ok());
        let quotas = left.map(|left| Quota {
            name: "requests in 300 s, of the server that answered",
            max: None,
            left,
        });
        let version = read::<Version>(&answer, "the version").ok();
        (
            version.map(|told| told.version),
            quotas.into_iter().collect(),
        )
    }

    async fn user_name(&self, user: &str) -> Option<String> {
        let path = format!("/systemusers({user})?$select=fullname");
        let answer = self.rest.get(&path, None).await.ok()?;
        read::<UserRow>(&answer, "the user").ok()?.fullname
    }

    /// Whether the environment tells how long deletes are kept.
    async fn organisation(&self, privileges: Option<&Privileges>) -> Option<Finding> {
        let terms = Terms::of(&self.rest, "organization").await.ok()?;
        let lacks = privileges?.lacks(&"organization".into(), &terms.read?)?;
        let what = format!("{lacks}: how long deletes are kept is not told");
        Some(Finding::warning(what).remedy(role("Organization")))
    }

    async fn look_at(
        &self,
        selection: &Selection,
        user: &str,
        privileges: Option<&Privileges>,
    ) -> ObjectSurvey {
        let mut survey = ObjectSurvey::of(selection);
        let table = &selection.object;
        let description = match self.describer.fetch(table).await {
            Ok(description) => description,
            Err(fault) if fault.kind() == FaultKind::Missing => {
                survey.findings.push(self.no_table(selection, &fault).await);
                return survey;
            }
            Err(fault) => return survey.met(&fault),
        };
        survey.exists = true;
        let terms = match Terms::of(&self.rest, table.as_str()).await {
            Ok(terms) => terms,
            Err(refused) => return survey.met(&refused.fault),
        };
        let lacks = privileges.and_then(|held| held.lacks(table, terms.read.as_ref()?));
        if let Some(lacks) = lacks {
            let finding = Finding::broken(lacks).remedy(role(&description.schema.label));
            survey.findings.push(finding);
        }
        survey.changes = changes(&description, &terms, &mut survey.findings);
        survey.findings.extend(unknown(&description, selection));
        match secured(&self.rest, user, selection).await {
            Ok(found) => survey.findings.extend(found),
            Err(refused) => {
                let fault = refused.fault.context("looking up column security");
                return survey.met(&fault);
            }
        }
        survey.first_sync = Some(FirstSync {
            by: "Web API",
            calls: DESCRIBED + labels(&description, selection),
        });
        survey
    }

    /// There is no such table: the nearest that there is.
    async fn no_table(&self, selection: &Selection, fault: &Fault) -> Finding {
        let listed = self
            .rest
            .get("/EntityDefinitions?$select=LogicalName", None);
        let tables = match listed.await {
            Ok(answer) => {
                read::<Tables>(&answer, "the tables").map_or_else(|_| Vec::new(), |told| told.value)
            }
            Err(_) => Vec::new(),
        };
        let names = tables.iter().map(|table| table.logical_name.as_str());
        let otherwise = fault
            .remedy_text()
            .unwrap_or("check the table's logical name");
        Finding::of(fault).remedy(did_you_mean(selection.object.as_str(), names, otherwise))
    }

    /// Counts all tables in one call: as of the last day, and without a read of them (Web API,
    /// "RetrieveTotalRecordCount function").
    async fn count(
        &self,
        selections: &[Selection],
        objects: &mut [ObjectSurvey],
        findings: &mut Vec<Finding>,
    ) {
        let there: Vec<String> = objects
            .iter()
            .filter(|object| object.exists)
            .filter_map(|object| logical_name(object.object.as_str()).ok())
            .map(|name| format!("'{name}'"))
            .collect();
        if there.is_empty() {
            return;
        }
        let path = format!(
            "/RetrieveTotalRecordCount(EntityNames=[{}])",
            there.join(",")
        );
        let counted = match self.rest.get(&path, None).await {
            Ok(answer) => read::<Counted>(&answer, "the counts"),
            Err(refused) => Err(refused.fault),
        };
        let counts = match counted {
            Ok(counted) => counted.entity_record_count_collection,
            Err(fault) => {
                let what = format!("the tables' records are not counted: {}", fault.told());
                findings.push(Finding::warning(what));
                return;
            }
        };
        let counts: BTreeMap<String, u64> = counts.keys.into_iter().zip(counts.values).collect();
        let size = u64::from(self.settings.page_size);
        for object in objects.iter_mut() {
            object.records = counts.get(object.object.as_str()).copied();
            if let (Some(sync), Some(records)) = (&mut object.first_sync, object.records) {
                sync.calls += records.div_ceil(size).max(1);
            }
        }
        let calls = objects.iter().filter_map(|object| object.first_sync);
        let calls: u64 = calls.map(|sync| sync.calls).sum();
        if let Some(daily) = self.settings.daily_requests
            && calls > u64::from(daily)
        {
            let what = format!(
                "the first sync of {} tables takes about {calls} calls, and `daily_requests` is {daily}: it goes on the next day",
                selections.len()
            );
            findings
                .push(Finding::warning(what).remedy("raise `daily_requests` for the first days"));
        }
    }
}

/// How a table's changes come.
fn changes(description: &Description, terms: &Terms, findings: &mut Vec<Finding>) -> Changes {
    if description.tracked {
        return Changes::Told;
    }
    let table = &description.schema.name;
    let what = format!(
        "table {table} does not track its changes: it is asked for what was modified, and compared as a whole for deletes"
    );
    if terms.can_be_tracked {
        findings.push(Finding::warning(what).remedy(format!(
            "Power Apps → Tables → {table} → Properties → Advanced options: tick \"Track changes\""
        )));
        return Changes::NotSelected;
    }
    findings.push(Finding::warning(format!(
        "{what}; tracking can't be turned on for it"
    )));
    Changes::NeverTold
}

/// A finding for each selected field that the table has not.
fn unknown(description: &Description, selection: &Selection) -> Vec<Finding> {
    let fields = selection.fields.iter().filter(|field| field.as_str() != ID);
    let mut findings = Vec::new();
    for field in fields {
        if let Err(fault) = plan::column(description, field) {
            let known = description.schema.fields.keys().map(FieldName::as_str);
            let otherwise = fault
                .remedy_text()
                .unwrap_or("check the column's logical name");
            let remedy = did_you_mean(field.as_str(), known, otherwise);
            findings.push(Finding::of(&fault).remedy(remedy).field(field));
        }
    }
    findings
}

/// Calls that read the labels of selected choices: one for each kind of choice.
fn labels(description: &Arc<Description>, selection: &Selection) -> u64 {
    let columns = selection
        .fields
        .iter()
        .filter_map(|field| plan::column(description, field).ok());
    let kinds: BTreeSet<_> = columns
        .filter_map(|column| match column.take {
            Take::Label(choice) => description.choices.get(&choice).copied(),
            _ => None,
        })
        .collect();
    kinds.len() as u64
}

fn role(table: &str) -> String {
    format!(
        "give the application user's security role Read on {table} with the scope Organization (Power Platform admin \
         centre → Settings → Security roles)"
    )
}
