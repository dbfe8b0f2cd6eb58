//! Registers the webhook: a service endpoint, and a step for each message of each table
//! (<https://learn.microsoft.com/power-apps/developer/data-platform/register-web-hook>).
//!
//! Registering again changes what differs and nothing else, but the secret, which can't be read back and is always set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::crm::dynamics::describe::Describer;
use crate::crm::dynamics::rest::Rest;
use crate::crm::port::Selection;
use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::http::encode::percent;
use crate::http::request::Method;
use crate::model::name::ObjectName;
use crate::secret::Secret;

use super::webhook::Proof;

/// The messages that tell of a row. Bulk messages run the steps of the single ones, too.
const MESSAGES: [&str; 3] = ["Create", "Update", "Delete"];
/// `contract`: a webhook.
const WEBHOOK: i64 = 8;
const SCHEMA: &str = "the environment answered in an unknown form";
/// Columns that every save sets, whatever else it changes.
const STAMPS: [&str; 5] = [
    "createdon",
    "createdby",
    "modifiedon",
    "modifiedby",
    "versionnumber",
];

/// Registers, lists and removes the webhook of one connection.
pub struct Registrar {
    rest: Arc<Rest>,
    describer: Arc<Describer>,
}

/// What is to be registered.
pub struct Wanted<'a> {
    /// Where the environment calls, path included.
    pub url: &'a str,
    /// Where it puts the secret.
    pub proof: &'a Proof,
    /// The secret.
    pub secret: &'a Secret,
    /// The tables, and the columns whose changes matter.
    pub selections: &'a [Selection],
}

/// What is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// The service endpoint's name.
    pub name: String,
    /// Where the environment calls.
    pub url: String,
    /// `key`, `header` or `query`, or the number of another way.
    pub auth: String,
    /// The steps.
    pub steps: Vec<Step>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Step {
    /// The table.
    pub table: String,
    /// The message.
    pub message: String,
    /// An update runs it if it includes one of these; any update if there are none.
    pub columns: Vec<String>,
    /// Whether it runs.
    pub enabled: bool,
    #[serde(skip)]
    id: String,
    #[serde(skip)]
    fits: bool,
}

/// What registering or removing did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Rows that were made.
    pub created: u64,
    /// Rows that were changed, the endpoint's secret aside.
    pub updated: u64,
    /// Rows that were removed.
    pub deleted: u64,
}

#[derive(Deserialize)]
struct List<T> {
    value: Vec<T>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct EndpointRow {
    serviceendpointid: String,
    name: String,
    url: Option<String>,
    authtype: Option<i64>,
}

#[derive(Deserialize)]
struct StepRow {
    sdkmessageprocessingstepid: String,
    name: String,
    filteringattributes: Option<String>,
    statecode: Option<i64>,
    mode: Option<i64>,
    stage: Option<i64>,
}

#[derive(Deserialize)]
struct FilterRow {
    sdkmessagefilterid: String,
    #[serde(rename = "_sdkmessageid_value")]
    message: String,
}

impl Registrar {
    /// Registers through `rest`.
    pub(in crate::crm::dynamics) const fn new(rest: Arc<Rest>, describer: Arc<Describer>) -> Self {
        Self { rest, describer }
    }

    /// Makes what is missing, changes what differs, and removes steps that are not wanted any more.
    ///
    /// # Errors
    /// `Permission`, naming the privileges; `Missing` for a table that knows no such events.
    pub async fn add(&self, wanted: &Wanted<'_>) -> Result<Done, Fault> {
        let mut done = Done::default();
        let endpoint = self.put_endpoint(wanted, &mut done).await?;
        let mut known: BTreeMap<(String, String), Step> = BTreeMap::new();
        for step in self.steps(&endpoint).await? {
            let place = (step.table.clone(), step.message.clone());
            if let Some(double) = known.insert(place, step) {
                self.delete_step(&double, &mut done).await?;
            }
        }
        for selection in wanted.selections {
            let columns = self.columns(selection, wanted.selections).await?;
            for message in MESSAGES {
                let place = (selection.object.as_str().to_owned(), message.to_owned());
                let columns = if message == "Update" {
                    columns.as_slice()
                } else {
                    &[]
                };
                match known.remove(&place) {
                    Some(step) if step.columns == columns && step.enabled && step.fits => {}
                    Some(step) => {
                        let body = json!({"filteringattributes": filtering(columns),
                            "statecode": 0, "statuscode": 1, "mode": 1, "stage": 40});
                        let path = format!("/sdkmessageprocessingsteps({})", step.id);
                        self.patch(&path, &body).await?;
                        done.updated += 1;
                    }
                    None => {
                        self.make_step(&endpoint, &selection.object, message, columns)
                            .await?;
                        done.created += 1;
                    }
                }
            }
        }
        for step in known.values() {
            self.delete_step(step, &mut done).await?;
        }
        Ok(done)
    }

