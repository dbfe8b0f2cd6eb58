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
        self.target()?.reviews(which).await
    }

    /// What was decided and holds.
    ///
    /// # Errors
    /// A fault of the target.
    pub async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        self.target()?.bindings().await
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
        let decided = self.target()?.decide(&binding).await?;
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
            let bindings = self.target()?.bindings().await?;
            let own = bindings.into_iter().filter(|binding| is_of(binding, of));
            own.map(|binding| binding.table).collect()
        } else {
            let which = Which {
                connection: Some(of.connection.clone()),
                object: Some(of.object.clone()),
                record: Some(of.record.clone()),
                ..Which::default()
            };
            let reviews = self.target()?.reviews(&which).await?;
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
        let bindings = self.target()?.bindings().await?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;

    use super::*;
    use crate::model::stored::{StoredField, StoredObject, StoredType};
    use crate::runtime::clock::ManualClock;
    use crate::state::memory::MemoryState;
    use crate::state::port::State;
    use crate::target::memory::MemoryTarget;
    use crate::target::port::Target;

    async fn control(state: &Arc<MemoryState>, destinations: &[&str]) -> Control {
        let target = MemoryTarget::new();
        let objects = destinations.iter().map(|table| StoredObject {
            table: (*table).to_owned(),
            label: table.to_uppercase(),
            fields: vec![StoredField {
                column: "name".to_owned(),
                label: "Name".to_owned(),
                ty: StoredType::String,
                references: None,
            }],
        });
        let objects: Vec<StoredObject> = objects.collect();
        target.ensure(&objects).await.unwrap();
        let job = KnownJob {
            connection: "acme".into(),
            job: "sync".into(),
            name: "sync".to_owned(),
            object: "Contact".into(),
            enabled: true,
            destinations: objects
                .into_iter()
                .map(|object| (object.label, object.table))
                .collect(),
        };
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        Control::new(
            Arc::clone(state) as _,
            Arc::default(),
            Arc::new(clock),
            Some(Arc::new(target)),
            vec![job],
            Vec::new(),
        )
    }

    fn of(object: &str) -> RecordOf {
        RecordOf {
            connection: "acme".into(),
            object: object.into(),
            record: RecordId::stored("003"),
        }
    }

    #[tokio::test]
    async fn a_record_that_does_not_wait_is_published_again() {
        let state = Arc::new(MemoryState::default());
        let control = control(&state, &["person"]).await;
        let contact = of("Contact");
        let by = Some("anna".to_owned());
        let done = control.decide(&contact, None, Verdict::Create, by).await;
        let done = done.unwrap();
        assert!(!done.waited && done.before.is_none());
        assert_eq!(done.binding.table, "person", "there is one destination");
        let gsid = done.binding.bond.gsid().unwrap();
        assert_eq!(gsid.get_version_num(), 7);
        let asked = state.to_republish(&"acme".into(), 9).await.unwrap();
        assert_eq!(asked, [("Contact".into(), contact.record.clone())]);
        assert_eq!(control.bindings().await.unwrap(), [done.binding]);
        let undone = control.decide(&contact, None, Verdict::Unbind, None).await;
        assert_eq!(undone.unwrap().before, Some(Bond::New(gsid)));
        assert!(control.bindings().await.unwrap().is_empty());
        let again = control.decide(&contact, None, Verdict::Unbind, None).await;
        assert_eq!(again.unwrap_err().kind(), FaultKind::Missing);
    }

    #[tokio::test]
    async fn of_several_destinations_one_is_named() {
        let state = Arc::new(MemoryState::default());
        let control = control(&state, &["person", "link"]).await;
        let contact = of("Contact");
        let decide = |destination: Option<&'static str>| {
            control.decide(&contact, destination, Verdict::Ignore, None)
        };
        let fault = decide(None).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config);
        assert!(fault.remedy_text().unwrap().contains("link, person"));
        let fault = decide(Some("Company")).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Missing);
        assert!(fault.remedy_text().unwrap().contains("LINK, PERSON"));
        for name in ["LINK", "link"] {
            let done = decide(Some(name)).await.unwrap();
            assert_eq!(done.binding.table, "link");
        }
        // What was decided is what is undone.
        let undone = control.decide(&contact, None, Verdict::Unbind, None).await;
        assert_eq!(undone.unwrap().binding.table, "link");
        let other = of("Case");
        let fault = control.decide(&other, None, Verdict::Ignore, None).await;
        assert_eq!(fault.unwrap_err().kind(), FaultKind::Missing);
    }
}
