//! Topics, and the schemas of their events.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{ACCOUNTS, ALL, sim, told};

#[tokio::test]
async fn a_topic_of_one_entity_names_its_schema_and_others_none() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let topic = client.topic(ACCOUNTS).await.unwrap();
    assert_eq!(topic.topic_name, ACCOUNTS);
    assert_eq!(topic.schema_id.len(), 22);
    assert!(topic.can_subscribe && !topic.can_publish);
    assert!(topic.tenant_guid.contains(&sim.running.org.profile.org_id));
    assert_eq!(topic.rpc_id.len(), 36);
    assert_eq!(client.topic(ALL).await.unwrap().schema_id, "");

    let (_, text) = sim
        .post(
            "/_sim/channels",
            json!({"name": "Sync__chn", "entities": ["Account"]}),
        )
        .await;
    assert_eq!(text, "");
    let custom = client.topic("/data/Sync__chn").await.unwrap();
    assert_eq!(custom.schema_id, "");
    for unknown in [
        "/data/NothingChangeEvent",
        "/data/accountChangeEvent",
        "/data/Employee__cChangeEvent",
        "/data/Other__chn",
        "AccountChangeEvent",
    ] {
        let status = client.topic(unknown).await.unwrap_err();
        assert_eq!(told(&status), (Code::NotFound, "topic.not.found".into()));
        assert!(status.message().contains(unknown) && status.message().contains("rpcId: "));
    }
    let status = client.topic("").await.unwrap_err();
    assert_eq!(
        told(&status),
        (Code::InvalidArgument, "topic.validation.empty".into())
    );
    assert!(client.topic("/data/Employee__ChangeEvent").await.is_ok());
    sim.post("/_sim/capture", json!({"release": ["Employee__c"]}))
        .await;
    assert!(client.topic("/data/Employee__ChangeEvent").await.is_err());
}

#[tokio::test]
async fn a_schema_lists_the_header_then_fields_with_compounds_in_their_place() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let id = client.topic(ACCOUNTS).await.unwrap().schema_id;
    let text = client.schema_json(&id).await.unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["name"], "AccountChangeEvent");
    assert_eq!(schema["namespace"], "com.sforce.eventbus");
    let fields = schema["fields"].as_array().unwrap();
    let names: Vec<_> = fields
        .iter()
        .map(|field| field["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "ChangeEventHeader",
            "Name",
            "Type",
            "ParentId",
            "BillingAddress",
            "ShippingAddress",
            "Phone",
            "Fax",
            "AccountNumber",
            "Website",
            "Sic",
            "Industry",
            "AnnualRevenue",
            "NumberOfEmployees",
            "Ownership",
            "TickerSymbol",
            "Description",
            "Rating",
            "Site",
            "OwnerId",
            "CreatedDate",
            "CreatedById",
            "LastModifiedDate",
            "LastModifiedById",
        ]
    );
    assert_eq!(fields[4]["type"][1]["name"], "Address");
    assert_eq!(fields[5]["type"], json!(["null", "Address"]));
    assert_eq!(fields[12]["type"], json!(["null", "double"]));
    assert_eq!(fields[12]["doc"], "Data:Currency");
    assert_eq!(fields[13]["type"], json!(["null", "int"]));
    assert_eq!(fields[20]["type"], json!(["null", "long"]));
    assert_eq!(fields[20]["doc"], "CreatedDate:DateTime");
    assert_eq!(fields[3]["doc"], "ForeignKey:EntityId");
    assert!(fields[0]["type"]["fields"][2]["type"]["symbols"][9] == "SNAPSHOT");
    assert!(fields[1..].iter().all(|field| field["default"].is_null()));

    let employee = client.topic("/data/Employee__ChangeEvent").await.unwrap();
    let text = client.schema_json(&employee.schema_id).await.unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    let custom = fields
        .iter()
        .position(|field| field["name"] == "Grade__c")
        .unwrap();
    let system = fields
        .iter()
        .position(|field| field["name"] == "LastModifiedById")
        .unwrap();
    assert!(system < custom, "custom fields come last");
    let geo = fields.last().unwrap();
    assert_eq!(geo["name"], "Geo__c");
    assert_eq!(geo["type"][1]["name"], "Location");
    assert!(
        geo["doc"]
            .as_str()
            .unwrap()
            .starts_with("Data:Location:00N")
    );
}

