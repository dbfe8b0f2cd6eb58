//! The stream over the Pub/Sub API against the simulated org, and the same commits over CometD.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary::crm::port::{Crm, Listener, Start};
use tributary::crm::salesforce::Salesforce;
use tributary::crm::salesforce::settings::{Channels, SalesforceSettings, Transport};
use tributary::fault::{Fault, FaultKind};
use tributary::image::merge::Image;
use tributary::model::event::{Event, EventKind, GapCause};
use tributary::model::name::ObjectName;
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::salesforce::{Running, SimOptions, start};

use super::{events, name};
use crate::sim;

/// An org whose objects have every kind of field.
struct World {
    org: Running,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

const ACCOUNTS: &str = "Id,Name,Industry,AnnualRevenue,NumberOfEmployees,BillingStreet,BillingCity,BillingCountry,\
                        Tags__c,Launch__c,Wake__c,Active__c,Notes__c,Plant__Latitude__s,Plant__Longitude__s\n";

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut csv = ACCOUNTS.to_owned();
        for number in 0..20 {
            csv.push_str(&format!(
                "001A{number:011},Acme {number},Energy,{number}.25,{number},Main St {number},Bern,CH,a;b,2024-02-29,\
                 09:00:00.000Z,true,note,46.5,7.25\n"
            ));
        }
        let notes = json!({"fields": {
            "Industry": {"picklistValues": [{"value": "Energy", "label": "Energie"}, {"value": "Merged", "label": "One"}]},
            "Tags__c": {"type": "multipicklist", "picklistValues": [{"value": "b", "label": "Second"}]}, "Wake__c": {"type": "time"}, "Active__c": {"type": "boolean"},
            "Notes__c": {"type": "textarea", "length": 32000},
        }});
        std::fs::write(data.path().join("Account.csv"), csv).unwrap();
        std::fs::write(data.path().join("Account.json"), notes.to_string()).unwrap();
        let people = "Id,Salutation,FirstName,LastName,Email,Birthdate,MailingCity,AccountId\n\
                      003A00000000001,Dr.,Ann,Ames,ann@a.example,1980-01-02,Chur,001A00000000001\n";
        std::fs::write(data.path().join("Contact.csv"), people).unwrap();
        let org = start(SimOptions {
            data: Some(data.path().to_owned()),
            keepalive_seconds: Some(1),
            opaque_replay_ids: true,
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

    fn crm(&self, transport: Transport) -> Salesforce {
        self.with(transport, |_| {})
    }

    fn with(
        &self,
        transport: Transport,
        change: impl FnOnce(&mut SalesforceSettings),
    ) -> Salesforce {
        let secret = Arc::new(|| Ok::<_, Fault>(Secret::new("simulated-secret")));
        let mut settings =
            SalesforceSettings::new("acme".into(), &self.org.url, "simulated-client", secret);
        settings.plain_text = true;
        settings.read_lag = Duration::ZERO;
        settings.transport = transport;
        settings.pubsub_address.clone_from(&self.org.pubsub_url);
        change(&mut settings);
        Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    async fn listen(&self, transport: Transport, from: Start) -> Box<dyn Listener> {
        let crm = self.crm(transport);
        let mut selections = Vec::new();
        for object in ["Account".into(), "Contact".into()] {
            selections.push(selection(&crm, &object).await);
        }
        crm.listen(&selections, from).await.unwrap()
    }

    async fn control(&self, path: &str, body: Json) -> Json {
        let text = sim::order(&self.http, &self.org.url, path, &body).await;
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Commits a transaction; the ids of what it wrote.
    async fn commit(&self, ops: Json) -> Vec<String> {
        let answer = self
            .control("transactions", json!({"transactions": [{"ops": ops}]}))
            .await;
        let results = answer["transactions"][0]["results"].as_array().unwrap();
        let id = |result: &Json| {
            assert!(result.get("error").is_none(), "{result}");
            result["id"].as_str().unwrap_or_default().to_owned()
        };
        results.iter().map(id).collect()
    }

    async fn update(&self, number: usize, fields: Json) {
        let op =
            json!([{"op": "update", "object": "Account", "id": account(number), "fields": fields}]);
        self.commit(op).await;
    }

    async fn fault(&self, script: Json) {
        self.control("faults", script).await;
    }
}

fn account(number: usize) -> RecordId {
    RecordId::salesforce(&format!("001A{number:011}")).unwrap()
}

/// Images by record, merged from events as ingest does.
#[derive(Default)]
struct Images(BTreeMap<(ObjectName, RecordId), Image>);

impl Images {
    async fn read(world: &World, crm: &Salesforce) -> Self {
        let mut images = Self::default();
        for object in ["Account", "Contact"] {
            let object = ObjectName::new(object);
            let mut reading = crm
                .read_all(&selection(crm, &object).await, None)
                .await
                .unwrap();
            while let Some(page) = reading.next().await.unwrap() {
                for row in &page.rows {
                    let step = crm.table().row(None, row, page.as_of, None);
                    let key = (object.clone(), row.record.clone());
                    images.0.insert(key, step.image.unwrap());
                }
            }
        }
        // Commits of the second in which the rows were read are newer than they are.
        world.control("time", json!({"advance_seconds": 2})).await;
        images
    }

    async fn merge(&mut self, crm: &Salesforce, events: &[Event]) {
        for event in events {
            let carried = selection(crm, &event.object).await.fields;
            for record in &event.records {
                let key = (event.object.clone(), record.clone());
                let before = self.0.get(&key).cloned();
                let carried = carried.iter().cloned().collect();
                let step = crm.table().event(before, event, &carried);
                if let Some(image) = step.image {
                    self.0.insert(key, image);
                }
            }
        }
    }

    /// Each image in its bytes.
    fn bytes(&self) -> Vec<(String, String)> {
        let shown = |(key, image): (&(ObjectName, RecordId), &Image)| {
            (
                format!("{} {}", key.0, key.1),
                serde_json::to_string(image).unwrap(),
            )
        };
        self.0.iter().map(shown).collect()
    }
}

/// Every field that events tell, and what follows from it: labels, types, look-ups by table.
async fn selection(crm: &Salesforce, object: &ObjectName) -> tributary::crm::port::Selection {
    let schema = crm.describe(object).await.unwrap();
    let fields = schema.fields.iter().filter(|(name, field)| {
        field.kind.is_selectable() && !field.calculated && name.as_str() != "SystemModstamp"
    });
    tributary::crm::port::Selection {
        object: object.clone(),
        fields: fields.map(|(name, _)| name.clone()).collect(),
    }
}

/// Events without their positions, which are of the transport.
fn unplaced(events: &[Event]) -> Vec<Event> {
    let unplaced = |event: &Event| Event {
        position: Position::new(""),
        ..event.clone()
    };
    events.iter().map(unplaced).collect()
}

#[tokio::test]
async fn one_commit_is_one_event_on_both_transports() {
    let world = World::new().await;
    let (cometd, pubsub) = (world.crm(Transport::Cometd), world.crm(Transport::PubSub));
    let mut ours = Images::read(&world, &pubsub).await;
    let mut theirs = Images(ours.0.clone());
    let mut over_pubsub = world.listen(Transport::PubSub, Start::Now).await;
    let mut over_cometd = world.listen(Transport::Cometd, Start::Now).await;

    let long = |middle: &str| {
        let lines: Vec<String> = (0..80)
            .map(|line| format!("line {line} of a text that is long enough"))
            .collect();
        lines.join("\n").replace("line 40", middle)
    };
    world
        .update(1, json!({"Name": "Renamed", "AnnualRevenue": 1054.5, "NumberOfEmployees": 7, "Industry": null}))
        .await;
    world
        .update(2, json!({"BillingCity": "Basel", "BillingStreet": null, "Tags__c": "b;c", "Active__c": false}))
        .await;
    world
        .update(3, json!({"Launch__c": "1969-07-20", "Wake__c": "23:59:59.999Z", "AnnualRevenue": 12_345_678_901.0}))
        .await;
    world
        .update(4, json!({"Plant__Latitude__s": -33.875, "BillingStreet": null, "BillingCity": null, "BillingCountry": null}))
        .await;
    world
        .update(5, json!({"AnnualRevenue": null, "Launch__c": null, "Wake__c": null, "Name": "ünïcode 🚀 \"quoted\""}))
        .await;
    world.update(6, json!({"Notes__c": long("first")})).await;
    world.fault(json!({"do": {"kind": "diff"}})).await;
    world.update(6, json!({"Notes__c": long("second")})).await;
    world
        .fault(json!({"do": {"kind": "diff", "broken": true}}))
        .await;
    world.update(6, json!({"Notes__c": long("third")})).await;
    let both = |field: &str| {
        json!([7, 8].map(
            |number| json!({"op": "update", "object": "Account", "id": account(number),
            "fields": {field: "Merged"}})
        ))
    };
    world.fault(json!({"do": {"kind": "merge"}})).await;
    world.commit(both("Industry")).await;
    let created = world
        .commit(json!([
            {"op": "create", "object": "Account", "fields": {"Name": "New", "BillingCity": "Chur", "AnnualRevenue": 0.1,
                "Plant__Latitude__s": 1.5, "Plant__Longitude__s": 2.5, "Active__c": true}},
            {"op": "create", "object": "Contact", "fields": {"FirstName": "Bo", "LastName": "Berg", "MailingCity": "Chur",
                "Birthdate": "1999-12-31"}},
        ]))
        .await;
    world
        .commit(json!([{"op": "update", "object": "Contact", "id": created[1], "fields": {"LastName": "Bergh", "Email": "b@b.example"}}]))
        .await;
    world
        .commit(json!([{"op": "delete", "object": "Account", "id": account(9)}]))
        .await;
    world
        .commit(json!([{"op": "undelete", "object": "Account", "id": account(9)}]))
        .await;
    for script in [
        json!({"do": {"kind": "inject_gap", "entity": "Account", "change_type": "GAP_UPDATE", "record_ids": [account(10)]}}),
        json!({"do": {"kind": "inject_overflow", "entity": "Account"}}),
        json!({"do": {"kind": "wildcard", "entity": "Account"}}),
    ] {
        world.fault(script).await;
    }
    world.update(11, json!({"Name": "The last"})).await;

    let mut told = Vec::new();
    for listener in [&mut over_pubsub, &mut over_cometd] {
        let mut found = Vec::new();
        while found.last().and_then(name) != Some("The last") {
            found.extend(events(listener, 1).await.0);
        }
        told.push(found);
    }
    assert!(told[0].len() >= 18, "{}", told[0].len());
    let kinds = |kind: &EventKind| told[0].iter().filter(|event| event.kind == *kind).count();
    assert_eq!(kinds(&EventKind::ObjectGap(GapCause::Overflow)), 1);
    assert_eq!(kinds(&EventKind::ObjectGap(GapCause::Wildcard)), 1);
    assert!(
        told[0].iter().any(|event| event.records.len() == 2),
        "merged"
    );
    for (ours, theirs) in unplaced(&told[0]).iter().zip(&unplaced(&told[1])) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(told[0].len(), told[1].len());

    ours.merge(&pubsub, &told[0]).await;
    theirs.merge(&cometd, &told[1]).await;
    for (ours, theirs) in ours.bytes().iter().zip(&theirs.bytes()) {
        assert_eq!(ours, theirs);
    }
    let six = &ours.0[&("Account".into(), account(6))];
    assert_eq!(
        six.fields["Notes__c"].as_text(),
        Some(long("second").as_str()),
        "the first diff was applied"
    );
    assert!(six.needs.is_some(), "the broken one owes a read");
    // What the images say is what the org says, but for what is owed.
    let rows = pubsub
        .read_ids(
            &selection(&pubsub, &"Account".into()).await,
            &(1..=5).map(account).collect::<Vec<_>>(),
        )
        .await
        .unwrap();
    for row in rows.rows {
        let image = &ours.0[&("Account".into(), row.record.clone())];
        for (field, value) in &row.fields {
            assert_eq!(&image.fields[field], value, "{field} of {}", row.record);
        }
    }
    over_cometd.stop().await;
    over_pubsub.stop().await;
}

#[tokio::test]
async fn enriched_events_tell_what_changed_and_keep_their_place() {
    let world = World::new().await;
    let channel = json!({"name": "Sync__chn", "entities": ["Account"], "enrich": {"Account": ["Name", "Industry"]}});
    world.control("channels", channel).await;
    let mut told = Vec::new();
    for transport in [Transport::PubSub, Transport::Cometd] {
        let crm = world.with(transport, |settings| {
            settings.channels = Channels::Named("/data/Sync__chn".into());
        });
        let from = Start::Earliest;
        let mut listener = crm.listen(&["Account".into()], from).await.unwrap();
        if told.is_empty() {
            world.update(1, json!({"BillingCity": "Chur"})).await;
            world.fault(json!({"do": {"kind": "merge"}})).await;
            let op = |number| json!({"op": "update", "object": "Account", "id": account(number), "fields": {"Tags__c": "c"}});
            world.commit(json!([op(2), op(3)])).await;
        }
        let (events, position) = events(&mut listener, 3).await;
        // The last two may share an id, and nothing has come after them.
        let position = position.unwrap();
        assert_ne!(position, events[2].position);
        if transport == Transport::PubSub {
            assert_eq!(position, events[0].position);
            assert_eq!(
                events[1].position, events[2].position,
                "split, under one id"
            );
        }
        told.push(unplaced(&events));
        listener.stop().await;
    }
    assert_eq!(told[0], told[1]);
    let fields: Vec<_> = told[0][0].fields.keys().map(|name| name.as_str()).collect();
    assert!(
        fields.contains(&"BillingCity") && !fields.contains(&"Name"),
        "{fields:?}"
    );
}

#[tokio::test]
async fn lost_streams_are_healed() {
    let world = World::new().await;
    let mut listener = world.listen(Transport::PubSub, Start::Now).await;
    for (number, script) in [
        json!({"do": {"kind": "cut_connections"}}),
        json!({"do": {"kind": "end_streams"}}),
        json!({"do": {"kind": "expire_tokens_now"}}),
        json!({"on": {"rpc": "Subscribe"}, "do": {"kind": "rpc_cut", "at": "answer"}}),
        json!({"on": {"rpc": "Subscribe"}, "do": {"kind": "rpc_status", "status": "UNAVAILABLE", "at": "answer"}}),
        json!({"do": {"kind": "limit_batch", "events": 1}}),
    ]
    .into_iter()
    .enumerate()
    {
        let shown = script.to_string();
        world.fault(script).await;
        let text = format!("round {number}");
        world.update(number, json!({"Name": text})).await;
        // An update may share its id with the next one, so the last may come again.
        let before = number.checked_sub(1).map(|number| format!("round {number}"));
        let mut told = events(&mut listener, 1).await.0;
        while before.is_some() && told.first().and_then(name) == before.as_deref() {
            told.remove(0);
            if told.is_empty() {
                told = events(&mut listener, 1).await.0;
            }
        }
        assert_eq!(name(&told[0]), Some(text.as_str()), "{shown}");
    }
}

#[tokio::test]
async fn positions_are_kept_and_lost() {
    let world = World::new().await;
    let mut listener = world.listen(Transport::PubSub, Start::Now).await;
    let mut position = None;
    world.update(0, json!({"Name": "start"})).await;
    events(&mut listener, 1).await;
    // A keep-alive says that nothing shares the event's id.
    while position.is_none() {
        let heard = listener.next().await.unwrap();
        if heard.events.is_empty() {
            position = heard.position;
        }
    }
    listener.stop().await;
    world.update(1, json!({"Name": "while away"})).await;
    let stored = Start::After(position.clone().unwrap());
    let mut listener = world.listen(Transport::PubSub, stored.clone()).await;
    let (told, _) = events(&mut listener, 1).await;
    assert_eq!(name(&told[0]), Some("while away"));
    listener.stop().await;

    let objects = ["Account".into()];
    let crm = world.crm(Transport::Cometd);
    let fault = crm.listen(&objects, stored.clone()).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::PositionLost, "{fault:?}");
    world.fault(json!({"do": {"kind": "cut_retention"}})).await;
    let crm = world.crm(Transport::PubSub);
    let fault = crm.listen(&objects, stored).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::PositionLost, "{fault:?}");

    let named = world.with(Transport::PubSub, |settings| {
        settings.channels = Channels::Named("/data/No__chn".into());
    });
    let fault = named.listen(&objects, Start::Now).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Config, "{fault:?}");
    let each = world.with(Transport::PubSub, |settings| {
        settings.channels = Channels::PerObject;
    });
    let objects = ["Account".into(), "Contact".into()];
    let mut listener = each.listen(&objects, Start::Now).await.unwrap();
    world.update(1, json!({"Name": "own channel"})).await;
    let (told, position) = events(&mut listener, 1).await;
    assert_eq!(name(&told[0]), Some("own channel"));
    let position = position.unwrap();
    assert!(
        position
            .as_str()
            .starts_with("pubsub:/data/AccountChangeEvent="),
        "{position}"
    );
}

#[tokio::test]
async fn many_events_come_in_order_and_once() {
    let world = World::new().await;
    let mut listener = world.listen(Transport::PubSub, Start::Now).await;
    for round in 0..10 {
        let ops: Vec<Json> = (0..60)
            .map(|step| {
                json!({"op": "update", "object": "Account", "id": account(step % 20),
                    "fields": {"Name": format!("{round}-{step}")}})
            })
            .collect();
        let each: Vec<Json> = ops.into_iter().map(|op| json!({"ops": [op]})).collect();
        world
            .control("transactions", json!({"transactions": each}))
            .await;
    }
    let (told, _) = events(&mut listener, 600).await;
    let names: Vec<&str> = told.iter().filter_map(name).collect();
    let expected: Vec<String> = (0..10)
        .flat_map(|round| (0..60).map(move |step| format!("{round}-{step}")))
        .collect();
    assert_eq!(names, expected);
}
