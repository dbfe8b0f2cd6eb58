//! `[chain.<connection>.<id>]`: checked, so that a config written for a later version is right; nothing runs by it.

use std::collections::BTreeSet;

use crate::config::document::{Node, Report};
use crate::config::nearest::nearest;
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};
use crate::config::schedule::Schedule;

/// Checks a chain; `jobs` are the ids of the connection's jobs, `tables` what their files say.
pub(super) fn check(node: &Node, jobs: &BTreeSet<&str>, tables: Option<&Node>, report: &Report) {
    let Some(mut reader) = Reader::open(node, report) else {
        return;
    };
    reader.text("name");
    Schedule::read(&mut reader, "schedule");
    reader.word("sync", &[("incremental", ()), ("full", ())]);
    reader.word("on_failure", &[("stop", ()), ("continue", ())]);
    let remedy = "write the ids of this connection's jobs, in order";
    if reader.take("jobs").is_none() {
        reader.missing("jobs", remedy);
    }
    let spot = reader.spot_of("jobs");
    let members = reader.texts("jobs");
    reader.close();
    if members.as_ref().is_some_and(Vec::is_empty) {
        report.wrong(&spot, "is empty", remedy);
    }
    let mut seen = BTreeSet::new();
    for member in members.iter().flatten() {
        let (what, remedy) = if !jobs.contains(member.value.as_str()) {
            let near = nearest(&member.value, jobs.iter().copied());
            let remedy = near.map_or_else(
                || remedy.to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            ("no job of this connection", remedy)
        } else if !seen.insert(member.value.as_str()) {
            ("stands twice", "remove one".to_owned())
        } else {
            if let Some(own) = tables.and_then(|jobs| jobs.at(&[&member.value, "schedule"])) {
                let what = "is ignored: the job is a member of a chain, which has the schedule";
                report.note(
                    &own.spot,
                    what,
                    "remove it; `full_sync` and real time stay the job's own",
                );
            }
            continue;
        };
        let problem = Problem::new(&member.spot, what, remedy);
        report.add(problem.value(shown(&member.value)));
    }
    node.note_idle("jobs apply changes as they come", report);
}
