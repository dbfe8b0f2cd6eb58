//! The simulated org: one record store and one commit log behind every surface.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

use super::bulk::Bulk;
use super::clock::SimClock;
use super::cometd::Streaming;
use super::commits::CommitLog;
use super::counters::Counters;
use super::cursors::Cursors;
use super::faults::Faults;
use super::ids;
use super::journal::{Journal, JournalError, Line, Row};
use super::load::{self, LoadError};
use super::lock::{lock, read, write};
use super::options::SimOptions;
use super::pubsub::{Bus, Schemas};
use super::random::{BASE62, Random};
use super::schema::{Choice, Field, Object};
use super::sessions::{Sessions, User};
use super::signin::{KeyError, SignIn};
use super::store::{Record, Store};
use super::transaction::{Outcome, Prepared, Transaction};
use super::value::Value;

/// One org, shared by every surface.
#[derive(Debug)]
pub struct Org {
    pub clock: SimClock,
    pub log: CommitLog,
    pub sessions: Sessions,
    pub counters: Counters,
    pub profile: Profile,
    pub streaming: Streaming,
    pub bus: Bus,
    pub faults: Faults,
    pub(crate) cursors: Cursors,
    pub(crate) bulk: Bulk,
    pub(crate) schemas: Schemas,
    pub(crate) sign_in: SignIn,
    pub(crate) draws: Mutex<Draws>,
    store: RwLock<Store>,
    url: OnceLock<String>,
    captured: RwLock<BTreeSet<String>>,
    /// Whether users have "View Setup and Configuration".
    view_setup: AtomicBool,
    /// When objects or fields last changed, for conditional describes.
    described: Mutex<DateTime<Utc>>,
    /// When the statements of each open transaction ran.
    open: Mutex<Vec<DateTime<Utc>>>,
}

/// What never changes while the org runs.
#[derive(Debug, Clone)]
pub struct Profile {
    /// 18-character id.
    pub org_id: String,
    /// The newest API version, such as `66.0`.
    pub api_version: String,
    /// The user that client credentials log in.
    pub run_as: User,
    pub client_id: String,
    pub client_secret: String,
    pub page_size: usize,
    pub seed: u64,
    /// Entities that may be selected for capture.
    pub capture_limit: Option<usize>,
    /// How long a commit is unseen by REST reads.
    pub read_lag: Duration,
}

/// What each transaction draws anew.
#[derive(Debug)]
pub(crate) struct Draws {
    pub random: Random,
    pub commit_number: u64,
}

