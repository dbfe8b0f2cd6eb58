//! Random writes to an org, with random kills and faults on the way: the store ends as the org, record by record.
//!
//! `TRIBUTARY_TEST_SEED` repeats a run, `TRIBUTARY_TEST_WRITES` is how many writes it has: a landing takes fewer than the
//! 50,000 that prove a release.

mod dynamics;
mod judge;
mod salesforce;
mod values;

use serde_json::Value as Json;

use crate::dice::Dice;

/// What the gate has time for.
const WRITES: usize = 3_000;

fn writes() -> usize {
    let told = std::env::var("TRIBUTARY_TEST_WRITES").ok();
    told.map_or(WRITES, |told| told.parse().unwrap())
}

/// The numbers of writes after which the daemon dies, the first one last.
fn deaths(dice: &mut Dice, count: usize) -> Vec<usize> {
    let mut deaths: Vec<usize> = (0..count).map(|_| dice.below(writes())).collect();
    deaths.sort_unstable_by(|one, other| other.cmp(one));
    deaths
}

/// Whether nothing is owed and no hole is open.
fn is_quiet(connection: &Json) -> bool {
    let objects = connection["objects"].as_object().into_iter().flatten();
    connection["open_holes"] == 0 && objects.clone().all(|(_, object)| object["owed"] == 0)
}
