//! What events say: header, bitmaps, compounds, types, enrichment, gaps.

use serde_json::{Value, json};

use crate::harness::{ACCOUNTS, ALL, sim, sim_at};

const DAY: i64 = 86_400_000;

#[tokio::test]
async fn a_create_has_every_field_and_no_bitmaps() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 10).await;
    sim.until(|streams| streams.len() == 1).await;
    let id = sim
        .create(
            "Account",
            json!({"Name": "Acme", "BillingCity": "Bonn", "AnnualRevenue": 10.5, "NumberOfEmployees": 7}),
        )
        .await;
    let event = client.decode(&stream.events(1).await[0]).await;
    let header = &event["ChangeEventHeader"];
    assert_eq!(header["entityName"], "Account");
    assert_eq!(header["recordIds"], json!([id]));
    assert_eq!(header["changeType"], "CREATE");
    assert_eq!(
        header["changeOrigin"],
        "com/salesforce/api/rest/66.0;client=test"
    );
    assert_eq!(header["sequenceNumber"], 1);
    assert_eq!(header["commitTimestamp"].as_i64().unwrap() % 1000, 0);
    assert!(header["commitNumber"].as_i64().unwrap() > 1 << 53);
    assert_eq!(
        header["commitUser"],
        sim.running.org.profile.run_as.id.as_str()
    );
    for empty in ["nulledFields", "diffFields", "changedFields"] {
        assert_eq!(header[empty], json!([]));
    }
    assert_eq!(event["Name"], "Acme");
    assert_eq!(event["BillingAddress"]["City"], "Bonn");
    assert_eq!(event["BillingAddress"]["Street"], Value::Null);
    assert_eq!(event["ShippingAddress"], Value::Null);
    assert_eq!(event["AnnualRevenue"], 10.5);
    assert_eq!(event["NumberOfEmployees"], 7);
    assert_eq!(event["Industry"], Value::Null);
    assert_eq!(event["CreatedDate"], header["commitTimestamp"]);
    assert!(event.get("Id").is_none() && event.get("SystemModstamp").is_none());
}

#[tokio::test]
async fn an_update_tells_its_fields_by_bitmaps() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ACCOUNTS, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    let id = sim
        .create(
            "Account",
            json!({"Name": "Acme", "Fax": "1", "BillingStreet": "Main", "BillingCity": "Bonn"}),
        )
        .await;
    stream.events(1).await;
    for (change, changed, nulled) in [
        (
            json!({"BillingStreet": "Low"}),
            json!(["0x400000", "4-0x01"]),
            json!([]),
        ),
        (json!({"Fax": "2"}), json!(["0x400080"]), json!([])),
        (
            json!({"Industry": "Energy"}),
            json!(["0x400800"]),
            json!([]),
        ),
        (json!({"Fax": null}), json!(["0x400080"]), json!(["0x80"])),
        (
            json!({"BillingStreet": null, "BillingCity": "Ulm"}),
            json!(["0x400000", "4-0x03"]),
            json!(["4-0x01"]),
        ),
        (json!({"Name": "Beta"}), json!(["0x400002"]), json!([])),
        (
            json!({"Phone": "1", "ShippingCity": "Ulm", "BillingCity": null}),
            json!(["0x400040", "4-0x02", "5-0x02"]),
            json!(["4-0x02"]),
        ),
    ] {
        sim.update("Account", &id, change.clone()).await;
        let event = client.decode(&stream.events(1).await[0]).await;
        let header = &event["ChangeEventHeader"];
        assert_eq!(header["changeType"], "UPDATE");
        assert_eq!(header["changedFields"], changed, "{change}");
        assert_eq!(header["nulledFields"], nulled, "{change}");
        assert_eq!(header["diffFields"], json!([]));
        assert_eq!(event["OwnerId"], Value::Null, "unchanged fields are null");
        assert_eq!(event["LastModifiedDate"], header["commitTimestamp"]);
    }
}

#[tokio::test]
async fn a_lone_compound_element_comes_without_the_first() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let id = sim.create("Account", json!({"Name": "Acme"})).await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.script(json!({"do": {"kind": "without_last_modified"}}))
        .await;
    sim.update("Account", &id, json!({"BillingState": "NRW"}))
        .await;
    let event = client.decode(&stream.events(1).await[0]).await;
    assert_eq!(
        event["ChangeEventHeader"]["changedFields"],
        json!(["4-0x04"])
    );
    assert_eq!(event["LastModifiedDate"], Value::Null);
}

