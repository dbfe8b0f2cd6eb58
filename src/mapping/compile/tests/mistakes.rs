//! Every mistake of a job is told, at its place, with its remedy.

use crate::config::job::JobConfig;
use crate::config::problem::Problem;
use crate::mapping::compile::Mapping;
use crate::model::policy::OnNone;
use crate::model::value::Value;

use super::bench::{at, constant, contact_job, derive, destination, job, map, objects, sibling};

fn problems(job: &JobConfig) -> Vec<Problem> {
    Mapping::compile(job, &objects()).err().unwrap_or_default()
}

/// The one problem of a job.
fn problem(job: &JobConfig) -> Problem {
    let mut problems = problems(job);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

/// Expects one problem that a change to the sound job makes.
fn told(break_it: impl FnOnce(&mut JobConfig), key: &str, what: &str, remedy: &str) {
    let mut job = contact_job();
    break_it(&mut job);
    let problem = problem(&job);
    assert_eq!(problem.spot.key, key, "{problem}");
    assert!(problem.what.contains(what), "{problem}");
    assert!(problem.remedy.contains(remedy), "{problem}");
}

#[test]
fn one_mistake_is_one_problem() {
    let no_object = "no stored object of that label";
    told(
        |job| {
            job.destinations.remove(1);
            job.destinations[0].object.value = "Persn".to_owned();
        },
        "to.Person",
        no_object,
        "did you mean `Person`?",
    );
    let first = |job: &mut JobConfig, entry| job.destinations[0].map.push(entry);
    told(
        |job| first(job, map("fist_name", "X")),
        "map.fist_name",
        "Person has no such column",
        "`first_name`?",
    );
    told(
        |job| first(job, map("zzzzzz", "X")),
        "map.zzzzzz",
        "no such column",
        "objects/person.toml",
    );
    for reserved in [
        "gsid",
        "created_date",
        "modified_date",
        "crm_state",
        "crm_state_at",
    ] {
        let key = format!("map.{reserved}");
        told(
            |job| first(job, map(reserved, "X")),
            &key,
            "written by the store itself",
            "another column",
        );
    }
    told(
        |job| first(job, map("email", "X")),
        "map.email",
        "mapped twice",
        "one way",
    );
    told(
        |job| job.destinations[1].map.push(map("person_id", "X")),
        "derive.person_id",
        "mapped and derived",
        "one way",
    );
    told(
        |job| {
            let again = job.destinations[1].derive[0].clone();
            job.destinations[1].derive.push(again);
        },
        "derive.person_id",
        "derived twice",
        "one way",
    );
    for (path, what) in [
        ("Owner..Email", "missing"),
        ("Industry@lable", "no suffix"),
        ("parentcustomerid:", "missing"),
    ] {
        told(|job| first(job, map("born", path)), "map.born", what, "");
    }
}

#[test]
fn real_time_fields_are_mapped() {
    let listed = |name: &'static str| {
        move |job: &mut JobConfig| {
            job.realtime_fields = Some(vec![
                at("Email", "realtime_fields"),
                at(name, "realtime_fields"),
            ]);
        }
    };
    let what = "no column of the job is filled from it";
    told(
        listed("Firstname"),
        "realtime_fields",
        what,
        "did you mean `FirstName`?",
    );
    told(
        listed("first_name"),
        "realtime_fields",
        what,
        "`FirstName`?",
    );
    told(
        listed("Birthdate"),
        "realtime_fields",
        what,
        "as `map` or `derive`",
    );
}

#[test]
fn identifiers_must_be_filled() {
    let identifiers = |names: &'static [&str]| {
        move |job: &mut JobConfig| {
            job.destinations[0].identifiers =
                names.iter().map(|name| at(*name, "identifiers")).collect();
        }
    };
    told(
        identifiers(&[]),
        "to.Person",
        "no identifier",
        "identifiers =",
    );
    told(
        identifiers(&["born"]),
        "identifiers",
        "neither mapped nor derived",
        "add it",
    );
    told(
        identifiers(&["emial"]),
        "identifiers",
        "no such column",
        "`email`?",
    );
    told(
        identifiers(&["email", "email"]),
        "identifiers",
        "twice",
        "remove",
    );
    told(identifiers(&["gsid"]), "identifiers", "store itself", "");
}

