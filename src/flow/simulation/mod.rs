//! A connection's life in thousands of worlds: whatever happens on the way, org, images and topic agree at the end.
//!
//! Each schedule is drawn from a seed and runs under paused time on one thread: a failing seed is printed with
//! its trace and fails again. `TRIBUTARY_SCHEDULES` sets how many run, `TRIBUTARY_SEED` runs one alone.

mod crm;
mod faults;
mod oracle;
mod org;
mod rng;
mod road;
mod scenarios;
mod schedule;
mod trace;
mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

use crate::crm::salesforce::merge::SalesforceTable;
use crate::image::merge::{Covered, Image, MergeTable, Step};
use crate::model::event::{Event, Row};
use crate::model::name::FieldName;

use oracle::Stats;
use rng::Rng;
use schedule::Profile;

/// Schedules of an ordinary test run.
const SCHEDULES: u64 = 1000;

fn simulate(
    seed: u64,
    profile: Profile,
    table: &'static dyn MergeTable,
    told: bool,
) -> (Result<Stats, String>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(Box::pin(schedule::run(seed, profile, table, told)))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a seed showed, or why it failed.
fn outcome(seed: u64, profile: Profile) -> Result<Stats, String> {
    let stats = simulate(seed, profile, &SalesforceTable, false).0?;
    if profile.is_lossless() && stats.broken == 0 && stats.repeated > 0 {
        return Err(format!("{} events were published twice", stats.repeated));
    }
    Ok(stats)
}

/// Runs every seed, as many at once as there are processors; tells the first that fails with its trace, and how
/// many do.
fn judge<S: Send>(
    seeds: std::ops::Range<u64>,
    outcome: impl Fn(u64) -> Result<S, String> + Sync,
    trace: impl Fn(u64) -> String,
    mut add: impl FnMut(&S),
) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return done;
            }
            done.push((seed, outcome(seed)));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        done.collect::<Vec<_>>()
    });
    done.sort_by_key(|(seed, _)| *seed);
    let mut failed: Vec<(u64, String)> = Vec::new();
    for (seed, outcome) in done {
        match outcome {
            Ok(stats) => add(&stats),
            Err(why) => failed.push((seed, why)),
        }
    }
    let Some((first, why)) = failed.first() else {
        return;
    };
    for (seed, why) in failed.iter().take(20) {
        eprintln!(
            "TRIBUTARY_SEED={seed}: {}",
            why.chars().take(260).collect::<String>()
        );
    }
    panic!(
        "{}\n{} schedules fail; TRIBUTARY_SEED={first}: {why}",
        trace(*first),
        failed.len()
    );
}

/// The seeds to run: one alone, as many as are asked for, or an ordinary run's.
fn seeds_of(schedules: u64) -> std::ops::Range<u64> {
    match setting("TRIBUTARY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("TRIBUTARY_SCHEDULES").unwrap_or(schedules),
    }
}

#[test]
fn every_schedule_ends_in_agreement() {
    let profile_of = |seed: u64| Profile::any(&mut Rng::new(!seed));
    let mut all = Stats::default();
    judge(
        seeds_of(SCHEDULES),
        |seed| outcome(seed, profile_of(seed)),
        |seed| simulate(seed, profile_of(seed), &SalesforceTable, true).1,
        |stats| all.add(stats),
    );
    eprintln!("{all:?}");
}

/// Only the org's own life: long transactions, late reads, gaps and lost positions, but no fault.
fn quiet() -> Profile {
    Profile {
        plain: true,
        gaps: true,
        restarts: true,
        retention: true,
        deeds: 100,
        ..Profile::default()
    }
}

/// How many of a hundred schedules end in disagreement.
fn wrong(profile: Profile, table: &'static dyn MergeTable) -> usize {
    let failed = (0..100).filter(|seed| simulate(*seed, profile, table, false).0.is_err());
    failed.count()
}

#[test]
fn the_rule_that_the_newer_stamp_wins_loses_updates() {
    let profile = quiet();
    assert_eq!(wrong(profile, &SalesforceTable), 0);
    let lost = wrong(profile, &NewerWins);
    assert!(lost > 10, "only {lost} of 100 schedules caught it");
}

#[test]
fn a_state_that_forgets_debts_is_caught() {
    let profile = Profile {
        forgets_debts: true,
        plain: false,
        ..quiet()
    };
    let lost = wrong(profile, &SalesforceTable);
    assert!(lost > 10, "only {lost} of 100 schedules caught it");
}

/// The rule that others use: whatever carries the newer time stamp wins, and a row carries the time of its read.
struct NewerWins;

impl NewerWins {
    fn read_at(as_of: DateTime<Utc>) -> DateTime<Utc> {
        as_of + TimeDelta::milliseconds(crm::LAG)
    }
}

impl MergeTable for NewerWins {
    fn event(&self, image: Option<Image>, event: &Event, carried: &BTreeSet<FieldName>) -> Step {
        SalesforceTable.event(image, event, carried)
    }

    fn row(&self, image: Option<Image>, row: &Row, as_of: DateTime<Utc>, covered: Covered) -> Step {
        SalesforceTable.row(image, row, Self::read_at(as_of), covered)
    }

    fn absent(&self, image: Option<Image>, as_of: DateTime<Utc>, covered: Covered) -> Step {
        SalesforceTable.absent(image, Self::read_at(as_of), covered)
    }
}
