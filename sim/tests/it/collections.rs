//! Collections of rows and of ids.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, BETA, CARL, TestOrg, id};

const PATH: &str = "composite/sobjects";

fn row(object: &str, fields: Value) -> Value {
    let mut row = fields;
    row["attributes"] = json!({"type": object});
    row
}

#[tokio::test]
async fn rows_succeed_and_fail_by_themselves() {
    let org = TestOrg::start().await;
    let rows = [
        row("Account", json!({"Name": "One"})),
        row("Account", json!({"Name": "x".repeat(300)})),
        row("Contact", json!({"LastName": "Two", "AccountId": ACME})),
    ];
    let answer = org.call(Method::POST, PATH, json!({"records": rows})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body[0]["success"], true);
    assert_eq!(answer.body[1]["success"], false);
    assert_eq!(answer.body[1]["errors"][0]["statusCode"], "STRING_TOO_LONG");
    assert_eq!(answer.body[1]["errors"][0]["fields"], json!(["Name"]));
    assert!(answer.body[1].get("id").is_none());
    let events = org
        .running
        .org
        .log
        .after(org.running.org.log.beginning(), 9)
        .unwrap();
    assert_eq!(events.len(), 2);
    let key = |n: usize| {
        (
            events[n].event.transaction_key.clone(),
            events[n].event.sequence,
        )
    };
    assert_eq!(key(0).0, key(1).0, "one call is one transaction");
    assert_eq!((key(0).1, key(1).1), (1, 2));
}

#[tokio::test]
async fn all_or_none_undoes_the_innocent() {
    let org = TestOrg::start().await;
    let rows = [
        json!({"attributes": {"type": "Account"}, "id": ACME, "Name": "Changed"}),
        json!({"attributes": {"type": "Account"}, "id": BETA, "NumberOfEmployees": "x"}),
        json!({"attributes": {"type": "Account"}, "id": id("001", 99), "Name": "x"}),
    ];
    let body = json!({"allOrNone": true, "records": rows});
    let answer = org.call(Method::PATCH, PATH, body).await;
    let codes: Vec<_> = (0..3)
        .map(|n| answer.body[n]["errors"][0]["statusCode"].clone())
        .collect();
    assert_eq!(
        codes,
        [
            "ALL_OR_NONE_OPERATION_ROLLED_BACK",
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
            "INVALID_CROSS_REFERENCE_KEY"
        ]
    );
    assert_eq!(
        org.column("SELECT Name FROM Account ORDER BY Id LIMIT 1", "Name")
            .await,
        ["Acme"]
    );
    assert!(org.running.org.log.earliest().is_none());
}

#[tokio::test]
async fn a_collection_deletes_by_ids() {
    let org = TestOrg::start().await;
    let unknown = id("001", 99);
    let path = format!("{PATH}?ids={BETA},{CARL},{unknown},junk&allOrNone=false");
    let answer = org.send(org.request(Method::DELETE, &path)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(
        (&answer.body[0]["id"], &answer.body[1]["success"]),
        (&json!(BETA), &json!(true))
    );
    assert_eq!(
        answer.body[2]["errors"][0]["statusCode"],
        "INVALID_CROSS_REFERENCE_KEY"
    );
    assert_eq!(answer.body[3]["errors"][0]["statusCode"], "MALFORMED_ID");
}

#[tokio::test]
async fn a_collection_has_its_bounds() {
    let org = TestOrg::start().await;
    let many: Vec<_> = (0..201)
        .map(|n| row("Account", json!({"Name": n.to_string()})))
        .collect();
    let answer = org.call(Method::POST, PATH, json!({"records": many})).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "NUMBER_OUTSIDE_VALID_RANGE")
    );
    let full = org
        .call(Method::POST, PATH, json!({"records": many[..200]}))
        .await;
    assert_eq!(full.status, StatusCode::OK);
    let mixed: Vec<_> = (0..11)
        .map(|n| match n % 2 {
            0 => row("Account", json!({"Name": "x"})),
            _ => row("Contact", json!({"LastName": "x"})),
        })
        .collect();
    let answer = org
        .call(Method::POST, PATH, json!({"records": mixed}))
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    for (rows, code) in [
        (json!([]), "MISSING_ARGUMENT"),
        (json!([{"Name": "x"}]), "INVALID_INPUT"),
        (json!([row("Nope", json!({}))]), "INVALID_TYPE"),
        (json!([row("Account", json!({"Nope": 1}))]), "INVALID_FIELD"),
        (
            json!([row("Account", json!({"id": ACME}))]),
            "INVALID_FIELD_FOR_INSERT_UPDATE",
        ),
    ] {
        let answer = org.call(Method::POST, PATH, json!({"records": rows})).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code)
        );
    }
}

#[tokio::test]
async fn records_are_fetched_in_the_order_of_their_ids() {
    let org = TestOrg::start().await;
    org.transact(json!([{"ops": [{"op": "delete", "object": "Account", "id": BETA}]}]))
        .await;
    let ids = json!([id("001", 3), BETA, &ACME[..15], id("001", 99), ACME]);
    let fetch = |body: Value| org.call(Method::POST, "composite/sobjects/Account", body);
    let answer = fetch(json!({"ids": ids, "fields": ["Id", "Name", "Industry"]})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let names: Vec<_> = answer
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["Name"].clone())
        .collect();
    assert_eq!(
        names,
        [
            json!("Gamma"),
            Value::Null,
            json!("Acme"),
            Value::Null,
            json!("Acme")
        ]
    );
    assert_eq!(answer.body[1], Value::Null);
    assert_eq!(answer.body[0]["attributes"]["type"], "Account");

    let unknown = fetch(json!({"ids": [ACME], "fields": ["Nope"]})).await;
    assert_eq!(
        (unknown.status, unknown.code()),
        (StatusCode::BAD_REQUEST, "INVALID_FIELD")
    );
    let many: Vec<_> = (0..2001).map(|n| id("001", n)).collect();
    let over = fetch(json!({"ids": many, "fields": ["Id"]})).await;
    assert_eq!(over.status, StatusCode::BAD_REQUEST);
    let most = fetch(json!({"ids": many[..2000], "fields": ["Id"]})).await;
    assert_eq!(most.body.as_array().unwrap().len(), 2000);
}
