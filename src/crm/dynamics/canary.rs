//! Rows by which a restored org is noticed: the newest that were told of a table, with their numbers.
//!
//! A place in the changes that is ahead of the org tells nothing, so a restore is silent where nobody reads. These rows
//! are the ones that it takes back first. Read again, each must have its number or a higher one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::event::{Found, Row};
use crate::model::record_id::RecordId;

/// Several, as the newest rows are also the first to be deleted.
const KEPT: usize = 4;

/// A table's canaries, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Canaries(Vec<(RecordId, u64)>);

/// What reading them says against the table's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contradiction {
    /// A row has a lower number than was told.
    Older {
        /// What the read is true of.
        as_of: DateTime<Utc>,
    },
    /// A row is not there, and no tombstone was told.
    Missing {
        /// The rows.
        records: Vec<RecordId>,
        /// What the read is true of.
        as_of: DateTime<Utc>,
    },
}

impl Canaries {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The records to read.
    #[must_use]
    pub fn records(&self) -> Vec<RecordId> {
        self.0.iter().map(|(record, _)| record.clone()).collect()
    }

    /// A row was told.
    pub fn told(&mut self, row: &Row) {
        let Some(version) = row.version else { return };
        self.forget(&row.record);
        let place = self
            .0
            .partition_point(|(_, number)| *number > version.number);
        if place < KEPT {
            self.0.insert(place, (row.record.clone(), version.number));
            self.0.truncate(KEPT);
        }
    }

    /// A record is gone, as was told.
    pub fn forget(&mut self, record: &RecordId) {
        self.0.retain(|(known, _)| known != record);
    }

    /// Those that `now` still has, with the numbers that they have here.
    #[must_use]
    pub fn still_in(&self, now: &Self) -> Self {
        let is_in = |record: &RecordId| now.0.iter().any(|(known, _)| known == record);
        let kept = self.0.iter().filter(|(record, _)| is_in(record));
        Self(kept.cloned().collect())
    }

    /// What a read of them by id says against what was told.
    #[must_use]
    pub fn contradicted(&self, found: &Found) -> Option<Contradiction> {
        let is_older = |row: &Row| {
            let told = self.0.iter().find(|(record, _)| *record == row.record);
            let number = row.version.map(|version| version.number);
            matches!((told, number), (Some((_, told)), Some(number)) if number < *told)
        };
        if found.rows.iter().any(is_older) {
            return Some(Contradiction::Older { as_of: found.as_of });
        }
        let absent = found.absent.iter();
        let records: Vec<RecordId> = absent
            .filter(|record| self.0.iter().any(|(known, _)| known == *record))
            .cloned()
            .collect();
        (!records.is_empty()).then_some(Contradiction::Missing {
            records,
            as_of: found.as_of,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::model::event::RowVersion;
    use crate::model::value::Fields;

    use super::*;

    fn id(number: u64) -> RecordId {
        RecordId::stored(format!("{number:08x}-0000-4000-8000-000000000000"))
    }

    fn row(record: u64, number: u64) -> Row {
        Row {
            record: id(record),
            fields: Fields::new(),
            modified_at: None,
            version: Some(RowVersion {
                incarnation: 0,
                number,
            }),
        }
    }

    fn found(rows: Vec<Row>, absent: Vec<RecordId>) -> Found {
        Found {
            rows,
            absent,
            as_of: DateTime::UNIX_EPOCH,
        }
    }

    fn of(rows: &[(u64, u64)]) -> Canaries {
        let mut canaries = Canaries::default();
        for (record, number) in rows {
            canaries.told(&row(*record, *number));
        }
        canaries
    }

    #[test]
    fn the_newest_rows_are_kept_each_once() {
        let mut canaries = of(&[(1, 10), (2, 50), (3, 30), (4, 40), (5, 20), (1, 60)]);
        assert_eq!(canaries.records(), [id(1), id(2), id(4), id(3)]);
        canaries.told(&row(6, 5));
        assert_eq!(canaries.records().len(), KEPT);
        let before = canaries.clone();
        canaries.forget(&id(2));
        assert_eq!(canaries.records(), [id(1), id(4), id(3)]);
        canaries.told(&row(4, 70));
        let doubted = before.still_in(&canaries);
        assert_eq!(doubted, of(&[(1, 60), (4, 40), (3, 30)]));
        let kept = serde_json::to_string(&canaries).unwrap();
        assert_eq!(serde_json::from_str::<Canaries>(&kept).unwrap(), canaries);
    }

    #[test]
    fn a_lower_number_or_a_row_that_is_gone_contradicts() {
        let canaries = of(&[(1, 10), (2, 20)]);
        assert_eq!(
            canaries.contradicted(&found(vec![row(1, 10), row(2, 21)], Vec::new())),
            None
        );
        let older = canaries.contradicted(&found(vec![row(1, 9)], vec![id(2)]));
        assert!(matches!(older, Some(Contradiction::Older { .. })));
        let missing = canaries.contradicted(&found(vec![row(1, 10)], vec![id(2)]));
        let Some(Contradiction::Missing { records, .. }) = missing else {
            panic!("{missing:?}");
        };
        assert_eq!(records, [id(2)]);
        assert_eq!(of(&[]).contradicted(&found(Vec::new(), Vec::new())), None);
    }
}
