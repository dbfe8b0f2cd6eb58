//! The organization: its rows, who may call, and the one road by which rows change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard};

use chrono::{DateTime, Utc};

use super::bus::Bus;
use super::counters::Counters;
use super::entra::Entra;
use super::entra::client::{Certificate, Registration};
use super::entra::grants::Grants;
use super::error::ApiError;
use super::faults::Faults;
use super::guid::Guid;
use super::journal::{Image, Journal, JournalError, Line};
use super::load::{self, LoadError};
use super::options::SimOptions;
use super::outbox::Outbox;
use super::schema::Table;
use super::seed;
use super::store::{Store, Undo};
use super::throttle::{Limits, Throttle};
use super::transaction::{Author, Change, Tx};
use super::webhooks::Webhooks;
use crate::salesforce::clock::SimClock;
use crate::salesforce::lock::{lock, read, write};
use crate::salesforce::random::Random;

/// Why an organization could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("reading the client certificate {path}")]
    Certificate {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the client certificate {path} is no PEM of an RSA key or certificate")]
    Key {
        path: PathBuf,
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    #[error("setting up the client for webhooks")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What does not change while the organization runs.
#[derive(Debug, Clone)]
pub struct Profile {
    pub organization: Guid,
    pub business_unit: Guid,
    pub currency: Guid,
    /// The person who signs in.
    pub user: Guid,
    /// The organization's unique name.
    pub name: String,
    pub seed: u64,
}

/// Ways to behave that no source settles, and privileges taken away.
#[derive(Debug, Clone)]
pub(crate) struct Switches {
    /// The HTTP status of an expired change token.
    pub expired_status: u16,
    /// Actions (`Read`, `Create`, `Write`, `Delete`) that callers lack, by table.
    pub denied: BTreeSet<(String, String)>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            expired_status: 400,
            denied: BTreeSet::new(),
        }
    }
}

/// A simulated organization.
#[derive(Debug)]
pub struct Org {
    pub clock: SimClock,
    pub profile: Profile,
    pub throttle: Throttle,
    pub counters: Counters,
    /// Messages for queues and topics, if there is no bus to take them.
    pub outbox: Outbox,
    pub(crate) bus: Option<Arc<Bus>>,
    pub(crate) entra: Entra,
    pub(crate) faults: Faults,
    pub(crate) webhooks: Webhooks,
    pub(crate) switches: Mutex<Switches>,
    store: RwLock<Store>,
    /// Held over a whole write: synchronous steps are called before it is kept.
    writer: tokio::sync::Mutex<()>,
    snapshots: Mutex<BTreeMap<String, Store>>,
    draws: Mutex<Random>,
    journal: Journal,
    url: OnceLock<String>,
}

impl Org {
    /// Opens an organization: standard tables, data, journal.
    pub fn open(options: &SimOptions) -> Result<Arc<Self>, OpenError> {
        let clock = SimClock::default();
        let (journal, lines) = match &options.journal {
            Some(path) => Journal::open(path)?,
            None => (Journal::default(), Vec::new()),
        };
        let born = match lines.first() {
            Some(Line::Born { at }) => *at,
            _ => clock.second(),
        };
        let mut store = Store::default();
        load::directory(&mut store, options, born)?;
        let profile = seed::fill(&mut store, options, born);
        if lines.is_empty() {
            journal.write(&Line::Born { at: born })?;
        }
        let newest = replay(&mut store, lines)?;
        if let Some(newest) = newest.filter(|newest| *newest > clock.now()) {
            // Time does not go back: the last run's clock may have been moved ahead.
            clock.set(newest);
        }
        let limits = Limits {
            requests: options.request_limit,
            ..Limits::default()
        };
        let throttle = Throttle::default();
        throttle.set(limits);
        let unlike = options.seed ^ clock.now().timestamp_micros().unsigned_abs();
        Ok(Arc::new(Self {
            entra: Entra {
                tenant: options.tenant_id.clone(),
                application: registration(options)?,
                grants: Mutex::new(Grants::new(Random::new(unlike, "tokens"))),
            },
            webhooks: Webhooks::new().map_err(OpenError::Client)?,
            draws: Mutex::new(Random::new(
                options.seed ^ store.version.unsigned_abs(),
                "rows",
            )),
            clock,
            profile,
            throttle,
            counters: Counters::default(),
            outbox: Outbox::default(),
            bus: options.amqp_listen.map(|_| Arc::new(Bus::new(options))),
            faults: Faults::default(),
            switches: Mutex::default(),
            store: RwLock::new(store),
            writer: tokio::sync::Mutex::new(()),
            snapshots: Mutex::default(),
            journal,
            url: OnceLock::new(),
        }))
    }

