//! The out-of-the-box catalogue: jobs and chains that a connection's `oob` key makes, as data.
//!
//! A job of the catalogue is put where a file would have put it, with the file of the same id laid over it; from there
//! on nothing tells the two apart. A connection pins the catalogue's version, so that an upgrade changes no job.

use std::collections::BTreeSet;

use crate::config::document::{Node, Report, Shape, Table, parse};
use crate::config::nearest::nearest;
use crate::config::problem::{BUILT_IN, Problem, Spot};
use crate::config::reader::{Reader, shown};

pub mod listing;
mod patch;
mod wish;

/// Kind, version and text of each catalogue.
const CATALOGUES: [(CrmKind, i64, &str); 2] = [
    (
        CrmKind::Salesforce,
        1,
        include_str!("../../config/oob/salesforce.toml"),
    ),
    (
        CrmKind::Dynamics,
        1,
        include_str!("../../config/oob/dynamics.toml"),
    ),
];

/// What a connection may have, and its `oob` says so.
pub(super) const CONDITIONS: [&str; 3] = ["multi_currency", "company_teams", "renewal_center"];

/// Kinds of CRM, as far as the format of jobs depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrmKind {
    /// Salesforce.
    Salesforce,
    /// Microsoft Dynamics 365, on Dataverse.
    Dynamics,
}

impl CrmKind {
    /// The kind that config calls so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "salesforce" => Some(Self::Salesforce),
            "dynamics" => Some(Self::Dynamics),
            _ => None,
        }
    }

    /// Its name in config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Salesforce => "salesforce",
            Self::Dynamics => "dynamics",
        }
    }

    /// The field that holds a record's own id. Activities of Dataverse, which share `activityid`, are no source of
    /// an avatar, for which alone config asks.
    pub(super) fn id_field(self, source: &str) -> String {
        match self {
            Self::Salesforce => "Id".to_owned(),
            Self::Dynamics => format!("{source}id"),
        }
    }

    /// The kind of a connection; `None` if its file does not say one that is known.
    pub(super) fn of(connection: &Node) -> Option<Self> {
        match &connection.table()?.get("kind")?.shape {
            Shape::Text(name) | Shape::Given(name) => Self::from_name(name),
            _ => None,
        }
    }
}

/// Whether records of the connection bear a currency: those of Dataverse do; a Salesforce org has to have it enabled.
pub(super) fn has_multi_currency(tree: &Node, connection: &str) -> bool {
    let said = tree.at(&["connection", connection, "oob", "multi_currency"]);
    match tree.at(&["connection", connection]).and_then(CrmKind::of) {
        Some(CrmKind::Dynamics) => true,
        Some(CrmKind::Salesforce) => match said.map(|node| &node.shape) {
            Some(Shape::Boolean(value)) => *value,
            Some(Shape::Given(text)) => text == "true",
            _ => false,
        },
        None => false,
    }
}

/// Whether the newest catalogue of a kind has a job.
pub(super) fn has_job(kind: CrmKind, id: &str) -> bool {
    let catalogue = Catalogue::newest(kind, &Report::default());
    catalogue.is_some_and(|catalogue| catalogue.jobs.iter().any(|job| job.id == id))
}

/// A job of the catalogue.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Its id.
    pub(super) id: String,
    /// The job, as its file would have it.
    pub(super) node: Node,
    /// A second connection gets it too.
    second: bool,
    /// What the connection's `oob` has to say for it.
    pub(super) condition: Option<String>,
    /// Paths that no patch changes.
    fixed: Vec<String>,
    /// Where its table can't be taken literally, and what is shipped.
    notes: Vec<String>,
}

/// One version of one CRM's catalogue.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    pub(super) jobs: Vec<Template>,
    chains: Vec<(String, Node)>,
}

impl Catalogue {
    /// The newest version of a kind's catalogue.
    pub(super) fn newest(kind: CrmKind, report: &Report) -> Option<Self> {
        let versions = CATALOGUES.iter().filter(|(own, ..)| *own == kind);
        let (_, version, _) = versions.max_by_key(|(_, version, _)| *version)?;
        Self::load(kind, *version, report)
    }

    fn load(kind: CrmKind, version: i64, report: &Report) -> Option<Self> {
        let (.., text) = CATALOGUES
            .iter()
            .find(|(own, number, _)| (*own, *number) == (kind, version))?;
        let file = format!("oob/{}.toml (built in)", kind.name());
        let tree = parse(&file, text, report);
        let section = |key| Reader::open_section(&tree, key, report);
        let jobs = section("job")
            .entries()
            .iter()
            .map(|(id, node)| Template::read(id, node, report))
            .collect();
        let chains = section("chain").entries().to_vec();
        Some(Self { jobs, chains })
    }
}

impl Template {
    fn read(id: &str, node: &Node, report: &Report) -> Self {
        let mut node = node.clone();
        let about = node.table_mut().and_then(|table| table.remove("oob"));
        let mut template = Self {
            id: id.to_owned(),
            node,
            second: false,
            condition: None,
            fixed: Vec::new(),
            notes: Vec::new(),
        };
        if let Some(mut reader) = about.as_ref().and_then(|node| Reader::open(node, report)) {
            template.second = reader.boolean("second").unwrap_or(false);
            template.condition = reader.text("when").map(|text| text.value);
            let mut texts = |key| {
                let texts = reader.texts(key).unwrap_or_default();
                texts.into_iter().map(|text| text.value).collect()
            };
            template.fixed = texts("fixed");
            template.notes = texts("notes");
            reader.close();
        }
        template
    }
}

