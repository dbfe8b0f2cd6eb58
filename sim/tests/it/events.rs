//! What transactions tell: one event for each record, in the shapes of change data capture.

use std::sync::Arc;
use std::time::Duration;

use chrono::Timelike;
use reqwest::Method;
use serde_json::{Value, json};
use tributary_sim::salesforce::commits::{ChangeType, Committed};

use crate::org::{ACME, ANN, BETA, CARL, TestOrg, id};

fn events(org: &TestOrg) -> Vec<Arc<Committed>> {
    let log = &org.running.org.log;
    log.after(log.beginning(), 1000).unwrap()
}

fn op(op: &str, object: &str, id: &str, fields: Value) -> Value {
    json!({"op": op, "object": object, "id": id, "fields": fields})
}

#[tokio::test]
async fn an_update_tells_what_changed_by_its_event_names() {
    let org = TestOrg::start().await;
    let request = org
        .request(Method::PATCH, &format!("sobjects/Account/{ACME}"))
        .header("Sforce-Call-Options", "client=tributary")
        .json(&json!({"Industry": "Steel", "BillingStreet": null, "Name": "Acme", "Geo__Latitude__s": 9}));
    org.send(request).await;
    let events = events(&org);
    let [committed] = events.as_slice() else {
        panic!("{events:?}")
    };
    let event = &committed.event;
    assert_eq!(event.entity, "Account");
    assert_eq!(event.record_ids, [ACME]);
    assert_eq!(event.change_type, ChangeType::Update);
    assert_eq!(
        event.change_origin,
        "com/salesforce/api/rest/66.0;client=tributary"
    );
    assert_eq!(event.commit_user, ANN);
    assert_eq!(event.commit_timestamp.nanosecond(), 0);
    assert!(event.commit_number > 1 << 53);
    let mut changed = event.changed.clone();
    changed.sort();
    assert_eq!(
        changed,
        [
            "BillingAddress.Street",
            "Geo__c.Latitude",
            "Geo__c.Longitude",
            "Industry",
            "LastModifiedDate"
        ]
    );
    let stamp = event.body["LastModifiedDate"].as_str().unwrap();
    assert!(stamp.ends_with(".000Z"), "{stamp}");
    assert_eq!(event.body["BillingAddress"], json!({"Street": null}));
    assert_eq!(
        event.body["Geo__c"],
        json!({"Latitude": 9.0, "Longitude": 2.5})
    );
    assert_eq!(event.body["Industry"], "Steel");
    assert_eq!(event.body.len(), 4);
}

#[tokio::test]
async fn an_update_that_changes_nothing_still_tells_its_date() {
    let org = TestOrg::start().await;
    org.transact(
        json!([{"user": ANN, "ops": [op("update", "Account", ACME, json!({"Name": "Acme"}))]}]),
    )
    .await;
    let events = events(&org);
    assert_eq!(events[0].event.changed, ["LastModifiedDate"]);
    assert_eq!(events[0].event.change_origin, "");
}

#[tokio::test]
async fn create_and_undelete_tell_what_is_not_empty_and_delete_nothing() {
    let org = TestOrg::start().await;
    let created = org
        .call(
            Method::POST,
            "sobjects/Contact",
            json!({"FirstName": "Dora", "LastName": "Doe", "AccountId": ACME}),
        )
        .await;
    let dora = created.body["id"].as_str().unwrap().to_owned();
    org.transact(json!([
        {"ops": [op("delete", "Contact", &dora, json!({}))]},
        {"ops": [op("undelete", "Contact", &dora, json!({}))]},
    ]))
    .await;
    let events = events(&org);
    let types: Vec<_> = events.iter().map(|event| event.event.change_type).collect();
    assert_eq!(
        types,
        [ChangeType::Create, ChangeType::Delete, ChangeType::Undelete]
    );
    for event in [&events[0].event, &events[2].event] {
        assert!(event.changed.is_empty());
        assert_eq!(
            event.body["Name"],
            json!({"FirstName": "Dora", "LastName": "Doe"})
        );
        assert_eq!(event.body["AccountId"], ACME);
        assert_eq!(event.body["CreatedById"], ANN);
        for absent in [
            "Email",
            "Id",
            "IsDeleted",
            "SystemModstamp",
            "FirstName",
            "MailingAddress",
        ] {
            assert!(!event.body.contains_key(absent), "{absent}");
        }
    }
    assert!(events[1].event.body.is_empty());
    let ids: Vec<_> = events.iter().map(|event| event.replay_id).collect();
    assert!(ids.is_sorted() && ids[1] > ids[0]);
}

