//! `[notify]`, and the `notify` of connections and jobs: who is told, by mail or webhook, and of what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::document::{Node, Report};
use crate::config::mail::check_address;
use crate::config::nearest::nearest;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;

/// One name of `[notify]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientConfig {
    /// `mail`: e-mail addresses.
    pub mail: Vec<String>,
    /// `webhook`: where the URL is kept that is called; it is a secret.
    pub webhook: Option<SecretRef>,
    /// `every`: how often the webhook is called while the daemon is healthy.
    pub every: Option<Duration>,
    /// `ca_file`: PEM certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// `plain_text`: an `http` URL is allowed. For tests.
    pub plain_text: bool,
}

/// A `notify` of a connection or a job: names of `[notify]`. A list that is not there says nothing; an empty one, that
/// nobody is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// `failure`.
    pub failure: Option<Vec<String>>,
    /// `success`.
    pub success: Option<Vec<String>>,
}

impl RecipientConfig {
    fn parse(
        (name, node): (&str, &Node),
        has_mail: bool,
        root: &Path,
        report: &Report,
    ) -> Option<Self> {
        let mut reader = Reader::open(node, report)?;
        let mail = reader.texts("mail").unwrap_or_default();
        for address in &mail {
            check_address(address, report);
        }
        if !has_mail && reader.take("mail").is_some() {
            report.wrong(
                &reader.spot_of("mail"),
                "can't be sent without `[mail]`",
                super::mail::REMEDY,
            );
        }
        let named = reader.take("webhook");
        let webhook = named.and_then(|node| SecretRef::parse(node, root, report));
        let (least, most) = (Duration::from_secs(1), Duration::from_hours(24 * 7));
        let every = reader.duration("every", least, most);
        let nothing = reader.take("mail").is_none() && named.is_none();
        if every.is_some() && named.is_none() && !nothing {
            report.wrong(
                &reader.spot_of("every"),
                "is for a webhook alone",
                "write webhook = { env = \"…\" }, or remove it",
            );
        }
        let ca_file = reader.text("ca_file").map(|file| root.join(file.value));
        let plain_text = reader.boolean("plain_text").unwrap_or(false);
        reader.close();
        if nothing {
            report.wrong(
                &node.spot,
                format!("tells {name:?} nothing"),
                "write mail = [\"…\"] or webhook = { env = \"…\" }",
            );
        }
        Some(Self {
            mail: mail.into_iter().map(|address| address.value).collect(),
            webhook,
            every,
            ca_file,
            plain_text,
        })
    }
}

/// Reads the section: whoever `notify = …` may name.
pub(super) fn parse(
    tree: &Node,
    has_mail: bool,
    root: &Path,
    report: &Report,
) -> BTreeMap<String, RecipientConfig> {
    let reader = Reader::open_section(tree, "notify", report);
    let mut all = BTreeMap::new();
    for (name, node) in reader.entries() {
        // Its mistakes are told; whoever names it makes none.
        let recipient = RecipientConfig::parse((name, node), has_mail, root, report);
        all.insert(
            name.clone(),
            recipient.unwrap_or_else(|| RecipientConfig {
                mail: Vec::new(),
                webhook: None,
                every: None,
                ca_file: None,
                plain_text: false,
            }),
        );
    }
    all
}

impl Wish {
    /// Reads a `notify` key: `{ failure = names, success = names }`. `known` is absent where the section can't be read.
    pub(super) fn take(reader: &mut Reader<'_>, known: Option<&BTreeSet<String>>) -> Self {
        let report = reader.report;
        let node = reader.take("notify");
        let Some(mut inner) = node.and_then(|node| Reader::open(node, report)) else {
            return Self::default();
        };
        let mut names = |key| {
            let names: Vec<Located<String>> = inner.texts(key)?;
            for name in &names {
                check_name(name, known, report);
            }
            Some(names.into_iter().map(|name| name.value).collect())
        };
        let wish = Self {
            failure: names("failure"),
            success: names("success"),
        };
        inner.close();
        wish
    }
}

fn check_name(name: &Located<String>, known: Option<&BTreeSet<String>>, report: &Report) {
    let Some(known) = known.filter(|known| !known.contains(&name.value)) else {
        return;
    };
    let remedy = nearest(&name.value, known.iter().map(String::as_str)).map_or_else(
        || format!("add [notify.{}] to tributary.toml", name.value),
        |near| format!("did you mean {near:?}?"),
    );
    let problem = Problem::new(&name.spot, "nobody of [notify]", remedy);
    report.add(problem.value(shown(&name.value)));
}