#[test]
fn look_ups_are_checked() {
    let replace = |entry| move |job: &mut JobConfig| job.destinations[1].derive[1] = entry;
    let by = |column: &str, from: &str, pairs: &[(&str, &str)]| {
        derive(column, from, pairs, OnNone::Null)
    };
    let id = [("@id", "AccountId")];
    let key = "derive.company_id";
    told(
        replace(by("company_id", "Compny", &id)),
        key,
        "no stored object",
        "`Company`?",
    );
    told(
        replace(by("company_id", "Company", &[("nme", "A")])),
        key,
        "no such column",
        "`name`?",
    );
    told(
        replace(by("company_id", "Company", &[("@id", "A:b@label")])),
        key,
        "look-up by table",
        "",
    );
    told(
        replace(by("company_id", "Company", &[])),
        key,
        "one to 6 pairs, not 0",
        "",
    );
    let seven = [("name", "A"); 7];
    told(
        replace(by("company_id", "Company", &seven)),
        key,
        "one to 6 pairs, not 7",
        "fewer",
    );
    told(
        replace(by("company_id", "Person", &id)),
        key,
        "points to `company`",
        "look up `company`",
    );
    told(
        |job| job.destinations[0].derive.push(by("born", "User", &id)),
        "derive.born",
        "yields a GSID, and the column is of type date",
        "type gsid",
    );
    told(
        |job| job.destinations[0].derive.push(by("cms", "User", &id)),
        "derive.cms",
        "Person has no such column",
        "",
    );
    let six = [
        ("name", "A"),
        ("industry", "B"),
        ("name", "C"),
        ("industry", "D"),
        ("name", "E"),
        ("@id", "F"),
    ];
    let mut job = contact_job();
    job.destinations[1].derive[1] = by("company_id", "Company", &six);
    assert!(problems(&job).is_empty());
}

#[test]
fn siblings_come_earlier() {
    let replace = |label: &'static str| {
        move |job: &mut JobConfig| job.destinations[1].derive[0] = sibling("person_id", label)
    };
    told(
        replace("Company Person"),
        "derive.person_id",
        "comes before",
        "first",
    );
    told(
        replace("Company"),
        "derive.person_id",
        "no such destination",
        "`from` and `match`",
    );
    let mut job = contact_job();
    job.destinations.swap(0, 1);
    assert!(problem(&job).what.contains("comes before"));
}

#[test]
fn values_must_fit_their_columns() {
    let entry = |entry| move |job: &mut JobConfig| job.destinations[0].map.push(entry);
    told(
        entry(constant("born", Value::from("soon"))),
        "map.born",
        "the value is not a date",
        "column `born` is of type date",
    );
    let mut with_default = map("born", "Birthdate");
    with_default.default = Some(at(Value::from(true), "map.born.default"));
    told(entry(with_default), "map.born.default", "not a date", "");
    let mut with_values = map("born", "Birthdate");
    with_values.values = Some([("x".to_owned(), Value::from("y"))].into());
    told(entry(with_values), "map.born", "not a date", "");
    let mut both = constant("born", Value::from("2026-01-01"));
    both.default = Some(at(Value::from("2026-01-01"), "map.born"));
    told(
        entry(both),
        "map.born",
        "neither `values` nor `default`",
        "",
    );
}

#[test]
fn filters_are_told_with_their_character() {
    told(
        |job| job.filter = Some(at("Email = x", "where")),
        "where",
        "at character 9: `x` is no value",
        "single quotes",
    );
    told(
        |job| job.destinations[1].filter = Some(at("", "to.Company Person.where")),
        "to.Company Person.where",
        "empty",
        "",
    );
}

#[test]
fn a_job_has_destinations_and_each_object_once() {
    assert!(problem(&job(Vec::new())).what.contains("no destination"));
    let twice = || destination("Person", &["email"], vec![map("email", "Email")]);
    let problem = problem(&job(vec![twice(), twice()]));
    assert!(problem.what.contains("same object"), "{problem}");
    assert_eq!(problem.value.as_deref(), Some("`Person`"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut job = contact_job();
    job.filter = Some(at("Email = x", "where"));
    job.destinations[0].object.value = "Nobody".to_owned();
    job.destinations[0].map.push(map("gsid", "A..B"));
    job.destinations[0]
        .identifiers
        .push(at("shoe_size", "identifiers"));
    job.destinations[1]
        .map
        .push(constant("level", Value::from("high")));
    job.destinations[1].derive.push(derive(
        "company_id",
        "Compny",
        &[("nme", "x y")],
        OnNone::Null,
    ));
    let mut told: Vec<String> = problems(&job)
        .iter()
        .map(|problem| problem.what.clone())
        .collect();
    told.sort_unstable();
    let expected = [
        "`x y` is not an API name",
        "a name is missing before or after a point or colon",
        "at character 9: `x` is no value",
        "the column is derived twice",
        "the column is mapped twice",
        "the column is written by the store itself",
        "the identifier is neither mapped nor derived",
        "the job has no such destination",
        "the value is not a number",
        "there is no stored object of that label",
        "there is no stored object of that label",
    ];
    assert_eq!(told, expected);
}