    /// Removes the steps and the endpoint; nothing, if there is none.
    ///
    /// # Errors
    /// As [`Registrar::add`].
    pub async fn remove(&self) -> Result<Done, Fault> {
        let mut done = Done::default();
        for endpoint in self.endpoints().await? {
            let id = &endpoint.serviceendpointid;
            for step in self.steps(id).await? {
                self.delete_step(&step, &mut done).await?;
            }
            self.write(Method::Delete, &format!("/serviceendpoints({id})"), None)
                .await?;
            done.deleted += 1;
        }
        Ok(done)
    }

    /// What is registered, `None` if nothing is.
    ///
    /// # Errors
    /// As [`Registrar::add`].
    pub async fn list(&self) -> Result<Option<Registered>, Fault> {
        let Some(endpoint) = self.endpoints().await?.into_iter().next() else {
            return Ok(None);
        };
        let mut steps = self.steps(&endpoint.serviceendpointid).await?;
        steps.sort();
        Ok(Some(Registered {
            name: endpoint.name,
            url: endpoint.url.unwrap_or_default(),
            auth: match endpoint.authtype {
                Some(4) => "key".to_owned(),
                Some(5) => "header".to_owned(),
                Some(6) => "query".to_owned(),
                other => other.map_or_else(String::new, |number| number.to_string()),
            },
            steps,
        }))
    }

    fn name(&self) -> String {
        format!("Tributary {}", self.rest.settings().connection)
    }

    async fn endpoints(&self) -> Result<Vec<EndpointRow>, Fault> {
        let filter = format!("name eq {} and contract eq {WEBHOOK}", quoted(&self.name()));
        let path = format!(
            "/serviceendpoints?$select=serviceendpointid,name,url,authtype&$filter={}",
            percent(&filter)
        );
        self.rows(&path).await
    }

    async fn put_endpoint(&self, wanted: &Wanted<'_>, done: &mut Done) -> Result<String, Fault> {
        let (authtype, authvalue) = match wanted.proof {
            Proof::Key => (4, wanted.secret.expose().to_owned()),
            Proof::Header(name) => (5, settings(name, wanted.secret)),
            Proof::Query(name) => (6, settings(name, wanted.secret)),
        };
        let mut body = json!({"url": wanted.url, "authtype": authtype, "authvalue": authvalue});
        if let Some(known) = self.endpoints().await?.into_iter().next() {
            let id = known.serviceendpointid;
            self.patch(&format!("/serviceendpoints({id})"), &body)
                .await?;
            let same = known.url.as_deref() == Some(wanted.url) && known.authtype == Some(authtype);
            done.updated += u64::from(!same);
            return Ok(id);
        }
        body["name"] = self.name().into();
        body["contract"] = WEBHOOK.into();
        body["messageformat"] = 2.into();
        self.write(Method::Post, "/serviceendpoints", Some(&body))
            .await?;
        done.created += 1;
        let made = self.endpoints().await?.into_iter().next();
        made.map(|row| row.serviceendpointid).ok_or_else(|| {
            Fault::new(
                FaultKind::Protocol,
                "the service endpoint was made and is not there",
            )
        })
    }

    /// The steps of an endpoint. Their names say table and message: filters and messages are rows of their own.
    async fn steps(&self, endpoint: &str) -> Result<Vec<Step>, Fault> {
        let filter = format!("_eventhandler_value eq {endpoint}");
        let path = format!(
            "/sdkmessageprocessingsteps?$select=sdkmessageprocessingstepid,name,filteringattributes,statecode,mode,stage&$filter={}",
            percent(&filter)
        );
        let rows: Vec<StepRow> = self.rows(&path).await?;
        let step = |row: StepRow| {
            let (table, message) = self.parts(&row.name);
            let columns = row.filteringattributes.unwrap_or_default();
            let columns = columns
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            let mut columns: Vec<String> = columns.map(str::to_owned).collect();
            columns.sort();
            Step {
                table,
                message,
                columns,
                enabled: row.statecode == Some(0),
                id: row.sdkmessageprocessingstepid,
                fits: row.mode == Some(1) && row.stage == Some(40),
            }
        };
        Ok(rows.into_iter().map(step).collect())
    }

    fn step_name(&self, table: &str, message: &str) -> String {
        format!("{}: {message} of {table}", self.name())
    }

    /// Table and message of a step of ours; a name that another gave is taken for a table that nobody wants.
    fn parts(&self, name: &str) -> (String, String) {
        let ours = name.strip_prefix(&format!("{}: ", self.name()));
        match ours.and_then(|rest| rest.split_once(" of ")) {
            Some((message, table)) => (table.to_owned(), message.to_owned()),
            None => (name.to_owned(), String::new()),
        }
    }

