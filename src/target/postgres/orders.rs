//! The target's smaller orders to its connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

use super::release::Share;
use super::{
    Schemas, expired, ledger, read, read_held, release, review, schema, scratch, stray, sweep, wake,
};
use crate::mapping::plan::JobPlan;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::postgres::worker::Order;
use crate::target::port::review::{Binding, Decided, InReview, Review, Which};
use crate::target::port::sweep::{SweepKey, Unmet};
use crate::target::port::{
    Assignment, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow, Strays, Traced,
};

/// An order that is a call of one function.
macro_rules! order {
    ($name:ident { $($field:ident: $ty:ty),* } -> $answer:ty = |$own:ident, $session:ident| $call:expr) => {
        pub(super) struct $name {
            pub schemas: Arc<Schemas>,
            $(pub $field: $ty,)*
        }

        impl Order for $name {
            type Answer = $answer;

            fn run<'a>(
                &'a mut self,
                $session: &'a mut Session,
            ) -> BoxFuture<'a, Result<$answer, OrderError>> {
                let $own = self;
                Box::pin($call)
            }
        }
    };
}

pub(super) use order;

order!(Ensure { objects: Vec<StoredObject> } -> () =
    |own, session| schema::ensure(session, &own.schemas, &own.objects));
order!(Prepare { plan: JobPlan } -> () =
    |own, session| schema::prepare(session, &own.schemas, &own.plan));
order!(MakeScratch { replace: bool } -> () =
    |own, session| scratch::make(session, &own.schemas, own.replace));
order!(RemoveScratch {} -> () = |own, session| scratch::remove(session, &own.schemas));
order!(Assign { reader: ReaderKey, partition: u32 } -> Assignment =
    |own, session| ledger::assign(session, &own.schemas, &own.reader, own.partition));
order!(ListExpired { share: Share, older_than: DateTime<Utc>, limit: usize } -> Vec<Expired> =
    |own, session| expired::list(session, &own.schemas, &own.share, own.older_than, own.limit));
order!(Forget { connection: ConnectionId, job: JobId, parked: Vec<ParkedKey> } -> u64 =
    |own, session| expired::forget(session, &own.schemas, &own.connection, &own.job, &own.parked));
order!(Rows { table: String, page: RowsPage } -> Vec<StoredRow> =
    |own, session| read::rows(session, &own.schemas, &own.table, &own.page));
order!(Trace { connection: ConnectionId, object: ObjectName, record: RecordId } -> Vec<Traced> =
    |own, session| read::trace(session, &own.schemas, &own.connection, &own.object, &own.record));
order!(Held { connection: ConnectionId, object: ObjectName, table: String } -> u64 =
    |own, session| read_held::count(session, &own.schemas, &own.connection, &own.object, &own.table));
order!(ListStrays { connection: ConnectionId } -> Strays =
    |own, session| stray::list(session, &own.schemas, &own.connection));
order!(ForgetStrays { marks: Vec<u64> } -> () =
    |own, session| stray::forget(session, &own.schemas, &own.marks));
order!(BeginReplay { of: SweepKey, tables: Vec<String> } -> u64 =
    |own, session| sweep::begin(session, &own.schemas, &own.of, &own.tables));
order!(Met { of: SweepKey, records: Vec<RecordId> } -> () =
    |own, session| sweep::met(session, &own.schemas, &own.of, &own.records));
order!(ListUnmet { of: SweepKey, limit: usize } -> Vec<Unmet> =
    |own, session| sweep::unmet(session, &own.schemas, &own.of, own.limit));
order!(Swept { of: SweepKey, swept: Vec<Unmet> } -> () =
    |own, session| sweep::swept(session, &own.schemas, &own.of, &own.swept));
order!(EndReplay { of: SweepKey } -> () =
    |own, session| sweep::end(session, &own.schemas, &own.of));
order!(Parked {} -> Vec<(ConnectionId, JobId, u64)> =
    |own, session| read::parked(session, &own.schemas));
order!(Reviews { which: Which } -> Vec<Review> =
    |own, session| review::list(session, &own.schemas, &own.which));
order!(Bindings {} -> Vec<Binding> = |own, session| review::bindings(session, &own.schemas));
order!(CountReviews { connection: ConnectionId, job: JobId } -> InReview =
    |own, session| review::count(session, &own.schemas, &own.connection, &own.job));
order!(Decide { binding: Binding } -> Decided =
    |own, session| review::decide(session, &own.schemas, &own.binding));
order!(Release { share: Share, limit: usize, now: DateTime<Utc>, missed: Arc<AtomicBool> } -> Released =
    |own, session| own.release(session));

impl Release {
    async fn release(&mut self, session: &mut Session) -> Result<Released, OrderError> {
        let (schemas, connection) = (&*self.schemas, &self.share.connection);
        if self.missed.swap(false, Ordering::Relaxed) {
            let woken = release::wake_all(session, schemas).await;
            if woken.is_err() {
                self.missed.store(true, Ordering::Relaxed);
            }
            woken?;
        }
        let (references, changes) = release::awake(session, schemas, &self.share).await?;
        if !references && !changes {
            return Ok(Released::default());
        }
        let (filled, more, touched) =
            release::references(session, schemas, connection, self.limit, self.now).await?;
        let touched: BTreeMap<&str, _> = touched
            .iter()
            .map(|(table, rows)| (table.as_str(), rows.clone()))
            .collect();
        wake::wake_or_note(session, schemas, &touched, &self.missed).await;
        review::wake_decided(session, schemas, &self.share).await?;
        let (changes, more_changes) =
            release::changes(session, schemas, &self.share, self.limit).await?;
        let (awake, _) = release::awake(session, schemas, &self.share).await?;
        Ok(Released {
            filled: filled as u64,
            changes,
            more: more || more_changes || awake,
        })
    }
}
