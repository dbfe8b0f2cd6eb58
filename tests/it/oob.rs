//! The out-of-the-box jobs: what a connection makes of the catalogue, and that what is printed parses back.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use tributary::app;
use tributary::config::Config;
use tributary::config::oob::CrmKind;
use tributary::config::oob::listing::{JobState, catalogue, of_connection};
use tributary::config::problem::Problems;
use tributary::flow::trial;

use crate::config::Fixture;

mod tables;

const ACME: &str = r#"
kind = "salesforce"
org = "https://acme.my.salesforce.com"
auth = { flow = "client_credentials", client_id = "3MVG9", client_secret = { env = "ACME_SECRET" } }
oob = { catalog = 1, jobs = "all", multi_currency = true, company_teams = true, renewal_center = true }
"#;

fn acme(files: &[(&str, &str)]) -> Fixture {
    let all: Vec<(&str, &str)> = [("tributary.toml", ""), ("connections/acme.toml", ACME)]
        .into_iter()
        .chain(files.iter().copied())
        .collect();
    Fixture::new(&all)
}

fn loaded(fixture: &Fixture) -> Config {
    fixture
        .load("", &[])
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[tokio::test]
async fn the_catalogue_loads_and_its_tests_hold() {
    let config = loaded(&acme(&[]));
    assert_eq!(config.jobs.len(), catalogue(CrmKind::Salesforce).len());
    for job in &config.jobs {
        assert_eq!(
            job.name,
            format!("{}_acme", job.name.trim_end_matches("_acme"))
        );
        let routine = &config.routines[&(job.connection.clone(), job.id.clone())];
        assert!(!routine.tests.is_empty(), "{} has no test", job.id);
    }
    let mappings = app::compile(&config).unwrap();
    let trials = trial::run(&config, &mappings).await.unwrap();
    assert_eq!(
        trials.failures,
        [],
        "{}",
        Problems::new(trials.failures.clone())
    );
    assert!(trials.run >= config.jobs.len());
}

#[test]
fn what_is_printed_parses_back() {
    let fixture = acme(&[]);
    let config = loaded(&fixture);
    let listed = of_connection(&fixture.path(), &BTreeMap::new(), "acme")
        .unwrap()
        .unwrap();
    assert_eq!(listed.len(), config.jobs.len());
    let bare = ACME.replace("jobs = \"all\"", "jobs = \"none\"");
    let names: Vec<String> = listed
        .iter()
        .map(|job| format!("jobs/acme/{}.toml", job.id))
        .collect();
    let mut files = vec![
        ("tributary.toml", ""),
        ("connections/acme.toml", bare.as_str()),
    ];
    files.extend(
        names
            .iter()
            .map(String::as_str)
            .zip(listed.iter().map(|job| job.toml.as_str())),
    );
    let again = loaded(&Fixture::new(&files));
    assert_eq!(again.jobs.len(), config.jobs.len());
    for (printed, made) in again.jobs.iter().zip(&config.jobs) {
        assert_eq!(without_places(printed), without_places(made));
        let key = (made.connection.clone(), made.id.clone());
        assert_eq!(
            again.routines[&key].tests.len(),
            config.routines[&key].tests.len()
        );
        assert_eq!(
            again.routines[&key].full_sync,
            config.routines[&key].full_sync
        );
    }
}

/// A file that says what the catalogue says changes nothing: what is printed may be kept and edited.
#[test]
fn a_printed_job_laid_over_itself_is_itself() {
    let made = loaded(&acme(&[]));
    let fixture = acme(&[]);
    let listed = of_connection(&fixture.path(), &BTreeMap::new(), "acme")
        .unwrap()
        .unwrap();
    for job in listed {
        let name = format!("jobs/acme/{}.toml", job.id);
        let config = loaded(&acme(&[(&name, &job.toml)]));
        let find = |config: &Config| {
            let found = config.jobs.iter().find(|own| own.id.as_str() == job.id);
            without_places(found.unwrap())
        };
        assert_eq!(find(&config), find(&made), "{}", job.id);
    }
}

/// A job's text without the files and lines at which it stands.
fn without_places(job: &tributary::config::job::JobConfig) -> String {
    let text = format!("{job:#?}");
    let mut kept = Vec::new();
    let mut within = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if within.is_some_and(|outer| indent > outer) {
            continue;
        }
        within = line
            .trim_start()
            .starts_with("spot: Spot {")
            .then_some(indent);
        if within.is_none() {
            kept.push(line);
        }
    }
    kept.join("\n")
}