#[tokio::test]
async fn several_writes_of_one_record_are_one_event_of_the_first_kind() {
    let org = TestOrg::start().await;
    let done = org
        .transact(json!([
            {"ops": [{"op": "create", "object": "Account", "fields": {"Name": "a"}}]},
            {"ops": [
                op("update", "Account", "$1.0", json!({"Name": "b"})),
                {"op": "create", "object": "Contact", "fields": {"LastName": "x", "AccountId": "$1.0"}},
                op("update", "Account", "$1.0", json!({"Industry": "c"})),
                op("update", "Account", ACME, json!({"Industry": "d"})),
            ]},
        ]))
        .await;
    assert_eq!(done[1]["events"].as_array().unwrap().len(), 3);
    let events = events(&org);
    let told: Vec<_> = events[1..]
        .iter()
        .map(|event| {
            (
                event.event.entity.as_str(),
                event.event.change_type,
                event.event.sequence,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Account", ChangeType::Update, 1),
            ("Contact", ChangeType::Create, 2),
            ("Account", ChangeType::Update, 3)
        ]
    );
    assert_eq!(events[1].event.body["Name"], "b");
    assert_eq!(events[1].event.body["Industry"], "c");

    org.transact(json!([{"ops": [
        op("update", "Account", BETA, json!({"Name": "dying"})),
        op("delete", "Account", BETA, json!({})),
    ]}]))
    .await;
    let last = org.running.org.log.after(events[3].replay_id, 9).unwrap();
    assert_eq!(
        (last.len(), last[0].event.change_type),
        (1, ChangeType::Delete)
    );
}

#[tokio::test]
async fn uncaptured_objects_leave_holes_and_hard_deletes_and_formulas_tell_nobody() {
    let org = TestOrg::with(|options| options.capture = Some(vec!["Account".into()])).await;
    let done = org
        .transact(json!([{"ops": [
            op("update", "Contact", CARL, json!({"Email": "c@x.example"})),
            op("update", "Account", ACME, json!({"Name": "b"})),
            op("recalculate", "Account", BETA, json!({"Score__c": 99})),
            op("hard_delete", "Account", &id("001", 3), json!({})),
        ]}]))
        .await;
    assert!(
        done[0]["results"]
            .as_array()
            .unwrap()
            .iter()
            .all(|result| result["id"].is_string()),
        "{done}"
    );
    let events = events(&org);
    assert_eq!((events.len(), events[0].event.sequence), (1, 2));
    let truth = org.get("/_sim/records/Account").await;
    assert_eq!(truth.body["records"].as_array().unwrap().len(), 2);
    assert_eq!(truth.body["records"][1]["Score__c"], 99.0);
    assert_eq!(
        truth.body["records"][1]["SystemModstamp"],
        "2024-01-02T00:00:00.000+0000"
    );
}

#[tokio::test]
async fn a_long_transaction_stamps_at_the_statement_and_tells_at_the_commit() {
    let org = TestOrg::start().await;
    let clock = &org.running.org.clock;
    clock.freeze();
    let start = clock.second();
    let body = json!({"wait": false, "transactions": [
        {"hold_ms": 600_000, "ops": [op("update", "Account", ACME, json!({"Name": "Late"}))]},
        {"ops": [
            op("update", "Account", BETA, json!({"Name": "Soon"})),
            op("update", "Account", ACME, json!({"Name": "Blocked"})),
        ]},
    ]});
    let answer = org.call(Method::POST, "/_sim/transactions", body).await;
    assert_eq!(answer.body["transactions"][0]["results"][0]["id"], ACME);
    let blocked = &answer.body["transactions"][1]["results"][1]["error"];
    assert_eq!(blocked["statusCode"], "UNABLE_TO_LOCK_ROW");
    assert_eq!(
        org.column("SELECT Name FROM Account ORDER BY Id", "Name")
            .await[..2],
        ["Acme", "Soon"]
    );

    let mut newest = org.running.org.log.watch();
    newest.borrow_and_update();
    clock.advance(Duration::from_secs(600));
    newest.changed().await.unwrap();
    let events = events(&org);
    let late = &events[1].event;
    assert_eq!(late.record_ids, [ACME]);
    assert_eq!(
        late.commit_timestamp,
        start + chrono::TimeDelta::seconds(600)
    );
    let stamps = org
        .column(
            "SELECT SystemModstamp FROM Account ORDER BY Id",
            "SystemModstamp",
        )
        .await;
    assert_eq!(
        stamps[0],
        json!(start.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string())
    );
    let free = org
        .call(
            Method::PATCH,
            &format!("sobjects/Account/{ACME}"),
            json!({"Name": "Free"}),
        )
        .await;
    assert_eq!(free.status, reqwest::StatusCode::NO_CONTENT);
}
