//! A Salesforce org, looked over before it is synced.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::crm::port::survey::{
    Changes, Finding, FirstSync, ObjectSurvey, Survey, Surveyor, did_you_mean,
};
use crate::crm::port::{Crm, Selection};
use crate::fault::{Fault, FaultKind};
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::FieldKind;

use super::Salesforce;
use super::bulk::{self, MOST};
use super::capture::changes;
use super::describe::Description;
use super::path::{Led, led};
use super::plan::Plan;
use super::read::BY_ID;
use super::settings::SalesforceSettings;
use super::setup::{self, Member, Sight};
use super::take::{misfit, split};

/// Calls that a job takes beside those for its results: it is created, looked at twice or more, and deleted.
const OF_A_JOB: u64 = 4;

const SETUP: &str = "give the connection's user View Setup and Configuration: the permission set in config/salesforce has it";

/// What Setup said, once for all objects; `None` is what the user may not look up.
struct Setup {
    members: Option<Vec<Member>>,
    sight: Option<Sight>,
}

#[async_trait]
impl Surveyor for Salesforce {
    async fn survey(&self, selections: &[Selection]) -> Result<Survey, Fault> {
        let identity = self.identify().await?;
        let user_name = setup::user_name(&self.rest, &identity.user_id).await;
        let mut findings = Vec::new();
        let mut hidden = Vec::new();
        let limits = setup::limits(&self.rest).await;
        let quotas = known(
            limits,
            "what is left of the org's limits",
            &mut hidden,
            &mut findings,
        );
        let members = setup::members(&self.rest).await;
        let members = known(
            members,
            "which objects are captured",
            &mut hidden,
            &mut findings,
        );
        let sight = setup::sight(&self.rest, &identity.user_id).await;
        let sight = known(
            sight,
            "whether all records are seen",
            &mut hidden,
            &mut findings,
        );
        if !hidden.is_empty() {
            let what = format!("the user may not look up {}", hidden.join(", nor "));
            findings.push(Finding::warning(what).remedy(SETUP));
        }
        let setup = Setup { members, sight };
        let mut objects = Vec::with_capacity(selections.len());
        for selection in selections {
            objects.push(self.look_at(selection, &setup).await);
        }
        Ok(Survey {
            identity,
            user_name: user_name.ok().flatten(),
            api_version: self.settings.api_version.clone(),
            quotas: quotas.unwrap_or_default(),
            findings,
            objects,
        })
    }
}

/// What was told; what the user may not look up is added to `hidden`, another refusal to `findings`.
fn known<T>(
    told: Result<T, super::rest::Refused>,
    what: &'static str,
    hidden: &mut Vec<&'static str>,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    match told {
        Ok(told) => Some(told),
        // A user who may not look at Setup is told that there is no such object.
        Err(refused) if refused.is_hidden() => {
            hidden.push(what);
            None
        }
        Err(refused) => {
            let fault = refused.fault.context(format_args!("looking up {what}"));
            findings.push(Finding::of(&fault));
            None
        }
    }
}

impl Salesforce {
    async fn look_at(&self, selection: &Selection, setup: &Setup) -> ObjectSurvey {
        let mut survey = ObjectSurvey::of(selection);
        let description = match self.describer.fetch(&selection.object).await {
            Ok(description) => description,
            Err(fault) if fault.kind() == FaultKind::Missing => {
                let finding = self.no_object(&selection.object, &fault).await;
                survey.findings.push(finding);
                return survey;
            }
            Err(fault) => return survey.met(&fault),
        };
        survey.exists = true;
        survey.changes = self.changes(selection, setup, &mut survey.findings);
        let readable = match self
            .fields(selection, &description, &mut survey.findings)
            .await
        {
            Ok(readable) => readable,
            Err(fault) => return survey.met(&fault),
        };
        survey.records = match bulk::count(&self.rest, selection.object.as_str()).await {
            Ok(records) => Some(records),
            Err(refused) if refused.is("QUERY_TIMEOUT") => {
                let what = "it has too many records to be counted in time";
                survey.findings.push(Finding::warning(what));
                None
            }
            Err(refused) => return survey.met(&refused.fault),
        };
        let readable = Selection {
            object: selection.object.clone(),
            fields: readable,
        };
        match (Plan::new(&self.describer, &readable).await, survey.records) {
            (Ok(plan), Some(records)) => {
                survey.first_sync = Some(first_sync(&plan, records, &self.settings));
            }
            (Ok(_), None) => {}
            (Err(fault), _) => return survey.met(&fault),
        }
        survey
    }