#[test]
fn a_connections_listing_says_what_it_has() {
    let fixture = acme(&[(
        "jobs/acme/company_sync.toml",
        "[to.Company.map]\nindustry = \"Industry\"\n",
    )]);
    let config = loaded(&fixture);
    let company = config
        .jobs
        .iter()
        .find(|job| job.id.as_str() == "company_sync")
        .unwrap();
    assert_eq!(company.destinations[0].map.len(), 4);
    assert_eq!(company.spot.to_string(), "jobs/acme/company_sync.toml:1");
    let listed = of_connection(&fixture.path(), &BTreeMap::new(), "acme")
        .unwrap()
        .unwrap();
    let state = |id: &str| listed.iter().find(|job| job.id == id).unwrap().state;
    assert_eq!(state("company_sync"), JobState::Changed);
    assert_eq!(state("user_sync"), JobState::Standard);
    let printed = &listed
        .iter()
        .find(|job| job.id == "company_sync")
        .unwrap()
        .toml;
    assert!(printed.contains("industry"), "{printed}");
    assert_eq!(
        of_connection(&fixture.path(), &BTreeMap::new(), "acne").unwrap(),
        None
    );

    let second = ACME.replace("jobs = \"all\"", "jobs = \"second\"");
    let fixture = Fixture::new(&[("tributary.toml", ""), ("connections/acme.toml", &second)]);
    let listed = of_connection(&fixture.path(), &BTreeMap::new(), "acme")
        .unwrap()
        .unwrap();
    let made: Vec<&str> = listed
        .iter()
        .filter(|job| job.state != JobState::Absent)
        .map(|job| &*job.id)
        .collect();
    assert_eq!(made, ["user_sync", "currency_sync"]);
}

#[test]
fn an_avatar_is_a_row_of_its_own_and_no_identifier() {
    let config = loaded(&acme(&[]));
    let user = config
        .jobs
        .iter()
        .find(|job| job.id.as_str() == "user_sync")
        .unwrap();
    let labels: Vec<&str> = user
        .destinations
        .iter()
        .map(|to| &*to.object.value)
        .collect();
    assert_eq!(labels, ["User", "User Avatar"]);
    for (patch, told) in [
        (
            "[to.User]\nidentifiers = [\"avatar.user_id\"]\n",
            "can't be an identifier",
        ),
        (
            "[to.User]\nidentifiers = [\"avatar_user_id\"]\n",
            "can't be an identifier",
        ),
        ("[to.User.avatar]\nuser_id = \"Alias\"\n", "is fixed"),
        (
            "[to.User.avatar]\nconnection = \"Alias\"\n",
            "is filled by itself",
        ),
        (
            "[to.User.avatar]\nshoe = \"Alias\"\n",
            "has no column `shoe`",
        ),
        ("[to.User]\navatar = false\n", "is fixed"),
    ] {
        let problems = acme(&[("jobs/acme/user_sync.toml", patch)])
            .load("", &[])
            .unwrap_err();
        assert!(problems.to_string().contains(told), "{patch}: {problems}");
    }
    let company = "[to.Company]\navatar.user_id = \"Id\"\n";
    let problems = acme(&[("jobs/acme/company_sync.toml", company)])
        .load("", &[])
        .unwrap_err();
    assert!(
        problems.to_string().contains("only User has an avatar"),
        "{problems}"
    );
}

