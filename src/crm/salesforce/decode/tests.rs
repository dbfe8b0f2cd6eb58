//! Events as Salesforce sends them, decoded.

use std::sync::Arc;

use chrono::TimeZone;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use serde_json::{Value as Json, json};

use crate::model::schema::FieldKind;

use super::super::cometd::payload::read;
use super::super::describe::tests::described;
use super::*;

const ID: &str = "001A0000006Vm9uIAC";

fn objects() -> Objects {
    let mut objects = Objects::default();
    let account = described(
        "Account",
        &[
            ("Id", "id", None),
            ("Name", "string", None),
            ("Industry", "picklist", None),
            ("ParentId", "reference", None),
            ("AnnualRevenue", "currency", None),
            ("Notes__c", "textarea", None),
            ("Geo__c", "location", None),
            ("Geo__Latitude__s", "double", Some("Geo__c")),
            ("Geo__Longitude__s", "double", Some("Geo__c")),
            ("BillingAddress", "address", None),
            ("BillingStreet", "textarea", Some("BillingAddress")),
            ("BillingCity", "string", Some("BillingAddress")),
            ("LastModifiedDate", "datetime", None),
        ],
    );
    let contact = described(
        "Contact",
        &[
            ("Name", "string", Some("Name")),
            ("FirstName", "string", Some("Name")),
            ("LastName", "string", Some("Name")),
            ("Email", "email", None),
        ],
    );
    objects.insert("Account".into(), Arc::new(account));
    objects.insert("Contact".into(), Arc::new(contact));
    objects
}

fn header(change: &str, changed: Option<&[&str]>) -> Json {
    let mut header = json!({
        "entityName": "Account", "recordIds": ["001A0000006Vm9u"], "changeType": change,
        "changeOrigin": "com/salesforce/api/rest/66.0;client=tributary", "transactionKey": "000a-1",
        "sequenceNumber": 2, "commitTimestamp": 1_760_000_000_000_i64, "commitNumber": 70_000_000_001_i64,
        "commitUser": "005A0000006Vm9u"
    });
    if let Some(changed) = changed {
        header["changedFields"] = json!(changed);
    }
    header
}

fn payload(header: &Json, body: &Json) -> Json {
    let mut payload = body.clone();
    payload["ChangeEventHeader"] = header.clone();
    payload
}

fn arrived() -> DateTime<Utc> {
    Utc.timestamp_opt(1_760_000_100, 0).unwrap()
}

fn decode(payload: &Json) -> Decoded {
    let raw = serde_json::value::to_raw_value(payload).unwrap();
    objects().decode(read(&raw), &Position::new("cometd:7"), arrived())
}

