//! Ids of connections, jobs and chains: parts of topic names, file names and URLs.

use crate::config::document::Report;
use crate::config::problem::{Problem, Spot};
use crate::config::reader::shown;

/// Prefix, connection and object make a topic's name, which Kafka limits to 249.
const LONGEST: usize = 64;

pub(super) const REMEDY: &str = "use A-Z, a-z, 0-9, _ and -";

/// Reports an id that can't be one; `what` names the kind of thing.
pub(super) fn check_id(id: &str, what: &str, spot: &Spot, report: &Report) -> bool {
    let Some(wrong) = wrong(id, what) else {
        return true;
    };
    report.add(Problem::new(spot, wrong, REMEDY).value(shown(id)));
    false
}

/// Why an id can't be one.
pub(super) fn wrong(id: &str, what: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if id.is_empty() {
        Some(format!("an empty {what}"))
    } else if let Some(bad) = id.chars().find(|c| !good(*c)) {
        Some(format!("{bad:?} may not stand in a {what}"))
    } else if id.len() > LONGEST {
        Some(format!("a {what} of more than {LONGEST} characters"))
    } else {
        None
    }
}
