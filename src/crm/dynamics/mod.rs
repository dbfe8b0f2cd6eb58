//! Microsoft Dynamics 365 (Dataverse): sign-in, reads, change tracking, and the rules by which they merge.

pub mod bus;
pub mod merge;
pub mod privileges;
pub mod push;
pub mod settings;

mod assertion;
mod authority;
mod canary;
mod consent;
mod describe;
mod labels;
mod links;
mod listener;
mod pace;
mod place;
mod plan;
mod poll;
mod read;
mod refusal;
mod rest;
mod row;
mod sign_in;
mod survey;
mod who;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use crate::budget::Budget;
use crate::crm::port::consent::Consent;
use crate::crm::port::survey::Surveyor;
use crate::crm::port::{Crm, Listener, OrgIdentity, Pages, Selection, Start};
use crate::fault::{Fault, FaultKind};
use crate::http::{Http, HttpSettings};
use crate::image::merge::MergeTable;
use crate::model::event::Found;
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::ObjectSchema;
use crate::runtime::clock::Clock;
use crate::state::credentials::PinnedOrg;
use crate::telemetry::metrics::{self, Metrics};

use describe::Describer;
use links::Links;
use listener::{Desk, listener};
use merge::DynamicsTable;
use place::Place;
use plan::fingerprint;
use privileges::read;
use push::register::Registrar;
use read::{Reader, Scope};
use rest::Rest;
use settings::{DynamicsSettings, Flow};
use sign_in::SignIn;
use who::WhoAmI;

/// One environment.
pub struct Dynamics {
    settings: DynamicsSettings,
    sign_in: Arc<SignIn>,
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    reader: Arc<Reader>,
    links: Arc<Links>,
    metrics: Metrics,
    table: DynamicsTable,
}

#[derive(Deserialize)]
struct Organizations {
    value: Vec<Organization>,
}

#[derive(Deserialize)]
struct Organization {
    expirechangetrackingindays: Option<u32>,
}

impl Dynamics {
    /// The environment that `settings` name. Nothing is sent before the first call.
    ///
    /// # Errors
    /// `Config`, naming setting, value and remedy.
    pub fn new(
        settings: DynamicsSettings,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Fault> {
        let settings = settings
            .checked()
            .map_err(|fault| fault.context("reading a Dynamics connection's settings"))?;
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
        let rest = Arc::new(Rest::new(
            http,
            Arc::clone(&sign_in),
            settings.clone(),
            clock,
            &metrics,
        ));
        let describer = Arc::new(Describer::new(
            Arc::clone(&rest),
            Arc::clone(&settings.shelf),
        ));
        let links = Arc::new(Links::default());
        let reader = Arc::new(Reader::new(
            Arc::clone(&rest),
            Arc::clone(&describer),
            Arc::clone(&links),
        ));
        let lag = TimeDelta::from_std(settings.read_lag).unwrap_or_default();
        Ok(Self {
            settings,
            sign_in,
            rest,
            describer,
            reader,
            links,
            metrics,
            table: DynamicsTable::new(lag),
        })
    }

    /// Registers, lists and removes the environment's webhook.
    #[must_use]
    pub fn registrar(&self) -> Registrar {
        Registrar::new(Arc::clone(&self.rest), Arc::clone(&self.describer))
    }

    async fn who_am_i(&self) -> Result<WhoAmI, Fault> {
        let reaching = |fault: Fault| {
            fault.context(format_args!(
                "reaching connection {}",
                self.settings.connection
            ))
        };
        let answer = self.rest.get("/WhoAmI", None).await.map_err(|refused| {
            let unknown = refused.status == 404;
            let fault = reaching(refused.fault);
            if unknown {
                fault.remedy("check `org` and `api_version`: there is no Web API at this address")
            } else {
                fault
            }
        })?;
        let who = WhoAmI::read(answer.body()).map_err(reaching)?;
        let org = PinnedOrg {
            id: who.organization_id.clone(),
            url: self.settings.org_url.clone(),
        };
        self.settings.vault.pin(&org).await.map_err(reaching)?;
        Ok(who)
    }

    /// Shows how long a place in the changes is taken. Who may not read it listens all the same.
    async fn show_life(&self) {
        let path = "/organizations?$select=expirechangetrackingindays";
        let days = match self.rest.get(path, None).await {
            Ok(answer) => serde_json::from_slice::<Organizations>(answer.body())
                .ok()
                .and_then(|told| told.value.first()?.expirechangetrackingindays),
            Err(refused) => {
                tracing::info!(
                    connection = %self.settings.connection, error = %refused.fault,
                    "how long change tracking keeps deletes is not told"
                );
                None
            }
        };
        let Some(days) = days else { return };
        let labels = [("connection", self.settings.connection.as_str())];
        let gauge = self.metrics.gauge(metrics::DELTA_LINK_LIFE, &labels);
        gauge.set(f64::from(days) * 86_400.0);
    }

    /// The place to go on from, of this org and of the selections that it tells.
    fn place(&self, org: String, selections: &[Selection], from: Start) -> Result<Place, Fault> {
        let mut place = match from {
            Start::Now | Start::Earliest => Place::default(),
            Start::After(position) => Place::parse(&position)?,
        };
        if let Some(known) = place.org.as_ref().filter(|known| **known != org) {
            return Err(Fault::new(
                FaultKind::Config,
                format!(
                    "connection {} was established with org {known}, and {} is org {org}",
                    self.settings.connection, self.settings.org_url
                ),
            )
            .remedy("set `org` back, or make a connection of another name for the other org"));
        }
        place.org = Some(org);
        place.tables.retain(|table, link| {
            selections
                .iter()
                .any(|of| of.object == *table && fingerprint(of) == link.fields)
        });
        Ok(place)
    }
}

#[derive(Deserialize)]
struct MailRow {
    internalemailaddress: Option<String>,
}

#[async_trait]
impl Crm for Dynamics {
    fn connection(&self) -> &ConnectionId {
        &self.settings.connection
    }