#[test]
fn amounts_have_their_currency_where_the_org_says_it() {
    let filled = |oob: &str| {
        let connection = ACME.replace(", multi_currency = true", oob);
        let fixture = Fixture::new(&[
            ("tributary.toml", ""),
            ("connections/acme.toml", &connection),
        ]);
        let config = loaded(&fixture);
        let columns = |id: &str| {
            let job = config
                .jobs
                .iter()
                .find(|job| job.id.as_str() == id)
                .unwrap();
            let map = job.destinations[0].map.iter();
            map.filter(|entry| entry.column.value == "currency_iso_code")
                .map(|entry| format!("{:?}", entry.source))
                .collect::<String>()
        };
        (
            columns("opportunity_sync").contains("CurrencyIsoCode"),
            columns("company_sync"),
        )
    };
    // Company Sync maps no amount.
    assert_eq!(filled(", multi_currency = true"), (true, String::new()));
    assert_eq!(filled(""), (false, String::new()));
}

#[test]
fn a_members_own_schedule_is_ignored_and_told() {
    let fixture = acme(&[("jobs/acme/user_sync.toml", "schedule = \"daily 02:00\"\n")]);
    let notes: Vec<String> = loaded(&fixture)
        .notes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("a member of a chain")),
        "{notes:?}"
    );
    assert!(
        notes.iter().all(|note| !note.contains("built in")),
        "{notes:?}"
    );
}

#[test]
fn what_is_not_as_its_table_reads_is_noted() {
    let notes: Vec<String> = loaded(&acme(&[]))
        .notes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes
            .iter()
            .all(|note| note.contains("connections/acme.toml")
                && note.contains("company_person_sync"))
    );
    let dynamics = catalogue(CrmKind::Dynamics);
    let printed = &dynamics
        .iter()
        .find(|job| job.id == "user_sync")
        .unwrap()
        .toml;
    assert!(
        printed.starts_with("# Note: Email 2 is `personalemailaddress`"),
        "{printed}"
    );
    assert!(
        printed.contains("everybody would be their own manager"),
        "{printed}"
    );
}

/// Two orgs, one store: avatars are apart; case numbers and ids in one column are told.
#[test]
fn a_second_org_is_told_what_it_shares() {
    let other = ACME.replace("acme", "other");
    let second = other.replace("jobs = \"all\"", "jobs = \"second\"");
    let config = loaded(&acme(&[("connections/other.toml", &second)]));
    let notes =
        |config: &Config| -> String { config.notes.iter().map(ToString::to_string).collect() };
    assert!(
        !notes(&config).contains("connections/other.toml"),
        "{}",
        notes(&config)
    );
    let config = loaded(&acme(&[("connections/other.toml", &other)]));
    assert!(
        notes(&config).contains("which repeats across orgs"),
        "{}",
        notes(&config)
    );
    assert!(
        notes(&config).contains("fills this id too"),
        "{}",
        notes(&config)
    );
    let apart = "[to.Case]\nidentifiers = [\"external_id\", \"source_instance_id\"]\n\
                 map.source_instance_id = { value = \"{instance}\" }\n";
    let files = [
        ("connections/other.toml", other.as_str()),
        ("jobs/acme/cases_sync.toml", apart),
        ("jobs/other/cases_sync.toml", apart),
    ];
    let config = loaded(&acme(&files));
    assert!(
        !notes(&config).contains("repeats across orgs"),
        "{}",
        notes(&config)
    );
}