    async fn make_step(
        &self,
        endpoint: &str,
        table: &ObjectName,
        message: &str,
        columns: &[String],
    ) -> Result<(), Fault> {
        let filter = self.filter(table, message).await?;
        let body = json!({
            "name": self.step_name(table.as_str(), message), "mode": 1, "stage": 40, "rank": 1,
            "supporteddeployment": 0, "asyncautodelete": true,
            "filteringattributes": filtering(columns),
            "sdkmessageid@odata.bind": format!("/sdkmessages({})", filter.message),
            "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({})", filter.sdkmessagefilterid),
            "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})"),
        });
        let made = self
            .write(Method::Post, "/sdkmessageprocessingsteps", Some(&body))
            .await;
        made.map_err(|fault| fault.context(format_args!("registering {message} of {table}")))?;
        Ok(())
    }

    async fn filter(&self, table: &ObjectName, message: &str) -> Result<FilterRow, Fault> {
        let filter = format!(
            "sdkmessageid/name eq {} and primaryobjecttypecode eq {}",
            quoted(message),
            quoted(table.as_str())
        );
        let path = format!(
            "/sdkmessagefilters?$select=sdkmessagefilterid,_sdkmessageid_value&$filter={}",
            percent(&filter)
        );
        let found: Vec<FilterRow> = self.rows(&path).await?;
        found.into_iter().next().ok_or_else(|| {
            let what = format!("table `{table}` tells nobody of its {message} events");
            Fault::new(FaultKind::Missing, what)
                .remedy("its changes are found by asking; take the table out of the webhook's jobs or leave it so")
        })
    }

    /// The columns whose change matters. What a save sets in any case would let every save through; and where nothing
    /// is left, every save is told.
    async fn columns(
        &self,
        selection: &Selection,
        all: &[Selection],
    ) -> Result<Vec<String>, Fault> {
        let description = self.describer.get(&selection.object).await?;
        let mut wanted = BTreeSet::new();
        for field in &selection.fields {
            wanted.insert(column_of(field.as_str()).to_owned());
        }
        for other in all {
            for path in &other.fields {
                self.follow(&other.object, path.as_str(), &selection.object, &mut wanted)
                    .await?;
            }
        }
        wanted.retain(|name| {
            name != "Id" && *name != description.key && !STAMPS.contains(&name.as_str())
        });
        Ok(wanted.into_iter().collect())
    }

    /// Adds the columns of a table that a path from another table comes to.
    async fn follow(
        &self,
        from: &ObjectName,
        path: &str,
        table: &ObjectName,
        wanted: &mut BTreeSet<String>,
    ) -> Result<(), Fault> {
        let mut here = from.clone();
        let mut left = path;
        while let Some((step, rest)) = left.split_once('.') {
            let next = match step.split_once(':') {
                Some((_, next)) => Some(ObjectName::new(next)),
                None => {
                    let description = self.describer.get(&here).await?;
                    let schema = description.schema.fields.get(step);
                    let mut tables = schema.into_iter().flat_map(|schema| &schema.references);
                    tables.next().cloned()
                }
            };
            let Some(next) = next else {
                return Ok(());
            };
            if next == *table {
                wanted.insert(column_of(rest).to_owned());
            }
            (here, left) = (next, rest);
        }
        Ok(())
    }

    async fn delete_step(&self, step: &Step, done: &mut Done) -> Result<(), Fault> {
        let path = format!("/sdkmessageprocessingsteps({})", step.id);
        self.write(Method::Delete, &path, None).await?;
        done.deleted += 1;
        Ok(())
    }

    async fn patch(&self, path: &str, body: &Json) -> Result<(), Fault> {
        self.write(Method::Patch, path, Some(body)).await?;
        Ok(())
    }

    async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> Result<Answer, Fault> {
        let written = self.rest.write(method, path, body).await;
        written.map_err(|refused| privileges(refused.fault))
    }

    async fn rows<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Fault> {
        let mut rows = Vec::new();
        let mut answer = self.rest.get(path, None).await;
        loop {
            let told = answer.map_err(|refused| privileges(refused.fault))?;
            let list: List<T> = serde_json::from_slice(told.body())
                .map_err(|error| Fault::new(FaultKind::Protocol, SCHEMA).source(error))?;
            rows.extend(list.value);
            match list.next {
                Some(next) => answer = self.rest.follow(&next, None).await,
                None => return Ok(rows),
            }
        }
    }
}

/// The table's own column that a source path begins with.
fn column_of(path: &str) -> &str {
    path.split(['@', ':', '.']).next().unwrap_or(path)
}

fn filtering(columns: &[String]) -> Json {
    if columns.is_empty() {
        Json::Null
    } else {
        columns.join(",").into()
    }
}

/// Says which privileges registering takes; reading changes takes none of them.
fn privileges(fault: Fault) -> Fault {
    if fault.kind() != FaultKind::Permission {
        return fault;
    }
    fault.remedy(
        "give the application user's role, for the whole organisation: Create, Read, Write and Delete on Service \
         Endpoint and on Sdk Message Processing Step, Read on Sdk Message and Sdk Message Filter; only this command \
         needs them",
    )
}

/// A string of an OData filter.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `authvalue` of header and query; its form is not documented.
fn settings(name: &str, secret: &Secret) -> String {
    format!(
        "<settings><setting name=\"{}\" value=\"{}\" /></settings>",
        escaped(name),
        escaped(secret.expose())
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_can_t_leave_their_quotes() {
        assert_eq!(quoted("o'neil"), "'o''neil'");
        let xml = settings("k", &Secret::new("a\"/><setting name=\"x&"));
        assert_eq!(
            xml,
            "<settings><setting name=\"k\" value=\"a&quot;/&gt;&lt;setting name=&quot;x&amp;\" /></settings>"
        );
    }
}