#[tokio::test]
async fn bitmaps_reach_beyond_64_fields() {
    let sim = sim().await;
    for number in 0..70 {
        let path = format!("/_sim/fields/Account/F{number}__c");
        sim.post(&path, json!({"type": "string"})).await;
    }
    let mut client = sim.client().await;
    let id = sim.create("Account", json!({"Name": "Acme"})).await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.update("Account", &id, json!({"F69__c": "x"})).await;
    let event = client.decode(&stream.events(1).await[0]).await;
    // LastModifiedDate is bit 22, LastModifiedById 23, F0__c 24, F69__c 93.
    let bits = (1_u128 << 93) | (1 << 22);
    assert_eq!(
        event["ChangeEventHeader"]["changedFields"],
        json!([format!("0x{bits:024X}")])
    );
    assert_eq!(event["F69__c"], "x");
}

#[tokio::test]
async fn persons_have_a_record_for_a_name_and_dates_are_milliseconds() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    let id = sim
        .create(
            "Contact",
            json!({"FirstName": "Ann", "LastName": "Lee", "Birthdate": "1970-01-03", "DoNotCall": true}),
        )
        .await;
    sim.create(
        "Employee__c",
        json!({"Name": "Eve", "Grade__c": 1.5, "Active__c": true, "Starts__c": "1970-01-11",
               "Shift__c": "08:30:00.250Z", "Geo__Latitude__s": 1.5, "Geo__Longitude__s": -2.5}),
    )
    .await;
    let events = stream.events(2).await;
    let contact = client.decode(&events[0]).await;
    assert_eq!(
        contact["Name"],
        json!({"Salutation": null, "FirstName": "Ann", "LastName": "Lee"})
    );
    assert_eq!(contact["Birthdate"], 2 * DAY);
    assert_eq!(contact["DoNotCall"], true);
    assert!(contact.get("FirstName").is_none());
    let employee = client.decode(&events[1]).await;
    assert_eq!(employee["ChangeEventHeader"]["entityName"], "Employee__c");
    assert_eq!(employee["Grade__c"], 1.5);
    assert_eq!(employee["Active__c"], true);
    assert_eq!(employee["Starts__c"], 10 * DAY);
    assert_eq!(employee["Shift__c"], (8 * 60 + 30) * 60_000 + 250);
    assert_eq!(
        employee["Geo__c"],
        json!({"Latitude": 1.5, "Longitude": -2.5})
    );
    sim.update("Contact", &id, json!({"LastName": "Low"})).await;
    let renamed = client.decode(&stream.events(1).await[0]).await;
    let changed = renamed["ChangeEventHeader"]["changedFields"].clone();
    // The name is field 2: its part LastName is the third.
    assert_eq!(changed[1], "2-0x04");
    assert_eq!(renamed["Name"]["LastName"], "Low");
}

#[tokio::test]
async fn a_long_text_comes_as_a_diff_when_a_script_wants_it() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let old = "a line of text\n".repeat(100);
    let id = sim
        .create("Account", json!({"Name": "Acme", "Description": old}))
        .await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.script(json!({"do": {"kind": "diff"}})).await;
    let new = old.replacen("a line", "the line", 1);
    sim.update("Account", &id, json!({"Description": new}))
        .await;
    let event = client.decode(&stream.events(1).await[0]).await;
    let header = &event["ChangeEventHeader"];
    assert_eq!(header["diffFields"], json!(["0x010000"]));
    assert_eq!(header["changedFields"], json!(["0x410000"]));
    let diff = event["Description"].as_str().unwrap();
    assert!(diff.starts_with("--- \n+++ ") && diff.contains("\n+the line of text"));
}