/// Users that are there already, and what says that a CRM's user is one of them: e-mail, name, user name. Two that
/// could be are none: nobody is guessed.
#[tokio::test]
async fn users_that_are_there_already_are_associated() {
    let earlier = "source = \"Slack__c\"\n[to.User]\nidentifiers = [\"external_id\"]\n\
                   map = { external_id = \"Id\", email = \"Email__c\", name = \"Name\", username = \"Login__c\" }\n";
    let there = |fields: &str| format!("given.Slack__c = [{fields}]\n");
    let ann = "{ Id = \"a00A00000000001IAA\", Email__c = \"ann@acme.example\", Name = \"Ann Ade\", Login__c = \"ann\" }";
    let twin = "{ Id = \"a00A00000000002IAA\", Email__c = \"Ann@acme.example\", Name = \"Ann Ade\", Login__c = \"twin\" }";
    let given = "given.User = [{ Id = \"005A00000000001IAA\", FirstName = \"Ann\", Name = \"Ann Ade\", Email = \" ANN@acme.example\", \
                 Username = \"Ann\", UserType = \"Standard\", IsActive = true }]\n";
    let one = "expect.User = [{ external_id = \"a00A00000000001IAA\", first_name = \"Ann\" }]\n\
               expect.\"User Avatar\" = [{ user_id = \"005A00000000001IAA\", user = { external_id = \"a00A00000000001IAA\" } }]\n";
    let two = "expect.User = [{ name = \"Ann Ade\" }, { name = \"Ann Ade\" }]\nexpect.\"User Avatar\" = []\n\
               errors = [\"several rows have\"]\n";
    for key in ["email", "name", "username"] {
        let several = key != "username";
        let mut tests = format!("[[test]]\n{}{given}{one}", there(ann));
        if several {
            tests.push_str(&format!(
                "[[test]]\n{}{given}{two}",
                there(&format!("{ann}, {twin}"))
            ));
        }
        let user =
            format!("to.User.identifiers = [\"{key}\"]\nto.User.map.name = \"Name\"\n{tests}");
        let fixture = acme(&[
            ("jobs/acme/slack.toml", earlier),
            ("jobs/acme/user_sync.toml", &user),
        ]);
        let config = loaded(&fixture);
        let mappings = app::compile(&config).unwrap();
        let trials = trial::run(&config, &mappings).await.unwrap();
        assert_eq!(trials.run, if several { 2 } else { 1 });
        assert_eq!(
            trials.failures,
            [],
            "{key}: {}",
            Problems::new(trials.failures.clone())
        );
    }
}

/// A test that must fail does, with what is there instead.
#[tokio::test]
async fn failing_tests_are_told() {
    let job = "source = \"Account\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n\
               map = { salesforce_account_id = \"Id\", name = \"Name\", employees = \"NumberOfEmployees\" }\n[[test]]\n";
    let account = "given.Account = [{ Id = \"001A00000000001IAA\", Name = \"Acme\", NumberOfEmployees = 3 }]\n";
    let bare = ACME.replace("jobs = \"all\"", "jobs = \"none\"");
    for (test, told) in [
        (format!("{account}expect.Company = [{{ name = \"Acme\", employees = 3.0 }}]\n"), ""),
        (format!("{account}expect.Company = [{{ name = \"Acme\", employees = 4 }}]\n"), "row 1 of Company that is expected is not there"),
        (format!("{account}expect.Company = [{{ name = \"Acme\" }}, {{ name = \"Acme\" }}]\n"), "row 2 of Company"),
        (format!("{account}expect.Company = []\n"), "is there that is not expected"),
        (format!("{account}expect.Comapny = []\n"), "no stored object"),
        (format!("{account}expect.Company = [{{ nme = \"Acme\" }}]\n"), "no column `nme`"),
        (format!("{account}expect.Company = [{{ employees = \"many\" }}]\n"), "is of type number"),
        (format!("{account}errors = [\"anything\"]\n"), "no record was refused for that"),
        ("given.Account = [{ Id = \"001A00000000001IAA\", NumberOfEmployees = \"many\" }]\nexpect.Company = []\n".to_owned(), "a record was refused"),
        ("given.Account = [{ Id = \"001A00000000001IAA\", NumberOfEmployees = \"many\" }]\nexpect.Company = []\nerrors = [\"`many`\"]\n".to_owned(), ""),
        ("given.Account = [{ Id = \"001A00000000001IAA\", Nam = \"Acme\" }]\nexpect.Company = [{ name = \"\" }]\n".to_owned(), "reads `Nam`"),
        ("given.Account = [{ Name = \"Acme\" }]\nexpect.Company = []\n".to_owned(), "has no id"),
        ("given.Acount = [{ Id = \"001A00000000001IAA\" }]\nexpect.Company = []\n".to_owned(), "reads Acount"),
        (
            "given.Account = [{ Id = \"001A00000000001IAA\", Name = \"A\" }, { Id = \"001A00000000001IAA\", Name = \"B\" }, \
             { Id = \"001A00000000001IAA\", \"@deleted\" = true }]\nexpect.Company = [{ name = \"B\", crm_state = \"deleted\" }]\n".to_owned(),
            "",
        ),
    ] {
        let text = format!("on_delete = \"mark\"\n{job}{test}");
        let fixture = Fixture::new(&[
            ("tributary.toml", ""),
            ("connections/acme.toml", &bare),
            ("jobs/acme/company.toml", &text),
        ]);
        let config = loaded(&fixture);
        let mappings = app::compile(&config).unwrap();
        let trials = trial::run(&config, &mappings).await.unwrap();
        assert_eq!(trials.run, 1);
        let failures = Problems::new(trials.failures).to_string();
        if told.is_empty() {
            assert_eq!(failures, "0 problems", "{test}");
        } else {
            assert!(failures.contains(told), "{test}: {failures}");
        }
    }
    let none: Vec<Arc<tributary::mapping::compile::Mapping>> = Vec::new();
    let config = loaded(&acme(&[]));
    assert!(
        !trial::run(&config, &none)
            .await
            .unwrap()
            .failures
            .is_empty()
    );
}

