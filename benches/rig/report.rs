//! Figures: a table for people, a JSON line for machines.

use super::machine::Used;

/// One arm of a comparison, in one pair.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub changes: u64,
    pub used: Used,
}

impl Run {
    pub fn rate(&self) -> f64 {
        self.changes as f64 / self.used.time.as_secs_f64()
    }
}

/// A comparison under way.
pub struct Comparison {
    name: String,
    arms: Vec<(String, Vec<Run>)>,
}

/// What a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    pub floor: f64,
    pub goal: f64,
}

impl Comparison {
    pub fn new(name: impl Into<String>, arms: &[&str]) -> Self {
        let arms = arms.iter().map(|arm| ((*arm).to_owned(), Vec::new()));
        Self {
            name: name.into(),
            arms: arms.collect(),
        }
    }

    pub fn add(&mut self, arm: usize, run: Run) {
        self.arms[arm].1.push(run);
    }

    /// Prints the arms, and what the first is of each other.
    pub fn tell(&self, bars: &[Option<Bar>]) {
        println!("\n{}", self.name);
        for (arm, runs) in &self.arms {
            let per = |time: fn(&Used) -> f64| {
                median(
                    runs.iter()
                        .map(|run| time(&run.used) * 1e6 / run.changes as f64),
                )
            };
            let rate = median(runs.iter().map(Run::rate));
            let own = per(|used| used.own.as_secs_f64());
            let server = per(|used| used.server.as_secs_f64());
            let broker = per(|used| used.broker.as_secs_f64());
            let beside = match broker {
                0.0 => String::new(),
                broker => format!(", broker {broker:5.2} us"),
            };
            let foreign = median(runs.iter().map(|run| run.used.foreign));
            println!(
                "  {arm:34} {rate:9.0} /s   this process {own:5.2} us, server {server:5.2} us{beside} a change   foreign {foreign:.2} cores"
            );
            line(serde_json::json!({
                "bench": self.name, "arm": arm, "runs": runs.len(), "per_second": rate.round(), "own_us": round(own),
                "server_us": round(server), "broker_us": round(broker), "share": round(own / (own + server).max(1e-9)), "foreign_cores": round(foreign),
            }));
        }
        let first = &self.arms[0];
        for ((arm, runs), bar) in self
            .arms
            .iter()
            .skip(1)
            .zip(bars.iter().chain(std::iter::repeat(&None)))
        {
            let pairs: Vec<f64> = first
                .1
                .iter()
                .zip(runs)
                .map(|(one, other)| one.rate() / other.rate())
                .collect();
            ratio(
                &format!("{}: {} of {arm}", self.name, first.0),
                &pairs,
                *bar,
            );
        }
    }

    /// Another ratio of two arms' rates.
    pub fn ratio(&self, one: usize, other: usize, bar: Option<Bar>) {
        let (one, other) = (&self.arms[one], &self.arms[other]);
        let pairs: Vec<f64> = one
            .1
            .iter()
            .zip(&other.1)
            .map(|(one, other)| one.rate() / other.rate())
            .collect();
        ratio(
            &format!("{}: {} of {}", self.name, one.0, other.0),
            &pairs,
            bar,
        );
    }
}

/// Tells the median of the pairs' ratios.
pub fn ratio(name: &str, pairs: &[f64], bar: Option<Bar>) {
    let value = median(pairs.iter().copied());
    let (low, high) = pairs
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), pair| {
            (low.min(*pair), high.max(*pair))
        });
    let verdict = bar.map_or_else(String::new, |bar| {
        let word = if value >= bar.goal {
            "goal met"
        } else if value >= bar.floor {
            "floor met"
        } else {
            "BELOW THE FLOOR"
        };
        format!("   floor {:.2}, goal {:.2}: {word}", bar.floor, bar.goal)
    });
    println!(
        "  {name}: {value:.2} ({low:.2} to {high:.2}, {} pairs){verdict}",
        pairs.len()
    );
    line(serde_json::json!({
        "ratio": name, "median": round(value), "low": round(low), "high": round(high), "pairs": pairs.len(),
        "floor": bar.map(|bar| bar.floor), "goal": bar.map(|bar| bar.goal),
    }));
}

pub fn line(value: serde_json::Value) {
    println!("JSON {value}");
}

pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A number from the environment.
pub fn setting(name: &str, usual: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// Whether a part of a bench was asked for: `cargo bench --bench NAME -- PART…`; all, if none was named.
pub fn wants(part: &str) -> bool {
    let mut parts = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .peekable();
    parts.peek().is_none() || parts.any(|asked| asked == part)
}