/// Why an org could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("loading the org's data")]
    Load(#[from] LoadError),
    #[error("opening the org's journal")]
    Journal(#[from] JournalError),
    #[error("reading how users sign in")]
    Key(#[from] KeyError),
    #[error("object `{0}` to capture is not loaded")]
    Captured(String),
}

impl Org {
    /// An org with its data loaded and its journal replayed.
    pub fn open(options: &SimOptions) -> Result<Arc<Self>, OpenError> {
        let clock = SimClock::default();
        let (journal, lines) = match &options.journal {
            Some(path) => Journal::open(path)?,
            None => (Journal::default(), Vec::new()),
        };
        let mut random = Random::new(options.seed, "org");
        let org_id = ids::with_checksum(&format!("00D{}", random.text(BASE62, 12)));
        let (born, org_id) = match lines.first() {
            Some(Line::Born { at, org, .. }) => (*at, org.clone()),
            _ => (clock.second(), org_id),
        };
        let unknown = User {
            id: ids::with_checksum(&format!("005{}", random.text(BASE62, 12))),
            username: "integration@simulated.example".to_owned(),
            view_all_data: true,
        };
        let (store, mut run_as) = loaded(options, born, unknown)?;
        if let Some(name) = &options.user_name {
            run_as.username.clone_from(name);
        }
        let captured = captured(options, &store)?;
        let log = CommitLog::new(options.seed, clock.clone(), Arc::new(journal));
        let org = Self {
            log,
            sessions: Sessions::new(options.seed, clock.clone(), &org_id),
            counters: Counters::new(options.api_limit),
            streaming: Streaming::new(options.seed, options.event_limit, options.poll_seconds),
            bus: Bus::new(
                options.seed,
                options.opaque_replay_ids,
                options.keepalive_seconds.map(Duration::from_secs),
            ),
            schemas: Schemas::default(),
            sign_in: SignIn::new(options, clock.clone())?,
            faults: Faults::default(),
            cursors: Cursors::new(options.seed),
            bulk: Bulk::new(options.seed, options.bulk_page_size),
            profile: Profile {
                org_id,
                api_version: options.api_version.clone(),
                run_as,
                client_id: options.client_id.clone(),
                client_secret: options.client_secret.clone(),
                page_size: options.page_size.max(1),
                seed: options.seed,
                capture_limit: options.capture_limit,
                read_lag: Duration::from_millis(options.read_lag_ms),
            },
            draws: Mutex::new(Draws {
                commit_number: 1_180_591_620_717_411_303 + random.between(0, 1 << 40),
                random: Random::new(options.seed, "transactions"),
            }),
            store: RwLock::new(store),
            url: OnceLock::new(),
            captured: RwLock::new(captured),
            view_setup: AtomicBool::new(true),
            described: Mutex::new(born),
            open: Mutex::new(Vec::new()),
            clock,
        };
        org.replay(lines)?;
        Ok(Arc::new(org))
    }

    /// The base URL that clients are told, without a slash at its end; empty until the server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.get().map_or("", String::as_str)
    }

    pub(crate) fn listens_at(&self, url: String) {
        // The first address stands: an org is served once.
        drop(self.url.set(url));
    }

    /// Whether changes of an object yield events.
    #[must_use]
    pub fn captures(&self, object: &str) -> bool {
        read(&self.captured).contains(object)
    }

    /// Selects an object for capture.
    pub fn capture(&self, object: &str) {
        write(&self.captured).insert(object.to_owned());
    }

    /// Takes an object out of capture; tells whether it was in.
    pub fn release(&self, object: &str) -> bool {
        write(&self.captured).remove(object)
    }

    /// The objects selected for capture.
    #[must_use]
    pub fn captured(&self) -> BTreeSet<String> {
        read(&self.captured).clone()
    }

    /// Whether users have "View Setup and Configuration".
    #[must_use]
    pub fn views_setup(&self) -> bool {
        self.view_setup.load(Ordering::Relaxed)
    }

    /// Gives users "View Setup and Configuration", or takes it away.
    pub fn view_setup(&self, given: bool) {
        self.view_setup.store(given, Ordering::Relaxed);
    }

    /// An object by its API name, without regard to case.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<Arc<Object>> {
        self.store()
            .table(name)
            .map(|table| Arc::clone(&table.object))
    }

    /// Every object, by name.
    #[must_use]
    pub fn objects(&self) -> Vec<Arc<Object>> {
        self.store()
            .tables()
            .map(|table| Arc::clone(&table.object))
            .collect()
    }

    /// A record as it is, in the bin or not, by its 18-character id.
    #[must_use]
    pub fn record(&self, object: &str, id: &str) -> Option<Arc<Record>> {
        self.store().table(object)?.head(id).cloned()
    }

    /// Adds an empty field to an object, as an administrator does; false if the object has none or has it.
    pub fn add_field(&self, object: &str, field: Field) -> bool {
        let mut store = write(&self.store);
        let Some(table) = store
            .table_mut(object)
            .filter(|table| table.object.place(&field.name).is_none())
        else {
            return false;
        };
        table.describe_as(table.object.with_field(field));
        self.describe_changed();
        true
    }

    /// Shows or hides a field of an object to the running user; false if there is no such field.
    pub fn show_field(&self, object: &str, field: &str, visible: bool) -> bool {
        self.change_field(object, field, |field| field.visible = visible)
    }

    /// Sets the entries of a picklist; false if there is no such field, or it is none.
    pub fn label_field(&self, object: &str, field: &str, choices: Vec<Choice>) -> bool {
        let mut is_picklist = false;
        let found = self.change_field(object, field, |field| {
            is_picklist = field.kind.is_picklist();
            if is_picklist {
                field.choices = choices;
            }
        });
        found && is_picklist
    }

    fn change_field(&self, object: &str, field: &str, change: impl FnOnce(&mut Field)) -> bool {
        let mut store = write(&self.store);
        let Some(table) = store.table_mut(object) else {
            return false;
        };
        let Some(place) = table.object.place(field) else {
            return false;
        };
        let mut changed = Object::clone(&table.object);
        change(&mut changed.fields[place]);
        table.describe_as(changed);
        self.describe_changed();
        true
    }

    fn describe_changed(&self) {
        *lock(&self.described) = self.clock.second();
    }

    /// When objects or fields last changed.
    pub(crate) fn described(&self) -> DateTime<Utc> {
        *lock(&self.described)
    }

    /// Runs and commits a transaction at once.
    pub fn transact(&self, transaction: Transaction) -> Result<Outcome, JournalError> {
        let mut store = write(&self.store);
        let prepared = Prepared::run(&mut store, transaction, self.clock.second());
        self.commit_in(&mut store, prepared)
    }

    /// Runs the statements of a transaction, which stamp their records, and leaves it open.
    pub fn begin(&self, transaction: Transaction) -> Prepared {
        let mut store = write(&self.store);
        let prepared = Prepared::run(&mut store, transaction, self.clock.second());
        lock(&self.open).push(prepared.at);
        prepared
    }

    /// Commits an open transaction.
    pub fn commit(&self, prepared: Prepared) -> Result<Outcome, JournalError> {
        let mut store = write(&self.store);
        let mut open = lock(&self.open);
        if let Some(place) = open.iter().position(|at| *at == prepared.at) {
            open.swap_remove(place);
        }
        drop(open);
        self.commit_in(&mut store, prepared)
    }

    /// When the oldest open transaction stamped its records.
    pub(crate) fn oldest_open(&self) -> Option<DateTime<Utc>> {
        lock(&self.open).iter().min().copied()
    }

    fn commit_in(&self, store: &mut Store, prepared: Prepared) -> Result<Outcome, JournalError> {
        for staged in &prepared.staged {
            store.locked.remove(&staged.id);
        }
        let now = self.clock.now();
        let events = self.events(&prepared, now.trunc_subsecs(0));
        let rows = || {
            let row = |staged: &super::transaction::Staged| Row {
                object: staged.object.name.clone(),
                id: staged.id.to_string(),
                fields: staged.after.as_ref().map(|after| {
                    let named = staged.object.fields.iter().zip(after.values());
                    named
                        .filter(|(_, value)| !value.is_null())
                        .map(|(field, value)| (field.name.clone(), value.rest()))
                        .collect()
                }),
            };
            prepared.staged.iter().map(row).collect()
        };
        let events = if prepared.staged.is_empty() {
            Vec::new()
        } else {
            self.log.append_with(events, |events, at| Line::Commit {
                at,
                rows: rows(),
                events,
            })?
        };
        let created = prepared.created();
        let visible = now + self.profile.read_lag;
        for staged in prepared.staged {
            if let Some(table) = store.table_mut(&staged.object.name) {
                table.put(&staged.id, staged.after, now, visible);
            }
        }
        Ok(Outcome {
            results: prepared.results,
            created,
            events,
        })
    }

    pub(crate) fn store(&self) -> RwLockReadGuard<'_, Store> {
        read(&self.store)
    }

    /// Does again what the journal holds, or begins it.
    fn replay(&self, lines: Vec<Line>) -> Result<(), OpenError> {
        if lines.is_empty() {
            self.log.begin(self.described(), &self.profile.org_id)?;
            return Ok(());
        }
        let mut store = write(&self.store);
        let mut newest = self.clock.now();
        for line in &lines {
            self.log.replay(line);
            match line {
                Line::Commit { at, rows, events } => {
                    newest = newest.max(*at);
                    for row in rows {
                        restore(&mut store, row, *at)?;
                    }
                    let mut draws = lock(&self.draws);
                    for event in events {
                        let number = event.event.commit_number;
                        draws.commit_number = draws.commit_number.max(number);
                    }
                    draws.random = Random::new(self.log.newest() ^ draws.random.next(), "again");
                }
                Line::Events { events } => {
                    newest = events.iter().map(|event| event.at).fold(newest, Ord::max);
                }
                Line::Mark { at, .. } => newest = newest.max(*at),
                Line::Born { .. } | Line::Cut { .. } | Line::Reset { .. } => {}
            }
        }
        // Time does not go back: the last run's clock may have been moved ahead.
        if newest > self.clock.now() {
            self.clock.set(newest);
        }
        Ok(())
    }
}