    async fn identify(&self) -> Result<OrgIdentity, Fault> {
        let told = self.who_am_i().await?;
        Ok(OrgIdentity {
            org_id: told.organization_id,
            user_id: told.user_id,
            instance_url: self.settings.base().to_owned(),
        })
    }

    async fn user_email(&self) -> Result<Option<String>, Fault> {
        let user = self.who_am_i().await?.user_id;
        let path = format!("/systemusers({user})?$select=internalemailaddress");
        let asked = self.rest.get(&path, None).await;
        let answer = asked.map_err(|refused| {
            refused
                .fault
                .context("asking for the user's e-mail address")
        })?;
        Ok(read::<MailRow>(&answer, "the user")?.internalemailaddress)
    }

    async fn clock(&self) -> Result<DateTime<Utc>, Fault> {
        let clock = self.rest.clock().await;
        clock.map_err(|fault| fault.context("asking the CRM's clock"))
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
        self.reader.pages(selection, Scope::All, resume).await
    }

    async fn read_some(&self, selection: &Selection) -> Result<Box<dyn Pages>, Fault> {
        self.reader.pages(selection, Scope::Some, None).await
    }

    async fn read_window(
        &self,
        selection: &Selection,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault> {
        self.reader
            .pages(selection, Scope::Window(from, to), None)
            .await
    }

    async fn read_ids(&self, selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        self.reader.by_ids(selection, ids).await
    }

    /// Change tracking tells deletes after a place and to nobody else.
    async fn deleted(
        &self,
        object: &ObjectName,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        let what = format!("Dataverse keeps no list of the deleted records of {object}");
        Err(Fault::new(FaultKind::PositionLost, what))
    }

    async fn listen(
        &self,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault> {
        let told = self.who_am_i().await?;
        let place = self.place(told.organization_id, selections, from)?;
        self.show_life().await;
        self.links.reset(place);
        let desk = Desk {
            rest: Arc::clone(&self.rest),
            describer: Arc::clone(&self.describer),
            reader: Arc::clone(&self.reader),
            links: Arc::clone(&self.links),
            metrics: self.metrics.clone(),
        };
        Ok(listener(desk, selections))
    }

    fn goes_on(&self, position: &Position, selection: &Selection) -> bool {
        Place::parse(position).is_ok_and(|place| {
            place
                .tables
                .get(&selection.object)
                .is_some_and(|link| link.fields == fingerprint(selection))
        })
    }

    fn after_restore(&self, position: Option<&Position>) -> Option<Position> {
        let known = position.and_then(|position| Place::parse(position).ok());
        let place = known.unwrap_or_default();
        Some(
            Place {
                incarnation: place.incarnation.max(self.links.incarnation()) + 1,
                tables: std::collections::BTreeMap::new(),
                ..place
            }
            .position(),
        )
    }

    fn whole_reads_begin_streams(&self) -> bool {
        true
    }

    fn takes_hints(&self) -> bool {
        true
    }

    fn affords_hints(&self) -> bool {
        self.rest.pace().affords_hints()
    }

    fn budget(&self) -> Option<&Arc<Budget>> {
        Some(self.rest.budget())
    }

    fn look(&self, object: &ObjectName) {
        self.links.hasten(object);
    }

    fn consent(&self) -> Option<Arc<dyn Consent>> {
        let by_person = self.settings.flow == Flow::AuthorizationCode;
        by_person.then(|| Arc::clone(&self.sign_in) as _)
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
        RecordId::guid(text)
    }
}

#[cfg(test)]
mod tests;
