//! Paths by table: what is asked for them, and how often.

use serde_json::{Value as Json, json};

use crate::http::tests::server::{Reply, Seen};
use crate::model::value::Value;

use super::org::{Org, below};
use super::*;

const CONTACT: &str = "003A0000006Vm9uIAC";
const LEAD: &str = "00QA0000006Vm9uIAO";

/// An org of three tasks: two of one contact, one of a lead.
async fn org() -> Org {
    Org::start(|seen: Seen| async move {
        let field = |name: &str, kind: &str| json!({"name": name, "label": "", "type": kind});
        let object = |name: &str, fields: &[Json]| {
            let mut all = vec![field("Id", "id"), field("SystemModstamp", "datetime")];
            all.extend(fields.iter().cloned());
            Reply::json(&json!({"name": name, "label": "", "fields": all}))
        };
        let to = |name: &str, parent: &str, objects: &[&str]| {
            json!({"name": name, "label": "", "type": "reference", "referenceTo": objects, "relationshipName": parent})
        };
        match below(&seen) {
            "/sobjects/" => Reply::json(&json!({"sobjects": [
                {"name": "Contact", "keyPrefix": "003"}, {"name": "Lead", "keyPrefix": "00Q"}]})),
            "/sobjects/Task/describe/" => object("Task", &[to("WhoId", "Who", &["Contact", "Lead"])]),
            "/sobjects/Contact/describe/" => object(
                "Contact",
                &[field("Email", "email"), to("AccountId", "Account", &["Account"])],
            ),
            "/sobjects/Account/describe/" => object("Account", &[field("Name", "string")]),
            "/composite/sobjects/Contact" => {
                let ids = seen.json()["ids"].clone();
                assert_eq!(ids, json!([CONTACT]), "each once");
                Reply::json(&json!([row(CONTACT, &json!({"Email": "a@b.example"}))]))
            }
            "/query" => {
                let text = &seen.query["q"];
                let rows: Vec<Json> = if text.contains("FROM Contact") {
                    let account = json!({"Account": {"attributes": {}, "Name": "Acme"}});
                    vec![row(CONTACT, &account)]
                } else {
                    let whos = [CONTACT, LEAD, CONTACT].into_iter().enumerate();
                    whos.map(|(number, who)| row(id(number).as_str(), &json!({"WhoId": who})))
                        .collect()
                };
                Reply::json(&json!({"totalSize": rows.len(), "done": true, "records": rows}))
            }
            path => panic!("{path}"),
        }
    })
    .await
}

fn row(id: &str, fields: &Json) -> Json {
    let mut row = fields.clone();
    row["Id"] = id.into();
    row["SystemModstamp"] = "2024-04-09T20:26:27.000+0000".into();
    row
}

async fn rows(crm: &Salesforce, fields: &[&str]) -> Vec<crate::model::event::Row> {
    let mut pages = crm
        .read_all(&selection("Task", fields), None)
        .await
        .unwrap();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!(pages.next().await.unwrap(), None);
    page.rows
}

#[tokio::test]
async fn a_value_is_asked_for_once_whatever_is_taken_of_it() {
    let org = org().await;
    let crm = org.connector();
    let fields = ["WhoId@type", "WhoId:Contact", "WhoId", "WhoId:Lead"];
    for _ in 0..2 {
        let rows = rows(&crm, &fields).await;
        let told: Vec<_> = rows
            .iter()
            .map(|row| row.fields["WhoId@type"].clone())
            .collect();
        assert_eq!(told, ["Contact", "Lead", "Contact"].map(Value::from));
        assert_eq!(rows[1].fields["WhoId:Contact"], Value::Null);
        assert_eq!(rows[1].fields["WhoId:Lead"], rows[1].fields["WhoId"]);
    }
    let queries = org.server.seen();
    let queries: Vec<&str> = queries
        .iter()
        .filter_map(|seen| seen.query.get("q").map(String::as_str))
        .collect();
    assert!(
        queries
            .iter()
            .all(|text| text.starts_with("SELECT Id,SystemModstamp,WhoId FROM Task")),
        "{queries:?}"
    );
    assert_eq!(org.server.count("/sobjects/"), 1, "all prefixes at once");
}

#[tokio::test]
async fn a_parent_of_several_kinds_is_read_by_id_and_one_of_one_kind_with_the_query() {
    let org = org().await;
    let crm = org.connector();
    let fields = [
        "WhoId:Contact.Email",
        "WhoId:Contact.Account.Name",
        "WhoId:Contact.AccountId:Account.Name",
    ];
    let rows = rows(&crm, &fields).await;
    let expected = ["a@b.example", "Acme", "Acme"].map(Value::from);
    for (number, row) in rows.iter().enumerate() {
        for (field, value) in fields.iter().zip(&expected) {
            let value = if number == 1 { &Value::Null } else { value };
            assert_eq!(row.fields.get(*field), Some(value), "{number} {field}");
        }
        assert_eq!(row.fields.len(), 3, "the id was not selected");
    }
    let seen = org.server.seen();
    let queries = seen.iter().filter_map(|seen| seen.query.get("q"));
    let of_contacts: Vec<&str> = queries
        .filter(|text| text.contains("FROM Contact"))
        .map(String::as_str)
        .collect();
    assert_eq!(of_contacts.len(), 1);
    assert!(
        of_contacts[0].starts_with("SELECT Id,SystemModstamp,Account.Name FROM Contact"),
        "both spellings are one: {of_contacts:?}"
    );
}

#[tokio::test]
async fn labels_of_what_has_none_are_refused() {
    let org = org().await;
    let crm = org.connector();
    let read = crm
        .read_all(&selection("Task", &["WhoId:Contact.Email@label"]), None)
        .await;
    let fault = read.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Missing);
    let told = fault.report();
    assert!(told.contains("following `WhoId:Contact`"), "{told}");
    assert!(told.contains("`Email` of Contact is no picklist"), "{told}");
}
