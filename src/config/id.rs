//! Ids of connections, jobs and chains: parts of topic names, file names and URLs.

use crate::config::document::Report;
use crate::config::problem::{Problem, Spot};
use crate::config::reader::shown;

/// Prefix, connection and object make a topic's name, which Kafka limits to 249.
const LONGEST: usize = 64;

/// Reports an id that can't be one; `what` names the kind of thing.
pub(super) fn check_id(id: &str, what: &str, spot: &Spot, report: &Report) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let wrong = if id.is_empty() {
        format!("an empty {what}")
    } else if let Some(bad) = id.chars().find(|c| !good(*c)) {
        format!("{bad:?} may not stand in a {what}")
    } else if id.len() > LONGEST {
        format!("a {what} of more than {LONGEST} characters")
    } else {
        return true;
    };
    let remedy = "use A-Z, a-z, 0-9, _ and -";
    report.add(Problem::new(spot, wrong, remedy).value(shown(id)));
    false
}
