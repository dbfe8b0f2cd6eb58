//! `[mail]` and `[notify]`: checked, so that names in other files hold; nothing is sent by this version.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::config::document::{Node, Report};
use crate::config::nearest::nearest;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::config::secret::SecretRef;

const IDLE: &str = "this version sends no mails and calls no webhooks";

/// Checks both sections and answers with the names that `notify = …` may use.
pub(super) fn parse(tree: &Node, root: &Path, report: &Report) -> BTreeSet<String> {
    mail(tree, report);
    let reader = Reader::open_section(tree, "notify", report);
    let names: BTreeSet<String> = reader
        .entries()
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    for (name, node) in reader.entries() {
        let Some(mut reader) = Reader::open(node, report) else {
            continue;
        };
        let mails = reader.texts("mail");
        for address in mails.iter().flatten() {
            check_address(address, report);
        }
        let webhook = reader.take("webhook");
        if let Some(node) = webhook {
            SecretRef::parse(node, root, report);
        }
        reader.duration(
            "every",
            Duration::from_secs(1),
            Duration::from_hours(24 * 7),
        );
        let nothing = reader.take("mail").is_none() && webhook.is_none();
        reader.close();
        if nothing {
            report.wrong(
                &node.spot,
                format!("tells {name:?} nothing"),
                "write mail = [\"…\"] or webhook = { env = \"…\" }",
            );
        }
        node.note_idle(IDLE, report);
    }
    names
}

fn mail(tree: &Node, report: &Report) {
    let mut reader = Reader::open_section(tree, "mail", report);
    if let Some(url) = reader.text("smtp") {
        let host = ["smtps://", "smtp://"]
            .iter()
            .find_map(|scheme| url.value.strip_prefix(scheme));
        let wrong = match host {
            Some(host) if host.contains('@') => Some("a URL that holds a user or a password"),
            Some(host) if !host.is_empty() => None,
            _ => Some("no smtp or smtps URL"),
        };
        if let Some(what) = wrong {
            let problem = Problem::new(&url.spot, what, "write \"smtps://host:465\"");
            report.add(problem.value(shown(&url.value)));
        }
        reader.note_idle("smtp", IDLE);
    }
    reader.close();
}

fn check_address(address: &Located<String>, report: &Report) {
    let parts = address.value.split_once('@');
    let good = parts.is_some_and(|(name, host)| {
        !name.is_empty()
            && !host.is_empty()
            && !host.contains('@')
            && !address.value.contains(char::is_whitespace)
    });
    if !good {
        let problem = Problem::new(&address.spot, "no e-mail address", "write name@host");
        report.add(problem.value(shown(&address.value)));
    }
}

/// Checks a `notify` key: names, or `{ failure = names, success = names }`. `known` is absent where the section
/// can't be read.
pub(super) fn check_names(reader: &mut Reader<'_>, known: Option<&BTreeSet<String>>) {
    let report = reader.report;
    let Some(node) = reader.take("notify") else {
        return;
    };
    let Some(mut inner) = Reader::open(node, report) else {
        return;
    };
    for key in ["failure", "success"] {
        for name in inner.texts(key).unwrap_or_default() {
            let Some(known) = known.filter(|known| !known.contains(&name.value)) else {
                continue;
            };
            let remedy = nearest(&name.value, known.iter().map(String::as_str)).map_or_else(
                || format!("add [notify.{}] to tributary.toml", name.value),
                |near| format!("did you mean {near:?}?"),
            );
            let problem = Problem::new(&name.spot, "nobody of [notify]", remedy);
            report.add(problem.value(shown(&name.value)));
        }
    }
    inner.close();
    node.note_idle(IDLE, report);
}
