//! Describes of objects that came from files.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::TestOrg;

async fn fields(org: &TestOrg, object: &str) -> serde_json::Map<String, Value> {
    let answer = org.get(&format!("sobjects/{object}/describe")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let fields = answer.body["fields"].as_array().unwrap();
    fields
        .iter()
        .map(|field| (field["name"].as_str().unwrap().to_owned(), field.clone()))
        .collect()
}

#[tokio::test]
async fn every_file_is_an_object() {
    let org = TestOrg::start().await;
    let global = org.get("sobjects/").await;
    let objects = global.body["sobjects"].as_array().unwrap();
    let prefixes: Vec<_> = objects
        .iter()
        .map(|object| {
            (
                object["name"].as_str().unwrap(),
                object["keyPrefix"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        prefixes,
        [
            ("Account", "001"),
            ("Contact", "003"),
            ("Employee__c", "a00"),
            ("User", "005")
        ]
    );
    assert_eq!(objects[2]["custom"], true);
    assert_eq!(objects[2]["label"], "Employee");
}

#[tokio::test]
async fn types_come_from_values_names_and_notes() {
    let org = TestOrg::start().await;
    let account = fields(&org, "account").await;
    let expected = [
        ("Id", "id"),
        ("Name", "string"),
        ("Industry", "picklist"),
        ("NumberOfEmployees", "int"),
        ("AnnualRevenue", "currency"),
        ("BillingStreet", "textarea"),
        ("BillingAddress", "address"),
        ("ParentId", "reference"),
        ("OwnerId", "reference"),
        ("Description", "textarea"),
        ("SystemModstamp", "datetime"),
        ("Score__c", "double"),
        ("Renewal__c", "date"),
        ("Geo__c", "location"),
        ("IsDeleted", "boolean"),
        ("LastModifiedById", "reference"),
    ];
    for (name, kind) in expected {
        assert_eq!(account[name]["type"], kind, "{name}");
    }
    assert_eq!(account["ParentId"]["referenceTo"], json!(["Account"]));
    assert_eq!(account["OwnerId"]["referenceTo"], json!(["User"]));
    assert_eq!(account["OwnerId"]["relationshipName"], "Owner");
    assert_eq!(
        account["BillingCity"]["compoundFieldName"],
        "BillingAddress"
    );
    assert_eq!(account["Geo__Latitude__s"]["compoundFieldName"], "Geo__c");
    assert_eq!(account["Score__c"]["calculated"], true);
    assert_eq!(account["Industry"]["picklistValues"][0]["value"], "Energy");
    assert_eq!(account["SystemModstamp"]["updateable"], false);
    let employee = fields(&org, "Employee__c").await;
    assert_eq!(
        employee["Grade__c"]["type"], "double",
        "custom numbers are doubles"
    );
    assert_eq!(employee["Active__c"]["type"], "boolean");
    assert_eq!(employee["Active__c"]["nillable"], false);
    let contact = fields(&org, "Contact").await;
    assert_eq!(contact["Name"]["updateable"], false);
    assert_eq!(contact["LastName"]["compoundFieldName"], "Name");
}

#[tokio::test]
async fn picklists_have_the_entries_that_are_set_and_the_values_of_records() {
    let org = TestOrg::start().await;
    let set = async |object_and_field: &str, choices: Value| {
        let path = format!("/_sim/fields/{object_and_field}");
        let told = org.call(Method::POST, &path, json!({ "choices": choices }));
        told.await.status
    };
    let told = set(
        "Account/Industry",
        json!([{"value": "Energy", "label": "Energie"}, {"value": "Old", "label": "Alt", "active": false}]),
    );
    assert_eq!(told.await, StatusCode::NO_CONTENT);
    let account = fields(&org, "Account").await;
    let entries = account["Industry"]["picklistValues"].as_array().unwrap();
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap();
            (text("value"), text("label"), entry["active"] == true)
        })
        .collect();
    assert_eq!(
        entries[..2],
        [("Energy", "Energie", true), ("Old", "Alt", false)]
    );
    assert!(
        entries[2..]
            .iter()
            .all(|(value, label, active)| value == label && *active)
    );
    for none in ["Account/Name", "Account/Nothing__c"] {
        assert_eq!(set(none, json!([])).await, StatusCode::NOT_FOUND, "{none}");
    }
}

#[tokio::test]
async fn an_unchanged_describe_is_not_sent_again() {
    let org = TestOrg::start().await;
    let first = org.get("sobjects/Account/describe/").await;
    let changed = first.headers["last-modified"].to_str().unwrap().to_owned();
    let again = |since: &str, path: &str| {
        org.send(
            org.request(Method::GET, path)
                .header("If-Modified-Since", since),
        )
    };
    for path in ["sobjects/Account/describe", "sobjects"] {
        let fresh = again(&changed, path).await;
        assert_eq!(
            (fresh.status, fresh.body),
            (StatusCode::NOT_MODIFIED, Value::Null)
        );
        let stale = again("Mon, 01 Jan 2024 00:00:00 GMT", path).await;
        assert_eq!(stale.status, StatusCode::OK);
    }
    org.running
        .org
        .clock
        .advance(std::time::Duration::from_secs(5));
    let added = org
        .call(
            Method::POST,
            "/_sim/fields/Account/Tier__c",
            json!({"type": "string"}),
        )
        .await;
    assert_eq!(added.status, StatusCode::NO_CONTENT);
    assert_eq!(
        again(&changed, "sobjects/Account/describe").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn fields_come_and_go_while_the_org_runs() {
    let org = TestOrg::start().await;
    let add = org
        .call(
            Method::POST,
            "/_sim/fields/Account/Tier__c",
            json!({"type": "string"}),
        )
        .await;
    assert_eq!(add.status, StatusCode::NO_CONTENT);
    let path = format!("sobjects/Account/{}", crate::org::ACME);
    org.call(Method::PATCH, &path, json!({"Tier__c": "gold"}))
        .await;
    assert_eq!(
        org.column("SELECT Tier__c FROM Account ORDER BY Id", "Tier__c")
            .await,
        [json!("gold"), Value::Null, Value::Null]
    );
    org.call(
        Method::POST,
        "/_sim/fields/Account/Tier__c",
        json!({"visible": false}),
    )
    .await;
    assert_eq!(
        org.query("SELECT Tier__c FROM Account").await.code(),
        "INVALID_FIELD"
    );
    assert!(!fields(&org, "Account").await.contains_key("Tier__c"));
    let hidden = org
        .call(Method::PATCH, &path, json!({"Tier__c": "x"}))
        .await;
    assert_eq!(hidden.code(), "INVALID_FIELD");
}
