//! Query cursors: the rows of a query as they were when it began, handed out page by page for two days.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};

use super::ids;
use super::lock::lock;
use super::random::{BASE62, Random};
use super::soql::ResultSet;

/// How long a cursor is good (REST API Developer Guide, "Query").
const LIFETIME: TimeDelta = TimeDelta::days(2);
/// How many are kept, so that a client that opens and forgets them does not fill the memory; the oldest go first.
const KEPT: usize = 1000;

/// The org's open cursors.
#[derive(Debug)]
pub(crate) struct Cursors {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: HashMap<String, Arc<Cursor>>,
    by_age: BTreeMap<u64, String>,
    serial: u64,
    random: Random,
}

/// An open query.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub results: ResultSet,
    pub page: usize,
    opened: DateTime<Utc>,
}

impl Cursors {
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                open: HashMap::new(),
                by_age: BTreeMap::new(),
                serial: 0,
                random: Random::new(seed, "cursors"),
            }),
        }
    }

    /// Keeps the rows of a query; the key is the first part of a locator.
    pub fn open(
        &self,
        results: ResultSet,
        page: usize,
        now: DateTime<Utc>,
    ) -> (String, Arc<Cursor>) {
        let mut state = lock(&self.state);
        let id = ids::with_checksum(&format!("01g{}", state.random.text(BASE62, 12)));
        let cursor = Arc::new(Cursor {
            results,
            page,
            opened: now,
        });
        state.serial += 1;
        let serial = state.serial;
        state.open.insert(id.clone(), Arc::clone(&cursor));
        state.by_age.insert(serial, id.clone());
        while state.open.len() > KEPT {
            let Some((_, oldest)) = state.by_age.pop_first() else {
                break;
            };
            state.open.remove(&oldest);
        }
        (id, cursor)
    }

    /// The cursor of a locator (`01g…-2000`) and the place it names; `None` if it is no good any more.
    pub fn find(&self, locator: &str, now: DateTime<Utc>) -> Option<(String, Arc<Cursor>, usize)> {
        let (id, place) = locator.split_once('-')?;
        let place = place.parse().ok()?;
        let id = ids::normalise(id)?;
        let mut state = lock(&self.state);
        let cursor = state.open.get(&id).map(Arc::clone)?;
        if now - cursor.opened >= LIFETIME {
            state.open.remove(&id);
            return None;
        }
        (place < cursor.results.len()).then_some((id, cursor, place))
    }

    /// Makes every open cursor stale.
    pub fn expire_all(&self) {
        let mut state = lock(&self.state);
        state.open.clear();
        state.by_age.clear();
    }
}
