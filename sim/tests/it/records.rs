//! One record at a time.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, BETA, CARL, TestOrg, id};

#[tokio::test]
async fn a_record_lives_and_dies() {
    let org = TestOrg::start().await;
    let created = org
        .call(
            Method::POST,
            "sobjects/Account",
            json!({"Name": "New", "NumberOfEmployees": 7, "ParentId": ACME}),
        )
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    assert_eq!(created.body["success"], true);
    let new = created.body["id"].as_str().unwrap();
    assert_eq!(new.len(), 18);
    let path = format!("sobjects/Account/{new}");
    let read = org.get(&path).await;
    assert_eq!(read.body["Name"], "New");
    assert_eq!(read.body["OwnerId"], crate::org::ANN);
    assert_eq!(read.body["Industry"], Value::Null);
    assert_eq!(read.body["CreatedDate"], read.body["SystemModstamp"]);

    let patched = org
        .call(
            Method::PATCH,
            &path,
            json!({"Name": "Newer", "ParentId": null}),
        )
        .await;
    assert_eq!(
        (patched.status, &patched.body),
        (StatusCode::NO_CONTENT, &Value::Null)
    );
    let few = org.get(&format!("{path}?fields=Name,ParentId")).await;
    assert_eq!(few.body.as_object().unwrap().len(), 3);
    assert_eq!(
        (&few.body["Name"], &few.body["ParentId"]),
        (&json!("Newer"), &Value::Null)
    );

    assert_eq!(
        org.send(org.request(Method::DELETE, &path)).await.status,
        StatusCode::NO_CONTENT
    );
    for answer in [
        org.get(&path).await,
        org.call(Method::PATCH, &path, json!({"Name": "x"})).await,
        org.send(org.request(Method::DELETE, &path)).await,
    ] {
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::NOT_FOUND, "ENTITY_IS_DELETED")
        );
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let org = TestOrg::start().await;
    let missing = id("001", 999);
    for path in [
        format!("sobjects/Account/{missing}"),
        "sobjects/Nope/001SIM000000001YBA".to_owned(),
        format!("sobjects/Contact/{ACME}"),
        "sobjects/Account/junk".to_owned(),
        "sobjects/Nope".to_owned(),
    ] {
        let answer = org.get(&path).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::NOT_FOUND, "NOT_FOUND"),
            "{path}"
        );
    }
    let path = format!("sobjects/Account/{missing}");
    let patched = org.call(Method::PATCH, &path, json!({"Name": "x"})).await;
    assert_eq!(
        (patched.status, patched.code()),
        (StatusCode::NOT_FOUND, "NOT_FOUND")
    );
    let field = org
        .get(&format!("sobjects/Account/{ACME}?fields=Name,Nope"))
        .await;
    assert_eq!(
        (field.status, field.code()),
        (StatusCode::BAD_REQUEST, "INVALID_FIELD")
    );
}

#[tokio::test]
async fn bad_rows_are_refused() {
    let org = TestOrg::start().await;
    let cases = [
        (json!({"Nope": 1}), "INVALID_FIELD"),
        (json!({"Id": ACME}), "INVALID_FIELD"),
        (
            json!({"LastModifiedDate": "2024-01-01T00:00:00Z"}),
            "INVALID_FIELD_FOR_INSERT_UPDATE",
        ),
        (json!({"Score__c": 5}), "INVALID_FIELD_FOR_INSERT_UPDATE"),
        (
            json!({"BillingAddress": {"city": "x"}}),
            "INVALID_FIELD_FOR_INSERT_UPDATE",
        ),
        (
            json!({"NumberOfEmployees": "many"}),
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
        ),
        (
            json!({"NumberOfEmployees": 1.5}),
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
        ),
        (
            json!({"Renewal__c": "2024-02-30"}),
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
        ),
        (json!({"Name": 5}), "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        (json!({"Name": "x".repeat(256)}), "STRING_TOO_LONG"),
        (json!({"Name": null}), "REQUIRED_FIELD_MISSING"),
        (json!({"Name": ""}), "REQUIRED_FIELD_MISSING"),
        (json!({"ParentId": "junk"}), "MALFORMED_ID"),
        (
            json!({"ParentId": id("001", 999)}),
            "INVALID_CROSS_REFERENCE_KEY",
        ),
        (json!({"ParentId": CARL}), "FIELD_INTEGRITY_EXCEPTION"),
    ];
    for (fields, code) in cases {
        let path = format!("sobjects/Account/{BETA}");
        let answer = org.call(Method::PATCH, &path, fields.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{fields}: {}",
            answer.body
        );
    }
    let unnamed = org
        .call(Method::POST, "sobjects/Account", json!({"Industry": "x"}))
        .await;
    assert_eq!(unnamed.code(), "REQUIRED_FIELD_MISSING");
    assert_eq!(unnamed.message(), "Required fields are missing: [Name]");
    assert_eq!(unnamed.body[0]["fields"], json!(["Name"]));
    let broken = org
        .send(
            org.request(Method::POST, "sobjects/Account")
                .header("content-type", "application/json")
                .body("{"),
        )
        .await;
    assert_eq!(broken.code(), "JSON_PARSER_ERROR");
    let untyped = org
        .send(org.request(Method::POST, "sobjects/Account").body("{}"))
        .await;
    assert_eq!(untyped.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        org.running.org.log.earliest().is_none(),
        "refused rows tell nobody"
    );
}

#[tokio::test]
async fn a_write_can_depend_on_the_record_being_unchanged() {
    let org = TestOrg::start().await;
    let path = format!("sobjects/Account/{ACME}");
    let write = |since: &str| {
        org.request(Method::PATCH, &path)
            .header("If-Unmodified-Since", since)
            .json(&json!({"Industry": "Steel"}))
    };
    let late = org.send(write("Sun, 31 Dec 2023 23:59:59 GMT")).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let right = org.send(write("Mon, 01 Jan 2024 00:00:00 GMT")).await;
    assert_eq!(right.status, StatusCode::NO_CONTENT);
}
