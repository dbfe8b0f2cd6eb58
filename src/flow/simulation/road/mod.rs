//! The whole road in many worlds: whatever happens on the way, the store holds what the org holds, each record once.
//!
//! Each schedule is drawn from a seed and runs under paused time on one thread: a failing seed is printed with
//! its trace and fails again. `TRIBUTARY_SCHEDULES` sets how many run, `TRIBUTARY_SEED` runs one alone.

mod group;
mod jobs;
mod oracle;
mod schedule;
mod seams;
mod witness;
mod world;

use super::rng::Rng;
use super::{judge, seeds_of};

use schedule::{Profile, Stats};
use seams::Flaw;

/// Schedules of an ordinary test run.
const SCHEDULES: u64 = 200;

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

/// How many of some schedules end in disagreement.
fn wrong(profile: Profile) -> usize {
    let failed = (0..30).filter(|seed| simulate(*seed, profile, false).0.is_err());
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
