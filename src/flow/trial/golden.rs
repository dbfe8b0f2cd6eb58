//! The golden suites: `tests/golden/*.toml`, every policy with every other, on each engine of the target.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tests::compiled;
use super::*;
use crate::config;
use crate::config::problem::Problems;
use crate::model::policy::{OnExit, OnMove, OnMultiple, OnNone};
use crate::postgres::trial::server::server;
use crate::runtime::clock::SystemClock;
use crate::target::postgres::{PostgresSettings, PostgresTarget};
use crate::target::sqlite::SqliteTarget;

/// Each file's name, config and compiled jobs.
fn suites() -> Vec<(String, Config, Vec<Arc<Mapping>>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let suite = |file: std::path::PathBuf| {
        let config = config::built_for_jobs(&std::fs::read_to_string(&file).unwrap());
        let mappings = compiled(&config);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        (name, config, mappings)
    };
    files.into_iter().map(suite).collect()
}

async fn hold(empty: impl AsyncFn() -> Result<Arc<dyn Target>, Fault>) {
    for (name, config, mappings) in suites() {
        let trials = run_on(&config, &mappings, &empty).await.unwrap();
        let failures = Problems::new(trials.failures);
        assert!(failures.as_slice().is_empty(), "{name}: {failures}");
        assert!(trials.run >= config.jobs.len(), "{name} has too few tests");
    }
}

#[tokio::test]
async fn the_golden_suites_hold_in_memory() {
    hold(async || Ok(Arc::new(MemoryTarget::new()) as _)).await;
}

#[tokio::test]
async fn the_golden_suites_hold_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicU32::new(0);
    hold(async || {
        let name = format!("{}.db", number.fetch_add(1, Ordering::Relaxed));
        let store = SqliteTarget::open(&folder.path().join(name), Arc::new(SystemClock)).await?;
        Ok(Arc::new(store) as _)
    })
    .await;
}

#[tokio::test]
async fn the_golden_suites_hold_on_postgres() {
    let number = AtomicU32::new(0);
    hold(async || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let settings = PostgresSettings {
            writers: 1,
            store: format!("golden {number}"),
            ledger: format!("golden ledger {number}"),
            ..PostgresSettings::new(server().local())
        };
        let store = PostgresTarget::open(settings, Arc::new(SystemClock)).await?;
        Ok(Arc::new(store) as _)
    })
    .await;
}

/// A pair of policies that no suite has is one that nobody tried.
#[test]
fn the_golden_suites_have_every_pair_of_policies() {
    let mut exits = BTreeSet::new();
    let mut derives = BTreeSet::new();
    let mut empties = BTreeSet::new();
    let mut moves = BTreeSet::new();
    let suites = suites();
    let destinations = suites
        .iter()
        .flat_map(|(_, _, mappings)| mappings)
        .flat_map(|mapping| &mapping.plan().destinations);
    for destination in destinations {
        exits.insert(format!(
            "{:?} {:?}",
            destination.on_delete, destination.on_filter_exit
        ));
        empties.insert(format!("{:?}", destination.on_empty_identifier));
        moves.insert(format!(
            "{:?} {:?}",
            destination.on_move, destination.on_delete
        ));
        for derive in &destination.derives {
            let none = match derive.on_none {
                OnNone::Default(_) => "Default".to_owned(),
                ref other => format!("{other:?}"),
            };
            derives.insert(format!("{none} {:?}", derive.on_multiple));
        }
    }
    let all = [OnExit::Keep, OnExit::Mark, OnExit::Delete].len();
    assert_eq!(exits.len(), all * all, "{exits:?}");
    assert_eq!(
        derives.len(),
        4 * [OnMultiple::Any, OnMultiple::Error].len(),
        "{derives:?}"
    );
    assert_eq!(empties.len(), 2, "{empties:?}");
    let both = [OnMove::Update, OnMove::New].len();
    assert_eq!(moves.len(), both * all, "{moves:?}");
}
