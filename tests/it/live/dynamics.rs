//! A Dataverse environment: all well, privileges, tracking, columns, counts, sign-in.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tributary_sim::dynamics::{Running, SimOptions, start};

use super::{SECRET, looked, one, run, run_json, told};
use crate::sim;

struct World {
    org: Running,
    home: tempfile::TempDir,
    http: reqwest::Client,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("org");
        std::fs::create_dir_all(&data).unwrap();
        let rows: String = (0..120)
            .map(|number| format!("aaaaaaaa-0000-4000-8000-{number:012x},Example {number}\n"))
            .collect();
        std::fs::write(data.join("account.csv"), format!("accountid,name\n{rows}")).unwrap();
        let org = start(SimOptions {
            data: Some(data),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        let world = Self {
            org,
            home,
            http: reqwest::Client::new(),
        };
        world.configure("", "industry = \"industrycode@label\"");
        world
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("all.toml")
    }

    fn configure(&self, more: &str, map: &str) {
        let url = &self.org.url;
        let client = SimOptions::default().client_id;
        let text = format!(
            r#"
[connection.contoso]
kind = "dynamics"
org = "{url}"
authority_url = "{url}"
plain_text = true
{more}
auth = {{ flow = "client_credentials", client_id = "{client}", client_secret = {{ file = "secret" }} }}
[job.contoso.company_sync]
source = "account"
[job.contoso.company_sync.to.Company]
identifiers = ["dynamics_account_id"]
[job.contoso.company_sync.to.Company.map]
dynamics_account_id = "accountid"
name = "name"
{map}
"#
        );
        std::fs::write(self.config(), text).unwrap();
        std::fs::write(self.home.path().join("secret"), SECRET).unwrap();
    }

    async fn order(&self, path: &str, body: Json) {
        sim::order(&self.http, &self.org.url, path, &body).await;
    }
}

#[tokio::test]
async fn all_is_well_and_each_thing_is_told() {
    let world = World::new().await;
    let (code, told) = run_json(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 0, "{told:#}");
    let survey = &told["live"]["connections"][0]["survey"];
    let org = &world.org.org;
    assert_eq!(survey["org_id"], org.profile.organization.to_string());
    assert_eq!(survey["findings"], json!([]));
    assert!(
        survey["api_version"]
            .as_str()
            .unwrap()
            .starts_with("9.2 (server 9.2."),
        "{survey}"
    );
    assert!(
        survey["quotas"][0]["left"].as_u64().unwrap() > 5000,
        "{survey}"
    );
    // Described twice, labels of one kind of choice, one page.
    let account = json!([{
        "object": "account", "exists": true, "records": 120, "first_sync": {"by": "Web API", "calls": 4},
        "changes": "told", "fields": 4, "findings": []
    }]);
    assert_eq!(survey["objects"], account);
}

#[tokio::test]
async fn missing_privileges_are_named() {
    let world = World::new().await;
    let denied = json!({"deny": [["Read", "account"], ["Read", "organization"]]});
    world.order("privileges", denied).await;
    let (code, out, _) = run(&world.config(), &["check", "--live"]).await;
    assert_eq!(code, 3);
    assert!(
        out.contains("BROKEN: account: the user lacks the privilege prvReadAccount"),
        "{out}"
    );
    let findings = told(&looked(&world.config()).await, "contoso");
    let account = one(&findings, "prvReadAccount");
    assert!(account.contains("scope Organization"), "{account}");
    assert!(one(&findings, "prvReadOrganization").starts_with("warning"));
    assert_eq!(findings.len(), 2, "{findings:#?}");
}

#[tokio::test]
async fn a_table_that_tracks_nothing_is_a_warning() {
    let world = World::new().await;
    let definition =
        json!({"name": "new_title", "tracked": false, "columns": {"new_title": "String(100)"}});
    world
        .order(
            "tables",
            json!({"table": "new_plan", "definition": definition}),
        )
        .await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace("\"account\"", "\"new_plan\"");
    let text = text
        .replace("\"accountid\"", "\"new_planid\"")
        .replace("\"name\"", "\"new_title\"");
    std::fs::write(
        world.config(),
        text.replace("industrycode@label", "statecode@label"),
    )
    .unwrap();
    let looked = looked(&world.config()).await;
    assert!(!looked.is_broken(), "{looked:#?}");
    let findings = told(&looked, "contoso");
    let finding = one(&findings, "does not track its changes");
    assert!(finding.contains("Track changes"), "{finding}");
    let survey = looked.connections[0].survey.as_ref().unwrap();
    assert_eq!(
        serde_json::to_value(survey.objects[0].changes).unwrap(),
        "not_selected"
    );
}

#[tokio::test]
async fn columns_that_are_not_there_or_secured_are_named() {
    let world = World::new().await;
    let secured = json!({"columns": {"new_margin": "Decimal(2) secured"}});
    world
        .order("tables", json!({"table": "account", "definition": secured}))
        .await;
    world.configure("", "employees = \"numberofemploy\"\nusers = \"new_margin\"");
    let looked = looked(&world.config()).await;
    assert!(looked.is_broken());
    let findings = told(&looked, "contoso");
    let slip = one(&findings, "`numberofemploy`");
    assert!(slip.contains("did you mean `numberofemployees`"), "{slip}");
    assert!(slip.contains("selected by company_sync"), "{slip}");
    let secured = one(&findings, "`new_margin`");
    assert!(secured.contains("column security hides"), "{secured}");
    assert_eq!(findings.len(), 2, "{findings:#?}");
}

#[tokio::test]
async fn a_table_that_is_not_there_is_named_with_the_nearest() {
    let world = World::new().await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("\"account\"", "\"acount\"")).unwrap();
    let findings = told(&looked(&world.config()).await, "contoso");
    assert!(
        one(&findings, "`acount`").contains("did you mean `account`"),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn a_wrong_secret_is_told_and_never_shown() {
    let world = World::new().await;
    std::fs::write(world.home.path().join("secret"), "not-the-secret").unwrap();
    let looked = looked(&world.config()).await;
    assert!(looked.is_broken());
    let findings = told(&looked, "contoso");
    let finding = one(&findings, "invalid_client");
    assert!(finding.contains("takes minutes to work"), "{finding}");
    assert!(!finding.contains("not-the-secret"));
}

#[tokio::test]
async fn auth_says_which_privileges_the_application_user_needs() {
    let world = World::new().await;
    let (code, out, err) = run(&world.config(), &["auth", "contoso"]).await;
    assert_eq!(code, 0, "{out}{err}");
    for due in [
        "prvReadAccount, scope Organization",
        "prvReadOrganization, scope Organization (optional)",
        "on accountid, industrycode, name",
        "connection contoso signs in: org",
    ] {
        assert!(out.contains(due), "{due}: {out}");
    }
}
