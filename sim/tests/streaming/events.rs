//! Events on the wire: their form, their order, their replay.

use serde_json::{Value, json};

use crate::harness::{ALL, ack, events, replay_ids, sim, sim_with};
use tributary_sim::salesforce::SimOptions;

fn id(replay_id: u64) -> i64 {
    i64::try_from(replay_id).unwrap()
}

#[tokio::test]
async fn an_event_has_the_documented_form() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (_, account) = sim.account("Acme").await;
    let created = client.connect().await;
    sim.commit(json!([{"op": "update", "object": "Account", "id": account, "fields": {"Industry": "Energy"}}]))
        .await;
    let updated = client.connect().await;
    let item = updated.iter().find(|item| !item["data"].is_null()).unwrap();
    assert_eq!(item["channel"], ALL);
    let data = &item["data"];
    let header = &data["payload"]["ChangeEventHeader"];
    let user = &sim.running.org.profile.run_as.id;
    let stamp = sim.running.org.clock.second().timestamp_millis();
    assert_eq!(
        *header,
        json!({"entityName": "Account", "recordIds": [account], "changeType": "UPDATE",
               "changedFields": ["Industry", "LastModifiedDate"], "changeOrigin": "",
               "transactionKey": header["transactionKey"], "sequenceNumber": 1, "commitTimestamp": stamp,
               "commitNumber": header["commitNumber"], "commitUser": user})
    );
    assert!(header["commitNumber"].as_u64().unwrap() > 1 << 53);
    assert!(!header["transactionKey"].as_str().unwrap().is_empty());
    assert_eq!(data["payload"]["Industry"], "Energy");
    let date = data["payload"]["LastModifiedDate"].as_str().unwrap();
    assert!(date.ends_with(".000Z"), "{date}");
    assert_eq!(data["payload"].as_object().unwrap().len(), 3);
    assert!(data["event"]["replayId"].is_u64());

    let schema = data["schema"].as_str().unwrap();
    assert_eq!(schema.len(), 22);
    let create = events(&created).next().unwrap();
    assert_eq!(create["schema"], schema, "the definition is the same");
    assert_eq!(
        create["payload"]["ChangeEventHeader"]["changedFields"],
        json!([])
    );
    assert_eq!(create["payload"]["Name"], "Acme");
}

#[tokio::test]
async fn a_schema_id_changes_with_the_definition() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    sim.account("Before").await;
    let before = client.connect().await;
    sim.post("/_sim/fields/Account/Tier__c", json!({"type": "string"}))
        .await;
    sim.account("After").await;
    let after = client.connect().await;
    let schema = |answer: &[Value]| events(answer).next().unwrap()["schema"].clone();
    assert_ne!(schema(&before), schema(&after));
}