#[tokio::test]
async fn deletes_gaps_and_overflows_have_a_header_only() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let ids = sim.accounts(2).await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.commit(json!([{"op": "delete", "object": "Account", "id": ids[0]}]))
        .await;
    sim.commit(json!([{"op": "undelete", "object": "Account", "id": ids[0]}]))
        .await;
    sim.script(json!([
        {"do": {"kind": "inject_gap", "entity": "Account", "change_type": "GAP_UPDATE", "record_ids": [ids[1]]}},
        {"do": {"kind": "inject_overflow", "entity": "Account"}},
        {"do": {"kind": "wildcard", "entity": "Account"}},
    ]))
    .await;
    let mut told = Vec::new();
    for event in stream.events(5).await {
        let event = client.decode(&event).await;
        let header = &event["ChangeEventHeader"];
        let filled = event.as_object().unwrap().values();
        told.push((
            header["changeType"].as_str().unwrap().to_owned(),
            header["recordIds"][0].as_str().unwrap().to_owned(),
            filled.filter(|value| !value.is_null()).count() > 1,
        ));
    }
    let expected = [
        ("DELETE", ids[0].as_str(), false),
        ("UNDELETE", &ids[0], true),
        ("GAP_UPDATE", &ids[1], false),
        ("GAP_OVERFLOW", "000000000000000AAA", false),
        ("GAP_UPDATE", "001*", false),
    ];
    for (told, expected) in told.iter().zip(expected) {
        assert_eq!((told.0.as_str(), told.1.as_str(), told.2), expected);
    }
}

#[tokio::test]
async fn merged_and_shared_events_keep_to_one_position() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let ids = sim.accounts(3).await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    let same = |ids: &[String]| {
        let op = |id| json!({"op": "update", "object": "Account", "id": id, "fields": {"Industry": "Energy"}});
        Value::Array(ids.iter().map(op).collect())
    };
    sim.script(json!({"do": {"kind": "merge"}})).await;
    sim.commit(same(&ids)).await;
    let merged = stream.events(1).await;
    assert_eq!(
        client.decode(&merged[0]).await["ChangeEventHeader"]["recordIds"],
        json!(ids)
    );
    sim.script(json!({"do": {"kind": "share_replay_id"}})).await;
    sim.commit(json!([
        {"op": "update", "object": "Account", "id": ids[0], "fields": {"Industry": "x"}},
        {"op": "update", "object": "Account", "id": ids[1], "fields": {"Industry": "y"}},
    ]))
    .await;
    let shared = stream.events(2).await;
    assert_eq!(shared[0].replay_id, shared[1].replay_id);
    assert_ne!(
        shared[0].event.as_ref().unwrap().id,
        shared[1].event.as_ref().unwrap().id
    );
}

#[tokio::test]
async fn enriched_fields_are_there_and_not_in_the_bitmap() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let ids = sim.accounts(2).await;
    sim.post(
        "/_sim/channels",
        json!({"name": "Sync__chn", "entities": ["Account"], "enrich": {"Account": ["OwnerId", "Phone"]}}),
    )
    .await;
    let mut stream = client.latest("/data/Sync__chn", 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.script(json!({"do": {"kind": "merge"}})).await;
    let op = |id| json!({"op": "update", "object": "Account", "id": id, "fields": {"Industry": "Energy"}});
    sim.commit(json!([op(&ids[0]), op(&ids[1])])).await;
    let events = stream.events(2).await;
    assert_eq!(events[0].replay_id, events[1].replay_id);
    for (event, id) in events.iter().zip(&ids) {
        let event = client.decode(event).await;
        let header = &event["ChangeEventHeader"];
        assert_eq!(header["recordIds"], json!([id]));
        assert_eq!(header["changedFields"], json!(["0x400800"]));
        assert_eq!(event["OwnerId"], sim.running.org.profile.run_as.id.as_str());
        assert_eq!(event["Phone"], Value::Null);
    }
}

