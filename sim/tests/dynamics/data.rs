//! Data from CSV: standard tables, tables never seen, types inferred or told.

use std::fs;

use serde_json::{Value, json};
use tributary_sim::dynamics::{SimOptions, start};

use crate::harness::{ADA, EXAMPLE, PLAN, TestOrg};

#[tokio::test]
async fn tables_never_seen_get_types_from_their_values() {
    let org = TestOrg::start().await;
    let answer = org.get(&format!("new_planset({PLAN})")).await.expect(200);
    let row = &answer.body;
    assert_eq!(
        (&row["new_seats"], &row["new_active"], &row["new_start"]),
        (&json!(5), &json!(true), &json!("2026-01-01"))
    );
    assert_eq!(
        (&row["new_signed"], &row["new_zip"], &row["new_tags"]),
        (
            &json!("2026-01-02T03:04:05Z"),
            &json!("01234"),
            &json!("1,3")
        )
    );
    assert_eq!(row["_new_account_value"], EXAMPLE);
    assert!(
        answer.text.contains("\"new_price\":12.345"),
        "{}",
        answer.text
    );
    assert_eq!(row["new_secret"], Value::Null);
    org.patch(&format!("new_planset({PLAN})"), json!({"new_secret": "x"}))
        .await
        .expect(204);
    assert_eq!(
        org.get(&format!("new_planset({PLAN})")).await.body["new_secret"],
        Value::Null,
        "hidden by column security"
    );
    let expanded = org
        .get(&format!(
            "accounts({EXAMPLE})?$expand=new_account_plans($select=new_name)"
        ))
        .await
        .expect(200);
    assert_eq!(expanded.body["new_account_plans"][0]["new_name"], "Gold");
    let types = org.get("EntityDefinitions(LogicalName='new_plan')/Attributes?$select=LogicalName,AttributeType").await.expect(200);
    let kind = |name: &str| {
        types
            .rows()
            .iter()
            .find(|row| row["LogicalName"] == name)
            .unwrap()["AttributeType"]
            .clone()
    };
    assert_eq!(
        (
            kind("new_price"),
            kind("new_seats"),
            kind("new_tags"),
            kind("new_account")
        ),
        (
            json!("Decimal"),
            json!("Integer"),
            json!("Virtual"),
            json!("Lookup")
        )
    );
}

#[tokio::test]
async fn rows_of_a_file_have_what_the_platform_adds() {
    let org = TestOrg::start().await;
    let row = org.get(&format!("contacts({ADA})")).await.body;
    assert_eq!(
        (&row["fullname"], &row["statecode"], &row["statuscode"]),
        (&json!("Ada Example"), &json!(0), &json!(1))
    );
    let account = org.get(&format!("accounts({EXAMPLE})")).await;
    assert_eq!(account.body["createdon"], "2026-01-05T10:11:12Z");
    assert!(
        account.text.contains("\"revenue\":1234567890123456.78"),
        "{}",
        account.text
    );
}

#[tokio::test]
async fn the_same_seed_gives_the_same_organization() {
    let one = TestOrg::start().await;
    let two = TestOrg::start().await;
    let ids = async |org: &TestOrg| {
        (
            org.get("WhoAmI").await.body["OrganizationId"].clone(),
            org.get("new_planset?$select=new_name")
                .await
                .rows()
                .iter()
                .map(|row| row["new_planid"].clone())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(ids(&one).await, ids(&two).await);
    let other = TestOrg::with(|options| options.seed = 2).await;
    assert_ne!(ids(&one).await, ids(&other).await);
}

#[tokio::test]
async fn bad_data_is_named() {
    let cases = [
        (
            "account.csv",
            "accountid,industrycode\nx,1\n",
            "column accountid: `x`",
        ),
        (
            "account.csv",
            "accountid,industrycode\n,99\n",
            "column industrycode: `99`",
        ),
        (
            "account.json",
            "{\"columns\":{\"a\":\"Lookup\"}}",
            "a lookup names its targets",
        ),
    ];
    for (file, text, wanted) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("account.csv"), "accountid,name\n,x\n").unwrap();
        fs::write(dir.path().join(file), text).unwrap();
        let options = SimOptions {
            data: Some(dir.path().to_owned()),
            ..SimOptions::default()
        };
        let error = start(options).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
