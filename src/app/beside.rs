//! The log and the store as commands beside the daemon read them: whichever the config names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::config::log::LogEngine;
use crate::config::target::TargetConfig;
use crate::fault::Fault;
use crate::log::embedded::read_only::ReadOnlyLog;
use crate::log::kafka::KafkaLog;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::Log;
use crate::target::beside::StoreBeside;
use crate::target::postgres::read_only::ReadOnlyDatabase;
use crate::target::sqlite::SqliteTarget;
use crate::telemetry::metrics::Metrics;

/// The store, only read. Opens nothing yet.
///
/// # Errors
/// `Config` for settings that make no sense.
pub fn store(config: &Config) -> Result<Box<dyn StoreBeside>, Fault> {
    Ok(match &config.target {
        TargetConfig::Sqlite { file } => Box::new(SqliteTarget::read_only(file)),
        TargetConfig::Postgres(target) => {
            Box::new(ReadOnlyDatabase::new(super::postgres::target(target)?)?)
        }
    })
}

/// The log, only read: of an embedded one what was there when it was opened.
///
/// # Errors
/// `Storage` if there is no log, `Corrupt`; `Credentials` for the log's secrets.
pub async fn log(config: &Config) -> Result<Arc<dyn Log>, Fault> {
    Ok(match &config.log.engine {
        LogEngine::Embedded => Arc::new(ReadOnlyLog::open(&config.daemon.data_dir).await?),
        LogEngine::Kafka(kafka) => {
            let settings = KafkaSettings::from_config(kafka)?;
            Arc::new(KafkaLog::open(settings, &Metrics::none())?)
        }
    })
}

/// Where scratch stores lie that are files.
pub(super) fn scratch_file(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("scratch").join(format!("{name}.db"))
}
