//! Rules between files: real-time jobs, names, spellings, dependencies.

use std::collections::BTreeMap;

use crate::config::document::Report;
use crate::config::job::{JobConfig, MapSource};
use crate::config::problem::{Located, Problem};
use crate::config::reader::shown;

/// Checks what no file can know by itself.
pub(super) fn check(jobs: &[JobConfig], report: &Report) {
    one_real_time_job(jobs, report);
    one_spelling(jobs, report);
    names(jobs, report);
    shared_ids(jobs, report);
    case_numbers(jobs, report);
    unread_parents(jobs, report);
}

/// J6: one real-time job per object and connection.
fn one_real_time_job(jobs: &[JobConfig], report: &Report) {
    let mut first: BTreeMap<(&str, String), &JobConfig> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.enabled && job.realtime) {
        // API names are case-blind to a CRM.
        let object = job.source.value.as_str().to_ascii_lowercase();
        if let Some(other) = first.get(&(job.connection.as_str(), object.clone())) {
            let problem = Problem::new(
                &job.source.spot,
                format!(
                    "job `{}` reads this object in real time already (J6)",
                    other.id
                ),
                "set realtime = false in one of them, or put both destinations into one job",
            );
            report.add(problem.value(shown(job.source.value.as_str())));
        } else {
            first.insert((job.connection.as_str(), object), job);
        }
    }
}

/// Two spellings of an object would be two topics with the same records.
fn one_spelling(jobs: &[JobConfig], report: &Report) {
    let mut first: BTreeMap<(&str, String), &Located<_>> = BTreeMap::new();
    for job in jobs {
        let object = job.source.value.as_str();
        let key = (job.connection.as_str(), object.to_ascii_lowercase());
        let known = first.entry(key).or_insert(&job.source);
        if known.value != job.source.value {
            let problem = Problem::new(
                &job.source.spot,
                format!("{} spells it {:?}", known.spot, known.value.as_str()),
                "spell it as the CRM does, everywhere",
            );
            report.add(problem.value(shown(object)));
        }
    }
}

fn names(jobs: &[JobConfig], report: &Report) {
    let mut first: BTreeMap<(&str, &str), &JobConfig> = BTreeMap::new();
    for job in jobs {
        let key = (job.connection.as_str(), job.name.as_str());
        if let Some(other) = first.insert(key, job) {
            let problem = Problem::new(
                &job.spot,
                format!("job `{}` of this connection has the same name", other.id),
                "give one of them another `name`",
            );
            report.add(problem.value(shown(&job.name)));
        }
    }
}

/// Ids of two orgs in one column hide each other where a row belongs to both.
fn shared_ids(jobs: &[JobConfig], report: &Report) {
    let mut first: BTreeMap<(&str, &str), &JobConfig> = BTreeMap::new();
    for job in jobs {
        let destinations = job.destinations.iter();
        // An avatar's row names its connection.
        for destination in destinations.filter(|to| to.object.value != "User Avatar") {
            let ids = destination.map.iter().filter(|entry| {
                matches!(&entry.source, MapSource::Path(path) if path.value.eq_ignore_ascii_case("id"))
            });
            for entry in ids {
                let key = (
                    destination.object.value.as_str(),
                    entry.column.value.as_str(),
                );
                let known = first.entry(key).or_insert(job);
                if known.connection != job.connection {
                    report.note(
                        &entry.column.spot,
                        format!(
                            "job `{}` of connection `{}` fills this id too",
                            known.id, known.connection
                        ),
                        "declare a column for each connection's id",
                    );
                }
            }
        }
    }
}

/// Case numbers repeat across orgs: the number alone would make two orgs' cases one.
fn case_numbers(jobs: &[JobConfig], report: &Report) {
    let mut first: Option<&JobConfig> = None;
    for job in jobs.iter().filter(|job| job.enabled) {
        let cases = job
            .destinations
            .iter()
            .filter(|to| to.object.value == "Case");
        for cases in cases {
            let known = *first.get_or_insert(job);
            let names = |column: &str| cases.identifiers.iter().any(|name| name.value == column);
            if known.connection == job.connection
                || !names("external_id")
                || names("source_instance_id")
            {
                continue;
            }
            report.note(
                &cases.object.spot,
                format!("job `{}` of connection `{}` knows cases by their number too, which repeats across orgs", known.id, known.connection),
                "map source_instance_id = { value = \"{instance}\" } in both, and add it to `identifiers`",
            );
        }
    }
}

/// A parent's field that nothing but reads of the child tells: no job of the connection reads the parent.
fn unread_parents(jobs: &[JobConfig], report: &Report) {
    for job in jobs.iter().filter(|job| job.enabled) {
        let is_read = |object: &str| {
            jobs.iter().any(|other| {
                let source = other.source.value.as_str();
                other.enabled
                    && other.connection == job.connection
                    && source.eq_ignore_ascii_case(object)
            })
        };
        for path in job
            .destinations
            .iter()
            .flat_map(|destination| destination.source_paths())
        {
            if let Some(parent) = parent_of(&path.value).filter(|parent| !is_read(parent)) {
                report.note(
                    &path.spot,
                    format!(
                        "`{}` follows its record; what `{parent}` itself changes comes with the next full sync, as no job \
                         of this connection reads it",
                        path.value
                    ),
                    "add a job of that object, or have this job's `full_sync` come as often as the value must be right",
                );
            }
        }
    }
}

/// The object that a path's first step leads to, where the path or the CRM's own names tell (Salesforce Object Reference,
/// "Relationships Among Objects").
fn parent_of(path: &str) -> Option<&str> {
    let (step, _) = path.split_once('.')?;
    if let Some((_, table)) = step.split_once(':') {
        return Some(table);
    }
    match step {
        "Account" | "Campaign" | "Case" | "Contact" | "Lead" | "Opportunity" | "Pricebook2"
        | "Product2" => Some(step),
        "CreatedBy" | "LastModifiedBy" | "Manager" | "Owner" => Some("User"),
        _ => None,
    }
}
