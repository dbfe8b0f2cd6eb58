//! `tributary topics`: list, export, import; on the files, beside a running daemon where nothing is written.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use tokio::fs::File;
use tokio::io::{BufReader, BufWriter};

use crate::app;
use crate::config::Config;
use crate::config::kafka::KafkaConfig;
use crate::config::log::LogEngine;
use crate::fault::{Fault, FaultKind};
use crate::flow::road::topic_spec;
use crate::log::embedded::read_only::ReadOnlyLog;
use crate::log::embedded::{EmbeddedLog, Settings};
use crate::log::kafka::KafkaLog;
use crate::log::kafka::settings::KafkaSettings;
use crate::log::port::{Bounds, Log};
use crate::log::transfer;
use crate::runtime::clock::SystemClock;
use crate::telemetry::metrics::Metrics;

use super::args::TopicsCommand;
use super::output;

#[derive(Serialize)]
struct Listed {
    topic: String,
    partition: u32,
    start: u64,
    end: u64,
}

pub(super) async fn topics(
    config: &Path,
    command: TopicsCommand,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(config)?;
    match command {
        TopicsCommand::List => list(&*for_reading(&config).await?, json).await?,
        TopicsCommand::Export { topic, file } => {
            let log = for_reading(&config).await?;
            let out = File::create(&file)
                .await
                .map_err(|error| unusable("creating", &file, error))?;
            let lines = transfer::export(&*log, &topic, &mut BufWriter::new(out)).await?;
            told("exported", &topic, &file, lines, json);
        }
        TopicsCommand::Import { topic, file } => {
            let input = File::open(&file)
                .await
                .map_err(|error| unusable("opening", &file, error))?;
            let log = for_writing(&config).await?;
            log.ensure(&topic_spec(&topic)).await?;
            let lines = transfer::import(&*log, &topic, &mut BufReader::new(input)).await?;
            log.close().await?;
            told("imported", &topic, &file, lines, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The log as it is now, beside a daemon that writes it.
async fn for_reading(config: &Config) -> Result<Box<dyn Log>, Fault> {
    match &config.log.engine {
        LogEngine::Embedded => Ok(Box::new(ReadOnlyLog::open(&config.daemon.data_dir).await?)),
        LogEngine::Kafka(kafka) => Ok(Box::new(on_kafka(kafka)?)),
    }
}

/// The log for appending: the embedded one only while no daemon has it.
async fn for_writing(config: &Config) -> Result<Box<dyn Log>, Fault> {
    match &config.log.engine {
        LogEngine::Embedded => {
            let (dir, clock) = (&config.daemon.data_dir, Arc::new(SystemClock));
            Ok(Box::new(
                EmbeddedLog::open(dir, clock, Settings::default()).await?,
            ))
        }
        LogEngine::Kafka(kafka) => Ok(Box::new(on_kafka(kafka)?)),
    }
}

fn on_kafka(kafka: &KafkaConfig) -> Result<KafkaLog, Fault> {
    KafkaLog::open(KafkaSettings::from_config(kafka)?, &Metrics::none())
}

async fn list(log: &dyn Log, json: bool) -> Result<(), Fault> {
    let mut listed = Vec::new();
    for spec in log.topics().await? {
        for (partition, Bounds { start, end }) in log.bounds(&spec.name).await? {
            listed.push(Listed {
                topic: spec.name.clone(),
                partition,
                start,
                end,
            });
        }
    }
    if json {
        output::json(&listed);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = listed
        .into_iter()
        .map(|place| {
            vec![
                place.topic,
                place.partition.to_string(),
                place.start.to_string(),
                place.end.to_string(),
            ]
        })
        .collect();
    output::table(&["TOPIC", "PARTITION", "START", "END"], &rows);
    Ok(())
}

fn told(done: &str, topic: &str, file: &Path, lines: u64, json: bool) {
    if json {
        output::json(&serde_json::json!({ "topic": topic, "file": file, "records": lines }));
    } else {
        output::print(&format!(
            "{done} {lines} records of {topic} ({})",
            file.display()
        ));
    }
}

fn unusable(doing: &str, file: &Path, error: std::io::Error) -> Fault {
    Fault::new(FaultKind::Config, format!("{doing} `{}`", file.display())).source(error)
}
