//! What the arms of a bench write: changes of records that are new, known, or as they were.

use std::collections::BTreeMap;

use tributary::log::port::partition_of;

use super::load;

const PARTITIONS: u32 = 8;

/// Number, state and version of a change.
pub type Step = (usize, usize, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records that are new.
    Insert,
    /// Four fifths known, all of them changed; the rest new.
    Update,
    /// All known, every second one as it was.
    HalfUnchanged,
}

/// What the records of an arm's tables are.
pub struct Records {
    states: Vec<usize>,
    round: usize,
}

impl Records {
    pub fn new(rows: usize) -> Self {
        Self {
            states: vec![0; rows],
            round: 0,
        }
    }

    /// The next changes: each record once.
    pub fn next(&mut self, kind: Kind, count: usize) -> Vec<Step> {
        self.round += 1;
        let version = self.round as u64 + 1;
        let known = match kind {
            Kind::Insert => 0,
            Kind::Update => count * 4 / 5,
            Kind::HalfUnchanged => count,
        };
        let rows = self.states.len();
        assert!(
            known <= rows,
            "set TRIBUTARY_BENCH_ROWS to more than the changes"
        );
        let mut steps = Vec::with_capacity(count);
        for place in 0..known {
            // A walk that meets every record once before it meets one again, and has no order.
            let number = (self.round * 7919 + place).wrapping_mul(1_000_003) % rows;
            if kind == Kind::Update || place % 2 == 0 {
                self.states[number] += 1;
            }
            steps.push((number, self.states[number], version));
        }
        for number in rows..rows + count - known {
            self.states.push(0);
            steps.push((number, 0, version));
        }
        // New and known ones mixed, as they come.
        steps.sort_unstable_by_key(|(number, _, _)| load::mix(*number + self.round));
        steps
    }
}

/// The batches in which the job gets them.
pub fn batches(steps: &[Step], size: usize) -> Vec<(u32, Vec<Step>)> {
    let mut partitions: BTreeMap<u32, Vec<Step>> = BTreeMap::new();
    for step in steps {
        let partition = partition_of(load::record(step.0).as_str().as_bytes(), PARTITIONS);
        partitions.entry(partition).or_default().push(*step);
    }
    let cut = |(partition, steps): (u32, Vec<Step>)| {
        let parts: Vec<_> = steps
            .chunks(size)
            .map(|part| (partition, part.to_vec()))
            .collect();
        parts
    };
    partitions.into_iter().flat_map(cut).collect()
}
