//! A batch: the offset first, then destinations in order, rows by offset; all of it or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio_postgres::types::ToSql;
use uuid::{ContextV7, Timestamp, Uuid};

use super::Schemas;
use super::ask::Inquiry;
use super::facts::Facts;
use super::layout::Layout;
use super::ledger::{advance_sql, fenced, offset, signed, signed_partition};
use super::parked::{Changes, write_references};
use super::pass::{Given, Pass, Told};
use super::recall::{Feeds, Learned, Recall, Rows};
use super::{review, stray, wake, write};
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{Life, MappedRow};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::postgres::worker::Order;
use crate::target::port::review::Bond;
use crate::target::port::{Applied, Batch, DestinationBatch, Outcome};

/// The order to apply a batch.
pub(super) struct Apply {
    pub batch: Batch,
    pub schemas: Arc<Schemas>,
    /// Keeps the GSIDs of one process in the order in which they were given.
    pub gsids: Arc<Mutex<ContextV7>>,
    /// What is told if the transaction turns out to be committed.
    pub done: Option<Applied>,
    /// Whether parked things may have missed a row.
    pub missed: Arc<std::sync::atomic::AtomicBool>,
    /// What the connection keeps of look-ups; nobody else uses it meanwhile.
    pub recall: Arc<Mutex<Recall>>,
}

impl Order for Apply {
    type Answer = Applied;

    fn run<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Applied, OrderError>> {
        Box::pin(async move {
            self.done = None;
            let mut recall = std::mem::take(&mut *self.recall());
            let applied = self.apply(session, &mut recall).await;
            *self.recall() = recall;
            applied
        })
    }

    /// The reply to `COMMIT` may be lost. The offset tells, once the old transaction has ended.
    fn was_done<'a>(
        &'a mut self,
        session: &'a mut Session,
    ) -> BoxFuture<'a, Result<Option<Applied>, OrderError>> {
        Box::pin(async move {
            let Some(applied) = self.done.take() else {
                return Ok(None);
            };
            let at = offset(session, &self.schemas, &self.batch).await?;
            let moved = self.batch.next != self.batch.expect;
            if moved && at == Some((self.batch.next, self.batch.epoch)) {
                self.missed
                    .store(true, std::sync::atomic::Ordering::Relaxed);
                return Ok(Some(applied));
            }
            Ok(None)
        })
    }
}

impl Apply {
    fn recall(&self) -> MutexGuard<'_, Recall> {
        self.recall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn apply(
        &mut self,
        session: &mut Session,
        recall: &mut Recall,
    ) -> Result<Applied, OrderError> {
        let mut run = Run {
            schemas: &self.schemas,
            batch: &self.batch,
            gsids: &self.gsids,
            settled: HashMap::new(),
            changes: Changes::default(),
            references_wait: false,
            is_decided: false,
            touched: BTreeMap::new(),
            learned: Learned::default(),
        };
        let connection = &self.batch.reader.connection;
        let feeds = run.begin(session).await?;
        recall.check(session, connection, &feeds);
        let outcomes = run.destinations(session, recall).await?;
        let applied = Applied {
            committed: self.batch.may_commit(&outcomes),
            outcomes,
        };
        if !applied.committed {
            session.run("ROLLBACK").await?;
            return Ok(applied);
        }
        run.changes.write(session, run.schemas, run.batch).await?;
        run.learned.write(session, run.schemas, run.batch).await?;
        let (touched, mut learned) = (run.touched, run.learned);
        self.done = Some(applied.clone());
        session.run("COMMIT").await?;
        recall.keep(connection, &feeds, &mut learned);
        // After the commit: who parked before it is seen now, who parks after it sees these rows.
        wake::wake_or_note(session, &self.schemas, &touched, &self.missed).await;
        Ok(applied)
    }
}

/// A batch under way.
struct Run<'a> {
    schemas: &'a Schemas,
    batch: &'a Batch,
    gsids: &'a Mutex<ContextV7>,
    /// Records that an earlier destination kept out.
    settled: HashMap<&'a RecordId, Outcome>,
    changes: Changes<'a>,
    references_wait: bool,
    /// Whether people have decided anything on the connection.
    is_decided: bool,
    /// Rows by table for which others may wait.
    touched: BTreeMap<&'a str, BTreeSet<Uuid>>,
    learned: Learned<'a>,
}

