//! What ingest asks of a CRM: sign in, describe, read, listen.
//!
//! Contract for every engine:
//! * A call may be dropped at any await; nothing has to be undone, no CRM is written to.
//! * Faults carry their fate (see [`crate::fault`]): `Unavailable` and `Throttled` are retried by the caller
//!   with backoff, so a connector retries nothing but one call after one token refresh.
//! * A call waits until the connection's budget grants it ([`crate::budget`]), by the priority of the running work.
//! * Ids come out normalised; fields come out under their column names, components of compound fields
//!   included, compound fields themselves never.
//! * What the signed-in user may not read is absent, never null.

pub mod consent;
pub mod shelf;
pub mod survey;
pub mod vault;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::budget::Budget;
use crate::crm::port::consent::Consent;
use crate::crm::port::survey::{Changes, Surveyor};
use crate::fault::Fault;
use crate::image::merge::MergeTable;
use crate::model::event::{Event, Found, Page};
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::{InvalidRecordId, RecordId};
use crate::model::schema::ObjectSchema;

/// One signed-in CRM org.
#[async_trait]
pub trait Crm: Send + Sync {
    /// The connection this engine serves.
    fn connection(&self) -> &ConnectionId;

    /// Proves that the org is reached and says which it is.
    async fn identify(&self) -> Result<OrgIdentity, Fault>;

    /// The e-mail address of the signed-in user, as the CRM has it: who is told of a connection's failures where the config
    /// says nobody. `None` where the CRM has none.
    async fn user_email(&self) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    /// The org's clock now, as its answers tell it (HTTP `Date` less the round trip), less `read_lag`.
    async fn clock(&self) -> Result<DateTime<Utc>, Fault>;

    /// The object's schema, as the signed-in user saw it within the last seven days. `Missing` for an object there is not.
    async fn describe(&self, object: &ObjectName) -> Result<ObjectSchema, Fault>;

    /// The same, as the user sees it now.
    async fn describe_anew(&self, object: &ObjectName) -> Result<ObjectSchema, Fault> {
        self.describe(object).await
    }

