//! The probe for missed changes: every so often the CRM is asked what changed, and a record that differs from its image
//! though the stream is confirmed beyond the change was told by no event. A hole then has it read.
//!
//! Values are compared, and only of fields that events tell: an event of fields that nobody selected leaves no trace in
//! an image, and a stamp may move where no event is due. Two looks make sure: what differs at the first may have been
//! committed late or told since; what still differs once the stream is confirmed beyond that look was not told.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::time::Instant;

use crate::crm::port::{Pages, Selection};
use crate::fault::Fault;
use crate::flow::road::ObjectRoad;
use crate::image::merge::{Image, Life, MergeTable, Verdict};
use crate::model::event::Row;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::state::port::HoleCause;
use crate::telemetry::metrics;

use super::Repair;
use super::untold::Untold;

/// How many pages one probe reads, so that a mass of changes costs no more calls; the next goes on from there.
const PAGES: u32 = 5;
/// So many differing rows are enough to look at once more before going on.
const SUSPECTS: usize = 200;
/// How many owed reads are looked through; of a longer ledger nothing can be said yet.
const OWED: usize = 10_000;
/// Which part of the interval the stream has for telling what was committed.
const GRACE: i32 = 5;

/// The probes of a connection's objects.
#[derive(Default)]
pub(super) struct Probes(BTreeMap<ObjectName, Probe>);

#[derive(Default)]
struct Probe {
    looked: Option<Instant>,
    suspicion: Option<Suspicion>,
}

/// Rows that differ from their images, though the stream should have told them.
struct Suspicion {
    rows: Vec<Row>,
    as_of: DateTime<Utc>,
    /// Confirmed beyond this, the stream has told whatever the rows show.
    ripe: DateTime<Utc>,
    /// Up to when all rows were compared.
    until: DateTime<Utc>,
}

impl Repair {
    /// Probes every object that is left to events and was not probed for long enough.
    pub(super) async fn probe(&self, probes: &mut Probes, untold: &Untold) -> Result<(), Fault> {
        for (name, object) in self.objects.iter() {
            if !untold.leaves_to_events(name) {
                probes.0.remove(name);
                continue;
            }
            let probe = probes.0.entry(name.clone()).or_default();
            let probed = self.probe_object(object, probe).await;
            probed.map_err(|fault| {
                fault.context(format_args!(
                    "probing {name} for changes that no event told"
                ))
            })?;
        }
        Ok(())
    }

