//! Which entities are captured, by the Tooling API.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{Answer, TestOrg};

const MEMBERS: &str = "tooling/sobjects/PlatformEventChannelMember";

async fn selected(org: &TestOrg) -> Vec<String> {
    let soql = "SELECT EventChannel,SelectedEntity FROM PlatformEventChannelMember ORDER BY SelectedEntity";
    let request = org.request(Method::GET, "tooling/query");
    let answer = org.send(request.query(&[("q", soql)])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let records = answer.body["records"].as_array().unwrap();
    let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
    records
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                text(one, "EventChannel"),
                text(one, "SelectedEntity")
            )
        })
        .collect()
}

async fn select(org: &TestOrg, channel: &str, entity: &str, fields: Value) -> Answer {
    let name = format!("{channel}_{entity}").replace("__", "_");
    let order = json!({"FullName": name, "Metadata":
        {"eventChannel": channel, "selectedEntity": entity, "enrichedFields": fields}});
    org.call(Method::POST, MEMBERS, order).await
}

#[tokio::test]
async fn members_are_selected_listed_and_deleted() {
    let org = TestOrg::with(|options| options.capture = Some(vec!["Account".into()])).await;
    assert_eq!(selected(&org).await, ["ChangeEvents AccountChangeEvent"]);
    let added = select(&org, "ChangeEvents", "Employee__ChangeEvent", json!([])).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    assert!(org.running.org.captures("Employee__c"));
    assert_eq!(
        selected(&org).await,
        [
            "ChangeEvents AccountChangeEvent",
            "ChangeEvents Employee__ChangeEvent"
        ]
    );
    let again = select(&org, "ChangeEvents", "Employee__ChangeEvent", json!([])).await;
    assert_eq!(again.code(), "DUPLICATE_DEVELOPER_NAME");
    let one = format!("{MEMBERS}/{}", added.body["id"].as_str().unwrap());
    let read = org.get(&one).await.body;
    assert_eq!(read["Metadata"]["selectedEntity"], "Employee__ChangeEvent");
    let deleted = org.send(org.request(Method::DELETE, &one)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert!(!org.running.org.captures("Employee__c"));
    assert_eq!(org.get(&one).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_custom_channel_has_members_and_enriched_fields() {
    let org = TestOrg::start().await;
    let channels = "tooling/sobjects/PlatformEventChannel";
    let order =
        json!({"FullName": "Sync__chn", "Metadata": {"channelType": "data", "label": "Sync"}});
    let made = org.call(Method::POST, channels, order.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(
        org.call(Method::POST, channels, order).await.code(),
        "DUPLICATE_DEVELOPER_NAME"
    );
    let fields = json!([{"name": "Industry"}]);
    let member = select(&org, "Sync__chn", "AccountChangeEvent", fields).await;
    assert_eq!(member.status, StatusCode::CREATED, "{}", member.body);
    let carried = org.running.org.streaming.channels();
    assert_eq!(carried["Sync__chn"]["Account"], ["Industry"]);
    for (channel, entity, fields) in [
        ("Other__chn", "AccountChangeEvent", json!([])),
        ("Sync__chn", "NothingChangeEvent", json!([])),
        ("Sync__chn", "ContactChangeEvent", json!([{"name": "Nope"}])),
    ] {
        let answer = select(&org, channel, entity, fields).await;
        assert_eq!(answer.code(), "INVALID_INPUT", "{channel} {entity}");
    }
    let id = member.body["id"].as_str().unwrap();
    org.send(org.request(Method::DELETE, &format!("{MEMBERS}/{id}")))
        .await;
    assert!(org.running.org.streaming.channels()["Sync__chn"].is_empty());
    let id = made.body["id"].as_str().unwrap();
    org.send(org.request(Method::DELETE, &format!("{channels}/{id}")))
        .await;
    assert!(org.running.org.streaming.channels().is_empty());
}

#[tokio::test]
async fn an_org_without_the_add_on_selects_so_many() {
    let org = TestOrg::with(|options| {
        options.capture = Some(vec!["Account".into()]);
        options.capture_limit = Some(2);
    })
    .await;
    let two = select(&org, "ChangeEvents", "ContactChangeEvent", json!([])).await;
    assert_eq!(two.status, StatusCode::CREATED);
    let three = select(&org, "ChangeEvents", "UserChangeEvent", json!([])).await;
    assert_eq!(three.code(), "LIMIT_EXCEEDED");
}