#[tokio::test]
async fn a_delete_is_a_header_only() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (_, account) = sim.account("Acme").await;
    sim.commit(json!([{"op": "delete", "object": "Account", "id": account}]))
        .await;
    let answer = client.connect().await;
    let delete = events(&answer).nth(1).unwrap();
    assert_eq!(
        delete["payload"]["ChangeEventHeader"]["changeType"],
        "DELETE"
    );
    assert_eq!(delete["payload"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn replay_begins_after_an_id_at_the_start_or_now() {
    let sim = sim().await;
    let mut written = Vec::new();
    for name in ["One", "Two", "Three"] {
        written.push(sim.account(name).await.0);
    }
    for (from, expected) in [
        (-2, &written[..]),
        (id(written[0]), &written[1..]),
        (id(written[2]), &[]),
        (-1, &[]),
    ] {
        let client = sim.subscribed(ALL, from).await;
        // What rode in the subscription's own answer or the first poll's counts as well.
        let (late, _) = sim.account("Late").await;
        let mut seen = replay_ids(&client.glance().await);
        assert_eq!(seen.pop(), Some(late));
        assert!(expected.ends_with(&seen), "from {from}: {seen:?}");
    }
}

#[tokio::test]
async fn everything_retained_comes_once_and_in_order_wherever_it_rides() {
    let sim = sim_with(SimOptions {
        seed: 5,
        ..SimOptions::default()
    })
    .await;
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.push(sim.account(&format!("A{number}")).await.0);
    }
    let (mut rode, mut before, mut after) = (0, 0, 0);
    for _ in 0..40 {
        let mut client = sim.client();
        client.handshake().await;
        let answer = client
            .send(json!([client.subscription(ALL, json!(-2))]))
            .await;
        let mut seen = replay_ids(&answer);
        rode += usize::from(!seen.is_empty());
        let connect = client.connect().await;
        seen.extend(replay_ids(&connect));
        assert_eq!(seen, expected);
        let with_events = if answer.len() > 1 { &answer } else { &connect };
        if with_events[0]["data"].is_null() {
            before += 1;
        } else {
            after += 1;
        }
        client.ask(client.message("/meta/disconnect")).await;
    }
    assert!(
        rode > 0 && before > 0 && after > 0,
        "{rode} {before} {after}"
    );
}

#[tokio::test]
async fn channels_carry_their_entities_side_by_side() {
    let sim = sim().await;
    let (status, text) = sim
        .post(
            "/_sim/channels",
            json!({"name": "Sync__chn", "entities": ["Contact", "Employee__c"]}),
        )
        .await;
    assert!(status.is_success(), "{text}");
    let client = sim.subscribed("/data/Employee__ChangeEvent", -1).await;
    for channel in ["/data/Sync__chn", "/data/AccountChangeEvent", ALL] {
        assert_eq!(client.subscribe(channel, -1).await["successful"], true);
    }
    sim.commit(json!([
        {"op": "create", "object": "Account", "fields": {"Name": "Acme"}},
        {"op": "create", "object": "Contact", "fields": {"LastName": "Roe"}},
        {"op": "create", "object": "Employee__c", "fields": {"Name": "E1"}},
    ]))
    .await;
    let answer = client.connect().await;
    let of = |channel: &str| -> Vec<&str> {
        answer
            .iter()
            .filter(|item| item["channel"] == channel)
            .filter_map(|item| item["data"]["payload"]["ChangeEventHeader"]["entityName"].as_str())
            .collect()
    };
    assert_eq!(of("/data/AccountChangeEvent"), ["Account"]);
    assert_eq!(of("/data/Employee__ChangeEvent"), ["Employee__c"]);
    assert_eq!(of("/data/Sync__chn"), ["Contact", "Employee__c"]);
    assert_eq!(of(ALL), ["Account", "Contact", "Employee__c"]);
    assert!(replay_ids(&answer).is_sorted());
}

#[tokio::test]
async fn an_object_no_longer_captured_is_silent() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (status, text) = sim
        .post("/_sim/capture", json!({"release": ["Account"]}))
        .await;
    assert!(status.is_success(), "{text}");
    sim.commit(json!([{"op": "create", "object": "Account", "fields": {"Name": "Quiet"}}]))
        .await;
    assert_eq!(client.glance().await.len(), 1);
    assert_eq!(
        client.subscribe("/data/AccountChangeEvent", -1).await["successful"],
        false
    );
}

#[tokio::test]
async fn a_backlog_comes_in_several_answers() {
    let sim = sim().await;
    let ops: Vec<_> = (0..2500)
        .map(|n| json!({"op": "create", "object": "Account", "fields": {"Name": format!("A{n}")}}))
        .collect();
    let expected: Vec<_> = sim
        .commit(json!(ops))
        .await
        .into_iter()
        .map(|(replay_id, _)| replay_id)
        .collect();
    let mut client = sim.client();
    client.handshake().await;
    let answer = client
        .send(json!([client.subscription(ALL, json!(-2))]))
        .await;
    let mut sizes = vec![replay_ids(&answer).len()];
    let mut seen = replay_ids(&answer);
    while seen.len() < expected.len() {
        let answer = client.connect().await;
        sizes.push(replay_ids(&answer).len());
        seen.extend(replay_ids(&answer));
    }
    assert_eq!(seen, expected);
    assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
}

#[tokio::test]
async fn a_large_event_ends_its_answer() {
    let sim = sim().await;
    let text = "x".repeat(30_000);
    let ops: Vec<_> = (0..80)
        .map(|_| json!({"op": "create", "object": "Account", "fields": {"Name": text.get(..9), "Description": text}}))
        .collect();
    // Descriptions are text areas by their length once the org has seen one: take what it allows.
    let client = sim.subscribed(ALL, -1).await;
    let body = json!({"transactions": [{"ops": ops}]});
    let (status, answer) = sim.post("/_sim/transactions", body).await;
    assert!(status.is_success());
    assert!(!answer.contains("error"), "{}", &answer[..300]);
    let first = client.connect().await;
    let second = client.connect().await;
    let third = client.connect().await;
    let sizes = [&first, &second, &third].map(|answer| replay_ids(answer).len());
    assert_eq!(sizes.iter().sum::<usize>(), 80, "{sizes:?}");
    assert!(sizes[0] < 40 && sizes[1] < 40, "{sizes:?}");
}

