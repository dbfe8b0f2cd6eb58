//! Salesforce: sign-in, reads, the stream over CometD or Pub/Sub, and the rules by which they merge.

pub mod capture;
pub mod cometd;
pub mod merge;
pub mod needs;
pub mod pubsub;
pub mod settings;

mod assertion;
mod bulk;
mod compound;
mod consent;
mod decode;
mod describe;
mod desk;
#[cfg(fuzzing)]
pub mod fuzz;
mod kept;
mod labels;
mod limits;
mod parents;
mod path;
mod place;
mod plan;
mod prefixes;
mod read;
mod refusal;
mod replication;
mod rest;
mod row;
mod setup;
mod sign_in;
mod soql;
mod stamp;
mod survey;
mod take;
mod text_diff;
mod usage;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::budget::Budget;
use crate::crm::port::consent::Consent;
use crate::crm::port::survey::{Changes, Surveyor};
use crate::crm::port::{Crm, Listener, OrgIdentity, Pages, Selection, Start};
use crate::fault::Fault;
use crate::http::{Http, HttpSettings};
use crate::image::merge::MergeTable;
use crate::model::event::Found;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::ObjectSchema;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use describe::Describer;
use desk::Desk;
use merge::SalesforceTable;
use pubsub::PubSub;
use read::Reader;
use replication::Replication;
use rest::Rest;
use settings::{Auth, SalesforceSettings, Transport};
use sign_in::SignIn;
use soql::Filter;

/// One org.
pub struct Salesforce {
    settings: SalesforceSettings,
    sign_in: Arc<SignIn>,
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    reader: Arc<Reader>,
    replication: Replication,
    pubsub: PubSub,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    table: SalesforceTable,
}

impl Salesforce {
    /// The org that `settings` name. Nothing is sent before the first call.
    ///
    /// # Errors
    /// `Config`, naming setting, value and remedy.
    pub fn new(
        settings: SalesforceSettings,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Fault> {
        let settings = settings
            .checked()
            .map_err(|fault| fault.context("reading a Salesforce connection's settings"))?;
        let http = Http::new(
            HttpSettings {
                connect_timeout: settings.connect_timeout,
                timeout: settings.call_timeout,
                ca_file: settings.ca_file.clone(),
                plain_text: settings.plain_text,
                ..HttpSettings::new(settings.connection.as_str())
            },
            &metrics,
        )?;
        let sign_in = Arc::new(SignIn::new(
            http.clone(),
            settings.clone(),
            Arc::clone(&clock),
        ));
        let limits = settings.limits;
        let budget = Budget::new(&settings.connection, limits, Arc::clone(&clock), &metrics);
        let rest = Rest::new(http, Arc::clone(&sign_in), settings.clone(), budget);
        let rest = Arc::new(rest);
        let describer = Arc::new(Describer::new(
            Arc::clone(&rest),
            Arc::clone(&settings.shelf),
        ));
        let reader = Arc::new(Reader::new(
            Arc::clone(&rest),
            Arc::clone(&describer),
            Arc::clone(&clock),
            metrics.clone(),
        ));
        let replication = Replication::new(
            Arc::clone(&rest),
            Arc::clone(&describer),
            Arc::clone(&clock),
        );
        Ok(Self {
            settings,
            sign_in,
            rest,
            describer,
            reader,
            replication,
            pubsub: PubSub::default(),
            clock,
            metrics,
            table: SalesforceTable,
        })
    }
}

#[async_trait]
impl Crm for Salesforce {
    fn connection(&self) -> &ConnectionId {
        &self.settings.connection
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        // The list of resources needs a live session, the API permission, and the version.
        self.rest.get("/").await.map_err(|refused| {
            let unknown = refused.status == 404;
            let fault = refused.fault.context(format_args!(
                "reaching connection {}",
                self.settings.connection
            ));
            if unknown {
                fault.remedy(format!(
                    "the org serves no version {}: set `api_version` to one that it serves",
                    self.settings.api_version
                ))
            } else {
                fault
            }
        })?;
        let token = self.sign_in.token().await?;
        Ok(OrgIdentity {
            org_id: token.org_id.clone(),
            user_id: token.user_id.clone(),
            instance_url: token.instance_url.clone(),
        })
    }

    async fn user_email(&self) -> Result<Option<String>, Fault> {
        let token = self.sign_in.token().await?;
        let email = setup::user_email(&self.rest, &token.user_id).await;
        email.map_err(|refused| {
            refused
                .fault
                .context("asking for the user's e-mail address")
        })
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        let answer = self
            .rest
            .versions()
            .await
            .map_err(|refused| refused.fault.context("asking the CRM's clock"))?;
        self.reader.as_of(&answer)
    }

    async fn describe(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        let description = self.describer.get(object).await?;
        Ok(description.schema.clone())
    }

    async fn describe_anew(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        let description = self.describer.fetch(object).await?;
        Ok(description.schema.clone())
    }

    async fn read_all(
        &self,
        selection: &Selection,
        resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault> {
        self.reader.all(selection, resume).await
    }

    async fn read_some(&self, selection: &Selection) -> Result<Box<dyn Pages>, Fault> {
        self.reader.pages(selection, Filter::All).await
    }

    async fn read_window(
        &self,
        selection: &Selection,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        self.reader.pages(selection, Filter::Window(from, to)).await
    }

    async fn updated(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Option<Vec<RecordId>>, Fault> {
        self.replication.updated(object, from, to).await
    }

    async fn read_ids(&self, selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        self.reader.by_ids(selection, ids).await
    }

    async fn deleted(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        self.replication.deleted(object, from, to).await
    }

    async fn listen(
        &self,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        let desk = Desk {
            settings: &self.settings,
            rest: &self.rest,
            sign_in: &self.sign_in,
            describer: &self.describer,
            clock: &self.clock,
            metrics: &self.metrics,
        };
        match self.settings.transport {
            Transport::Cometd => cometd::listen(desk, selections, from).await,
            Transport::PubSub => self.pubsub.listen(desk, selections, from).await,
        }
    }

    fn budget(&self) -> Option<&Arc<Budget>> {
        Some(self.rest.budget())
    }

    async fn look_at_limits(&self) -> Result<(), Fault> {
        limits::look(&self.rest).await
    }

    fn consent(&self) -> Option<Arc<dyn Consent>> {
        let by_person = matches!(self.settings.auth, Auth::AuthorizationCode(_));
        by_person.then(|| Arc::clone(&self.sign_in) as _)
    }

    async fn changes_of(
        &self,
        objects: &[ObjectName],
    ) -> Result<BTreeMap<ObjectName, Changes>, Fault> {
        let members = match setup::members(&self.rest).await {
            Ok(members) => Some(members),
            // Who may not look at Setup is not told.
            Err(refused) if refused.is_hidden() => None,
            Err(refused) => return Err(refused.fault),
        };
        let channels = &self.settings.channels;
        let of = |object| capture::changes(object, members.as_deref(), channels);
        Ok(objects
            .iter()
            .map(|object| (object.clone(), of(object)))
            .collect())
    }

    fn surveyor(&self) -> Option<&dyn Surveyor> {
        Some(self)
    }

    async fn authorised(&self) {
        self.settings.vault.authorised().await;
    }

    fn table(&self) -> &dyn MergeTable {
        &self.table
    }

    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId> {
        RecordId::salesforce(text)
    }
}

#[cfg(test)]
mod tests;
