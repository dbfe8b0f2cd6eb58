//! `tributary topics`: list, export, import; on the files, beside a running daemon where nothing is written.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use tokio::fs::File;
use tokio::io::{BufReader, BufWriter};

use crate::app;
use crate::config::Config;
use crate::config::log::LogEngine;
use crate::fault::{Fault, FaultKind};
use crate::flow::road::topic_spec;
use crate::log::embedded::{EmbeddedLog, Settings};
use crate::log::port::{Bounds, Log};
use crate::log::transfer;
use crate::runtime::clock::SystemClock;

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
    // A Kafka cluster has others' topics beside ours.
    let prefix = match config.log.engine {
        LogEngine::Embedded => String::new(),
        LogEngine::Kafka(_) => format!("{}.", config.log.prefix),
    };
    let is_read = !matches!(command, TopicsCommand::Import { .. });
    let log = open(&config, is_read).await?;
    match command {
        TopicsCommand::List => list(&*log, &prefix, json).await?,
        TopicsCommand::Export { topic, file } => {
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
            log.ensure(&topic_spec(&topic)).await?;
            let lines = transfer::import(&*log, &topic, &mut BufReader::new(input)).await?;
            told("imported", &topic, &file, lines, json);
        }
    }
    log.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// The log that the config names; the embedded one beside a running daemon if it is only read.
async fn open(config: &Config, is_read: bool) -> Result<Arc<dyn Log>, Fault> {
    if !is_read && matches!(config.log.engine, LogEngine::Embedded) {
        let (dir, clock) = (&config.daemon.data_dir, Arc::new(SystemClock));
        return Ok(Arc::new(
            EmbeddedLog::open(dir, clock, Settings::default()).await?,
        ));
    }
    app::beside::log(config).await
}

async fn list(log: &dyn Log, prefix: &str, json: bool) -> Result<(), Fault> {
    let mut listed = Vec::new();
    let topics = log.topics().await?.into_iter();
    for spec in topics.filter(|spec| spec.name.starts_with(prefix)) {
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