/// Exit code and standard output of the binary.
fn run(fixture: &Fixture, arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tributary"))
        .arg("--config")
        .arg(fixture.path())
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn the_command_line_lists_prints_and_checks() {
    let fixture = acme(&[]);
    let (code, listed) = run(&fixture, &["oob", "dynamics"]);
    assert_eq!(code, 0);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let (code, listed) = run(&fixture, &["oob", "acme", "--json"]);
    assert_eq!(code, 0);
    let listed: Json = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "User Sync_acme");
    assert_eq!(listed[0]["state"], "standard");
    let (code, printed) = run(&fixture, &["oob", "acme", "user_sync"]);
    assert_eq!(code, 0);
    assert!(printed.contains("\n[to.User.map]\n"), "{printed}");
    let (code, one) = run(&fixture, &["oob", "salesforce", "user_sync", "--json"]);
    assert_eq!(code, 0);
    let one: Json = serde_json::from_str(&one).unwrap();
    assert_eq!(one["job"]["to"]["User"]["map"]["username"], "Username");
    for unknown in [&["oob", "acne"][..], &["oob", "acme", "user_snyc"]] {
        assert_ne!(run(&fixture, unknown).0, 0);
    }
    let (code, checked) = run(&fixture, &["check"]);
    assert_eq!(code, 0, "{checked}");
    assert!(checked.contains("12 jobs, 13 mapping tests"), "{checked}");

    let wrong =
        "[[test]]\ngiven.Account = [{ Id = \"001A00000000001IAA\" }]\nexpect.Company = []\n";
    let fixture = acme(&[("jobs/acme/company_sync.toml", wrong)]);
    let (code, checked) = run(&fixture, &["check"]);
    assert_eq!(code, 3, "{checked}");
    assert!(
        checked.contains("jobs/acme/company_sync.toml:3"),
        "{checked}"
    );
    let (code, checked) = run(&fixture, &["check", "--json"]);
    assert_eq!(code, 3);
    let checked: Json = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["ok"], false);
    assert_eq!(checked["tests"]["run"], 1);
    assert_eq!(checked["tests"]["failures"].as_array().unwrap().len(), 1);
}