    /// The object is not there for this user: the nearest name that is.
    async fn no_object(&self, object: &ObjectName, fault: &Fault) -> Finding {
        let names = self.describer.names().await.unwrap_or_default();
        let otherwise = "give the connection's user Read and View All Records on it: the permission set in config/salesforce";
        Finding::of(fault).remedy(did_you_mean(
            object.as_str(),
            names.iter().map(String::as_str),
            otherwise,
        ))
    }

    /// How the object's changes come, and what keeps them from coming.
    fn changes(
        &self,
        selection: &Selection,
        setup: &Setup,
        findings: &mut Vec<Finding>,
    ) -> Changes {
        let object = &selection.object;
        if setup
            .sight
            .as_ref()
            .is_some_and(|sight| !sight.is_whole(object))
        {
            let permission = match object.as_str() {
                "User" => "View All Users",
                "Task" | "Event" => "View All Data",
                _ => "View All Records on it",
            };
            let what = format!(
                "the user does not see all records of {object}: others' records are not read, and no change of any is told"
            );
            findings.push(Finding::broken(what).remedy(format!(
                "give the connection's user {permission}: the permission set in config/salesforce"
            )));
        }
        let changes = changes(object, setup.members.as_deref(), &self.settings.channels);
        match changes {
            Changes::NeverTold => {
                let what = "it has no change events: it is polled";
                findings.push(Finding::warning(what));
            }
            Changes::NotSelected => {
                let what = "it is not selected for change events on the connection's channel: it is polled";
                findings.push(Finding::warning(what).remedy(format!(
                    "Setup → Change Data Capture: move {object} to Selected Entities, Save; or `tributary salesforce \
                     capture {} --add {object}` (five objects without the add-on)",
                    self.settings.connection
                )));
            }
            Changes::Told | Changes::Unknown => {}
        }
        changes
    }

    /// The fields that can be read; each of the others is a finding.
    async fn fields(
        &self,
        selection: &Selection,
        description: &Arc<Description>,
        findings: &mut Vec<Finding>,
    ) -> Result<Vec<FieldName>, Fault> {
        let (mut readable, mut unknown) = (Vec::new(), Vec::new());
        for field in &selection.fields {
            if field.as_str().contains('.') {
                match self.follow(description, field).await? {
                    None => readable.push(field.clone()),
                    Some(finding) => findings.push(finding),
                }
                continue;
            }
            match description.schema.fields.get(field) {
                Some(found) if found.kind.is_selectable() => readable.push(field.clone()),
                Some(found) => {
                    let parts = description.parts.get(field).map(Vec::as_slice);
                    let parts = parts.filter(|_| found.kind == FieldKind::Compound);
                    findings.push(composed(field, parts.unwrap_or_default()));
                }
                None => match misfit(description, field.as_str()) {
                    Some((what, remedy)) => {
                        findings.push(Finding::broken(what).remedy(remedy).field(field));
                    }
                    None => unknown.push(field),
                },
            }
        }
        if unknown.is_empty() {
            return Ok(readable);
        }
        // Who may not look at Setup is not told which of them are only hidden.
        let bases: Vec<&str> = unknown
            .iter()
            .map(|field| split(field.as_str()).0)
            .collect();
        let granted = setup::granted(&self.rest, &selection.object, &bases).await;
        let granted = granted.unwrap_or_default();
        for field in unknown {
            findings.push(missing(field, description, &granted));
        }
        Ok(readable)
    }

