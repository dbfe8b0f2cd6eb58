//! The Salesforce connector against the simulated org: what each says of the wire must agree.

mod bulk;
mod paths;
mod pubsub;

use std::sync::Arc;
use std::time::Duration;

use crate::sim;
use serde_json::{Value as Json, json};
use tributary::crm::port::{Crm, Heard, Listener, Selection, Start};
use tributary::crm::salesforce::Salesforce;
use tributary::crm::salesforce::settings::{Auth, Channels, SalesforceSettings, Transport};
use tributary::fault::{Fault, FaultKind};
use tributary::model::event::{Event, EventKind, GapCause, Page};
use tributary::model::name::FieldName;
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::model::schema::FieldKind;
use tributary::model::value::Value;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::salesforce::{Running, SimOptions, start};

const ACCOUNTS: &str =
    "Id,Name,Industry,AnnualRevenue,BillingStreet,BillingCity,OwnerId,CreatedDate\n";

struct World {
    org: Running,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

impl World {
    async fn new(accounts: usize) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut csv = ACCOUNTS.to_owned();
        for number in 0..accounts {
            csv.push_str(&format!(
                "001A{number:011},Acme {number},Energy,{number}.50,Main St {number},Bern,005A00000000001,\n"
            ));
        }
        std::fs::write(data.path().join("Account.csv"), csv).unwrap();
        let people = "Id,FirstName,LastName,Email,AccountId\n003A00000000001,Ann,Ames,ann@a.example,001A00000000001\n";
        std::fs::write(data.path().join("Contact.csv"), people).unwrap();
        let users = "Id,Name,Email\n005A00000000001,Uma,uma@a.example\n";
        std::fs::write(data.path().join("User.csv"), users).unwrap();
        let org = start(SimOptions {
            data: Some(data.path().to_owned()),
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

    fn crm(&self) -> Salesforce {
        self.with(|_| {})
    }

    fn with(&self, change: impl FnOnce(&mut SalesforceSettings)) -> Salesforce {
        let secret = Arc::new(|| Ok::<_, Fault>(Secret::new("simulated-secret")));
        let mut settings =
            SalesforceSettings::new("acme".into(), &self.org.url, "simulated-client", secret);
        settings.transport = Transport::Cometd;
        settings.plain_text = true;
        settings.read_lag = Duration::ZERO;
        change(&mut settings);
        Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    async fn control(&self, path: &str, body: Json) -> Json {
        let text = sim::order(&self.http, &self.org.url, path, &body).await;
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn commit(&self, ops: Json) -> Json {
        let answer = self
            .control("transactions", json!({"transactions": [{"ops": ops}]}))
            .await;
        for result in answer["transactions"][0]["results"].as_array().unwrap() {
            assert!(result.get("error").is_none(), "{result}");
        }
        answer
    }

    async fn rename(&self, number: usize, name: &str) {
        let op = json!([{"op": "update", "object": "Account", "id": id(number), "fields": {"Name": name}}]);
        self.commit(op).await;
    }

    async fn fault(&self, script: Json) {
        self.control("faults", script).await;
    }

    async fn listen(&self, from: Start) -> Box<dyn Listener> {
        let objects = ["Account".into(), "Contact".into()];
        self.crm().listen(&objects, from).await.unwrap()
    }
}

fn id(number: usize) -> RecordId {
    RecordId::salesforce(&format!("001A{number:011}")).unwrap()
}

fn selection(fields: &[&str]) -> Selection {
    Selection {
        object: "Account".into(),
        fields: fields.iter().map(FieldName::new).collect(),
    }
}

async fn pages(crm: &Salesforce, selection: &Selection, resume: Option<&str>) -> Vec<Page> {
    let mut pages = crm.read_all(selection, resume).await.unwrap();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        found.push(page);
    }
    found
}

fn count(pages: &[Page]) -> usize {
    let mut ids: Vec<_> = pages
        .iter()
        .flat_map(|page| page.rows.iter().map(|row| &row.record))
        .collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "a row came twice");
    all
}

async fn events(listener: &mut Box<dyn Listener>, count: usize) -> (Vec<Event>, Option<Position>) {
    let (mut found, mut position) = (Vec::new(), None);
    while found.len() < count {
        let heard: Heard = tokio::time::timeout(Duration::from_secs(20), listener.next())
            .await
            .expect("the stream said nothing")
            .unwrap();
        found.extend(heard.events);
        position = heard.position.or(position);
    }
    (found, position)
}

fn name(event: &Event) -> Option<&str> {
    event.fields.get("Name").and_then(Value::as_text)
}

#[tokio::test]
async fn sign_in_and_descriptions() {
    let world = World::new(3).await;
    let crm = world.crm();
    let identity = crm.identify().await.unwrap();
    assert_eq!(identity.org_id.len(), 18);
    assert_eq!(identity.instance_url, world.org.url);
    let schema = crm.describe(&"Account".into()).await.unwrap();
    assert_eq!(schema.fields["SystemModstamp"].kind, FieldKind::DateTime);
    assert_eq!(schema.fields["BillingAddress"].kind, FieldKind::Compound);
    assert_eq!(
        schema.fields["BillingCity"]
            .compound
            .as_ref()
            .map(FieldName::as_str),
        Some("BillingAddress")
    );
    let missing = crm.describe(&"Nothing__c".into()).await.unwrap_err();
    assert_eq!(missing.kind(), FaultKind::Missing);
    let wrong = world.with(|settings| {
        settings.auth = Auth::ClientCredentials(Arc::new(|| Ok(Secret::new("wrong"))));
    });
    let fault = wrong.identify().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert!(fault.report().contains("wait"), "{}", fault.report());
    world
        .fault(json!({"do": {"kind": "expire_tokens_now"}}))
        .await;
    crm.identify().await.unwrap();
}

#[tokio::test]
async fn whole_reads() {
    let world = World::new(1000).await;
    let crm = world.with(|settings| settings.page_size = 200);
    let selection = selection(&[
        "Id",
        "Name",
        "AnnualRevenue",
        "BillingCity",
        "CreatedDate",
        "Owner.Name",
    ]);
    let whole = pages(&crm, &selection, None).await;
    assert_eq!(count(&whole), 1000);
    assert_eq!(whole.len(), 5);
    assert!(
        whole
            .iter()
            .all(|page| page.as_of == whole[0].as_of && page.total == Some(1000))
    );
    let row = whole[0]
        .rows
        .iter()
        .find(|row| row.record == id(0))
        .unwrap();
    assert_eq!(row.fields["Name"], Value::from("Acme 0"));
    assert_eq!(row.fields["BillingCity"], Value::from("Bern"));
    assert!(row.fields["CreatedDate"].as_text().unwrap().ends_with('Z'));
    assert_eq!(row.fields["Owner.Name"], Value::from("Uma"));

    let mut reading = crm.read_all(&selection, None).await.unwrap();
    let mut found = vec![reading.next().await.unwrap().unwrap()];
    world.control("cursors/expire", json!({})).await;
    world
        .fault(json!({"on": {"surface": "rest"}, "do": {"kind": "status", "status": 401}}))
        .await;
    while let Some(page) = reading.next().await.unwrap() {
        found.push(page);
    }
    assert_eq!(count(&found), 1000);

    let rest = pages(&world.crm(), &selection, whole[1].resume.as_deref()).await;
    assert_eq!(count(&rest), 600);
    assert_eq!(rest.last().unwrap().total, Some(1000));
}

#[tokio::test]
async fn windows_ids_and_deletes() {
    let world = World::new(50).await;
    let crm = world.crm();
    let selection = selection(&["Name", "Owner.Name"]);
    let from = crm.clock().await.unwrap() - Duration::from_secs(5);
    world.rename(7, "renamed").await;
    let to = crm.clock().await.unwrap() + Duration::from_secs(60);
    let mut window = crm.read_window(&selection, from, to).await.unwrap();
    let page = window.next().await.unwrap().unwrap();
    assert!(
        page.rows
            .iter()
            .any(|row| row.record == id(7) && row.fields["Name"] == Value::from("renamed"))
    );

    world
        .commit(json!([{"op": "delete", "object": "Account", "id": id(8)}]))
        .await;
    let asked: Vec<RecordId> = (5..60).map(id).collect();
    let found = crm.read_ids(&selection, &asked).await.unwrap();
    let absent: Vec<RecordId> = std::iter::once(8).chain(50..60).map(id).collect();
    assert_eq!(found.absent, absent);
    assert_eq!(found.rows.len(), 44);

    world.control("time", json!({"advance_seconds": 120})).await;
    let to = crm.clock().await.unwrap() - Duration::from_secs(60);
    let deleted = crm.deleted(&"Account".into(), from, to).await.unwrap();
    assert_eq!(deleted, [id(8)]);
    let old = from - Duration::from_secs(20 * 86_400);
    let lost = crm.deleted(&"Account".into(), old, to).await.unwrap_err();
    assert_eq!(lost.kind(), FaultKind::PositionLost);
}

#[tokio::test]
async fn the_stream() {
    let world = World::new(10).await;
    let mut listener = world.listen(Start::Now).await;
    world.rename(1, "one").await;
    world
        .commit(json!([{"op": "update", "object": "Account", "id": id(2),
            "fields": {"BillingCity": "Basel", "Industry": null}}]))
        .await;
    let create = json!([{"op": "create", "object": "Account", "fields": {"Name": "New", "BillingCity": "Chur"}}]);
    world.commit(create).await;
    world
        .commit(json!([{"op": "delete", "object": "Account", "id": id(3)}]))
        .await;
    world
        .commit(json!([{"op": "undelete", "object": "Account", "id": id(3)}]))
        .await;
    let (told, position) = events(&mut listener, 5).await;
    let kinds: Vec<_> = told.iter().map(|event| event.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Update,
            EventKind::Update,
            EventKind::Create,
            EventKind::Delete,
            EventKind::Undelete
        ]
    );
    assert_eq!(name(&told[0]), Some("one"));
    assert_eq!(told[1].fields["BillingCity"], Value::from("Basel"));
    assert_eq!(told[1].fields["Industry"], Value::Null);
    assert!(!told[1].fields.contains_key("Name"));
    assert_eq!(told[2].fields["BillingCity"], Value::from("Chur"));
    assert_eq!(told[3].records, [id(3)]);
    listener.stop().await;

    // The same values come from a row as came from an event.
    let fields: Vec<&str> = told[4].fields.keys().map(FieldName::as_str).collect();
    let found = world
        .crm()
        .read_ids(&selection(&fields), &[id(3)])
        .await
        .unwrap();
    for (field, value) in &told[4].fields {
        assert_eq!(&found.rows[0].fields[field], value, "{field}");
    }

    world.rename(4, "while away").await;
    let mut listener = world.listen(Start::After(position.unwrap())).await;
    let (told, _) = events(&mut listener, 1).await;
    assert_eq!(name(&told[0]), Some("while away"));
    listener.stop().await;
    let clients = sim::told(&world.http, &world.org.url, "cometd").await;
    assert_eq!(clients["clients"], json!([]), "sessions are left");
}

#[tokio::test]
async fn lost_sessions_are_healed() {
    let world = World::new(10).await;
    let mut listener = world.listen(Start::Now).await;
    world.rename(0, "start").await;
    events(&mut listener, 1).await;
    for (number, script) in [
        json!({"do": {"kind": "forget_clients"}}),
        json!({"do": {"kind": "forget_cookies"}}),
        json!({"do": {"kind": "disconnect"}}),
        json!({"do": {"kind": "expire_tokens_now"}}),
        json!({"on": {"message": "/meta/connect"}, "do": {"kind": "unknown_client"}}),
        json!({"on": {"message": "/meta/connect"}, "do": {"kind": "lost_cookie"}}),
        json!({"on": {"message": "/meta/connect"}, "do": {"kind": "dismiss"}}),
    ]
    .into_iter()
    .enumerate()
    {
        let shown = script.to_string();
        world.fault(script).await;
        let text = format!("round {number}");
        world.rename(number, &text).await;
        let (told, _) = events(&mut listener, 1).await;
        assert_eq!(name(&told[0]), Some(text.as_str()), "{shown}");
    }
}

#[tokio::test]
async fn gaps_of_every_kind() {
    let world = World::new(10).await;
    let mut listener = world.listen(Start::Now).await;
    let mut told = async |script: Json| {
        world.fault(script).await;
        events(&mut listener, 1).await.0.remove(0).kind
    };
    let gap = json!({"do": {"kind": "inject_gap", "entity": "Account", "change_type": "GAP_UPDATE",
        "record_ids": [id(1)]}});
    assert_eq!(told(gap).await, EventKind::Gap);
    let overflow = json!({"do": {"kind": "inject_overflow", "entity": "Account"}});
    assert_eq!(
        told(overflow).await,
        EventKind::ObjectGap(GapCause::Overflow)
    );
    let wildcard = json!({"do": {"kind": "wildcard", "entity": "Account"}});
    assert_eq!(
        told(wildcard).await,
        EventKind::ObjectGap(GapCause::Wildcard)
    );
    for (garble, count) in [
        ("text_payload", 2),
        ("no_header", 2),
        ("no_record_ids", 1),
        ("change_type", 1),
    ] {
        let script =
            json!({"on": {"entity": "Account"}, "do": {"kind": "undecodable", "garble": garble}});
        world.fault(script).await;
        world.rename(1, garble).await;
        let after = format!("after {garble}");
        world.rename(2, &after).await;
        let (told, _) = events(&mut listener, count + 1).await;
        assert_eq!(told.len(), count + 1, "{garble}");
        for event in &told[..count] {
            assert!(
                matches!(
                    event.kind,
                    EventKind::Gap | EventKind::ObjectGap(GapCause::Undecodable)
                ),
                "{garble}"
            );
        }
        assert_eq!(name(&told[count]), Some(after.as_str()));
    }
}

#[tokio::test]
async fn lost_positions_and_refusals() {
    let world = World::new(10).await;
    let mut listener = world.listen(Start::Now).await;
    world.rename(0, "start").await;
    let (_, position) = events(&mut listener, 1).await;
    listener.stop().await;
    world.fault(json!({"do": {"kind": "cut_retention"}})).await;
    let objects = ["Account".into()];
    let from = Start::After(position.unwrap());
    let lost = world.crm().listen(&objects, from).await.err().unwrap();
    assert_eq!(lost.kind(), FaultKind::PositionLost, "{}", lost.report());
    for (reason, kind) in [
        ("too_busy", FaultKind::Unavailable),
        ("too_busy_as_authentication", FaultKind::Unavailable),
        ("too_many_clients", FaultKind::Throttled),
    ] {
        let script = json!({"on": {"message": "/meta/handshake"}, "do": {"kind": "deny_handshake", "reason": reason}});
        world.fault(script).await;
        let fault = world
            .crm()
            .listen(&objects, Start::Now)
            .await
            .err()
            .unwrap();
        assert_eq!(fault.kind(), kind, "{reason}: {}", fault.report());
    }
    let named = world.with(|settings| settings.channels = Channels::Named("/data/No__chn".into()));
    let fault = named.listen(&objects, Start::Now).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Config, "{}", fault.report());
    let each = world.with(|settings| settings.channels = Channels::PerObject);
    let mut listener = each
        .listen(&["Account".into(), "Contact".into()], Start::Now)
        .await
        .unwrap();
    world.rename(1, "own channel").await;
    let (told, position) = events(&mut listener, 1).await;
    assert_eq!(name(&told[0]), Some("own channel"));
    assert!(
        position
            .unwrap()
            .as_str()
            .starts_with("cometd:/data/AccountChangeEvent=")
    );
}

#[tokio::test]
async fn a_quiet_night() {
    let world = World::new(1).await;
    let mut listener = world.listen(Start::Now).await;
    world.rename(0, "evening").await;
    let (_, position) = events(&mut listener, 1).await;
    let mut quiet = listener.next();
    // The poll is on its way before the time moves.
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut quiet)
            .await
            .is_err()
    );
    world.control("time", json!({"advance_seconds": 115})).await;
    let heard = quiet.await.unwrap();
    assert!(heard.events.is_empty());
    assert_eq!(heard.position, position);
    assert!(heard.confirmed_at.is_some());
}
