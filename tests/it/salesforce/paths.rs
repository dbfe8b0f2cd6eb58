//! Labels, types and look-ups by table against the simulated org: reads of every way and events tell them alike.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary::crm::port::{Crm, Pages, Selection, Start};
use tributary::crm::salesforce::Salesforce;
use tributary::crm::salesforce::settings::{SalesforceSettings, Transport};
use tributary::fault::{Fault, FaultKind};
use tributary::image::merge::Image;
use tributary::model::event::Row;
use tributary::model::name::FieldName;
use tributary::model::record_id::RecordId;
use tributary::model::value::Value;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::salesforce::{Running, SimOptions, start};

use super::events;
use crate::sim;

/// What events tell, and what follows from it.
const OWN: [&str; 13] = [
    "Subject",
    "Status",
    "Status@label",
    "Tags__c",
    "Tags__c@label",
    "WhoId",
    "WhoId@type",
    "WhoId:Contact",
    "WhatId@type",
    "WhatId:Account",
    "OwnerId@type",
    "OwnerId:User",
    "LastModifiedById@type",
];
/// Fields of parents, found by the table that the id points to.
const PARENTS: [&str; 8] = [
    "WhoId:Contact.Email",
    "WhoId:Contact.Account.Industry@label",
    "WhoId:Contact.AccountId:Account.Name",
    "WhatId:Account.Industry@label",
    "WhatId:Account.OwnerId:User.Email",
    "WhatId:Opportunity.AccountId:Account.Industry",
    "OwnerId:User.Email",
    "CreatedBy.Email",
];

const FILES: [(&str, &str); 8] = [
    (
        "User.csv",
        "Id,Name,Email\n005000000000001,Uma,uma@a.example\n005000000000002,Bo,bo@a.example\n",
    ),
    ("Group.csv", "Id,Name\n00G000000000001,Queue\n"),
    (
        "Account.csv",
        "Id,Name,Industry,OwnerId\n001000000000001,Acme,Energy,005000000000002\n001000000000002,Beta,Retail,005000000000001\n",
    ),
    (
        "Account.json",
        r#"{"fields": {"Industry": {"picklistValues": [{"value": "Energy", "label": "Energie"}]}}}"#,
    ),
    (
        "Contact.csv",
        "Id,LastName,Email,AccountId\n003000000000001,Ames,ames@a.example,001000000000001\n",
    ),
    (
        "Opportunity.csv",
        "Id,Name,AccountId\n006000000000001,Deal,001000000000002\n",
    ),
    (
        "Task.csv",
        "Id,Subject,Status,Tags__c,WhoId,WhatId,OwnerId\n\
         00T000000000001,call,Open,hot;odd,003000000000001,001000000000001,005000000000001\n\
         00T000000000002,mail,Done,hot,00Q000000000001,006000000000001,00G000000000001\n\
         00T000000000003,rest,Odd,,,,005000000000002\n",
    ),
    (
        "Task.json",
        r#"{"fields": {"Tags__c": {"type": "multipicklist", "picklistValues": [
                {"value": "hot", "label": "Very hot"}, {"value": "cold", "label": "Very cold"}]},
            "Status": {"type": "picklist", "picklistValues": [
                {"value": "Open", "label": "To do"}, {"value": "Done", "label": "Did", "active": false}]}}}"#,
    ),
];

