//! What the daemon stands on: log, images, state and target, opened together and closed in order.

use std::sync::Arc;

use crate::config::Config;
use crate::config::log::LogEngine;
use crate::config::target::TargetConfig;
use crate::fault::{Fault, FaultKind};
use crate::image::port::ImageStore;
use crate::image::sqlite::SqliteImages;
use crate::log::embedded::{EmbeddedLog, Settings};
use crate::log::kafka::KafkaLog;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::Log;
use crate::runtime::clock::Clock;
use crate::state::credentials::Credentials;
use crate::state::notices::Notices;
use crate::state::port::State;
use crate::target::port::Target;
use crate::target::postgres::PostgresTarget;
use crate::target::sqlite::SqliteTarget;
use crate::target::watched::Watched;
use crate::telemetry::metrics::Metrics;

/// The daemon's stores.
pub(super) struct Stores {
    pub log: Arc<dyn Log>,
    /// The same, if it is the embedded one, which keeps its own house.
    pub embedded: Option<Arc<EmbeddedLog>>,
    pub images: Arc<SqliteImages>,
    pub state: Arc<dyn State>,
    pub credentials: Arc<dyn Credentials>,
    pub notices: Arc<dyn Notices>,
    pub target: Arc<Watched>,
}

impl Stores {
    /// Opens all of them under the config's `data_dir`, making it where it is missing.
    ///
    /// # Errors
    /// `Config` if another daemon has one of them; `Storage`, `Corrupt`; `Credentials` for the log's secrets.
    pub async fn open(
        config: &Config,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, Fault> {
        let dir = &config.daemon.data_dir;
        std::fs::create_dir_all(dir).map_err(|error| {
            Fault::new(
                FaultKind::Storage,
                format!("making `[daemon] data_dir` `{}`", dir.display()),
            )
            .source(error)
            .remedy("let this user write there, or set another `data_dir`")
        })?;
        let target: Arc<dyn Target> = match &config.target {
            TargetConfig::Sqlite { file } => {
                Arc::new(SqliteTarget::open(file, Arc::clone(&clock)).await?)
            }
            TargetConfig::Postgres(target) => {
                let settings = super::postgres::target(target)?;
                Arc::new(PostgresTarget::new(settings, Arc::clone(&clock))?)
            }
        };
        let (log, embedded): (Arc<dyn Log>, _) = match &config.log.engine {
            LogEngine::Embedded => {
                let settings = Settings::default();
                let log = Arc::new(EmbeddedLog::open(dir, Arc::clone(&clock), settings).await?);
                (Arc::clone(&log) as _, Some(log))
            }
            LogEngine::Kafka(kafka) => {
                let settings = KafkaSettings::from_config(kafka)?;
                (Arc::new(KafkaLog::open(settings, metrics)?), None)
            }
        };
        let opened = super::state::open(config).await?;
        let objects = config.objects.values().cloned().collect();
        Ok(Self {
            log,
            embedded,
            images: Arc::new(SqliteImages::open(dir).await?),
            state: opened.state,
            credentials: opened.credentials,
            notices: opened.notices,
            target: Arc::new(Watched::new(target, objects, clock, metrics)),
        })
    }

    /// Closes all of them; the first fault is told once all were tried.
    pub async fn close(&self) -> Result<(), Fault> {
        let closed = [
            self.target.close().await,
            self.images.close().await,
            self.log.close().await,
            self.state.close().await,
        ];
        closed.into_iter().collect()
    }
}
