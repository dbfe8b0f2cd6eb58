//! `oob` of a connection: which jobs of which version of the catalogue it asks for.

use std::collections::BTreeSet;

use crate::config::document::{Node, Report, Shape};
use crate::config::problem::Located;
use crate::config::reader::Reader;

use super::{CATALOGUES, CONDITIONS, Catalogue, CrmKind, Template, report_unknown};

/// What a connection asks for.
pub(super) struct Wish {
    jobs: Jobs,
    /// Conditions that it says to hold.
    holding: BTreeSet<&'static str>,
}

enum Jobs {
    /// Every job whose condition holds.
    All,
    /// Of these, what a second connection gets.
    Second,
    /// By id, whatever holds.
    Listed(Vec<Located<String>>),
}

impl Wish {
    pub(super) fn has(&self, job: &Template) -> bool {
        let condition = job.condition.as_deref();
        let holds = condition.is_none_or(|condition| self.holding.contains(condition));
        match &self.jobs {
            Jobs::All => holds,
            Jobs::Second => holds && job.second,
            Jobs::Listed(ids) => ids.iter().any(|id| id.value == job.id),
        }
    }

    pub(super) const fn is_all(&self) -> bool {
        matches!(self.jobs, Jobs::All)
    }

    pub(super) fn report_unknown(&self, catalogue: &Catalogue, report: &Report) {
        let Jobs::Listed(ids) = &self.jobs else {
            return;
        };
        for id in ids {
            if !catalogue.jobs.iter().any(|job| job.id == id.value) {
                report_unknown(&id.spot, &id.value, catalogue, report);
            }
        }
    }
}

/// Reads `oob`; `None` if the connection asks for nothing.
pub(super) fn read(connection: &Node, kind: CrmKind, report: &Report) -> Option<(Catalogue, Wish)> {
    let node = connection.table()?.get("oob")?;
    let mut reader = Reader::open(node, report)?;
    let version = reader.integer("catalog", 1..=i64::from(u32::MAX));
    let pinned = reader.take("catalog").map(|node| node.spot.clone());
    let jobs = reader.take("jobs").and_then(|node| jobs(node, report));
    let mut holding = BTreeSet::new();
    for condition in CONDITIONS {
        if reader.boolean(condition) == Some(true) {
            holding.insert(condition);
        }
    }
    let missing = reader.spot_of("catalog");
    reader.close();
    let newest = CATALOGUES.iter().filter(|(own, ..)| *own == kind);
    let newest = newest.map(|(_, version, _)| *version).max().unwrap_or(1);
    let remedy =
        format!("write catalog = {newest}: it is pinned, so that an upgrade changes no job");
    if let (Some(spot), Some(version)) = (&pinned, version)
        && Catalogue::load(kind, version, report).is_none()
    {
        let what = format!("this version has no catalogue {version} of {}", kind.name());
        report.wrong(spot, what, remedy);
        return None;
    }
    let jobs = jobs?;
    if pinned.is_none() {
        report.wrong(&missing, "is missing", remedy);
    }
    let catalogue = Catalogue::load(kind, version?, report)?;
    Some((catalogue, Wish { jobs, holding }))
}

fn jobs(node: &Node, report: &Report) -> Option<Jobs> {
    let remedy = "write \"all\", \"second\", \"none\" or a list of ids";
    match &node.shape {
        Shape::Text(word) | Shape::Given(word) => match word.as_str() {
            "all" => Some(Jobs::All),
            "second" => Some(Jobs::Second),
            "none" => None,
            _ => {
                node.wrong("not one of its values", remedy, report);
                None
            }
        },
        Shape::List(_) => Some(Jobs::Listed(node.texts(report)?)),
        Shape::Unreadable => None,
        _ => {
            node.mistyped("a word or a list", remedy, report);
            None
        }
    }
}