struct World {
    org: Running,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        for (name, text) in FILES {
            std::fs::write(data.path().join(name), text).unwrap();
        }
        let org = start(SimOptions {
            data: Some(data.path().to_owned()),
            keepalive_seconds: Some(1),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        Self {
            org,
            http: reqwest::Client::new(),
            _data: data,
        }
    }

    fn crm(&self, transport: Transport, bulk_from: Option<u64>) -> Salesforce {
        let secret = Arc::new(|| Ok::<_, Fault>(Secret::new("simulated-secret")));
        let mut settings =
            SalesforceSettings::new("acme".into(), &self.org.url, "simulated-client", secret);
        settings.plain_text = true;
        settings.read_lag = Duration::ZERO;
        settings.transport = transport;
        settings.bulk_from = bulk_from;
        settings.page_size = 200;
        settings.pubsub_address.clone_from(&self.org.pubsub_url);
        Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    async fn commit(&self, op: &str, id: Option<&RecordId>, fields: Json) -> RecordId {
        let op = json!({"op": op, "object": "Task", "id": id, "fields": fields});
        let body = json!({"transactions": [{"ops": [op]}]});
        let told = sim::order(&self.http, &self.org.url, "transactions", &body).await;
        let told: Json = serde_json::from_str(&told).unwrap();
        let result = &told["transactions"][0]["results"][0];
        RecordId::salesforce(result["id"].as_str().unwrap_or_else(|| panic!("{result}"))).unwrap()
    }
}

fn task(number: usize) -> RecordId {
    RecordId::salesforce(&format!("00T{number:012}")).unwrap()
}

fn id(short: &str) -> Value {
    Value::from(RecordId::salesforce(short).unwrap().as_str())
}

fn selection(object: &str, fields: &[&str]) -> Selection {
    Selection {
        object: object.into(),
        fields: fields.iter().map(FieldName::new).collect(),
    }
}

async fn all(mut pages: Box<dyn Pages>) -> Vec<Row> {
    let mut rows = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        rows.extend(page.rows);
    }
    rows.sort_by(|one, other| one.record.cmp(&other.record));
    rows
}

/// What the three tasks are told as.
fn expected() -> [Vec<(&'static str, Value)>; 3] {
    let text = |text: &str| Value::from(text);
    let whole = |values: [Value; 21]| OWN.into_iter().chain(PARENTS).zip(values).collect();
    [
        whole([
            text("call"),
            text("Open"),
            text("To do"),
            text("hot;odd"),
            text("Very hot;odd"),
            id("003000000000001"),
            text("Contact"),
            id("003000000000001"),
            text("Account"),
            id("001000000000001"),
            text("User"),
            id("005000000000001"),
            text("User"),
            text("ames@a.example"),
            text("Energie"),
            text("Acme"),
            text("Energie"),
            text("bo@a.example"),
            Value::Null,
            text("uma@a.example"),
            text("uma@a.example"),
        ]),
        whole([
            text("mail"),
            text("Done"),
            text("Did"),
            text("hot"),
            text("Very hot"),
            id("00Q000000000001"),
            // The org shows no leads to this user.
            Value::Null,
            Value::Null,
            text("Opportunity"),
            Value::Null,
            text("Group"),
            Value::Null,
            text("User"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            text("Retail"),
            Value::Null,
            text("uma@a.example"),
        ]),
        whole([
            text("rest"),
            text("Odd"),
            text("Odd"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            text("User"),
            id("005000000000002"),
            text("User"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            text("bo@a.example"),
            text("uma@a.example"),
        ]),
    ]
}

#[tokio::test]
async fn every_way_of_reading_tells_them_alike() {
    let world = World::new().await;
    let fields: Vec<&str> = OWN.into_iter().chain(PARENTS).collect();
    let chosen = selection("Task", &fields);
    let ids = [1, 2, 3].map(task);
    let rest = world.crm(Transport::Cometd, None);
    let bulk = world.crm(Transport::Cometd, Some(1));
    let mut by_id = rest.read_ids(&chosen, &ids).await.unwrap().rows;
    by_id.sort_by(|one, other| one.record.cmp(&other.record));
    for (way, rows) in [
        (
            "REST",
            all(rest.read_all(&chosen, None).await.unwrap()).await,
        ),
        (
            "Bulk",
            all(bulk.read_all(&chosen, None).await.unwrap()).await,
        ),
        ("by id", by_id),
    ] {
        assert_eq!(rows.len(), 3, "{way}");
        for (row, expected) in rows.iter().zip(expected()) {
            for (field, value) in &expected {
                assert_eq!(
                    row.fields.get(*field),
                    Some(value),
                    "{way} {} {field}",
                    row.record
                );
            }
            // Nothing but what was asked for, however much was read for it.
            let told: BTreeSet<&str> = row.fields.keys().map(FieldName::as_str).collect();
            assert_eq!(told, fields.iter().copied().collect(), "{way}");
        }
    }
    let counts = sim::told(&world.http, &world.org.url, "counts").await;
    assert_eq!(
        counts["calls"]["GET sobjects"], 2,
        "once a connector: {counts:#}"
    );
}

#[tokio::test]
async fn events_of_both_transports_tell_what_a_read_tells() {
    let world = World::new().await;
    let chosen = selection("Task", &OWN);
    let carried = chosen.fields.iter().cloned().collect();
    let cometd = world.crm(Transport::Cometd, None);
    let pubsub = world.crm(Transport::PubSub, None);
    let selections = std::slice::from_ref(&chosen);
    let mut listeners = vec![
        cometd.listen(selections, Start::Now).await.unwrap(),
        pubsub.listen(selections, Start::Now).await.unwrap(),
    ];
    let rows = all(cometd.read_all(&chosen, None).await.unwrap()).await;
    let clock = cometd.clock().await.unwrap();
    sim::order(
        &world.http,
        &world.org.url,
        "time",
        &json!({"advance_seconds": 2}),
    )
    .await;
    let update = async |number: usize, fields: Json| {
        world.commit("update", Some(&task(number)), fields).await;
    };
    update(1, json!({"WhoId": "00Q000000000001", "Status": "Done"})).await;
    update(1, json!({"WhatId": null, "Tags__c": "cold"})).await;
    update(
        2,
        json!({"WhoId": "003000000000001", "OwnerId": "005000000000001"}),
    )
    .await;
    update(2, json!({"Subject": "another"})).await;
    update(
        3,
        json!({"OwnerId": "00G000000000001", "Status": null, "Tags__c": "hot;cold"}),
    )
    .await;
    let fields = json!({"Subject": "new", "Status": "Open", "WhatId": "001000000000002"});
    let new = world.commit("create", None, fields).await;
    let mut told = Vec::new();
    for listener in &mut listeners {
        told.push(events(listener, 6).await.0);
    }
    let of = |number: usize, event: usize| &told[number][event].fields;
    for number in 0..2 {
        // An update tells what follows from what changed, and nothing else.
        let fields: Vec<&str> = of(number, 3).keys().map(FieldName::as_str).collect();
        assert!(
            fields.contains(&"Subject")
                && !fields
                    .iter()
                    .any(|field| field.contains('@') && !field.starts_with("LastModifiedById")),
            "{fields:?}"
        );
        assert_eq!(of(number, 0)["WhoId:Contact"], Value::Null);
        assert_eq!(of(number, 0)["Status@label"], Value::from("Did"));
        assert_eq!(of(number, 2)["WhoId@type"], Value::from("Contact"));
    }
    let found = cometd
        .read_ids(&chosen, &[task(1), task(2), task(3), new])
        .await
        .unwrap();
    for (transport, told) in told.iter().enumerate() {
        let mut images: std::collections::BTreeMap<RecordId, Image> = rows
            .iter()
            .map(|row| {
                let step = cometd.table().row(None, row, clock, None);
                (row.record.clone(), step.image.unwrap())
            })
            .collect();
        for event in told {
            let record = &event.records[0];
            let step = cometd.table().event(images.remove(record), event, &carried);
            images.insert(record.clone(), step.image.unwrap());
        }
        assert_eq!(found.rows.len(), 4);
        for row in &found.rows {
            let image = &images[&row.record];
            for (field, value) in &row.fields {
                assert_eq!(
                    image.fields.get(field),
                    Some(value),
                    "{transport} {} {field}",
                    row.record
                );
            }
        }
    }
    for listener in listeners {
        listener.stop().await;
    }
}

#[tokio::test]
async fn what_a_field_has_not_is_told_with_what_to_write() {
    let world = World::new().await;
    let crm = world.crm(Transport::Cometd, None);
    for (field, what, remedy) in [
        (
            "Subject@label",
            "`Subject` of Task is no picklist",
            "without `@label`",
        ),
        (
            "IsDeleted@label",
            "is a checkbox",
            "values = { true = \"Yes\"",
        ),
        ("WhoId@label", "which has no label", "`Who.Name`"),
        ("Subject@type", "is no reference", "without `@type`"),
        ("Subject:Contact", "is no reference", "without `:Contact`"),
        (
            "WhoId:Account",
            "points to Contact or Lead, and to no Account",
            "`WhoId:Contact`",
        ),
        (
            "WhatId:Contact.Email",
            "points to Account or Opportunity, and to no Contact",
            "`WhatId:Account`",
        ),
        (
            "Owner:User.Email",
            "`Owner` of Task is a relationship",
            "`OwnerId:User`",
        ),
        (
            "WhoId:Contact.LastName@label",
            "`LastName` of Contact is no picklist",
            "without `@label`",
        ),
        (
            "WhoId:Contact.Account.OwnerId@label",
            "which has no label",
            "`Owner.Name`",
        ),
    ] {
        let read = crm.read_ids(&selection("Task", &[field]), &[task(1)]).await;
        let fault = read.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Missing, "{field}");
        assert!(fault.report().contains(what), "{field}: {}", fault.report());
        assert!(
            fault.report().contains(remedy),
            "{field}: {}",
            fault.report()
        );
    }
}
