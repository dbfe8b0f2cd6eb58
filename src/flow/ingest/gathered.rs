//! What a step gathers before anything is written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::sync::oneshot;

use crate::image::merge::Image;
use crate::model::change::Change;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::state::port::{NewHole, Owed, Settled};

use super::ReadOutcome;

/// Images, changes, debts and answers of one step, in order.
#[derive(Default)]
pub struct Gathered {
    /// The images of every record that the step speaks of, as they are after it.
    pub images: BTreeMap<ObjectName, HashMap<RecordId, Image>>,
    /// Those that the step changed.
    pub written: BTreeMap<ObjectName, HashSet<RecordId>>,
    /// What is to be published, without what was handed to the log already.
    pub changes: Vec<Change>,
    /// Parents whose children are to be looked at.
    pub moved: BTreeSet<(ObjectName, RecordId)>,
    /// Holes that opened.
    pub holes: Vec<NewHole>,
    /// Requests that were met.
    pub republished: Vec<(ObjectName, RecordId)>,
    /// The stream spoke: its place is to be stored.
    pub heard: bool,
    /// A row proved that the org was restored to an earlier state; what the proof was true of.
    pub restored: Option<DateTime<Utc>>,
    /// Who waits, and for what.
    pub reads: Vec<(oneshot::Sender<ReadOutcome>, ReadOutcome)>,
    /// Counts by metric and object.
    pub counts: BTreeMap<(&'static str, ObjectName), u64>,
    /// In order, so that a run repeats.
    owe: BTreeMap<ObjectName, BTreeMap<RecordId, DateTime<Utc>>>,
    settle: Vec<Settled>,
}

impl Gathered {
    /// Nothing yet, on the images of the records that the step speaks of.
    pub fn of(images: BTreeMap<ObjectName, HashMap<RecordId, Image>>) -> Self {
        Self {
            images,
            ..Self::default()
        }
    }

    /// A record's image as it is now.
    pub fn image(&self, object: &ObjectName, record: &RecordId) -> Option<Image> {
        self.images.get(object)?.get(record).cloned()
    }

    /// An image was changed.
    pub fn put(&mut self, object: &ObjectName, record: &RecordId, image: Image) {
        entry(&mut self.images, object).insert(record.clone(), image);
        entry(&mut self.written, object).insert(record.clone());
    }

    /// A read of the record is owed, for a change of `stamp`.
    pub fn owe(&mut self, object: &ObjectName, record: &RecordId, stamp: DateTime<Utc>) {
        let owed = entry(&mut self.owe, object)
            .entry(record.clone())
            .or_insert(stamp);
        *owed = (*owed).max(stamp);
    }

    /// A read as of `as_of` was believed: it answers what was committed in an earlier second, and no more.
    pub fn settle(&mut self, object: &ObjectName, record: &RecordId, as_of: DateTime<Utc>) {
        let answered = as_of.trunc_subsecs(0);
        if let Some(owed) = self.owe.get_mut(object)
            && owed.get(record).is_some_and(|stamp| *stamp < answered)
        {
            owed.remove(record);
        }
        self.settle.push(Settled {
            object: object.clone(),
            record: record.clone(),
            stamp: answered - TimeDelta::microseconds(1),
        });
    }

    /// Counts something of an object.
    pub fn count(&mut self, name: &'static str, object: &ObjectName, by: u64) {
        *self.counts.entry((name, object.clone())).or_default() += by;
    }

    /// What is owed and settled after the step.
    pub fn debts(&mut self) -> (Vec<Owed>, Vec<Settled>) {
        let mut owe = Vec::new();
        for (object, records) in std::mem::take(&mut self.owe) {
            owe.extend(records.into_iter().map(|(record, stamp)| Owed {
                object: object.clone(),
                record,
                stamp,
            }));
        }
        (owe, std::mem::take(&mut self.settle))
    }
}

/// The entry of an object, whose name is cloned only the first time.
fn entry<'a, T: Default>(map: &'a mut BTreeMap<ObjectName, T>, object: &ObjectName) -> &'a mut T {
    if !map.contains_key(object) {
        map.insert(object.clone(), T::default());
    }
    map.entry(object.clone()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + ms).unwrap()
    }

    #[test]
    fn a_read_settles_only_earlier_seconds() {
        let (object, record) = (ObjectName::new("Account"), RecordId::stored("001"));
        let mut gathered = Gathered::default();
        // Committed at 10.9, told as 10; the read is true of 10.5.
        gathered.owe(&object, &record, at(10_000));
        gathered.settle(&object, &record, at(10_500));
        let (owe, settle) = gathered.debts();
        assert_eq!((owe.len(), owe[0].stamp), (1, at(10_000)));
        assert!(settle[0].stamp < at(10_000));
        gathered.owe(&object, &record, at(10_000));
        gathered.settle(&object, &record, at(11_000));
        let (owe, settle) = gathered.debts();
        assert!(owe.is_empty());
        assert!(settle[0].stamp >= at(10_000) && settle[0].stamp < at(11_000));
    }

    #[test]
    fn a_large_step_is_not_quadratic() {
        let object = ObjectName::new("Account");
        let mut gathered = Gathered::default();
        let began = std::time::Instant::now();
        for number in 0..50_000 {
            let record = RecordId::stored(format!("r{number}"));
            gathered.settle(&object, &record, at(10_000));
            gathered.owe(&object, &record, at(20_000));
        }
        assert_eq!(gathered.debts().0.len(), 50_000);
        // A scan of all that was settled at each debt takes minutes here.
        assert!(began.elapsed() < std::time::Duration::from_secs(10));
    }
}