    async fn probe_object(&self, object: &ObjectRoad, probe: &mut Probe) -> Result<(), Fault> {
        let (connection, state) = (&self.road.connection, &self.road.state);
        let every = self.road.settings.probe;
        let is_early = probe.looked.is_some_and(|looked| looked.elapsed() < every);
        if is_early && probe.suspicion.is_none() {
            return Ok(());
        }
        // The place first: images hold what was told up to it.
        let place = state.position(connection).await?;
        let Some(confirmed_at) = place.map(|place| place.confirmed_at) else {
            return Ok(());
        };
        if self.is_read_anyway(&object.key.object).await? {
            probe.suspicion = None;
            return Ok(());
        }
        match probe.suspicion.take() {
            Some(suspicion) if confirmed_at <= suspicion.ripe => {
                probe.suspicion = Some(suspicion);
            }
            Some(suspicion) => probe.suspicion = self.decide(object, suspicion).await?,
            None => {
                let is_first = probe.looked.is_none();
                let since = self.probed_since(object, confirmed_at, is_first).await?;
                if let Some(since) = since {
                    probe.suspicion = self.look(object, since, confirmed_at).await?;
                }
                probe.looked = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Whether the object is not synced yet, or an open hole has it read: its images may well differ.
    async fn is_read_anyway(&self, name: &ObjectName) -> Result<bool, Fault> {
        let (connection, state) = (&self.road.connection, &self.road.state);
        if state.object(connection, name).await?.synced_at.is_none() {
            return Ok(true);
        }
        let holes = state.holes(Some(connection), false).await?;
        Ok(holes.iter().any(|hole| hole.object == *name))
    }

    /// Where the next probe begins; `None` if it is not due: in the first look of a life, the last one may be of another.
    async fn probed_since(
        &self,
        object: &ObjectRoad,
        confirmed_at: DateTime<Utc>,
        is_first: bool,
    ) -> Result<Option<DateTime<Utc>>, Fault> {
        let (connection, name) = (&self.road.connection, &object.key.object);
        // A counter that begins with what it should tell tells no increase.
        self.count(name, 0);
        let probed = self.road.state.object(connection, name).await?.probed;
        let Some(probed) = probed else {
            // What is older, the first full sync has read.
            self.probed(name, self.told_by(confirmed_at)).await?;
            return Ok(None);
        };
        let is_due = !is_first || self.told_by(confirmed_at) - probed >= self.interval();
        Ok(is_due.then_some(probed))
    }

    /// Up to when everything should have been told.
    fn told_by(&self, confirmed_at: DateTime<Utc>) -> DateTime<Utc> {
        confirmed_at - self.interval() / GRACE
    }

    fn interval(&self) -> TimeDelta {
        TimeDelta::from_std(self.road.settings.probe).unwrap_or_default()
    }

    /// The first look: what changed since the last probe and should have been told.
    async fn look(
        &self,
        object: &ObjectRoad,
        from: DateTime<Utc>,
        confirmed_at: DateTime<Utc>,
    ) -> Result<Option<Suspicion>, Fault> {
        let name = &object.key.object;
        let to = self.told_by(confirmed_at);
        if from >= to {
            return Ok(None);
        }
        let selection = Selection {
            object: name.clone(),
            fields: object.carried.iter().cloned().collect(),
        };
        let pages = self.road.crm.read_window(&selection, from, to).await?;
        let mut suspicion = self.compare(object, pages, from, to).await?;
        if suspicion.rows.is_empty() {
            self.probed(name, suspicion.until).await?;
            return Ok(None);
        }
        suspicion.ripe = self.road.end_of_now().await? + self.interval() / GRACE;
        Ok(Some(suspicion))
    }

    /// Compares the rows of a window with their images, until enough of them were read or differ.
    async fn compare(
        &self,
        object: &ObjectRoad,
        mut pages: Box<dyn Pages>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Suspicion, Fault> {
        let mut suspicion = Suspicion {
            rows: Vec::new(),
            as_of: DateTime::<Utc>::MAX_UTC,
            ripe: to,
            until: to,
        };
        let mut read = 0;
        while let Some(page) = pages.next().await? {
            read += 1;
            let Some(last) = page.rows.last() else { break };
            // Without a stamp a window is everything there is: full syncs compare that.
            let Some(reached) = last.modified_at else {
                suspicion.rows.clear();
                break;
            };
            suspicion.as_of = suspicion.as_of.min(page.as_of);
            let differing = self.differing(object, page.rows, page.as_of).await?;
            suspicion.rows.extend(differing);
            let enough = read >= PAGES || suspicion.rows.len() >= SUSPECTS;
            // Rows of one stamp may be many pages; the next probe begins with all of the last one's.
            if enough && reached > from {
                suspicion.until = reached;
                break;
            }
        }
        Ok(suspicion)
    }

    /// The second look, once the stream is confirmed beyond the first. A suspicion that can't be judged yet is given back.
    async fn decide(
        &self,
        object: &ObjectRoad,
        mut suspicion: Suspicion,
    ) -> Result<Option<Suspicion>, Fault> {
        let (connection, name) = (&self.road.connection, &object.key.object);
        let owed = self.road.state.owed(connection, name, OWED).await?;
        if owed.len() == OWED {
            return Ok(Some(suspicion));
        }
        // An event told of these, and their read is due.
        let owed: HashSet<RecordId> = owed.into_iter().map(|owed| owed.record).collect();
        let rows = std::mem::take(&mut suspicion.rows);
        let mut missed = self.differing(object, rows, suspicion.as_of).await?;
        missed.retain(|row| !owed.contains(&row.record));
        self.tell_missed(name, &missed).await?;
        self.probed(name, suspicion.until).await?;
        Ok(None)
    }

    /// The rows that show what their images do not know.
    async fn differing(
        &self,
        object: &ObjectRoad,
        mut rows: Vec<Row>,
        as_of: DateTime<Utc>,
    ) -> Result<Vec<Row>, Fault> {
        let records = rows.iter().map(|row| row.record.clone()).collect();
        let mut images = self.road.images.get(&object.key, records).await?;
        let table = self.road.crm.table();
        rows.retain(|row| {
            let image = images.remove(&row.record);
            differs(table, object, image, row, as_of)
        });
        Ok(rows)
    }

    /// Opens a hole from the earliest of the missed changes to now, and has everybody know.
    async fn tell_missed(&self, name: &ObjectName, missed: &[Row]) -> Result<(), Fault> {
        let Some(from) = missed.iter().filter_map(|row| row.modified_at).min() else {
            return Ok(());
        };
        self.open_window(name, HoleCause::MissedChanges, from)
            .await?;
        let connection = &self.road.connection;
        let count = missed.len() as u64;
        self.count(name, count);
        self.road
            .board
            .object(connection, name, |entry| entry.missed += count);
        let record = missed.first().map(|row| row.record.as_str());
        tracing::warn!(
            %connection, object = %name, records = count, record = record.unwrap_or_default(), since = %from,
            "records changed and no event told it: opening a hole"
        );
        Ok(())
    }

    fn count(&self, name: &ObjectName, missed: u64) {
        let labels = [
            ("connection", self.road.connection.as_str()),
            ("object", name.as_str()),
        ];
        let counter = self.road.metrics.counter(metrics::MISSED_CHANGES, &labels);
        counter.increment(missed);
    }

    /// Stores up to when the object was probed.
    async fn probed(&self, name: &ObjectName, until: DateTime<Utc>) -> Result<(), Fault> {
        let (connection, state) = (&self.road.connection, &self.road.state);
        let mut known = state.object(connection, name).await?;
        known.probed = Some(until);
        state.put_object(connection, self.term, name, known).await
    }
}

/// Whether a row shows what its image should know from events and does not.
fn differs(
    table: &dyn MergeTable,
    object: &ObjectRoad,
    image: Option<Image>,
    row: &Row,
    as_of: DateTime<Utc>,
) -> bool {
    let held = image.clone();
    let step = table.row(image, row, as_of, None);
    if !matches!(step.verdict, Verdict::Publish(_)) {
        return false;
    }
    let Some(held) = held else { return true };
    if held.needs.is_some() {
        // An event told that it changed, and its read is due.
        return false;
    }
    if held.life != Life::Live {
        return true;
    }
    // What an event told at the row's stamp or later was told, even if a read words it otherwise.
    let stamp = row.modified_at.map(|at| at.trunc_subsecs(0));
    let mut changed = step.changed.iter();
    changed.any(|field| {
        let told = held.touched.get(field).copied();
        let is_told = told.is_some() && told >= stamp;
        object.carried.contains(field) && held.fields.contains_key(field) && !is_told
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::TimeZone;

    use super::*;
    use crate::crm::salesforce::merge::SalesforceTable;
    use crate::model::name::{FieldName, ObjectKey};
    use crate::model::value::Value;

    fn at(second: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(1_800_000_000 + second, 0).unwrap()
    }

    /// Events tell `Name` and `Phone`, not `Score__c`.
    fn object() -> ObjectRoad {
        ObjectRoad {
            key: ObjectKey {
                connection: "acme".into(),
                object: "Contact".into(),
            },
            topic: "t".into(),
            selection: Selection::from("Contact"),
            carried: [FieldName::new("Name"), FieldName::new("Phone")].into(),
            late: BTreeSet::new(),
            joins: Vec::new(),
            followers: Vec::new(),
            editions: BTreeMap::new(),
        }
    }

    /// A row of a change in second 50.
    fn row(fields: &[(&str, &str)]) -> Row {
        let fields = fields.iter();
        Row {
            record: RecordId::stored("r"),
            fields: fields
                .map(|(field, value)| (FieldName::new(*field), Value::text(*value)))
                .collect(),
            modified_at: Some(at(50)),
            version: None,
        }
    }

    /// Read in second 10; `touched` says when events told what.
    fn image(fields: &[(&str, &str)], touched: &[(&str, i64)]) -> Image {
        let mut image = Image::partial();
        image.life = Life::Live;
        image.base = Some(at(10));
        for (field, value) in fields {
            image.set(&FieldName::new(*field), &Value::text(*value));
        }
        let touched = touched.iter();
        image.touched = touched
            .map(|(field, second)| (FieldName::new(*field), at(*second)))
            .collect();
        image
    }

    /// Looked at in second 100.
    fn is_missed(image: Option<Image>, row: &Row) -> bool {
        differs(&SalesforceTable, &object(), image, row, at(100))
    }

    #[test]
    fn a_value_that_no_event_told_is_missed() {
        let held = image(&[("Name", "a"), ("Phone", "1")], &[]);
        assert!(is_missed(
            Some(held),
            &row(&[("Name", "b"), ("Phone", "1")])
        ));
        // A later event of another field is no word about this one.
        let held = image(&[("Name", "a"), ("Phone", "2")], &[("Phone", 50)]);
        assert!(is_missed(
            Some(held),
            &row(&[("Name", "b"), ("Phone", "2")])
        ));
    }

    #[test]
    fn a_record_that_is_unknown_or_dead_is_missed() {
        assert!(is_missed(None, &row(&[("Name", "a")])));
        let mut dead = image(&[("Name", "a")], &[]);
        (dead.life, dead.dead) = (Life::Dead, Some(at(20)));
        assert!(is_missed(Some(dead.clone()), &row(&[("Name", "a")])));
        dead.dead = Some(at(100));
        assert!(!is_missed(Some(dead), &row(&[("Name", "a")])));
    }

    #[test]
    fn a_change_of_what_nobody_selected_leaves_no_difference() {
        let held = image(&[("Name", "a"), ("Phone", "1")], &[]);
        assert!(!is_missed(
            Some(held),
            &row(&[("Name", "a"), ("Phone", "1")])
        ));
    }

    #[test]
    fn what_events_do_not_tell_is_not_missed() {
        let held = image(&[("Name", "a"), ("Score__c", "1")], &[]);
        let differs = row(&[("Name", "a"), ("Score__c", "2"), ("Phone", "1")]);
        assert!(!is_missed(Some(held), &differs));
    }

    #[test]
    fn what_was_told_or_read_since_is_not_missed() {
        let after_the_look = image(&[("Name", "c")], &[("Name", 101)]);
        assert!(!is_missed(Some(after_the_look), &row(&[("Name", "b")])));
        let in_other_words = image(&[("Name", "c")], &[("Name", 50)]);
        assert!(!is_missed(Some(in_other_words), &row(&[("Name", "b")])));
        let mut read = image(&[("Name", "c")], &[]);
        read.base = Some(at(100));
        assert!(!is_missed(Some(read), &row(&[("Name", "b")])));
    }

    #[test]
    fn what_owes_a_read_is_not_missed() {
        let mut held = image(&[("Name", "a")], &[]);
        held.needs = Some(at(50));
        assert!(!is_missed(Some(held), &row(&[("Name", "b")])));
    }
}
