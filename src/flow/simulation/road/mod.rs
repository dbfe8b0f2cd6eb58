//! The whole road in many worlds: whatever happens on the way, the store holds what the org holds, each record once.
//!
//! Each schedule is drawn from a seed and runs under paused time on one thread: a failing seed is printed with
//! its trace and fails again. `TRIBUTARY_SCHEDULES` sets how many run, `TRIBUTARY_SEED` runs one alone.

mod equal;
mod group;
mod jobs;
mod oracle;
mod scenarios;
mod schedule;
mod seams;
mod witness;
mod world;

use super::faults::Odds;
use super::rng::Rng;
use super::{judge, seeds_of};

use schedule::{Profile, Stats};
use seams::Flaw;

/// Schedules of an ordinary test run.
const SCHEDULES: u64 = 120;

fn simulate(seed: u64, profile: Profile, told: bool) -> (Result<Stats, String>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(Box::pin(schedule::run(seed, profile, told)))
}

#[test]
fn every_schedule_ends_with_the_org_in_the_store() {
    let profile_of = |seed: u64| Profile::any(&mut Rng::new(!seed));
    let mut all = Stats::default();
    judge(
        seeds_of(SCHEDULES),
        |seed| simulate(seed, profile_of(seed), false).0,
        |seed| simulate(seed, profile_of(seed), true).1,
        |stats| all.add(stats),
    );
    eprintln!("{all:?}");
}

/// How many of twenty schedules end in disagreement.
fn wrong(profile: Profile) -> usize {
    let failed = (0..20).filter(|seed| {
        let outcome = simulate(*seed, profile, false).0;
        if let Err(why) = &outcome {
            eprintln!("{seed}: {}", why.chars().take(200).collect::<String>());
        }
        outcome.is_err()
    });
    failed.count()
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..8 {
        let profile = Profile::any(&mut Rng::new(!seed));
        let [first, second] = [(); 2].map(|()| simulate(seed, profile, true).1);
        let mut lines = first.lines().zip(second.lines());
        let other = lines.find(|(one, other)| one != other);
        assert_eq!(other, None, "seed {seed}");
    }
}

/// Crashes, stalls and topics that come to harm, and nothing that would be refused.
fn rough() -> Profile {
    Profile {
        odds: Odds {
            crash: 10,
            slow: 20,
            ..Odds::default()
        },
        repeats: 200,
        forced: 700,
        restarts: true,
        wipes: true,
        takeovers: true,
        second: true,
        deeds: 50,
        ..Profile::default()
    }
}

#[test]
fn a_target_that_forgets_versions_is_caught() {
    assert_eq!(wrong(rough()), 0);
    let caught = wrong(Profile {
        flaw: Flaw::ForgetsVersions,
        ..rough()
    });
    assert!(caught >= 3, "only {caught} of 20 schedules caught it");
}

#[test]
fn offsets_that_are_committed_before_their_rows_are_caught() {
    let caught = wrong(Profile {
        flaw: Flaw::OffsetsFirst,
        ..rough()
    });
    assert!(caught >= 3, "only {caught} of 20 schedules caught it");
}

#[test]
fn a_target_that_lets_a_zombie_write_is_caught() {
    let caught = wrong(Profile {
        flaw: Flaw::NoFence,
        ..rough()
    });
    assert!(caught >= 3, "only {caught} of 20 schedules caught it");
}

#[test]
fn children_that_are_not_asked_anew_are_caught() {
    let caught = wrong(Profile {
        flaw: Flaw::LeavesChildren,
        deeds: 50,
        ..Profile::default()
    });
    assert!(caught >= 3, "only {caught} of 20 schedules caught it");
}
