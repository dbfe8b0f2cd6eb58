//! Decisions on records that fit several rows. They are rows of the target's ledger, so every daemon on the target
//! obeys them.

use std::collections::BTreeSet;

use uuid::{NoContext, Timestamp, Uuid};

use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, ObjectName};
use crate::model::record_id::RecordId;
use crate::target::port::review::{Binding, Bond, Review, Which};

use super::{Control, KnownJob};

/// A record of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordOf {
    /// The connection.
    pub connection: ConnectionId,
    /// The CRM object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
}

/// What a person says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is this row.
    Bind(Uuid),
    /// It is none of them: a row of its own.
    Create,
    /// It gets no row.
    Ignore,
    /// What was said before does not hold any more.
    Unbind,
}

/// What a decision did.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdicted {
    /// What holds now.
    pub binding: Binding,
    /// What held before.
    pub before: Option<Bond>,
    /// The change that waited is run now. Otherwise the record is published again, and run then.
    pub waited: bool,
}

impl Control {
    /// What waits for a decision, oldest first.
    ///
    /// # Errors
    /// A fault of the target.
    pub async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        self.target.reviews(which).await
    }

    /// What was decided and holds.
    ///
    /// # Errors
    /// A fault of the target.
    pub async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.target.bindings().await
    }

    /// Decides on a record in one destination: the one named (label or table), else the one that it waits for.
    ///
    /// # Errors
    /// `Missing` for a record, a destination or a row that is not there; `Config` where the destination has to be named;
    /// a fault of the target or the state.
    pub async fn decide(
        &self,
        of: &RecordOf,
        destination: Option<&str>,
        verdict: Verdict,
        by: Option<String>,
    ) -> Result<Verdicted, Fault> {
        let table = match destination {
            Some(name) => self.named(of, name)?,
            None => self.meant(of, verdict).await?,
        };
        let bond = match verdict {
            Verdict::Bind(gsid) => Bond::Row(gsid),
            Verdict::Create => Bond::New(self.new_gsid()),
            Verdict::Ignore => Bond::Ignored,
            Verdict::Unbind => self.undone(of, &table).await?,
        };
        let binding = Binding {
            connection: of.connection.clone(),
            object: of.object.clone(),
            record: of.record.clone(),
            table,
            bond,
            by,
            at: self.clock.now(),
        };
        let decided = self.target.decide(&binding).await?;
        if !decided.waits {
            // Nothing is parked that could be run: the owner has the record's image.
            let state = &self.state;
            state
                .request_republish(&of.connection, &of.object, &of.record)
                .await?;
        }
        tracing::info!(
            connection = %of.connection, object = %of.object, record = %of.record, table = binding.table,
            decision = bond.label(), gsid = bond.gsid().map(|gsid| gsid.to_string()).unwrap_or_default(),
            by = binding.by.as_deref().unwrap_or_default(), "decision on a record"
        );
        Ok(Verdicted {
            binding,
            before: decided.before,
            waited: decided.waits,
        })
    }

    /// The table of a destination that a job fills with records of the object.
    fn named(&self, of: &RecordOf, name: &str) -> Result<String, Fault> {
        let mut destinations = self.destinations(of)?;
        let found = destinations.find(|(label, table)| label == name || table == name);
        if let Some((_, table)) = found {
            return Ok(table.clone());
        }
        let labels: BTreeSet<&str> = self
            .destinations(of)?
            .map(|(label, _)| label.as_str())
            .collect();
        let labels: Vec<&str> = labels.into_iter().collect();
        let (connection, object) = (&of.connection, &of.object);
        let what = format!("no job of {connection} fills `{name}` with records of {object}");
        Err(Fault::new(FaultKind::Missing, what)
            .remedy(format!("name one of: {}", labels.join(", "))))
    }

    /// Label and table of what jobs fill with records of an object.
    fn destinations(
        &self,
        of: &RecordOf,
    ) -> Result<impl Iterator<Item = &(String, String)>, Fault> {
        let is_its = |job: &&KnownJob| job.connection == of.connection && job.object == of.object;
        let jobs = self.jobs.iter().filter(is_its);
        if jobs.clone().next().is_none() {
            let what = format!("no job of {} reads {}", of.connection, of.object);
            return Err(Fault::new(FaultKind::Missing, what)
                .remedy("`tributary jobs` prints those there are, with their objects"));
        }
        Ok(jobs.flat_map(|job| job.destinations.iter()))
    }

    /// The table that a decision is about, where it does not say.
    async fn meant(&self, of: &RecordOf, verdict: Verdict) -> Result<String, Fault> {
        let known: BTreeSet<String> = self
            .destinations(of)?
            .map(|(_, table)| table.clone())
            .collect();
        let meant: BTreeSet<String> = if verdict == Verdict::Unbind {
            let bindings = self.target.bindings().await?;
            let own = bindings.into_iter().filter(|binding| is_of(binding, of));
            own.map(|binding| binding.table).collect()
        } else {
            let which = Which {
                connection: Some(of.connection.clone()),
                object: Some(of.object.clone()),
                record: Some(of.record.clone()),
                ..Which::default()
            };
            let reviews = self.target.reviews(&which).await?;
            reviews.into_iter().map(|review| review.table).collect()
        };
        let one = |mut tables: BTreeSet<String>| {
            let only = tables.len() == 1;
            tables.pop_first().filter(|_| only)
        };
        if let Some(table) = one(meant).or_else(|| one(known.clone())) {
            return Ok(table);
        }
        let what = format!(
            "record {} of {} may have rows in several tables",
            of.record, of.object
        );
        let known: Vec<String> = known.into_iter().collect();
        Err(Fault::new(FaultKind::Config, what)
            .remedy(format!("name one by --destination: {}", known.join(", "))))
    }

    /// What undoes a decision, if there is one.
    async fn undone(&self, of: &RecordOf, table: &str) -> Result<Bond, Fault> {
        let bindings = self.target.bindings().await?;
        let mut own = bindings.iter().filter(|binding| is_of(binding, of));
        if own.any(|binding| binding.table == table) {
            return Ok(Bond::Open);
        }
        let what = format!(
            "nothing was decided of record {} of {} in `{table}`",
            of.record, of.object
        );
        Err(Fault::new(FaultKind::Missing, what)
            .remedy("`tributary review bindings` prints what holds"))
    }

    fn new_gsid(&self) -> Uuid {
        let now = self.clock.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        Uuid::new_v7(Timestamp::from_unix(
            NoContext,
            seconds,
            now.timestamp_subsec_nanos(),
        ))
    }
}

fn is_of(binding: &Binding, of: &RecordOf) -> bool {
    (&binding.connection, &binding.object, &binding.record)
        == (&of.connection, &of.object, &of.record)
}