/// Written here by the rules of the Avro specification, so that no library's notion of them decides.
fn canonical(schema: &Value, space: &str) -> String {
    let full = |name: &str| {
        let primitive = ["null", "string", "boolean", "int", "long", "double"].contains(&name);
        if primitive || space.is_empty() || name.contains('.') {
            name.to_owned()
        } else {
            format!("{space}.{name}")
        }
    };
    match schema {
        Value::String(name) => format!("\"{}\"", full(name)),
        Value::Array(branches) => {
            let branches: Vec<_> = branches.iter().map(|one| canonical(one, space)).collect();
            format!("[{}]", branches.join(","))
        }
        Value::Object(map) => {
            let space = map
                .get("namespace")
                .map_or(space, |own| own.as_str().unwrap());
            match map["type"].as_str().unwrap() {
                "record" => {
                    let fields: Vec<_> = map["fields"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|field| {
                            let kind = canonical(&field["type"], space);
                            format!("{{\"name\":{},\"type\":{kind}}}", field["name"])
                        })
                        .collect();
                    let name = format!("{space}.{}", map["name"].as_str().unwrap());
                    format!(
                        "{{\"name\":\"{name}\",\"type\":\"record\",\"fields\":[{}]}}",
                        fields.join(",")
                    )
                }
                "enum" => format!(
                    "{{\"name\":\"{space}.{}\",\"type\":\"enum\",\"symbols\":{}}}",
                    map["name"].as_str().unwrap(),
                    map["symbols"]
                ),
                "array" => format!(
                    "{{\"type\":\"array\",\"items\":{}}}",
                    canonical(&map["items"], space)
                ),
                other => panic!("{other}"),
            }
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_schema_id_is_the_md5_of_the_canonical_form() {
    let sim = sim().await;
    let mut client = sim.client().await;
    for topic in [
        ACCOUNTS,
        "/data/ContactChangeEvent",
        "/data/Employee__ChangeEvent",
    ] {
        let id = client.topic(topic).await.unwrap().schema_id;
        let schema: Value = serde_json::from_str(&client.schema_json(&id).await.unwrap()).unwrap();
        let hash = Md5::digest(canonical(&schema, "").as_bytes());
        assert_eq!(id, URL_SAFE_NO_PAD.encode(hash), "{topic}");
    }
}

#[tokio::test]
async fn a_blank_or_unknown_schema_id_is_refused() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let blank = client.schema_json("").await.unwrap_err();
    assert_eq!(
        told(&blank),
        (Code::InvalidArgument, "schema.validation.failed".into())
    );
    assert!(
        blank
            .message()
            .starts_with("Schema validation failed. The schema ID can't be blank.")
    );
    assert!(client.schema_json("AAAAAAAAAAAAAAAAAAAAAA").await.is_err());
}

#[tokio::test]
async fn a_field_more_changes_the_id_and_old_events_keep_theirs() {
    let sim = sim().await;
    let mut client = sim.client().await;
    let mut stream = client.latest(ALL, 100).await;
    let id = sim.create("Account", json!({"Name": "Acme"})).await;
    let before = client.topic(ACCOUNTS).await.unwrap().schema_id;
    sim.post("/_sim/fields/Account/Tier__c", json!({"type": "string"}))
        .await;
    let after = client.topic(ACCOUNTS).await.unwrap().schema_id;
    assert_ne!(before, after);
    sim.update("Account", &id, json!({"Tier__c": "gold"})).await;
    let events = stream.events(2).await;
    let ids: Vec<_> = events
        .iter()
        .map(|event| event.event.as_ref().unwrap().schema_id.clone())
        .collect();
    assert_eq!(ids, [before.clone(), after.clone()]);
    assert_eq!(client.decode(&events[0]).await["Name"], "Acme");
    let update = client.decode(&events[1]).await;
    assert_eq!(update["Tier__c"], "gold");
    // Bit 24 is the new field behind LastModifiedById, bit 22 LastModifiedDate.
    assert_eq!(
        update["ChangeEventHeader"]["changedFields"],
        json!(["0x01400000"])
    );
    // A hidden field stays in the schema.
    sim.post("/_sim/fields/Account/Fax", json!({"visible": false}))
        .await;
    assert_eq!(client.topic(ACCOUNTS).await.unwrap().schema_id, after);
    assert!(client.schema_json(&before).await.is_ok());
}
