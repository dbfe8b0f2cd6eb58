//! The simulated org: one record store and one commit log behind every surface.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, RwLock};

use super::clock::SimClock;
use super::commits::CommitLog;
use super::counters::Counters;
use super::ids;
use super::journal::Journal;
use super::lock::{read, write};
use super::options::SimOptions;
use super::random::{BASE62, Random};
use super::server::SimError;
use super::sessions::{Sessions, User};

/// One org, shared by every surface.
#[derive(Debug)]
pub struct Org {
    pub clock: SimClock,
    pub log: CommitLog,
    pub sessions: Sessions,
    pub counters: Counters,
    pub profile: Profile,
    url: OnceLock<String>,
    captured: RwLock<BTreeSet<String>>,
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
}

impl Org {
    /// An org with its data loaded and its journal replayed.
    pub fn open(options: &SimOptions) -> Result<Arc<Self>, SimError> {
        let clock = SimClock::default();
        let journal = Arc::new(Journal::default());
        let mut random = Random::new(options.seed, "org");
        let org_id = ids::with_checksum(&format!("00D{}", random.text(BASE62, 12)));
        let run_as = User {
            id: ids::with_checksum(&format!("005{}", random.text(BASE62, 12))),
            username: "integration@simulated.example".to_owned(),
            view_all_data: true,
        };
        Ok(Arc::new(Self {
            log: CommitLog::new(options.seed, clock.clone(), journal),
            sessions: Sessions::new(options.seed, clock.clone(), &org_id),
            counters: Counters::new(options.api_limit),
            profile: Profile {
                org_id,
                api_version: options.api_version.clone(),
                run_as,
                client_id: options.client_id.clone(),
                client_secret: options.client_secret.clone(),
                page_size: options.page_size,
                seed: options.seed,
            },
            clock,
            url: OnceLock::new(),
            captured: RwLock::new(options.capture.iter().flatten().cloned().collect()),
        }))
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
}