impl<'a> Run<'a> {
    async fn destinations(
        &mut self,
        session: &mut Session,
        recall: &Recall,
    ) -> Result<Vec<Vec<Outcome>>, OrderError> {
        let mut outcomes = Vec::with_capacity(self.batch.destinations.len());
        for part in &self.batch.destinations {
            outcomes.push(self.destination(session, part, recall).await?);
        }
        Ok(outcomes)
    }

    /// Opens the transaction, moves the offset and reads the feeds, in one go.
    async fn begin(&mut self, session: &mut Session) -> Result<Feeds, OrderError> {
        let batch = self.batch;
        let advance = session.statement(&advance_sql(self.schemas)).await?;
        let waits = session
            .statement(&format!(
                "SELECT EXISTS (SELECT 1 FROM {} WHERE connection = $1 AND job = $2),
                    EXISTS (SELECT 1 FROM {} WHERE connection = $1 AND job = $2),
                    EXISTS (SELECT 1 FROM {} WHERE connection = $1)",
                self.schemas.ledger("parked_reference"),
                self.schemas.ledger("parked_change"),
                self.schemas.ledger("binding")
            ))
            .await?;
        let feeds = session.statement(&Feeds::sql(self.schemas)).await?;
        let reader = &batch.reader;
        let (connection, job) = (reader.connection.as_str(), reader.job.as_str());
        let partition = signed_partition(batch.partition);
        let (epoch, expect, next) = (
            signed(batch.epoch),
            signed(batch.expect),
            signed(batch.next),
        );
        let own: [&(dyn ToSql + Sync); 8] = [
            &connection,
            &job,
            &reader.reader,
            &reader.generation,
            &partition,
            &epoch,
            &expect,
            &next,
        ];
        let client = session.client();
        // Sent one after the other without waiting; the server runs them in this order.
        let (_, moved, waiting, feeds) = tokio::try_join!(
            client.batch_execute("BEGIN"),
            client.execute(&advance, &own),
            client.query_one(&waits, &own[..2]),
            client.query(&feeds, &own[..1]),
        )?;
        if moved != 1 {
            return Err(fenced(batch).into());
        }
        self.references_wait = waiting.try_get(0)?;
        self.is_decided = waiting.try_get(2)?;
        if waiting.try_get(1)? {
            self.changes = Changes::read(session, self.schemas, batch).await?;
        }
        let feeds = Feeds::read(&feeds)?;
        self.learned = Learned::of(batch, &feeds);
        Ok(feeds)
    }

    async fn destination(
        &mut self,
        session: &mut Session,
        part: &'a DestinationBatch,
        recall: &Recall,
    ) -> Result<Vec<Outcome>, OrderError> {
        for row in part.rows.iter() {
            check_lengths(part, row)?;
        }
        let layout = Layout::new(&part.plan);
        let mut inquiry = Inquiry {
            schemas: self.schemas,
            batch: self.batch,
            part,
            layout: &layout,
            claims: BTreeSet::new(),
        };
        let mut facts = inquiry
            .begin(session, self.references_wait, self.is_decided)
            .await?;
        let recalled = layout.derives.iter().map(|derive| {
            let table = derive.lookup.table.as_str();
            let usable = derive.is_by_record() && self.learned.leaves(table);
            usable.then(|| recall.rows(&self.batch.reader.connection, table))?
        });
        let recalled: Vec<Option<&Rows>> = recalled.collect();
        let gsids = self.new_gsids(part, &facts);
        let settled = self.settled.clone();
        let mut hindered = HashMap::new();
        loop {
            let given = Given {
                batch: self.batch,
                part,
                layout: &layout,
                settled: &settled,
                gsids: &gsids,
                recalled: &recalled,
                hindered: &hindered,
            };
            let mut pass = Pass::new(given, &facts, self.changes.clone());
            let more = pass.run()?;
            if pass.is_open() {
                let needs = std::mem::take(&mut pass.view.needs).into_owned();
                if needs.is_empty() {
                    let what = "a batch needs what it does not ask for";
                    return Err(Fault::new(FaultKind::Corrupt, what).into());
                }
                drop(pass);
                inquiry
                    .answer(session, &needs, &mut facts, &mut self.learned)
                    .await?;
                continue;
            }
            // A look-up into the own table that keeps its row out sees rows that come after it, and the row it
            // keeps out may be what another one finds: so all is thought through again without those that
            // found none, until none is kept out.
            if layout.may_be_hindered() && !more.is_empty() {
                drop(pass);
                hindered.extend(more);
                continue;
            }
            let claims = inquiry.claims.iter().copied().collect();
            return self.write(session, part, &facts, pass, claims).await;
        }
    }

