//! A broken config per rule, with the golden text of its problem; several files with several mistakes at once.

use super::{Fixture, SINGLE};

mod daemon;
mod mapping;

/// A rule's name, what is replaced in [`SINGLE`], and by what (`""`: put at the end).
type Case = (&'static str, &'static str, &'static str);

const USER: &str = "source = \"User\"\n";
const USER_MAP: &str = "map = { username = \"Username\", email = \"Email\" }";
const CSM: &str = "derive.csm = { from = \"User\", match = { \"@id\" = \"OwnerId\" } }";
const ORG: &str = "org = \"https://acme.my.salesforce.com\"";
const AUTH: &str = "auth = { flow = \"client_credentials\", client_id = \"3MVG9\", client_secret = { env = \"ACME_SECRET\" } }";

fn texts(cases: &[Case]) -> String {
    let mut all = String::new();
    for (rule, from, to) in cases {
        let text = if from.is_empty() {
            format!("{SINGLE}{to}")
        } else {
            assert!(
                SINGLE.contains(from),
                "{rule}: `{from}` is not in the config"
            );
            SINGLE.replacen(from, to, 1)
        };
        let problems = match super::load_single(&text, &[]) {
            Ok(_) => panic!("{rule}: loads"),
            Err(problems) => problems,
        };
        all.push_str(&format!("# {rule}\n{problems}\n\n"));
    }
    all
}

#[test]
fn every_rule_has_its_text() {
    insta::assert_snapshot!("problems-of-sections", texts(daemon::SECTIONS));
    insta::assert_snapshot!("problems-of-connections", texts(daemon::CONNECTIONS));
    insta::assert_snapshot!("problems-of-jobs", texts(daemon::JOBS));
    insta::assert_snapshot!("problems-of-destinations", texts(mapping::DESTINATIONS));
    insta::assert_snapshot!("problems-of-objects", texts(mapping::OBJECTS));
}

#[test]
fn mistakes_of_all_files_come_together() {
    let fixture = Fixture::new(&[
        (
            "tributary.toml",
            "[admin]\nlisten = \"here\"\n\n[log]\nprefx = \"x\"\n",
        ),
        (
            "connections/acme.toml",
            "kind = \"salesforce\"\norg = \"https://acme.lightning.force.com\"\n",
        ),
        ("connections/acme.eu.toml", "kind = \"salesforce\"\n"),
        ("connections/broken.toml", "kind = \"salesforce\norg = [\n"),
        (
            "jobs/acme/a.toml",
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"name\"]\nmap = { nme = \"Name\" }\n",
        ),
        (
            "jobs/acme/b.toml",
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"name\"]\nmap = { name = \"Name\" }\n",
        ),
        (
            "jobs/broken/c.toml",
            "source = \"Case\"\n[to.Case]\nidentifiers = [\"external_id\"]\nmap = { external_id = \"CaseNumber\" }\n",
        ),
        (
            "jobs/acne/d.toml",
            "source = \"Case\"\n[to.Case]\nidentifiers = [\"external_id\"]\nmap = { external_id = \"CaseNumber\" }\n",
        ),
        ("jobs/e.toml", ""),
        ("jobs/acme/f.tml", ""),
        ("chain/acme/g.toml", ""),
        ("objects/asset.toml", "label = \"Asset\"\n"),
    ]);
    let environment = [
        ("TRIBUTARY__LOG__FORGET_AFTER", "soon"),
        (
            "TRIBUTARY__CONNECTION__ACNE__ORG",
            "https://a.my.salesforce.com",
        ),
        ("TRIBUTARY__ADMIN__LISTN", "127.0.0.1:1"),
    ];
    let problems = fixture.load("", &environment).unwrap_err();
    insta::assert_snapshot!("problems-of-many-files", problems);
}

/// A broken file hides its own content only: nothing is said of what might stand in it.
#[test]
fn a_broken_file_makes_no_others_wrong() {
    let fixture = Fixture::new(&[
        ("tributary.toml", "[notify\n"),
        ("objects/company.toml", "label\n"),
        (
            "connections/acme.toml",
            &format!(
                "kind = \"salesforce\"\n{ORG}\n{AUTH}\nnotify = {{ failure = [\"revops\"] }}\n"
            ),
        ),
        (
            "jobs/acme/a.toml",
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"shoe_size\"]\nmap = { shoe_size = \"S\" }\n",
        ),
    ]);
    let problems = fixture.load("", &[]).unwrap_err();
    let files: Vec<_> = problems
        .as_slice()
        .iter()
        .map(|problem| &*problem.spot.file)
        .collect();
    assert_eq!(
        files,
        ["objects/company.toml", "tributary.toml"],
        "{problems}"
    );
}

#[test]
fn places_that_are_no_config() {
    let fixture = Fixture::new(&[
        ("empty/x.md", ""),
        ("big.toml", &format!("# {}\n", "x".repeat(1024 * 1024))),
        ("directory/tributary.toml/x", ""),
        (
            "twice/tributary.toml",
            "[connection.acme]\nkind = \"dynamics\"\n",
        ),
        ("twice/connections/acme.toml", "kind = \"salesforce\"\n"),
    ]);
    std::fs::write(fixture.folder.path().join("latin.toml"), b"# a\n# \xe9\n").unwrap();
    for (name, text) in [
        ("missing", "can't be read"),
        ("empty", "tributary.toml: is missing"),
        ("big.toml", "big.toml: is larger than 1 MiB"),
        ("latin.toml", "latin.toml:2: is no UTF-8"),
        ("directory", "tributary.toml: is no file"),
        (
            "twice/tributary.toml",
            "tributary.toml: has `connections/` beside it",
        ),
        (
            "twice",
            "connections/acme.toml:1: stands in tributary.toml:1: `connection.acme` as well",
        ),
    ] {
        let problems = fixture.load(name, &[]).unwrap_err().to_string();
        assert!(problems.contains(text), "{name}: {problems}");
    }
}

/// What has no effect in this version is noted, not passed over.
#[test]
fn settings_without_effect_are_noted() {
    let text = format!(
        "{}{}",
        SINGLE
            .replace(
                USER,
                "source = \"User\"\nschedule = \"daily 02:00\"\nsync = \"full\"\ndigest = \"1h\"\nfreshness = \"5m\"\n\
                 depends_on = [\"company_sync\"]\nbrakes = { max_delete_percent = 5 }\nnotify = { failure = [\"revops\"] }\n\
                 refresh = \"full_sync\"\nrealtime_fields = [\"Email\"]\non_move = \"update\"\n",
            )
            .replace(ORG, &format!("{ORG}\noob = {{ catalog = 1, jobs = \"none\" }}\ncompany_resolution = {{ salesforce_account_id = \"Id\" }}")),
        "[mail]\nsmtp = \"smtps://mail.example:465\"\nfrom = \"sync@example.com\"\n[notify]\nrevops = { mail = [\"revops@example.com\"] }\n\
         beat = { webhook = { env = \"BEAT\" }, every = \"1m\" }\n\
         [chain.acme.nightly]\nname = \"Nightly\"\njobs = [\"user_sync\"]\nschedule = \"daily 02:00\"\non_failure = \"stop\"\n"
    );
    let config = super::load_single(&text, &[]).unwrap();
    let notes: Vec<String> = config.notes.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("notes", notes.join("\n"));
}

/// A parent that some job reads tells its children at once; another one comes with full syncs, which is noted.
#[test]
fn a_parent_that_no_job_reads_is_noted() {
    let map = "map = { username = \"Username\", email = \"Manager.Email\", locale = \"Account.Name\", \
               time_zone = \"Contact.Name\", division = \"Some__r.Name\" }";
    let config = super::load_single(&SINGLE.replace(USER_MAP, map), &[]).unwrap();
    let notes: Vec<String> = config.notes.iter().map(ToString::to_string).collect();
    let [note] = &notes[..] else {
        panic!("{notes:?}")
    };
    assert!(note.contains("`Contact.Name` follows its record"), "{note}");
    assert!(note.contains("add a job of that object"), "{note}");
}