/// Puts the jobs and chains that connections ask for into the tree, with the files of the same ids laid over them.
pub(super) fn expand(tree: &mut Node, report: &Report) {
    let connections = tree.at(&["connection"]).and_then(Node::table).cloned();
    for (id, connection) in connections.unwrap_or_default().0 {
        let Some(kind) = CrmKind::of(&connection) else {
            continue;
        };
        if let Some((catalogue, wish)) = wish::read(&connection, kind, report) {
            notes(&connection, &catalogue, &wish, report);
            jobs(tree, &id, &catalogue, &wish, report);
            chains(tree, &id, catalogue.chains);
        }
    }
}

/// Says of the jobs that are made where they are not what their tables say.
fn notes(connection: &Node, catalogue: &Catalogue, wish: &wish::Wish, report: &Report) {
    let Some(oob) = connection.at(&["oob"]) else {
        return;
    };
    for job in catalogue.jobs.iter().filter(|job| wish.has(job)) {
        for note in &job.notes {
            let what = format!("job `{}`: {note}", job.id);
            report.note(
                &oob.spot,
                what,
                "nothing to do, unless the job is to be another",
            );
        }
    }
}

fn jobs(
    tree: &mut Node,
    connection: &str,
    catalogue: &Catalogue,
    wish: &wish::Wish,
    report: &Report,
) {
    let wanted: Vec<&Template> = catalogue.jobs.iter().filter(|job| wish.has(job)).collect();
    wish.report_unknown(catalogue, report);
    if wanted.is_empty() {
        return;
    }
    let Some(Table(entries)) = descend(tree, &["job", connection]) else {
        return;
    };
    let is_ours = |id: &str| wanted.iter().any(|job| job.id == id);
    // The catalogue's tests speak of its jobs together: of one that is changed they need not hold.
    let is_whole = wish.is_all() && !entries.iter().any(|(id, _)| is_ours(id));
    for template in &wanted {
        let at = entries.iter().position(|(id, _)| *id == template.id);
        let patch = at.map(|at| entries.remove(at).1);
        let mut node = patch::lay_over(template, patch, report);
        if !is_whole && let Some(table) = node.table_mut() {
            let is_built_in = |node: &Node| node.spot.file.ends_with(BUILT_IN);
            if table.get("test").is_some_and(is_built_in) {
                table.remove("test");
            }
        }
        entries.push((template.id.clone(), node));
    }
    let ids: BTreeSet<String> = entries.iter().map(|(id, _)| id.clone()).collect();
    for (_, node) in entries.iter_mut() {
        prune(node, &ids);
    }
}

/// A job of the catalogue depends on those that are there.
fn prune(job: &mut Node, ids: &BTreeSet<String>) {
    let Some(node) = job
        .table_mut()
        .and_then(|table| table.get_mut("depends_on"))
    else {
        return;
    };
    if let Shape::List(members) = &mut node.shape
        && node.spot.file.ends_with(BUILT_IN)
    {
        members.retain(|member| matches!(&member.shape, Shape::Text(id) if ids.contains(id)));
    }
}

/// Chains whose jobs are all there.
fn chains(tree: &mut Node, connection: &str, chains: Vec<(String, Node)>) {
    let ids: BTreeSet<String> = tree
        .at(&["job", connection])
        .and_then(Node::table)
        .map(|Table(entries)| entries.iter().map(|(id, _)| id.clone()).collect())
        .unwrap_or_default();
    for (id, node) in chains {
        let members = node.at(&["jobs"]).map(|node| &node.shape);
        let complete = matches!(members, Some(Shape::List(members))
            if members.iter().all(|member| matches!(&member.shape, Shape::Text(id) if ids.contains(id))));
        if !complete {
            continue;
        }
        let Some(Table(entries)) = descend(tree, &["chain", connection]) else {
            continue;
        };
        match entries.iter_mut().find(|(own, _)| *own == id) {
            None => entries.push((id, node)),
            Some((_, own)) => {
                let patch = std::mem::replace(own, node);
                patch::merge(own, patch);
            }
        }
    }
}

/// The table at `path`, made if it is not there; `None` if something else stands there.
fn descend<'n>(tree: &'n mut Node, path: &[&str]) -> Option<&'n mut Table> {
    let mut node = tree;
    for key in path {
        let spot = Spot::whole(&node.spot.file);
        let Shape::Table(Table(entries)) = &mut node.shape else {
            return None;
        };
        let at = entries.iter().position(|(name, _)| name == key);
        let at = at.unwrap_or_else(|| {
            entries.push(((*key).to_owned(), Node::empty(spot)));
            entries.len() - 1
        });
        node = entries.get_mut(at).map(|(_, node)| node)?;
    }
    node.table_mut()
}

/// A job of a list that no catalogue has.
fn report_unknown(spot: &Spot, id: &str, catalogue: &Catalogue, report: &Report) {
    let ids = || catalogue.jobs.iter().map(|job| job.id.as_str());
    let remedy = nearest(id, ids()).map_or_else(
        || format!("write some of {}", ids().collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean {near:?}?"),
    );
    report.add(Problem::new(spot, "no job of the catalogue", remedy).value(shown(id)));
}

#[cfg(test)]
mod tests;
