//! A query bound to the org's objects: places instead of names.

use std::sync::Arc;

use super::super::schema::Object;
use super::predicate::Predicate;

/// What to read.
#[derive(Debug)]
pub(crate) struct Plan {
    pub object: Arc<Object>,
    /// The parents that paths go through, each after its own child.
    pub joins: Vec<Join>,
    /// Empty when only rows are counted.
    pub columns: Vec<Column>,
    /// The columns in the order they were selected, by their paths: `Owner.Name`.
    pub selected: Vec<(String, Place)>,
    pub filter: Option<Test>,
    pub order: Vec<Sort>,
    pub limit: Option<usize>,
    pub offset: usize,
}

/// A step to a parent record.
#[derive(Debug)]
pub(crate) struct Join {
    /// The record that holds the reference: 0 is the row itself, n + 1 the n-th join.
    pub child: usize,
    pub reference: usize,
    pub object: Arc<Object>,
}

/// A field of the row (source 0) or of a parent (source n + 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub source: usize,
    pub field: usize,
}

/// What a result shows.
#[derive(Debug)]
pub(crate) enum Column {
    Field {
        place: Place,
    },
    Parent {
        name: String,
        source: usize,
        columns: Vec<Column>,
    },
}

/// A condition.
#[derive(Debug)]
pub(crate) enum Test {
    And(Vec<Test>),
    Or(Vec<Test>),
    Not(Box<Test>),
    Field(Place, Predicate),
}

/// One key of an order.
#[derive(Debug)]
pub(crate) struct Sort {
    pub place: Place,
    pub descending: bool,
    pub nulls_last: bool,
}

impl Sort {
    /// Upwards, nulls first.
    pub fn up(place: Place) -> Self {
        Self {
            place,
            descending: false,
            nulls_last: false,
        }
    }
}

/// A place in the index of (SystemModstamp in unix seconds, Id).
pub(crate) type Bound = (i64, Arc<str>);

impl Test {
    /// The place in the index before which no row passes; `None` if the test does not say.
    ///
    /// So a page of a keyset read (`stamp > t OR (stamp = t AND Id > x)`) begins at its key.
    pub fn earliest(&self, stamp: Place, id: Place) -> Option<Bound> {
        match self {
            Self::And(all) => {
                let bounds = all.iter().filter_map(|test| test.earliest(stamp, id));
                let (time, mut from) = bounds.max()?;
                let above = all.iter().filter_map(|test| match test {
                    Self::Field(place, predicate) if *place == id => predicate.lowest_id(),
                    _ => None,
                });
                // Rows of that very second have ids above, all others come later anyway.
                from = above.fold(from, Ord::max);
                Some((time, from))
            }
            Self::Or(any) => any
                .iter()
                .map(|test| test.earliest(stamp, id))
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .min(),
            Self::Field(place, predicate) if *place == stamp => predicate
                .earliest()
                .map(|time| (time.timestamp(), Arc::from(""))),
            Self::Not(_) | Self::Field(..) => None,
        }
    }
}