    /// What keeps a parent's field from being read.
    async fn follow(
        &self,
        description: &Arc<Description>,
        path: &FieldName,
    ) -> Result<Option<Finding>, Fault> {
        let mut description = Arc::clone(description);
        let mut left = path.clone();
        loop {
            match led(&self.describer, &description, left.as_str()).await? {
                Led::To { kind, .. } if kind.is_selectable() => return Ok(None),
                Led::To { .. } => return Ok(Some(composed(path, &[]))),
                Led::Nowhere {
                    misfit: Some((what, remedy)),
                    ..
                } => {
                    let what = format!("`{path}` can't be read: {what}");
                    return Ok(Some(Finding::broken(what).remedy(remedy).field(path)));
                }
                Led::Nowhere { part, known, .. } => {
                    return Ok(Some(astray(path, &part, &known)));
                }
                Led::ById { object, rest, .. } => {
                    description = match self.describer.get(&object).await {
                        Ok(description) => description,
                        Err(fault) if fault.kind() == FaultKind::Missing => {
                            return Ok(Some(Finding::of(&fault).field(path)));
                        }
                        Err(fault) => return Err(fault),
                    };
                    left = rest;
                }
            }
        }
    }
}

fn missing(field: &FieldName, description: &Description, granted: &BTreeSet<String>) -> Finding {
    let object = &description.schema.name;
    let by_set = format!(
        "give the connection's user View All Fields on {object}, or Read on the field: the permission set in \
         config/salesforce"
    );
    let field_of_it = split(field.as_str()).0;
    if granted.contains(field_of_it) {
        let what = format!(
            "field `{field_of_it}` of {object} is hidden from the user (field-level security)"
        );
        return Finding::broken(what).remedy(by_set).field(field);
    }
    let known = description.schema.fields.keys().map(FieldName::as_str);
    let what = format!("{object} has no field `{field_of_it}` that the user sees");
    let remedy = did_you_mean(
        field_of_it,
        known,
        &format!("check its API name; if it is there, {by_set}"),
    );
    Finding::broken(what).remedy(remedy).field(field)
}

fn composed(field: &FieldName, parts: &[FieldName]) -> Finding {
    let what = format!("field `{field}` is made of others, or of bytes, and is not read itself");
    let finding = Finding::broken(what).field(field);
    if parts.is_empty() {
        return finding;
    }
    let parts: Vec<&str> = parts.iter().map(FieldName::as_str).collect();
    finding.remedy(format!("map what it is made of: {}", parts.join(", ")))
}

fn astray(path: &FieldName, part: &str, known: &[String]) -> Finding {
    let what =
        format!("`{path}` leads nowhere that the user sees: there is no `{part}` on the way");
    let otherwise =
        "check the relationship's and the field's API names, and that the user may read the parent";
    let remedy = did_you_mean(part, known.iter().map(String::as_str), otherwise);
    Finding::broken(what).remedy(remedy).field(path)
}

/// How a first sync reads so many records, by the rules of `read_all`.
fn first_sync(plan: &Plan, records: u64, settings: &SalesforceSettings) -> FirstSync {
    // The object and the parents whose fields are selected are described once.
    let described = 1 + plan.paths().len().min(1) as u64;
    let counted = u64::from(settings.bulk_from.is_some_and(|least| least > 1));
    let size = u64::from(settings.page_size);
    let pages = records.div_ceil(size).max(1);
    // Those of a page come in a call each, as a rule.
    let by_id = pages * plan.parents.len() as u64;
    if settings.bulk_from.is_some_and(|least| records >= least) {
        let results = records.div_ceil(u64::from(MOST)).max(1);
        return FirstSync {
            by: "Bulk",
            calls: described + counted + OF_A_JOB + results + by_id,
        };
    }
    let split = plan.split();
    let mut a_page = 1;
    if !split.own.is_empty() {
        a_page += size.div_ceil(BY_ID as u64);
    }
    if !split.paths.is_empty() {
        let queries = plan.by_id(&split.paths);
        let calls = queries.iter().map(|(_, room)| size.div_ceil(*room as u64));
        a_page += calls.sum::<u64>();
    }
    FirstSync {
        by: "REST",
        calls: described + counted + pages * a_page + by_id,
    }
}