    async fn write(
        &mut self,
        session: &mut Session,
        part: &'a DestinationBatch,
        facts: &Facts<'a>,
        pass: Pass<'_, 'a>,
        claims: Vec<Uuid>,
    ) -> Result<Vec<Outcome>, OrderError> {
        let Pass {
            view,
            changes,
            parkings,
            told,
            mut touched,
            reopened,
            mut left,
            ..
        } = pass;
        let table = part.plan.table.as_str();
        if write::entries(session, self.schemas, self.batch, facts, &view).await? {
            self.learned.lost.insert(table);
        }
        let written = write::rows(session, self.schemas, self.batch, &view).await?;
        let changed = written.changed;
        left.extend(written.moved);
        write_references(session, self.schemas, self.batch, table, &parkings).await?;
        review::done_with(session, self.schemas, self.batch, table, &reopened).await?;
        stray::note(session, self.schemas, self.batch, &left).await?;
        if !claims.is_empty() {
            let sql = format!(
                "DELETE FROM {} WHERE digest = ANY($1)",
                self.schemas.ledger("claim")
            );
            session.execute(&sql, &[&claims]).await?;
        }
        self.changes = changes;
        let outcomes: Vec<Outcome> = told
            .into_iter()
            .map(|told| match told {
                Told::Is(outcome) => outcome,
                Told::ByStatement(gsid) | Told::Updated(gsid)
                    if changed.get(&gsid) == Some(&true) =>
                {
                    Outcome::Emptied
                }
                Told::Updated(_) => Outcome::Updated,
                Told::ByStatement(gsid) if changed.contains_key(&gsid) => Outcome::Updated,
                Told::ByStatement(_) | Told::Open => Outcome::Unchanged,
            })
            .collect();
        for (row, outcome) in part.rows.iter().zip(&outcomes) {
            if matches!(
                outcome,
                Outcome::Parked | Outcome::Review | Outcome::Rejected(_)
            ) {
                self.settled.insert(&row.record, outcome.clone());
            }
        }
        touched.extend(changed.into_keys());
        if !touched.is_empty() {
            self.touched.entry(table).or_default().extend(touched);
        }
        Ok(outcomes)
    }

    /// GSIDs for the rows that may be new: UUIDv7 of the batch's date, in the order of the rows, so that rows are
    /// appended.
    fn new_gsids(&self, part: &DestinationBatch, facts: &Facts<'_>) -> Vec<Option<Uuid>> {
        let now = self.batch.now;
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let context = self.gsids.lock().unwrap_or_else(PoisonError::into_inner);
        let gsid = |row: &MappedRow| {
            let entry = facts.entries.get(&row.record);
            let known = entry.is_some_and(|known| known.entry.gsid.is_some());
            let is_open = facts.bonds.get(&row.record) == Some(&Bond::Open);
            let moves = self.batch.asks_anew(&part.plan);
            (row.life == Life::Present && (!known || is_open || moves)).then(|| {
                let at = Timestamp::from_unix(&*context, seconds, now.timestamp_subsec_nanos());
                Uuid::new_v7(at)
            })
        };
        part.rows.iter().map(gsid).collect()
    }
}

fn check_lengths(part: &DestinationBatch, row: &MappedRow) -> Result<(), Fault> {
    let plan = &part.plan;
    if row.cells.len() == plan.columns.len() && row.references.len() == plan.derives.len() {
        return Ok(());
    }
    let what = format!(
        "record {} does not have the columns of the plan for {}",
        row.record, plan.label
    );
    Err(Fault::new(FaultKind::Corrupt, what))
}