fn one(header: &Json, body: &Json) -> Event {
    let mut events = decode(&payload(header, body)).events;
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn fields(event: &Event) -> Json {
    serde_json::to_value(&event.fields).unwrap()
}

#[test]
fn an_update_tells_what_changed_and_nothing_else() {
    let changed = [
        "Industry",
        "ParentId",
        "BillingAddress.Street",
        "BillingAddress.City",
        "LastModifiedDate",
        "Hidden__c",
    ];
    let event = one(
        &header("UPDATE", Some(&changed)),
        &json!({
            "Industry": null, "ParentId": "001A0000006Vm9u", "Name": "enriched",
            "BillingAddress": {"Street": "Main St", "City": null},
            "LastModifiedDate": "2025-10-09T08:53:20.000Z"
        }),
    );
    assert_eq!(event.kind, EventKind::Update);
    assert_eq!(event.records, [RecordId::stored(ID)]);
    assert_eq!(event.committed_at.timestamp(), 1_760_000_000);
    assert_eq!(event.transaction.key, "000a-1");
    assert_eq!(event.transaction.sequence, 2);
    assert_eq!(event.transaction.client.as_deref(), Some("tributary"));
    assert_eq!(
        fields(&event),
        json!({
            "Industry": null, "ParentId": ID, "BillingStreet": "Main St", "BillingCity": null,
            "LastModifiedDate": "2025-10-09T08:53:20.000Z"
        })
    );
    let changed: Vec<_> = event.changed.iter().map(|name| name.as_str()).collect();
    let told: Vec<_> = event.fields.keys().map(|name| name.as_str()).collect();
    assert_eq!(changed, told);
}

#[test]
fn enrichment_is_noticed_and_not_believed() {
    let head = header("UPDATE", Some(&["Industry"]));
    let plain = decode(&payload(&head, &json!({"Industry": "Energy"})));
    assert!(!plain.may_share);
    let enriched = decode(&payload(&head, &json!({"Industry": "Energy", "Name": "x"})));
    assert!(enriched.may_share);
    assert!(!enriched.events[0].fields.contains_key("Name"));
    assert!(decode(&payload(&header("DELETE", None), &json!({"Name": "x"}))).may_share);
}

#[test]
fn a_create_tells_all_that_is_not_empty() {
    for (change, kind) in [
        ("CREATE", EventKind::Create),
        ("UNDELETE", EventKind::Undelete),
    ] {
        let event = one(
            &header(change, Some(&[])),
            &json!({
                "Name": "Acme", "AnnualRevenue": 1054.50, "Unknown__c": "x",
                "Geo__c": {"Latitude": 1.5, "Longitude": -2},
                "BillingAddress": {"Street": "Main St", "Xyz": "y"},
                "LastModifiedDate": "2025-10-09T08:53:20Z"
            }),
        );
        assert_eq!(event.kind, kind);
        assert_eq!(
            fields(&event),
            json!({
                "Name": "Acme", "AnnualRevenue": 1054.50, "Geo__Latitude__s": 1.5, "Geo__Longitude__s": -2,
                "BillingStreet": "Main St", "LastModifiedDate": "2025-10-09T08:53:20.000Z"
            })
        );
    }
}

#[test]
fn events_of_2018_have_no_list_of_changes() {
    let mut head = header("UPDATE", None);
    head["isTransactionEnd"] = json!(true);
    let event = one(
        &head,
        &json!({"Industry": "Energy", "BillingAddress": {"City": "Bern"}}),
    );
    assert_eq!(event.kind, EventKind::Update);
    assert_eq!(
        fields(&event),
        json!({"Industry": "Energy", "BillingCity": "Bern"})
    );
}

#[test]
fn nulled_fields_are_empty_now() {
    let mut head = header("UPDATE", Some(&["Industry", "BillingAddress.City", "Name"]));
    head["nulledFields"] = json!(["Industry", "BillingAddress.City", "BillingAddress.Street"]);
    let event = one(&head, &json!({"Name": "A"}));
    assert_eq!(
        fields(&event),
        json!({"Industry": null, "BillingCity": null, "BillingStreet": null, "Name": "A"})
    );
}

#[test]
fn a_compound_emptied_as_a_whole_empties_its_parts() {
    let event = one(
        &header("UPDATE", Some(&["BillingAddress"])),
        &json!({"BillingAddress": null}),
    );
    assert_eq!(
        fields(&event),
        json!({"BillingStreet": null, "BillingCity": null})
    );
}

#[test]
fn what_an_update_does_not_tell_is_read() {
    let hash = "0123456789abcdef".repeat(4);
    for (changed, body) in [
        // Said to have changed, and not there.
        (vec!["Industry"], json!({})),
        (vec!["BillingAddress.City"], json!({})),
        (
            vec!["BillingAddress.City"],
            json!({"BillingAddress": {"Street": "x"}}),
        ),
        // The whole changed, and a part is missing.
        (
            vec!["BillingAddress"],
            json!({"BillingAddress": {"City": "x"}}),
        ),
        // Differences of long text.
        (
            vec!["Notes__c"],
            json!({"Notes__c": {"diff": "--- \n+++ x"}}),
        ),
        (
            vec!["Notes__c"],
            json!({"Notes__c": {"other": format!("--- \n+++ {hash}\n@@ -1 +1 @@")}}),
        ),
        // Values that do not fit.
        (
            vec!["LastModifiedDate"],
            json!({"LastModifiedDate": "soon"}),
        ),
        (vec!["ParentId"], json!({"ParentId": "001A0000006Vm9uXXX"})),
        (vec!["Geo__c"], json!({"Geo__c": "1;2"})),
        // Bitmaps of another transport.
        (vec!["0x400000"], json!({"Industry": "x"})),
    ] {
        let event = one(&header("UPDATE", Some(&changed)), &body);
        assert_eq!(event.kind, EventKind::Gap, "{changed:?} {body}");
        assert_eq!(event.records, [RecordId::stored(ID)]);
        assert!(event.fields.is_empty());
    }
    let mut head = header("UPDATE", Some(&["Notes__c"]));
    head["diffFields"] = json!(["Notes__c"]);
    assert_eq!(one(&head, &json!({"Notes__c": "x"})).kind, EventKind::Gap);
    head["changedFields"] = json!("Notes__c");
    head["diffFields"] = json!([]);
    assert_eq!(one(&head, &json!({"Notes__c": "x"})).kind, EventKind::Gap);
}

#[test]
fn differences_of_long_text_are_for_the_image() {
    let diff = format!(
        "--- \n+++ {}\n@@ -1 +1 @@\n-a\n+b",
        "0123456789abcdef".repeat(4)
    );
    let head = header("UPDATE", Some(&["Notes__c"]));
    for told in [json!(diff), json!({"diff": diff})] {
        let event = one(&head, &json!({"Notes__c": told}));
        assert_eq!(event.kind, EventKind::Update);
        assert_eq!(fields(&event), json!({"Notes__c": diff}));
        let created = one(&header("CREATE", None), &json!({"Notes__c": told}));
        assert_eq!(
            created.kind,
            EventKind::Gap,
            "there is nothing that it could differ from"
        );
    }
}

#[test]
fn gaps_name_their_records_or_their_object() {
    for change in [
        "GAP_CREATE",
        "GAP_UPDATE",
        "GAP_DELETE",
        "GAP_UNDELETE",
        "SNAPSHOT",
        "NEW_KIND",
        "",
    ] {
        assert_eq!(
            one(&header(change, None), &json!({})).kind,
            EventKind::Gap,
            "{change}"
        );
    }
    let ids = |ids: Json, change: &str| {
        let mut head = header(change, None);
        head["recordIds"] = ids;
        one(&head, &json!({})).kind
    };
    let zero = json!(["000000000000000AAA"]);
    assert_eq!(
        ids(zero.clone(), "GAP_OVERFLOW"),
        EventKind::ObjectGap(GapCause::Overflow)
    );
    assert_eq!(
        ids(zero, "GAP_UPDATE"),
        EventKind::ObjectGap(GapCause::Overflow)
    );
    assert_eq!(
        ids(json!(["001*"]), "UPDATE"),
        EventKind::ObjectGap(GapCause::Wildcard)
    );
    for odd in [
        json!([]),
        json!(["x"]),
        json!([1]),
        json!(null),
        json!([ID, "001A0000006Vm9uXXX"]),
    ] {
        assert_eq!(
            ids(odd.clone(), "UPDATE"),
            EventKind::ObjectGap(GapCause::Undecodable),
            "{odd}"
        );
    }
}

#[test]
fn a_wildcard_makes_the_description_stale() {
    let mut head = header("UPDATE", None);
    head["recordIds"] = json!(["001*"]);
    assert_eq!(
        decode(&payload(&head, &json!({}))).stale,
        Some(ObjectName::new("Account"))
    );
}

#[test]
fn merged_records_and_deletes() {
    let mut head = header("DELETE", None);
    head["recordIds"] = json!(["001A0000006Vm9u", "001A0000006Vm9v"]);
    let event = one(&head, &json!({}));
    assert_eq!(event.kind, EventKind::Delete);
    assert_eq!(event.records.len(), 2);
    assert!(event.fields.is_empty());
}

#[test]
fn an_event_of_no_readable_entity_may_be_any_objects() {
    for odd in [
        json!({"ChangeEventHeader": {"recordIds": [ID]}}),
        json!({"ChangeEventHeader": 5}),
        json!({"Name": "x"}),
        json!([]),
        json!(null),
    ] {
        let decoded = decode(&odd);
        let mut names: Vec<_> = decoded
            .events
            .iter()
            .map(|event| event.object.as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["Account", "Contact"], "{odd}");
        for event in &decoded.events {
            assert_eq!(event.kind, EventKind::ObjectGap(GapCause::Undecodable));
            assert_eq!(
                event.committed_at,
                arrived(),
                "an upper bound of the commit"
            );
        }
    }
    let nothing = objects().decode(None, &Position::new("cometd:7"), arrived());
    assert_eq!(nothing.events.len(), 2);
}

#[test]
fn others_objects_are_passed_over() {
    let mut head = header("UPDATE", Some(&["Name"]));
    head["entityName"] = json!("Lead");
    assert!(
        decode(&payload(&head, &json!({"Name": "x"})))
            .events
            .is_empty()
    );
}

#[test]
fn a_name_put_together_by_the_crm_is_read_besides() {
    let mut head = header("UPDATE", Some(&["Name.LastName", "Email"]));
    head["entityName"] = json!("Contact");
    let body = json!({"Name": {"LastName": "Ames"}, "Email": "a@b.c"});
    let events = decode(&payload(&head, &body)).events;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].kind, EventKind::Update);
    assert_eq!(
        fields(&events[0]),
        json!({"LastName": "Ames", "Email": "a@b.c"})
    );
    assert_eq!(events[1].kind, EventKind::Gap);
    assert_ne!(events[0].transaction, events[1].transaction);
    head["changedFields"] = json!(["Email"]);
    assert_eq!(decode(&payload(&head, &body)).events.len(), 1);
    head["changeType"] = json!("CREATE");
    let events = decode(&payload(&head, &body)).events;
    assert_eq!(
        events.len(),
        1,
        "the missing whole is read after every create"
    );
    assert_eq!(
        fields(&events[0]),
        json!({"LastName": "Ames", "Email": "a@b.c"})
    );
}

