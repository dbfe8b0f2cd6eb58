//! Tests of the PostgreSQL target: the suite of all targets, and what is PostgreSQL's own.

mod doubt;
mod measure;
mod properties;
mod reach;
mod storage;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use chrono::DateTime;

use super::{PostgresSettings, PostgresTarget};
use crate::postgres::trial::server::server;
use crate::runtime::clock::ManualClock;
use crate::target::port::Target;
use crate::target::suite::{Bench, target_suite};

/// A store in schemas of its own.
pub struct Store {
    pub settings: PostgresSettings,
    pub target: Arc<PostgresTarget>,
}

impl Store {
    pub async fn new() -> Self {
        Self::with(fresh()).await
    }

    pub async fn with(settings: PostgresSettings) -> Self {
        Self {
            target: Arc::new(open(settings.clone()).await),
            settings,
        }
    }

    /// A table as SQL takes it.
    pub fn table(&self, name: &str) -> String {
        self.target.schemas.table(name)
    }

    pub fn ledger(&self, name: &str) -> String {
        self.target.schemas.ledger(name)
    }
}

/// Settings for two schemas that nobody else has.
pub fn fresh() -> PostgresSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PostgresSettings {
        writers: 3,
        store: format!("store {number}"),
        ledger: format!("tributary {number}"),
        ..PostgresSettings::new(server().local())
    }
}

async fn open(settings: PostgresSettings) -> PostgresTarget {
    // Later than the suite's batches.
    let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
    PostgresTarget::open(settings, Arc::new(clock))
        .await
        .unwrap()
}

#[async_trait]
impl Bench for Store {
    fn target(&self) -> Arc<dyn Target> {
        Arc::clone(&self.target) as _
    }

    async fn reopen(&mut self) {
        self.target.close().await.unwrap();
        self.target = Arc::new(open(self.settings.clone()).await);
    }
}

target_suite!(Store::new());