fn loaded(
    options: &SimOptions,
    at: DateTime<Utc>,
    unknown: User,
) -> Result<(Store, User), OpenError> {
    let mut store = Store::default();
    let Some(dir) = &options.data else {
        return Ok((store, unknown));
    };
    let (objects, user) = load::directory(dir, at, unknown)?;
    for object in objects {
        store.add(object);
    }
    Ok((store, user))
}

fn captured(options: &SimOptions, store: &Store) -> Result<BTreeSet<String>, OpenError> {
    let Some(chosen) = &options.capture else {
        return Ok(store
            .tables()
            .map(|table| table.object.name.clone())
            .collect());
    };
    chosen
        .iter()
        .map(|name| {
            store
                .table(name)
                .map(|table| table.object.name.clone())
                .ok_or_else(|| OpenError::Captured(name.clone()))
        })
        .collect()
}

fn restore(store: &mut Store, row: &Row, at: DateTime<Utc>) -> Result<(), JournalError> {
    let unfit = |problem: &str| JournalError::Unfit {
        object: row.object.clone(),
        id: row.id.clone(),
        problem: problem.to_owned(),
    };
    let table = store
        .table_mut(&row.object)
        .ok_or_else(|| unfit("the object is not there"))?;
    let record = match &row.fields {
        None => None,
        Some(fields) => {
            let mut record = Record::new(vec![Value::Null; table.object.fields.len()]);
            for (name, json) in fields {
                let place = table.object.place(name).ok_or_else(|| unfit(name))?;
                let value = Value::from_json(table.object.fields[place].kind, json)
                    .ok_or_else(|| unfit(name))?;
                record.set(place, value);
            }
            Some(Arc::new(record))
        }
    };
    table.put(&Arc::from(row.id.as_str()), record, at, at);
    Ok(())
}