    /// The base URL that clients are told, without a slash at its end; empty until the server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.get().map_or("", String::as_str)
    }

    pub(crate) fn listens_at(&self, url: String) {
        // The first address stands: an organization is served once.
        drop(self.url.set(url));
    }

    /// The rows, to be read.
    pub fn store(&self) -> RwLockReadGuard<'_, Store> {
        read(&self.store)
    }

    /// A new id.
    #[must_use]
    pub fn draw(&self) -> Guid {
        Guid::draw(&mut lock(&self.draws))
    }

    /// Days that change tokens and tombstones live.
    #[must_use]
    pub fn tracking_days(&self, store: &Store) -> i64 {
        let days = store.table("organization").and_then(|rows| {
            let place = rows.table.place("expirechangetrackingindays")?;
            match rows.row(self.profile.organization)?.cell(place) {
                super::cell::Cell::Int(days) => Some(*days),
                _ => None,
            }
        });
        days.unwrap_or(7)
    }

    fn author(&self, user: Guid) -> Author {
        Author {
            user,
            business_unit: self.profile.business_unit,
            currency: self.profile.currency,
            now: self.clock.second(),
        }
    }

    /// Runs a transaction for a user: all of it or nothing, and its events after it.
    ///
    /// Synchronous steps are called while the rows are as before; if one fails, nothing was changed.
    pub async fn transact<T>(
        self: &Arc<Self>,
        user: Guid,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let _only = self.writer.lock().await;
        let author = self.author(user);
        let (result, changes, posts, waiting) = {
            let mut store = write(&self.store);
            let mut draws = lock(&self.draws);
            let old = store.version;
            let mut tx = Tx::begin(&mut store, author, &mut draws);
            let result = work(&mut tx)?;
            let (changes, undo) = tx.keep();
            drop(draws);
            let posts = self.webhooks.posts(self, &store, &changes, author);
            let mut waiting = None;
            if posts.iter().any(|post| post.synchronous) {
                // Nobody else writes meanwhile, but reads must not see what may be taken back.
                let image = |undo: &Undo| store.image(&undo.table, undo.id);
                let images: Vec<_> = undo.iter().filter_map(image).collect();
                waiting = Some((images, store.version));
                for before in undo.into_iter().rev() {
                    store.restore(before);
                }
                store.version = old;
            }
            (result, changes, posts, waiting)
        };
        if let Some((images, version)) = waiting {
            for post in posts.iter().filter(|post| post.synchronous) {
                self.webhooks.call_now(self, post).await?;
            }
            let mut store = write(&self.store);
            for image in images {
                store.restore(image);
            }
            store.version = version;
        }
        self.keep(&changes, author.now)?;
        for post in posts {
            if !post.synchronous {
                self.webhooks.send(self, post);
            }
        }
        Ok(result)
    }

    fn keep(&self, changes: &[Change], at: DateTime<Utc>) -> Result<(), ApiError> {
        if !self.journal.is_kept() {
            return Ok(());
        }
        let store = self.store();
        let touched: BTreeSet<_> = changes
            .iter()
            .map(|change| (change.table.name.as_str(), change.id))
            .collect();
        let rows = touched
            .into_iter()
            .filter_map(|(table, id)| Image::of(&store, table, id))
            .collect();
        let line = Line::Rows {
            at,
            version: store.version,
            rows,
        };
        drop(store);
        self.journal
            .write(&line)
            .map_err(|error| ApiError::broken(&error))
    }

    /// Defines a table, new or anew, as a customizer does.
    pub async fn define(&self, table: Table) -> Result<(), JournalError> {
        let _only = self.writer.lock().await;
        let mut store = write(&self.store);
        store.define(table.clone());
        let fresh = seed::filters(
            &mut store,
            &table.name,
            self.profile.seed,
            self.clock.second(),
        );
        let line = Line::Defined {
            at: self.clock.second(),
            version: store.version,
            table: Box::new(table),
        };
        self.journal.write(&line)?;
        let rows = fresh
            .into_iter()
            .filter_map(|id| Image::of(&store, "sdkmessagefilter", id))
            .collect();
        self.journal.write(&Line::Rows {
            at: self.clock.second(),
            version: store.version,
            rows,
        })
    }

    /// Remembers the rows as they are, under a name.
    pub fn snapshot(&self, name: &str) {
        let store = self.store().clone();
        lock(&self.snapshots).insert(name.to_owned(), store);
    }

    /// Brings back the rows of a snapshot; row versions go back with them. False if there is none of that name.
    pub async fn restore(&self, name: &str) -> Result<bool, JournalError> {
        let _only = self.writer.lock().await;
        let Some(old) = lock(&self.snapshots).get(name).cloned() else {
            return Ok(false);
        };
        let mut store = write(&self.store);
        let gone: Vec<_> = store
            .tables()
            .flat_map(|rows| rows.rows().map(|(id, _)| (rows.table.name.clone(), id)))
            .collect();
        let metadata = store.metadata + 1;
        *store = old;
        store.metadata = metadata;
        if self.journal.is_kept() {
            let kept: BTreeSet<_> = store
                .tables()
                .flat_map(|rows| rows.rows().map(|(id, _)| (rows.table.name.clone(), id)))
                .collect();
            let every = gone.into_iter().chain(kept).collect::<BTreeSet<_>>();
            let rows = every
                .iter()
                .filter_map(|(table, id)| Image::of(&store, table, *id))
                .collect();
            let line = Line::Rows {
                at: self.clock.second(),
                version: store.version,
                rows,
            };
            self.journal.write(&line)?;
        }
        Ok(true)
    }

    /// Writes a row beside the road of transactions, as the platform does: no events come of it.
    pub(crate) async fn record(
        &self,
        table: &str,
        id: Guid,
        cells: Vec<super::cell::Cell>,
    ) -> Result<(), JournalError> {
        let _only = self.writer.lock().await;
        let at = self.clock.second();
        let mut store = write(&self.store);
        // The row is new: there is nothing to undo.
        drop(store.put(table, id, Some(cells), at));
        if !self.journal.is_kept() {
            return Ok(());
        }
        let rows = Image::of(&store, table, id).into_iter().collect();
        self.journal.write(&Line::Rows {
            at,
            version: store.version,
            rows,
        })
    }
}

fn registration(options: &SimOptions) -> Result<Registration, OpenError> {
    let certificate = match &options.client_certificate {
        None => None,
        Some(path) => {
            let pem = fs::read(path).map_err(|source| OpenError::Certificate {
                path: path.clone(),
                source,
            })?;
            let read = Certificate::read(&pem);
            Some(read.map_err(|source| OpenError::Key {
                path: path.clone(),
                source,
            })?)
        }
    };
    Ok(Registration {
        client_id: options.client_id.clone(),
        secret: options.client_secret.clone(),
        public: options.public_client,
        redirect_uris: options.redirect_uri.clone(),
        certificate,
    })
}

/// Does again what the journal holds; tells the newest time in it.
fn replay(store: &mut Store, lines: Vec<Line>) -> Result<Option<DateTime<Utc>>, JournalError> {
    let mut newest = None;
    for line in lines {
        match line {
            Line::Born { .. } => {}
            Line::Rows { at, version, rows } => {
                newest = newest.max(Some(at));
                for image in rows {
                    image.put(store)?;
                }
                store.version = version;
            }
            Line::Defined { at, version, table } => {
                newest = newest.max(Some(at));
                store.define(*table);
                store.version = version;
            }
        }
    }
    Ok(newest)
}