#[tokio::test]
async fn what_a_cut_answer_carried_comes_only_to_a_new_subscription() {
    let sim = sim().await;
    let (start, _) = sim.account("Start").await;
    let mut client = sim.subscribed(ALL, id(start)).await;
    client.glance().await;
    let (lost, _) = sim.account("Lost").await;
    sim.script(json!({"on": {"message": "/meta/connect"}, "do": {"kind": "lost_reply"}}))
        .await;
    assert!(
        client
            .request(&json!([client.poll()]))
            .send()
            .await
            .is_err()
    );
    let (next, _) = sim.account("Next").await;
    assert_eq!(
        replay_ids(&client.glance().await),
        [next],
        "no acknowledgement"
    );
    client.handshake().await;
    client.subscribe(ALL, id(start)).await;
    let mut seen = replay_ids(&client.glance().await);
    seen.dedup();
    assert!([lost, next].ends_with(&seen), "{seen:?}");
}

#[tokio::test]
async fn delivered_events_are_counted_and_limited() {
    let sim = sim().await;
    sim.script(json!({"do": {"kind": "limit_events", "events": 3}}))
        .await;
    let mut client = sim.subscribed(ALL, -1).await;
    for name in ["One", "Two", "Three"] {
        sim.account(name).await;
    }
    let (four, _) = sim.account("Four").await;
    let first = replay_ids(&client.glance().await);
    assert_eq!(first.len(), 3);
    assert_eq!(sim.get("/_sim/counts").await["delivered"], 3);
    let limits = sim.get("/services/data/v66.0/limits").await;
    assert_eq!(
        limits["DailyDeliveredPlatformEvents"],
        json!({"Max": 3, "Remaining": 0})
    );
    assert_eq!(
        limits["StreamingApiConcurrentClients"],
        json!({"Max": 1000, "Remaining": 999})
    );
    let full = "403::Organization total events daily limit exceeded";
    let refused = client.connect().await;
    assert_eq!(ack(&refused)["error"], full);
    assert_eq!(ack(&refused)["successful"], false);
    assert_eq!(client.subscribe(ALL, -1).await["error"], full);

    sim.advance(24 * 3600).await;
    client.token = sim.login();
    client.handshake().await;
    let answer = client
        .send(json!([
            client.subscription(ALL, json!(first[2])),
            client.poll()
        ]))
        .await;
    assert_eq!(replay_ids(&answer), [four], "usage has fallen");
}

#[tokio::test]
async fn a_custom_channel_enriches_updates_and_deletes() {
    let sim = sim().await;
    let members = json!({"name": "Rich__chn", "entities": ["Account", "Contact"],
                         "enrich": {"Account": ["Name", "Industry"]}});
    let (status, text) = sim.post("/_sim/channels", members).await;
    assert!(status.is_success(), "{text}");
    let client = sim.subscribed("/data/Rich__chn", -1).await;
    let create = json!({"op": "create", "object": "Account", "fields": {"Name": "Acme"}});
    let written = sim.commit(json!([create, create])).await;
    let created = client.glance().await;
    assert_eq!(replay_ids(&created).len(), 2);
    sim.script(json!({"do": {"kind": "merge"}})).await;
    let update = |id: &str| json!({"op": "update", "object": "Account", "id": id, "fields": {"Description": "x"}});
    let merged = sim
        .commit(json!([update(&written[0].1), update(&written[1].1)]))
        .await;
    let rename = json!([{"op": "update", "object": "Account", "id": written[1].1, "fields": {"Name": "Later"}}]);
    sim.commit(rename).await;
    let answer = client.glance().await;
    let seen: Vec<_> = events(&answer)
        .take(2)
        .map(|event| {
            let header = &event["payload"]["ChangeEventHeader"];
            let fields = &event["payload"];
            json!([
                event["event"]["replayId"],
                header["recordIds"],
                header["changedFields"],
                fields["Name"],
                fields["Industry"]
            ])
        })
        .collect();
    let id = merged[0].0;
    let changed = json!(["Description", "LastModifiedDate"]);
    assert_eq!(
        seen,
        [
            json!([id, [written[0].1], changed, "Acme", null]),
            json!([id, [written[1].1], changed, "Later", null]),
        ],
        "one replay id, one record each, values of the delivery"
    );
    sim.commit(json!([{"op": "delete", "object": "Account", "id": written[0].1}]))
        .await;
    let delete = client.glance().await;
    assert_eq!(events(&delete).next().unwrap()["payload"]["Name"], "Acme");
    for (enrich, reason) in [
        (json!({"Lead": ["Name"]}), "no member"),
        (json!({"Account": ["Nothing"]}), "no field"),
        (json!({"Account": vec!["Name"; 11]}), "11 fields"),
    ] {
        let members = json!({"name": "Rich__chn", "entities": ["Account"], "enrich": enrich});
        let (status, text) = sim.post("/_sim/channels", members).await;
        assert_eq!(status, 400);
        assert!(text.contains(reason), "{text}");
    }
}
