//! What the database says about a destination's rows: asked for as it is needed, many questions at a time.
//!
//! A destination is thought through in memory, row by row, on facts. What a row needs and is not known becomes a
//! need; all needs of a pass are answered by a few statements, and the destination is thought through again. So the
//! number of statements depends on how deep questions lead to questions, not on how many rows there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::ledger::{Entry, Mark};
use super::lookup::Key;
use super::value::Value;
use crate::mapping::plan::Cell;
use crate::model::record_id::RecordId;
use crate::target::port::review::Bond;

/// What is known.
#[derive(Default)]
pub(super) struct Facts<'a> {
    /// The crosswalk's entries of the batch's records.
    pub entries: HashMap<&'a RecordId, Known>,
    /// What was decided of the batch's records.
    pub bonds: HashMap<&'a RecordId, Bond>,
    /// The columns of the batch's records that wait.
    pub waiting: HashMap<&'a RecordId, BTreeSet<String>>,
    /// Rows of other tables by a derived column's key.
    pub elsewhere: Vec<HashMap<Key<'a>, Vec<Uuid>>>,
    /// Rows of the own table by a shape's key.
    pub by_shape: Vec<HashMap<Key<'a>, Vec<Uuid>>>,
    /// Rows of the own table by the record that holds them, whatever its object; not those of the batch.
    pub by_record: HashMap<String, Vec<Uuid>>,
    /// Locked rows; `None`: there is none.
    pub images: HashMap<Uuid, Option<Image>>,
    /// What those who hold a row besides the batch's records say of it: nobody does; no mark; the newest mark.
    pub standings: HashMap<Uuid, Option<Option<Mark>>>,
    /// The other connections whose records hold a row.
    pub connections: HashMap<Uuid, BTreeSet<String>>,
}

/// An entry as it was read, without a lock.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub entry: Entry,
    /// Its row is there.
    pub is_there: bool,
    /// Where the entry lies (`ctid`), and the transaction that put it there (`xmin`): another one, and it has changed.
    pub place: String,
    pub written_by: i64,
}

/// A row as it is stored: a cell per column of the layout.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Image {
    pub cells: Vec<Cell>,
    /// `crm_state` or `crm_state_at` is not null.
    pub is_marked: bool,
}

/// What has to be asked.
#[derive(Default)]
pub(super) struct Needs<'a> {
    pub elsewhere: BTreeMap<usize, HashSet<Key<'a>>>,
    pub by_shape: BTreeMap<usize, HashSet<Key<'a>>>,
    pub by_record: HashSet<String>,
    /// Rows to be locked and read, in the order of their GSIDs.
    pub images: BTreeSet<Uuid>,
    pub standings: BTreeSet<Uuid>,
    pub connections: BTreeSet<Uuid>,
}

impl Needs<'_> {
    /// Whether nothing but rows is asked for.
    pub(super) fn are_of_rows_only(&self) -> bool {
        self.elsewhere.is_empty() && self.by_shape.is_empty() && self.by_record.is_empty()
    }

    /// Free of the pass that noted them.
    pub(super) fn into_owned(self) -> Needs<'static> {
        let own = |needs: BTreeMap<usize, HashSet<Key<'_>>>| {
            let needs = needs.into_iter();
            needs
                .map(|(place, keys)| (place, keys.into_iter().map(owned).collect()))
                .collect()
        };
        Needs {
            elsewhere: own(self.elsewhere),
            by_shape: own(self.by_shape),
            by_record: self.by_record,
            images: self.images,
            standings: self.standings,
            connections: self.connections,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.are_of_rows_only()
            && self.images.is_empty()
            && self.standings.is_empty()
            && self.connections.is_empty()
    }
}

fn owned(key: Key<'_>) -> Key<'static> {
    key.into_iter().map(Value::into_owned).collect()
}

/// Something is not known yet; the need is noted.
#[derive(Debug)]
pub(super) struct Unknown;
