//! Records by external id, and deletes that take others along.

use std::fs;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, Answer, CARL, TestOrg};

async fn org() -> TestOrg {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("Account.csv"),
        format!("Id,Name,Ext__c,Num__c\n{ACME},Acme,A1,1\n,Twin,T,2\n,Twin,T,3\n"),
    )
    .unwrap();
    fs::write(
        dir.path().join("Account.json"),
        json!({"fields": {"Ext__c": {"externalId": true}, "Num__c": {"type": "double", "externalId": true, "unique": true}}})
            .to_string(),
    )
    .unwrap();
    fs::write(
        dir.path().join("Contact.csv"),
        format!("Id,LastName,AccountId\n{CARL},Carl,{ACME}\n,Dora,{ACME}\n"),
    )
    .unwrap();
    fs::write(
        dir.path().join("Contact.json"),
        json!({"fields": {"AccountId": {"cascadeDelete": true}}}).to_string(),
    )
    .unwrap();
    TestOrg::at(dir, |_| {}).await
}

async fn patch(org: &TestOrg, path: &str, body: Value) -> Answer {
    org.call(Method::PATCH, path, body).await
}

#[tokio::test]
async fn one_record_is_created_updated_or_one_of_many() {
    let org = org().await;
    let path = "sobjects/Account/Ext__c/A9";
    let created = patch(&org, path, json!({"Name": "New"})).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    assert_eq!(created.body["created"], true);
    let updated = patch(&org, path, json!({"Name": "Newer"})).await;
    assert_eq!(updated.status, StatusCode::OK);
    assert_eq!(updated.body["created"], false);
    assert_eq!(updated.body["id"], created.body["id"]);
    let old = "/services/data/v45.0/sobjects/Account/Ext__c/A9";
    assert_eq!(
        patch(&org, old, json!({"Name": "x"})).await.status,
        StatusCode::NO_CONTENT
    );
    let read = org.get(path).await;
    assert_eq!(read.body["Ext__c"], "A9");
    assert_eq!(read.body["Name"], "x");
    let by_number = patch(&org, "sobjects/Account/Num__c/1", json!({"Name": "One"})).await;
    assert_eq!(by_number.body["id"], ACME);

    let only = "sobjects/Account/Ext__c/none?updateOnly=true";
    assert_eq!(
        patch(&org, only, json!({"Name": "x"})).await.status,
        StatusCode::NOT_FOUND
    );
    let several = patch(&org, "sobjects/Account/Ext__c/T", json!({"Name": "x"})).await;
    assert_eq!(several.status, StatusCode::MULTIPLE_CHOICES);
    let urls = several.body.as_array().unwrap();
    assert_eq!(urls.len(), 2);
    assert!(
        urls[0]
            .as_str()
            .unwrap()
            .starts_with("/services/data/v66.0/sobjects/Account/001")
    );
    for (path, body) in [
        ("sobjects/Account/Name/Acme", json!({})),
        ("sobjects/Account/Ext__c/A1", json!({"Ext__c": "A2"})),
        ("sobjects/Account/Ext__c/A1", json!({"Id": ACME})),
        ("sobjects/Account/Num__c/x", json!({})),
    ] {
        assert_eq!(
            patch(&org, path, body).await.status,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
}

#[tokio::test]
async fn rows_are_upserted_together_and_fail_alone() {
    let org = org().await;
    let row = |ext: Value, name: &str| json!({"attributes": {"type": "Account"}, "Ext__c": ext, "Name": name});
    let path = "composite/sobjects/Account/Ext__c";
    let records = json!([
        row(json!("A1"), "Acme 2"),
        row(json!("B1"), "B"),
        row(json!("T"), "both"),
        row(json!(null), "none"),
        row(json!("B1"), "again")
    ]);
    let answer = patch(&org, path, json!({"allOrNone": false, "records": records})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let rows = answer.body.as_array().unwrap();
    assert_eq!(
        (&rows[0]["id"], &rows[0]["created"]),
        (&json!(ACME), &json!(false))
    );
    assert_eq!(rows[1]["created"], true);
    for (row, code) in rows[2..].iter().zip([
        "DUPLICATE_EXTERNAL_ID",
        "MISSING_ARGUMENT",
        "DUPLICATE_VALUE",
    ]) {
        assert_eq!(row["success"], false);
        assert_eq!(row["errors"][0]["statusCode"], code);
    }
    let records = json!([row(json!("A1"), "changed"), row(json!("T"), "both")]);
    let answer = patch(&org, path, json!({"allOrNone": true, "records": records})).await;
    assert_eq!(
        answer.body[0]["errors"][0]["statusCode"],
        "ALL_OR_NONE_OPERATION_ROLLED_BACK"
    );
    assert_eq!(
        org.column(
            "SELECT Name FROM Account WHERE Ext__c IN ('A1','B1') ORDER BY Name",
            "Name"
        )
        .await,
        ["Acme 2", "B"]
    );
    let many: Vec<_> = (0..201).map(|n| row(json!(format!("M{n}")), "x")).collect();
    let too_many = patch(&org, path, json!({"records": many})).await;
    assert_eq!(too_many.status, StatusCode::BAD_REQUEST);
    let other = json!({"records": [{"attributes": {"type": "Contact"}, "Ext__c": "x"}]});
    assert_eq!(patch(&org, path, other).await.code(), "INVALID_INPUT");
    let no_key = patch(
        &org,
        "composite/sobjects/Account/Name",
        json!({"records": [row(json!("x"), "x")]}),
    );
    assert_eq!(no_key.await.code(), "INVALID_FIELD");
}

#[tokio::test]
async fn a_delete_takes_children_along_in_one_transaction_and_an_undelete_brings_them_back() {
    let org = org().await;
    let log = &org.running.org.log;
    let path = format!("sobjects/Account/{ACME}");
    let deleted = org.send(org.request(Method::DELETE, &path)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let events = log.after(log.beginning(), 10).unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.event.entity.as_str(), event.event.sequence))
        .collect();
    assert_eq!(told, [("Account", 1), ("Contact", 2), ("Contact", 3)]);
    assert!(
        events
            .iter()
            .all(|event| event.event.transaction_key == events[0].event.transaction_key)
    );
    assert!(org.column("SELECT Id FROM Contact", "Id").await.is_empty());
    org.transact(json!([{"ops": [{"op": "undelete", "object": "Account", "id": ACME}]}]))
        .await;
    assert_eq!(org.column("SELECT Id FROM Contact", "Id").await.len(), 2);
    let described = org.get("sobjects/Account/describe").await.body;
    assert_eq!(described["childRelationships"][0]["cascadeDelete"], true);
}