#[test]
fn what_a_header_lacks_is_filled_safely() {
    let mut head = header("UPDATE", Some(&["Industry"]));
    for name in [
        "commitTimestamp",
        "transactionKey",
        "sequenceNumber",
        "commitUser",
        "changeOrigin",
    ] {
        head.as_object_mut().unwrap().remove(name);
    }
    let event = one(&head, &json!({"Industry": "x"}));
    assert_eq!(event.committed_at, arrived());
    assert_eq!(event.transaction.key, "cometd:7");
    assert_eq!(event.transaction.user, None);
    head["commitTimestamp"] = json!("2025-10-09T08:53:20.000Z");
    assert_eq!(
        one(&head, &json!({"Industry": "x"}))
            .committed_at
            .timestamp(),
        1_760_000_000
    );
}

/// What a decoder must never do, whatever it is given: skip an event of an object that is listened to.
fn tells_something(decoded: &Decoded) -> bool {
    !decoded.events.is_empty()
}

proptest! {
    #[test]
    fn nothing_of_ours_is_skipped(
        change in "(CREATE|UPDATE|DELETE|UNDELETE|GAP_UPDATE|[A-Z]{0,5})",
        names in proptest::collection::vec("(Industry|Name|BillingAddress|BillingAddress\\.City|[a-zA-Z0-9.]{0,6})", 0..4),
        odd in any::<Option<i32>>(), at in 0_usize..8,
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut head = header(&change, Some(&names));
        let keys = ["recordIds", "changeType", "changedFields", "commitTimestamp", "transactionKey", "sequenceNumber", "changeOrigin", "commitUser"];
        head[keys[at]] = json!(odd);
        let decoded = decode(&payload(&head, &json!({"Industry": odd, "BillingAddress": odd})));
        prop_assert!(tells_something(&decoded));
        for event in decoded.events {
            prop_assert_eq!(event.object.as_str(), "Account");
            prop_assert!(matches!(event.kind, EventKind::ObjectGap(_)) || event.records.len() == 1);
        }
    }

    #[test]
    fn a_value_is_the_same_from_a_row_and_from_an_event(millis in 0_i64..4_000_000_000_000) {
        use super::super::value::read_row;
        let at = Utc.timestamp_millis_opt(millis).unwrap();
        let rest = format!("\"{}\"", at.format("%Y-%m-%dT%H:%M:%S%.3f+0000"));
        let row = read_row(FieldKind::DateTime, &rest);
        let body = json!({"LastModifiedDate": at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()});
        let event = one(&header("UPDATE", Some(&["LastModifiedDate"])), &body);
        prop_assert_eq!(&event.fields["LastModifiedDate"], &row);
    }
}