    /// Reads every live record, page by page; memory is that of one page. `resume` is a
    /// [`Page::resume`] of an earlier read with an equal selection; its `as_of` is then the new read's.
    async fn read_all(
        &self,
        selection: &Selection,
        resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault>;

    /// Begins to read live records of which only the first few are wanted, in any order: no work for all of them is
    /// begun, no stream begins with it, and it can't be resumed.
    async fn read_some(&self, selection: &Selection) -> Result<Box<dyn Pages>, Fault> {
        self.read_all(selection, None).await
    }

    /// Reads the live records that changed in `[from, to)` by the CRM's own stamp.
    async fn read_window(
        &self,
        selection: &Selection,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Box<dyn Pages>, Fault>;

    /// The ids of live records that changed in `[from, to)`, and of some that changed about then or since, where a log of
    /// the CRM's tells them and no stamp: they are read by id. `None` where [`Crm::read_window`] tells them.
    /// `PositionLost` where neither does, or the log does not reach back to `from`: the caller then reads everything.
    async fn updated(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Option<Vec<RecordId>>, Fault> {
        let (_, _, _) = (object, from, to);
        Ok(None)
    }

    /// Reads records by id, in as few calls as the CRM allows.
    async fn read_ids(&self, selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault>;

    /// The ids deleted in `[from, to)`. `PositionLost` when the CRM's delete log does not reach back to
    /// `from`: the caller then compares id sets.
    async fn deleted(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault>;

    /// Opens the change stream of what is selected. `PositionLost` when `from` is no longer valid as a whole: the
    /// caller opens a hole first and then listens from [`Start::Earliest`]; no engine falls back by itself.
    async fn listen(
        &self,
        selections: &[Selection],
        from: Start,
    ) -> Result<Box<dyn Listener>, Fault>;

    /// Whether the stream of one object goes on after `position`, where each object has a place of its own. If it
    /// does not, the caller opens a hole over the object first; its stream begins with the next [`Crm::read_all`],
    /// which tells everything that the stream does not.
    fn goes_on(&self, position: &Position, selection: &Selection) -> bool {
        let (_, _) = (position, selection);
        true
    }

    /// The place to go on from once rows proved that the org was restored to an earlier state ([`Verdict::Restored`]):
    /// what is read after it counts as newer than everything before. The caller opens holes over all objects in
    /// the transaction that stores it, and begins anew from there.
    ///
    /// [`Verdict::Restored`]: crate::image::merge::Verdict::Restored
    fn after_restore(&self, position: Option<&Position>) -> Option<Position> {
        position.cloned()
    }

    /// Whether an object's stream begins with a [`Crm::read_all`] and tells nothing of before it was sent.
    fn whole_reads_begin_streams(&self) -> bool {
        false
    }

    /// Whether changes may be pushed at this connection. If not, nobody looks for hints.
    fn takes_hints(&self) -> bool {
        false
    }

    /// Whether records that a push named may be read one by one now. If not, the stream tells them in its time.
    fn affords_hints(&self) -> bool {
        true
    }

    /// Asks the stream to look at an object's changes as soon as it may: something is said to have happened.
    fn look(&self, object: &ObjectName) {
        let _ = object;
    }

    /// What grants the calls of this connection, and shows what is left of them; `None` where they are free.
    fn budget(&self) -> Option<&Arc<Budget>> {
        None
    }

    /// Asks the org what is left of its allowances, where it can be asked; the budget notes it.
    async fn look_at_limits(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// What a person authorises, where the connection is authorised by one.
    fn consent(&self) -> Option<Arc<dyn Consent>> {
        None
    }

    /// How the changes of each of these objects come, as it is set in the org now; objects that the stream sees to itself
    /// are left out.
    async fn changes_of(
        &self,
        objects: &[ObjectName],
    ) -> Result<BTreeMap<ObjectName, Changes>, Fault> {
        let _ = objects;
        Ok(BTreeMap::new())
    }

    /// Who looks the org over before it is synced, where somebody can.
    fn surveyor(&self) -> Option<&dyn Surveyor> {
        None
    }

    /// Resolves when the connection was authorised anew: worth another try at once. Never, where nobody can.
    async fn authorised(&self) {
        std::future::pending::<()>().await;
    }

    /// The rules by which this CRM's events and rows merge.
    fn table(&self) -> &dyn MergeTable;

    /// Normalises an id of this CRM.
    fn record_id(&self, text: &str) -> Result<RecordId, InvalidRecordId>;
}

/// A read in progress; each page is true of the same `as_of`.
#[async_trait]
pub trait Pages: Send {
    /// The next page, `None` after the last. A fault ends the read; it can be resumed from the last page.
    async fn next(&mut self) -> Result<Option<Page>, Fault>;
}

/// An open stream. Events come in the CRM's order; the position is stored by the caller, last of all.
#[async_trait]
pub trait Listener: Send {
    /// Waits for what the CRM says next. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// The stream is over: `PositionLost`, `Credentials`, `Permission` or a passing fault. The caller
    /// opens a new one after the last position it made durable.
    async fn next(&mut self) -> Result<Heard, Fault>;

    /// Leaves politely (the CRM counts open clients).
    async fn stop(self: Box<Self>);
}

/// What one wait brought.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// Events in stream order; empty on a keep-alive.
    pub events: Vec<Event>,
    /// Where the stream stands after them, if the CRM said so; safe to store once all are durable.
    pub position: Option<Position>,
    /// CRM time up to which nothing else was committed, if the CRM said so (a keep-alive).
    pub confirmed_at: Option<DateTime<Utc>>,
    /// Objects whose stream broke; `position` no longer holds their place, the other objects' streams go on.
    pub lost: Vec<Lost>,
}

/// One object's stream broke: what it told up to `to` may not be all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The object.
    pub object: ObjectName,
    /// Why.
    pub cause: LostCause,
    /// An instant of CRM time that is not before now.
    pub to: DateTime<Utc>,
}

/// Why one object's stream broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostCause {
    /// The CRM no longer takes its place.
    Expired,
    /// The signed-in user may not read it any more.
    PermissionLost,
    /// Its stream does not tell everything (deletes, above all): time to compare.
    NotCaptured,
    /// The org was restored to an earlier state, and every other object with this one.
    Restored,
    /// The org delivers no more events for a while; the stream's place is kept, and it goes on from there.
    DeliveryLimit {
        /// To when it was told so before.
        since: Option<DateTime<Utc>>,
    },
}

/// Why a stream is refused for hours while its place is kept: the cause of a [`Listener`]'s fault.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the org's event delivery limit of 24 hours is spent")]
pub struct DeliverySpent;

/// Where a stream starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what comes after the subscription.
    Now,
    /// With everything the CRM still holds.
    Earliest,
    /// After a stored position.
    After(Position),
}

/// The object and the fields to read; order has no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The object.
    pub object: ObjectName,
    /// Column names; the id is always read.
    pub fields: Vec<FieldName>,
}

impl From<&str> for Selection {
    /// An object without fields but its id.
    fn from(object: &str) -> Self {
        Self {
            object: object.into(),
            fields: Vec::new(),
        }
    }
}

/// Which org answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrgIdentity {
    /// The org's own id (18 characters, or a GUID).
    pub org_id: String,
    /// The user the token acts for.
    pub user_id: String,
    /// Where data calls go.
    pub instance_url: String,
}
