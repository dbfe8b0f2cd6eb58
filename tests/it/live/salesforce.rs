//! A Salesforce org: all well, hidden and unknown fields, objects that are not captured or not seen, limits, sign-in.

use std::path::PathBuf;

use serde_json::json;
use tributary_sim::salesforce::{Running, SimOptions, start};

use super::{SECRET, looked, one, run, run_json, told};
use crate::sim;

/// An org of 450 accounts, and a config with one job.
pub struct World {
    pub org: Running,
    home: tempfile::TempDir,
    pub http: reqwest::Client,
}

impl World {
    pub async fn of(options: SimOptions) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("org");
        std::fs::create_dir_all(&data).unwrap();
        let accounts: String = (0..450)
            .map(|number| {
                format!("001{number:012},Example {number},Energy,005000000000001,{number}\n")
            })
            .collect();
        let files = [
            ("User", "Id,Username,Email,IsActive\n005000000000001,sync@acme.example,s@acme.example,true\n".to_owned()),
            ("Account", format!("Id,Name,Industry,OwnerId,Score__c\n{accounts}")),
        ];
        let notes = json!({ "fields": { "Score__c": { "type": "double", "calculated": true } } });
        std::fs::write(data.join("Account.json"), notes.to_string()).unwrap();
        for (name, text) in files {
            std::fs::write(data.join(format!("{name}.csv")), text).unwrap();
        }
        let org = start(SimOptions {
            data: Some(data),
            ..options
        })
        .await
        .unwrap();
        let world = Self {
            org,
            home,
            http: reqwest::Client::new(),
        };
        world.configure("", "industry = \"Industry\"");
        world
    }

    async fn new() -> Self {
        Self::of(SimOptions::default()).await
    }

    pub fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    /// Writes the config, with more keys of the connection, and with these mappings of accounts.
    pub fn configure(&self, more: &str, map: &str) {
        let connection = format!(
            "kind = \"salesforce\"\norg = \"{}\"\nplain_text = true\n{more}\n\
             auth = {{ flow = \"client_credentials\", client_id = \"simulated-client\", client_secret = {{ file = \"secret\" }} }}\n",
            self.org.url
        );
        let company = format!(
            "source = \"Account\"\n[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n\
             [to.Company.map]\nsalesforce_account_id = \"Id\"\nname = \"Name\"\n{map}\n"
        );
        let files = [
            ("tributary.toml", ""),
            ("secret", SECRET),
            ("connections/acme.toml", &connection),
            ("jobs/acme/company_sync.toml", &company),
        ];
        for (name, text) in files {
            let path = self.config().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    pub async fn order(&self, path: &str, body: serde_json::Value) {
        sim::order(&self.http, &self.org.url, path, &body).await;
    }
}

#[tokio::test]
async fn all_is_well_and_each_thing_is_told() {
    let world = World::new().await;
    let (code, told) = run_json(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 0, "{told:#}");
    assert_eq!(told["ok"], true);
    let live = &told["live"];
    assert_eq!(live["log"]["to_make"], json!(["tributary.acme.Account"]));
    assert_eq!(
        live["target"],
        json!({"engine": "sqlite", "made": false, "findings": []})
    );
    let acme = &live["connections"][0];
    assert_eq!(acme["connection"], "acme");
    assert_eq!(acme["findings"], json!([]));
    let survey = &acme["survey"];
    let org = &world.org.org;
    assert_eq!(survey["org_id"], org.profile.org_id.as_str());
    assert_eq!(survey["user_id"], org.profile.run_as.id.as_str());
    assert_eq!(survey["user_name"], "sync@acme.example");
    assert_eq!(survey["api_version"], "66.0");
    assert_eq!(survey["findings"], json!([]));
    let quotas = survey["quotas"].as_array().unwrap();
    assert_eq!(quotas.len(), 3);
    assert_eq!(quotas[0]["max"], 100_000);
    // Described, counted, one page.
    let account = json!([{
        "object": "Account", "exists": true, "records": 450, "first_sync": {"by": "REST", "calls": 3},
        "changes": "told", "fields": 3, "findings": []
    }]);
    assert_eq!(survey["objects"], account);
    // Nothing was made by looking.
    assert!(!world.config().join("data").exists());
}

#[tokio::test]
async fn people_read_the_same() {
    let world = World::new().await;
    let (code, out, err) = run(&world.config(), &["check", "--live", "acme"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let org = format!(
        "connection acme: org {} at {}",
        world.org.org.profile.org_id, world.org.url
    );
    for due in [
        org.as_str(),
        "sync@acme.example",
        "API calls in 24 hours left",
        "Account  450      3 calls (REST)  told     3",
        "1 topics are made at the start",
    ] {
        assert!(out.contains(due), "{due}: {out}");
    }
    assert!(!format!("{out}{err}").contains(SECRET));
    let (code, _, err) = run(&world.config(), &["check", "--live", "acne"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("acme"), "{err}");
}

#[tokio::test]
async fn calls_follow_the_way_that_a_first_sync_goes() {
    let world = World::new().await;
    world.configure("bulk_from = 400", "industry = \"Industry\"");
    let looked = looked(&world.config()).await;
    let survey = looked.connections[0].survey.as_ref().unwrap();
    let sync = survey.objects[0].first_sync.unwrap();
    // Described, counted, created, looked at twice, read, deleted.
    assert_eq!((sync.by, sync.calls), ("Bulk", 7));
}

#[tokio::test]
async fn hidden_and_unknown_fields_are_named() {
    let world = World::new().await;
    world.configure(
        "",
        "industry = \"Industry\"\nemployees = \"Indstry\"\nphone = \"Owner.Emial\"\nwebsite = \"Ownr.Email\"\ndescription = \"Nothing__c\"",
    );
    world
        .order("fields/Account/Industry", json!({"visible": false}))
        .await;
    let (code, _, _) = run(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 3);
    let findings = told(&looked(&world.config()).await, "acme");
    let hidden = one(&findings, "`Industry`");
    assert!(
        hidden.starts_with("broken: field `Industry` of Account is hidden"),
        "{hidden}"
    );
    assert!(hidden.contains("selected by company_sync"), "{hidden}");
    assert!(hidden.contains("config/salesforce"), "{hidden}");
    let slip = one(&findings, "`Indstry`");
    assert!(slip.contains("that the user sees"), "{slip}");
    let parent = one(&findings, "`Owner.Emial`");
    assert!(parent.contains("did you mean `Email`"), "{parent}");
    let way = one(&findings, "`Ownr.Email`");
    assert!(way.contains("did you mean `Owner`"), "{way}");
    let unknown = one(&findings, "`Nothing__c`");
    assert!(
        unknown.contains("no field") && !unknown.contains("did you mean"),
        "{unknown}"
    );
    assert_eq!(findings.len(), 5, "{findings:#?}");
    // The first one shown again is the nearest to the slip.
    world
        .order("fields/Account/Industry", json!({"visible": true}))
        .await;
    let findings = told(&looked(&world.config()).await, "acme");
    assert!(one(&findings, "`Indstry`").contains("did you mean `Industry`"));
    assert_eq!(findings.len(), 4, "{findings:#?}");
}

#[tokio::test]
async fn what_a_field_has_not_is_told_with_what_to_write() {
    let world = World::new().await;
    world.configure(
        "",
        "industry = \"Industry@label\"\nemployees = \"Name@label\"\nphone = \"OwnerId@label\"\nwebsite = \"Name@type\"\n\
         description = \"OwnerId:Account\"\nstatus = \"OwnerId:User.Email\"\nstage = \"OwnerId:User.Username@label\"\n\
         billing_city = \"OwnerId@type\"\nbilling_state = \"Indstry@label\"",
    );
    let (code, _, _) = run(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 3);
    let findings = told(&looked(&world.config()).await, "acme");
    for (path, what, remedy) in [
        ("`Name` of Account is no picklist", "no labels", "`@label`"),
        (
            "`OwnerId` of Account is a reference",
            "no label",
            "`Owner.Name`",
        ),
        ("`Name` of Account is no reference", "no record", "`@type`"),
        (
            "`OwnerId` of Account points to",
            "to no Account",
            "`OwnerId:User`",
        ),
        (
            "`OwnerId:User.Username@label` can't be read",
            "is no picklist",
            "`@label`",
        ),
        (
            "no field `Indstry`",
            "the user sees",
            "did you mean `Industry`",
        ),
    ] {
        let finding = one(&findings, path);
        assert!(finding.starts_with("broken"), "{finding}");
        assert!(finding.contains(what), "{finding}");
        assert!(finding.contains(remedy), "{finding}");
        assert!(finding.contains("selected by company_sync"), "{finding}");
    }
    assert_eq!(findings.len(), 6, "{findings:#?}");
}

#[tokio::test]
async fn formulas_that_wait_for_full_syncs_are_named() {
    let world = World::new().await;
    world.configure(
        "",
        "industry = \"Industry\"\nemployees = \"Score__c\"\nphone = \"Owner.Email\"",
    );
    let (code, out, _) = run(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(!out.contains("missing"), "{out}");
    let findings = told(&looked(&world.config()).await, "acme");
    let late = one(&findings, "`Score__c`");
    assert!(late.starts_with("warning: no event tells"), "{late}");
    assert!(late.contains("selected by company_sync"), "{late}");
    assert!(late.contains("refresh = \"on_change\""), "{late}");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, format!("refresh = \"on_change\"\n{text}")).unwrap();
    let findings = told(&looked(&world.config()).await, "acme");
    assert_eq!(findings.len(), 0, "{findings:#?}");
}

#[tokio::test]
async fn an_object_that_is_not_there_is_named_with_the_nearest() {
    let world = World::new().await;
    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, text.replace("\"Account\"", "\"Acount\"")).unwrap();
    let looked = looked(&world.config()).await;
    assert!(looked.is_broken());
    let findings = told(&looked, "acme");
    assert!(
        one(&findings, "Acount").contains("did you mean `Account`"),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn an_object_that_is_not_captured_is_a_warning() {
    let world = World::of(SimOptions {
        capture: Some(vec!["User".to_owned()]),
        ..SimOptions::default()
    })
    .await;
    let (code, told) = run_json(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 0, "{told:#}");
    let object = &told["live"]["connections"][0]["survey"]["objects"][0];
    assert_eq!(object["changes"], "not_selected");
    let finding = &object["findings"][0];
    assert_eq!(finding["severity"], "warning");
    assert!(
        finding["remedy"]
            .as_str()
            .unwrap()
            .contains("Change Data Capture")
    );
}

#[tokio::test]
async fn an_object_counts_as_captured_on_the_channel_that_the_connection_listens_to() {
    let world = World::new().await;
    world.configure("channel = \"/data/Sync__chn\"", "");
    let channel = |entities: &[&str]| json!({"name": "Sync__chn", "entities": entities});
    world.order("channels", channel(&["User"])).await;
    let findings = told(&looked(&world.config()).await, "acme");
    assert!(one(&findings, "not selected").starts_with("warning"));
    world.order("channels", channel(&["User", "Account"])).await;
    let findings = told(&looked(&world.config()).await, "acme");
    assert_eq!(findings, [""; 0]);
}

#[tokio::test]
async fn records_that_are_not_seen_are_broken() {
    let world = World::new().await;
    world
        .order(
            "faults",
            json!({"do": {"kind": "forbid", "entity": "Account"}}),
        )
        .await;
    let looked = looked(&world.config()).await;
    assert!(looked.is_broken());
    let findings = told(&looked, "acme");
    let finding = one(&findings, "does not see all records of Account");
    assert!(finding.contains("View All Records"), "{finding}");
}

#[tokio::test]
async fn who_may_not_look_at_setup_is_told_so_and_no_more() {
    let world = World::new().await;
    world
        .order("permissions", json!({"view_setup": false}))
        .await;
    let looked = looked(&world.config()).await;
    assert!(!looked.is_broken());
    let findings = told(&looked, "acme");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(
        findings[0].contains("View Setup and Configuration"),
        "{findings:#?}"
    );
    let survey = looked.connections[0].survey.as_ref().unwrap();
    assert!(survey.quotas.is_empty());
    assert_eq!(
        serde_json::to_value(survey.objects[0].changes).unwrap(),
        "unknown"
    );
    assert_eq!(survey.objects[0].records, Some(450));
}

#[tokio::test]
async fn calls_that_are_nearly_used_are_told() {
    let world = World::of(SimOptions {
        api_limit: 12,
        ..SimOptions::default()
    })
    .await;
    let looked = looked(&world.config()).await;
    assert!(!looked.is_broken(), "{looked:?}");
    let findings = told(&looked, "acme");
    assert_eq!(
        findings, [""; 0],
        "three of twelve were used when it was told"
    );
    let looked = super::looked(&world.config()).await;
    let findings = told(&looked, "acme");
    assert!(looked.is_broken());
    assert!(
        findings
            .iter()
            .any(|finding| finding.contains("takes no call for")),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn a_wrong_secret_is_told_with_its_remedy_and_never_shown() {
    let world = World::new().await;
    std::fs::write(world.config().join("secret"), "not-the-secret").unwrap();
    let (code, out, err) = run(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 3);
    assert!(out.contains("connection acme: not signed in"), "{out}");
    assert!(
        out.contains("BROKEN") && out.contains("wait ten minutes"),
        "{out}"
    );
    assert!(!format!("{out}{err}").contains("not-the-secret"));
}

#[tokio::test]
async fn one_org_that_is_down_hides_nothing_of_another() {
    let world = World::new().await;
    let acme = std::fs::read_to_string(world.config().join("connections/acme.toml")).unwrap();
    // Nobody listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let away = acme.replace(&world.org.url, &format!("http://{gone}"));
    std::fs::write(world.config().join("connections/away.toml"), away).unwrap();
    let job = world.config().join("jobs/away");
    std::fs::create_dir_all(&job).unwrap();
    let company = world.config().join("jobs/acme/company_sync.toml");
    std::fs::copy(company, job.join("company_sync.toml")).unwrap();
    let looked = looked(&world.config()).await;
    assert!(looked.is_broken());
    assert_eq!(told(&looked, "acme"), [""; 0]);
    assert!(looked.connections[1].survey.is_none());
    let findings = told(&looked, "away");
    assert!(one(&findings, "signing in to connection away").starts_with("broken"));
}

#[tokio::test]
async fn a_secret_that_has_ended_is_told() {
    let world = World::new().await;
    let file = world.config().join("connections/acme.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let ended = text.replace(" } }", " }, secret_expires = 2020-01-31 }");
    std::fs::write(&file, ended).unwrap();
    let findings = told(&looked(&world.config()).await, "acme");
    assert!(
        one(&findings, "2020-01-31").starts_with("broken"),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn auth_says_what_the_user_needs_and_signs_in() {
    let world = World::new().await;
    let (code, out, err) = run(&world.config(), &["auth", "acme"]).await;
    assert_eq!(code, 0, "{out}{err}");
    for due in [
        "API Enabled",
        "Read and View All Records",
        "on Account",
        "View All Fields on Account, or Read on these",
        "on Industry, Name",
        "View Setup and Configuration (optional)",
        "connection acme signs in: org 00D",
    ] {
        assert!(out.contains(due), "{due}: {out}");
    }
    let (code, told) = run_json(&world.config(), &["auth", "acme"]).await;
    assert_eq!(code, 0);
    let needs = told["needs"].as_array().unwrap();
    let fields = needs
        .iter()
        .find(|need| need["on"] == json!(["Industry", "Name"]));
    assert_eq!(fields.unwrap()["optional"], false);
    assert_eq!(
        told["signed_in"]["user_id"],
        world.org.org.profile.run_as.id.as_str()
    );
    std::fs::write(world.config().join("secret"), "not-the-secret").unwrap();
    let (code, told) = run_json(&world.config(), &["auth", "acme"]).await;
    assert_eq!(code, 1);
    assert!(
        told["error"].as_str().unwrap().contains("invalid_client"),
        "{told}"
    );
}

#[tokio::test]
async fn objects_are_selected_and_released_on_the_connections_channel() {
    let world = World::of(SimOptions {
        capture: Some(vec!["User".to_owned()]),
        capture_limit: Some(2),
        ..SimOptions::default()
    })
    .await;
    let config = world.config();
    let capture = |more: &'static [&'static str]| {
        let config = config.clone();
        async move {
            run_json(
                &config,
                &[&["salesforce", "capture", "acme"][..], more].concat(),
            )
            .await
        }
    };
    let rows = |told: &serde_json::Value| -> Vec<String> {
        let rows = told["objects"].as_array().unwrap().iter();
        rows.map(|row| format!("{} {} {}", row["object"], row["told"], row["wanted"]))
            .collect()
    };
    let (code, told) = capture(&[]).await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(
        rows(&told),
        ["\"Account\" false true", "\"User\" true false"]
    );
    let (code, told) = capture(&["--add", "Account"]).await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(
        told["changed"],
        json!([{"object": "Account", "changed": true}])
    );
    assert_eq!(
        rows(&told),
        ["\"Account\" true true", "\"User\" true false"]
    );
    assert!(world.org.org.captures("Account"));
    let (_, told) = capture(&["--add", "Account"]).await;
    assert_eq!(told["changed"][0]["changed"], false);
    // Two may be selected.
    let (code, told) = capture(&["--add", "Nothing__c"]).await;
    assert_eq!(code, 1, "{told}");
    let (code, told) = capture(&["--remove", "User"]).await;
    assert_eq!(code, 0, "{told}");
    assert!(!world.org.org.captures("User"));
    let (code, out, _) = run(
        &config,
        &["salesforce", "capture", "acme", "--remove", "Account"],
    )
    .await;
    assert_eq!(code, 0);
    assert!(
        out.contains("Account released") && out.contains("not selected"),
        "{out}"
    );
    world
        .order("permissions", json!({"view_setup": false}))
        .await;
    let (code, _, err) = run(&config, &["salesforce", "capture", "acme"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("View Setup and Configuration"), "{err}");
}

#[tokio::test]
async fn no_more_objects_than_the_org_allows_are_selected() {
    let world = World::of(SimOptions {
        capture: Some(vec!["User".to_owned()]),
        capture_limit: Some(1),
        ..SimOptions::default()
    })
    .await;
    let arguments = ["salesforce", "capture", "acme", "--add", "Account"];
    let (code, _, err) = run(&world.config(), &arguments).await;
    assert_eq!(code, 1);
    assert!(err.contains("release one first"), "{err}");
    assert!(!world.org.org.captures("Account"));
}