#[tokio::test]
async fn an_accounts_name_is_text_or_a_persons_record_and_addresses_may_have_codes() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(
        data.path().join("Account.csv"),
        "Id,Name,FirstName,LastName,MiddleName,IsPersonAccount,BillingCity,BillingStateCode,BillingLatitude\n",
    )
    .unwrap();
    let notes = json!({"fields": {"IsPersonAccount": {"type": "boolean"}, "LastName": {"nillable": true}, "BillingLatitude": {"type": "double"}}});
    std::fs::write(data.path().join("Account.json"), notes.to_string()).unwrap();
    let sim = sim_at(data, |_| {}).await;
    let mut client = sim.client().await;
    let schema_id = client.topic(ACCOUNTS).await.unwrap().schema_id;
    let schema: Value =
        serde_json::from_str(&client.schema_json(&schema_id).await.unwrap()).unwrap();
    let name = &schema["fields"][1];
    assert_eq!(name["name"], "Name");
    assert_eq!(name["type"][0], "null");
    assert_eq!(name["type"][1], "string");
    assert_eq!(name["type"][2]["name"], "Switchable_PersonName");
    let address = &schema["fields"][3];
    assert_eq!(address["name"], "BillingAddress");
    let parts: Vec<_> = address["type"][1]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["name"].as_str().unwrap())
        .collect();
    let all = [
        "Street",
        "City",
        "State",
        "PostalCode",
        "Country",
        "StateCode",
        "CountryCode",
        "Latitude",
        "Longitude",
        "GeocodeAccuracy",
    ];
    assert_eq!(parts, all);

    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.create("Account", json!({"Name": "Acme"})).await;
    let person = sim
        .create(
            "Account",
            json!({"IsPersonAccount": true, "FirstName": "Ann", "LastName": "Lee"}),
        )
        .await;
    let change = json!({"LastName": "Low", "MiddleName": "M", "BillingStateCode": "CA", "BillingLatitude": 1.5});
    sim.update("Account", &person, change).await;
    let events = stream.events(3).await;
    assert_eq!(client.decode(&events[0]).await["Name"], "Acme");
    let created = client.decode(&events[1]).await;
    assert_eq!(
        created["Name"],
        json!({"Salutation": null, "FirstName": "Ann", "LastName": "Lee", "MiddleName": null})
    );
    let updated = client.decode(&events[2]).await;
    let changed = updated["ChangeEventHeader"]["changedFields"]
        .as_array()
        .unwrap();
    assert_eq!(changed[1..], [json!("1-0x0C"), json!("3-0xA0")]);
    assert_eq!(updated["BillingAddress"]["StateCode"], "CA");
    assert_eq!(updated["BillingAddress"]["Latitude"], 1.5);
    assert_eq!(updated["Name"]["FirstName"], Value::Null);
}

#[tokio::test]
async fn both_surfaces_tell_the_same_event_under_one_schema_id() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 100).await;
    sim.until(|streams| streams.len() == 1).await;
    sim.accounts(1).await;
    let event = stream.events(1).await.remove(0);
    let log = &sim.running.org.log;
    let logged = log.after(log.beginning(), 1).unwrap().remove(0);
    assert_eq!(event.event.unwrap().schema_id, logged.event.schema);
    assert_eq!(
        event.replay_id[..8],
        logged.replay_id.to_be_bytes(),
        "one log behind every surface"
    );
}

#[tokio::test]
async fn an_event_above_a_megabyte_is_a_gap() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("Account.csv"), "Id,Name,Description\n").unwrap();
    let notes = json!({"fields": {"Description": {"type": "textarea", "length": 2_000_000}}});
    std::fs::write(data.path().join("Account.json"), notes.to_string()).unwrap();
    let sim = sim_at(data, |_| {}).await;
    let mut client = sim.client().await;
    let large = "x".repeat(900_000);
    for _ in 0..4 {
        sim.create("Account", json!({"Name": "n", "Description": large}))
            .await;
    }
    let larger = "x".repeat(1_100_000);
    sim.create("Account", json!({"Name": "n", "Description": larger}))
        .await;
    // An answer has 3 MB at most.
    client.client = client.client.max_decoding_message_size(8 << 20);
    let mut stream = client.earliest(ALL, 100).await;
    let mut events = Vec::new();
    while events.len() < 5 {
        let answer = stream.answer().await.events;
        let payloads = answer.iter().filter_map(|event| event.event.as_ref());
        let bytes: usize = payloads.map(|event| event.payload.len()).sum();
        assert!(bytes <= 3 << 20, "{bytes}");
        events.extend(answer);
    }
    let gap = client.decode(&events[4]).await;
    assert_eq!(gap["ChangeEventHeader"]["changeType"], "GAP_CREATE");
    assert_eq!(gap["Description"], Value::Null);
}
