//! Reads by id: every asked id is found or absent, in few calls.

use std::sync::Mutex;

use serde_json::{Value as Json, json};

use crate::http::tests::server::{Reply, Seen};

use super::org::{Org, below, describe};
use super::*;

/// Which way an org answers reads by id.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Collections,
    QueriesOnly,
}

/// An org in which odd ids live, and each has a name and an owner.
async fn org(way: Way) -> Org {
    Org::start(move |seen: Seen| async move {
        match below(&seen) {
            "/composite/sobjects/Account" if way == Way::Collections => {
                let ids = seen.json()["ids"].clone();
                let rows: Vec<Json> = ids
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|id| if lives(id.as_str().unwrap()) { row(id.as_str().unwrap()) } else { Json::Null })
                    .collect();
                Reply::json(&json!(rows))
            }
            "/composite/sobjects/Account" => Reply::error(404, "NOT_FOUND", "no such resource"),
            "/query" => {
                let text = &seen.query["q"];
                let rows: Vec<Json> = text
                    .split('\'')
                    .skip(1)
                    .step_by(2)
                    .filter(|id| lives(id))
                    .map(row)
                    .collect();
                Reply::json(&json!({"totalSize": rows.len(), "done": true, "records": rows}))
            }
            "/sobjects/User/describe/" => describe("User", &[("Id", "id"), ("CreatedDate", "datetime")]),
            _ => Reply::json(&json!({"name": "Account", "label": "", "fields": [
                {"name": "Id", "type": "id", "label": ""},
                {"name": "Name", "type": "string", "label": ""},
                {"name": "OwnerId", "type": "reference", "label": "", "referenceTo": ["User"], "relationshipName": "Owner"},
                {"name": "SystemModstamp", "type": "datetime", "label": ""}
            ]})),
        }
    })
    .await
}

fn lives(id: &str) -> bool {
    id.as_bytes()[14] % 2 == 1
}

fn row(id: &str) -> Json {
    json!({
        "attributes": {}, "Id": id, "Name": format!("N {id}"), "OwnerId": USER,
        "SystemModstamp": "2024-04-09T20:26:27.000+0000",
        "Owner": {"attributes": {}, "CreatedDate": "2024-04-09T20:26:27.000+0000"}
    })
}

fn check(found: &Found, asked: usize) {
    assert_eq!(found.rows.len() + found.absent.len(), asked);
    assert!(found.rows.iter().all(|row| lives(row.record.as_str())));
    assert!(found.absent.iter().all(|id| !lives(id.as_str())));
}

#[tokio::test]
async fn two_thousand_ids_a_call() {
    let org = org(Way::Collections).await;
    let mut ids: Vec<RecordId> = (0..4500).map(id).collect();
    ids.push(id(7));
    let selection = selection("Account", &["Id", "Name", "SystemModstamp"]);
    let found = org.connector().read_ids(&selection, &ids).await.unwrap();
    check(&found, 4500);
    assert_eq!(org.server.count("/composite/sobjects/Account"), 3);
    assert_eq!(org.server.count("/query"), 0);
    let row = &found.rows[0];
    let names: Vec<_> = row.fields.keys().map(FieldName::as_str).collect();
    assert_eq!(names, ["Id", "Name", "SystemModstamp"]);
    assert!(row.modified_at.is_some());
}

#[tokio::test]
async fn an_object_without_such_calls_is_queried_and_remembered() {
    let org = org(Way::QueriesOnly).await;
    let crm = org.connector();
    let ids: Vec<RecordId> = (0..1000).map(id).collect();
    let selection = selection("Account", &["Name"]);
    for _ in 0..2 {
        check(&crm.read_ids(&selection, &ids).await.unwrap(), 1000);
    }
    assert_eq!(org.server.count("/composite/sobjects/Account"), 1);
    for seen in org.server.seen() {
        assert!(seen.query.get("q").is_none_or(|text| text.len() < 12_000));
    }
}

#[tokio::test]
async fn parents_fields_are_joined_by_a_query() {
    let org = org(Way::Collections).await;
    let ids: Vec<RecordId> = (0..10).map(id).collect();
    for fields in [vec!["Name", "Owner.CreatedDate"], vec!["Owner.CreatedDate"]] {
        let selection = selection("Account", &fields);
        let found = org.connector().read_ids(&selection, &ids).await.unwrap();
        check(&found, 10);
        for row in &found.rows {
            assert_eq!(row.fields.len(), fields.len());
            assert_eq!(
                row.fields["Owner.CreatedDate"].as_text(),
                Some("2024-04-09T20:26:27.000Z")
            );
        }
    }
}

#[tokio::test]
async fn no_ids_no_rows() {
    let org = org(Way::Collections).await;
    let found = org
        .connector()
        .read_ids(&selection("Account", &["Name"]), &[])
        .await
        .unwrap();
    assert!(found.rows.is_empty() && found.absent.is_empty());
    assert!(found.as_of <= Utc::now());
}

#[tokio::test]
async fn answers_that_do_not_fit_the_question_are_refused() {
    let answers = [
        json!([]),
        json!([null, null, null]),
        json!([row(id(3).as_str()), row(id(1).as_str())]),
        json!([{"Name": "no id"}, null]),
    ];
    for answer in answers {
        let shown = answer.clone();
        let reply = Mutex::new(Reply::json(&answer));
        let org = Org::start(move |seen: Seen| {
            let reply = reply.lock().unwrap().clone();
            async move {
                match below(&seen) {
                    "/composite/sobjects/Account" => reply,
                    _ => super::org::account(),
                }
            }
        })
        .await;
        let asked = [id(1), id(3)];
        let selection = selection("Account", &["Name"]);
        let fault = org
            .connector()
            .read_ids(&selection, &asked)
            .await
            .unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Protocol, "{shown}");
    }
}

#[tokio::test]
async fn a_field_that_is_gone_is_named() {
    let org = Org::start(|seen: Seen| async move {
        match below(&seen) {
            "/composite/sobjects/Account" => {
                Reply::error(400, "INVALID_FIELD", "No such column 'Name'")
            }
            _ => super::org::account(),
        }
    })
    .await;
    let selection = selection("Account", &["Name"]);
    let fault = org
        .connector()
        .read_ids(&selection, &[id(1)])
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Missing);
    assert!(fault.report().contains("Name"));
    assert_eq!(org.server.count("/query"), 0);
}
