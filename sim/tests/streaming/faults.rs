//! Faults of sessions and of events, by script.

use serde_json::{Value, json};

use crate::harness::{ALL, Client, Sim, ack, events, handshake, replay_ids, sim};

fn id(replay_id: u64) -> i64 {
    i64::try_from(replay_id).unwrap()
}

fn header(event: &Value) -> &Value {
    &event["payload"]["ChangeEventHeader"]
}

#[tokio::test]
async fn handshakes_are_denied_for_each_reason() {
    let sim = sim().await;
    let client = sim.client();
    let busy = "503::Server is too busy. Please try your request again later.";
    let denied = "403::Handshake denied";
    for (reason, error, text) in [
        (
            "authentication_invalid",
            denied,
            "401::Authentication invalid",
        ),
        (
            "authentication_required",
            denied,
            "401::Request requires authentication",
        ),
        (
            "too_many_clients",
            denied,
            "403::Organization concurrent user limit exceeded",
        ),
        ("too_busy", denied, busy),
        (
            "too_busy_as_authentication",
            "401::Authentication invalid",
            busy,
        ),
    ] {
        sim.script(json!({"do": {"kind": "deny_handshake", "reason": reason}}))
            .await;
        let reply = client.ask(handshake()).await;
        assert_eq!(reply["successful"], false);
        assert_eq!(reply["error"], error);
        assert_eq!(reply["ext"]["sfdc"]["failureReason"], text);
        assert_eq!(reply["advice"]["reconnect"], "none");
        assert!(reply["clientId"].is_null());
    }
    assert_eq!(client.ask(handshake()).await["successful"], true);
}

#[tokio::test]
async fn any_message_is_refused_in_any_words() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"on": {"message": "/meta/subscribe"}, "after": 1, "times": 2,
                      "do": {"kind": "refuse", "error": "403::Cannot create channel", "advice": "retry"}}))
        .await;
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(client.subscribe(ALL, -1).await["error"].clone());
    }
    let refused = json!("403::Cannot create channel");
    assert_eq!(
        outcomes,
        [Value::Null, refused.clone(), refused, Value::Null]
    );
}

#[tokio::test]
async fn sessions_and_cookies_are_forgotten() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"on": {"message": "/meta/connect"}, "do": {"kind": "unknown_client"}}))
        .await;
    let reply = ack(&client.connect().await).clone();
    assert_eq!(reply["error"], "403::Unknown client");
    assert_eq!(
        reply["advice"],
        json!({"reconnect": "handshake", "interval": 0})
    );

    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"do": {"kind": "lost_cookie"}})).await;
    let error = ack(&client.connect().await)["error"].clone();
    let text = error.as_str().unwrap();
    assert!(text.ends_with("has established a session, but no BAYEUX_BROWSER cookie present"));

    for kind in ["forget_clients", "forget_cookies"] {
        let client = sim.subscribed(ALL, -1).await;
        sim.script(json!({"do": {"kind": kind}})).await;
        assert_eq!(ack(&client.connect().await)["successful"], false, "{kind}");
    }
}

#[tokio::test]
async fn the_server_disconnects_held_polls_and_later_ones() {
    let sim = sim().await;
    let held = sim.subscribed(ALL, -1).await;
    let poll = held.poll_aside();
    sim.held(1).await;
    let idle = sim.subscribed(ALL, -1).await;
    sim.script(json!({"do": {"kind": "disconnect"}})).await;
    for (answer, client) in [(poll.await.unwrap(), &held), (idle.connect().await, &idle)] {
        let word = answer
            .iter()
            .find(|item| item["channel"] == "/meta/disconnect")
            .unwrap();
        assert_eq!(
            *word,
            json!({"channel": "/meta/disconnect", "clientId": client.id, "successful": true})
        );
        assert_eq!(ack(&client.connect().await)["error"], "403::Unknown client");
    }
    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"on": {"message": "/meta/connect"}, "do": {"kind": "dismiss"}}))
        .await;
    assert_eq!(client.connect().await[0]["channel"], "/meta/disconnect");
}

#[tokio::test]
async fn tokens_end_in_the_middle_of_a_poll() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"on": {"message": "/meta/connect"},
                      "do": {"kind": "expire_tokens", "when": "during"}}))
        .await;
    let reply = ack(&client.connect().await).clone();
    assert_eq!(reply["error"], "401::Authentication invalid");
    assert_eq!(reply["advice"]["reconnect"], "none");
}

#[tokio::test]
async fn tokens_end_at_once_under_a_held_poll() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let poll = client.poll_aside();
    sim.held(1).await;
    sim.script(json!({"do": {"kind": "expire_tokens_now"}}))
        .await;
    assert_eq!(
        ack(&poll.await.unwrap())["error"],
        "401::Authentication invalid"
    );
}

#[tokio::test]
async fn the_last_events_come_twice() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let mut written = Vec::new();
    for name in ["One", "Two", "Three"] {
        written.push(sim.account(name).await.0);
    }
    let first = client.glance().await;
    assert_eq!(replay_ids(&first), written);
    sim.script(json!({"do": {"kind": "duplicate", "last": 2}}))
        .await;
    let (new, _) = sim.account("Four").await;
    let again = client.glance().await;
    assert_eq!(replay_ids(&again), [written[1], written[2], new]);
    let data = |answer: &[Value], at: usize| events(answer).nth(at).unwrap().clone();
    assert_eq!(data(&again, 0), data(&first, 1), "the very same event");
}

#[tokio::test]
async fn a_duplicate_wakes_a_held_poll() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (one, _) = sim.account("One").await;
    client.glance().await;
    let poll = client.poll_aside();
    sim.held(1).await;
    sim.script(json!({"do": {"kind": "duplicate", "last": 1}}))
        .await;
    assert_eq!(replay_ids(&poll.await.unwrap()), [one]);
}

#[tokio::test]
async fn everything_after_an_id_comes_again() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let mut written = Vec::new();
    for name in ["One", "Two", "Three"] {
        written.push(sim.account(name).await.0);
    }
    client.glance().await;
    sim.script(json!({"do": {"kind": "redeliver", "after": written[0]}}))
        .await;
    assert_eq!(replay_ids(&client.glance().await), written[1..]);
    let (status, text) = sim
        .post(
            "/_sim/faults",
            json!({"do": {"kind": "redeliver", "after": 1}}),
        )
        .await;
    assert_eq!(status, 400);
    assert!(text.contains("not in the stream"), "{text}");
}

#[tokio::test]
async fn a_gap_stands_for_a_real_change() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (_, account) = sim.account("Acme").await;
    client.glance().await;
    let ops = [
        (
            json!([{"op": "update", "object": "Account", "id": account, "fields": {"Name": "B"}}]),
            "GAP_UPDATE",
        ),
        (
            json!([{"op": "delete", "object": "Account", "id": account}]),
            "GAP_DELETE",
        ),
        (
            json!([{"op": "undelete", "object": "Account", "id": account}]),
            "GAP_UNDELETE",
        ),
        (
            json!([{"op": "create", "object": "Account", "fields": {"Name": "C"}}]),
            "GAP_CREATE",
        ),
    ];
    for (op, kind) in ops {
        sim.script(json!({"on": {"entity": "Account"}, "do": {"kind": "gap"}}))
            .await;
        let written = sim.commit(op).await;
        let answer = client.glance().await;
        let gap = events(&answer).next().unwrap();
        assert_eq!(header(gap)["changeType"], kind);
        assert_eq!(header(gap)["recordIds"], json!([written[0].1]));
        assert_eq!(gap["payload"].as_object().unwrap().len(), 1);
    }
    assert_eq!(sim.get("/_sim/faults").await["events"], json!([]));
    let record = &sim.get("/_sim/records/Account").await["records"][0];
    assert_eq!(record["Name"], "B", "the change itself happened");
}

#[tokio::test]
async fn gaps_overflow_and_wildcards_come_from_nowhere() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let records = json!(["001000000000001AAA", "001000000000002"]);
    sim.script(json!([
        {"do": {"kind": "inject_gap", "entity": "Account", "change_type": "GAP_DELETE", "record_ids": records}},
        {"do": {"kind": "inject_overflow", "entity": "Contact"}},
        {"do": {"kind": "wildcard", "entity": "Account"}},
    ]))
    .await;
    let answer = client.connect().await;
    let seen: Vec<_> = events(&answer)
        .map(|event| {
            let header = header(event);
            json!([
                header["entityName"],
                header["changeType"],
                header["recordIds"]
            ])
        })
        .collect();
    assert_eq!(
        seen,
        [
            json!([
                "Account",
                "GAP_DELETE",
                ["001000000000001AAA", "001000000000002AAA"]
            ]),
            json!(["Contact", "GAP_OVERFLOW", ["000000000000000AAA"]]),
            json!(["Account", "GAP_UPDATE", ["001*"]]),
        ]
    );
}

async fn accounts(sim: &Sim, count: usize) -> Vec<String> {
    let op = json!({"op": "create", "object": "Account", "fields": {"Name": "Same"}});
    let written = sim.commit(json!(vec![op; count])).await;
    written.into_iter().map(|(_, id)| id).collect()
}

async fn rename(sim: &Sim, ids: &[String]) {
    let ops: Vec<_> = ids
        .iter()
        .map(|id| json!({"op": "update", "object": "Account", "id": id, "fields": {"Name": "Other"}}))
        .collect();
    sim.commit(json!(ops)).await;
}

async fn renamed(sim: &Sim, client: &Client, fault: Value) -> (Vec<String>, Vec<Value>) {
    let ids = accounts(sim, 3).await;
    client.glance().await;
    sim.script(json!({"on": {"change_type": "UPDATE"}, "do": fault}))
        .await;
    rename(sim, &ids).await;
    (ids, client.glance().await)
}

#[tokio::test]
async fn like_changes_are_one_event() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (ids, answer) = renamed(&sim, &client, json!({"kind": "merge"})).await;
    let merged: Vec<_> = events(&answer).collect();
    assert_eq!(merged.len(), 1);
    assert_eq!(header(merged[0])["recordIds"], json!(ids));
    assert_eq!(merged[0]["payload"]["Name"], "Other");
}

#[tokio::test]
async fn a_transaction_overflows() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (ids, answer) = renamed(&sim, &client, json!({"kind": "overflow", "keep": 1})).await;
    let seen: Vec<_> = events(&answer)
        .map(|event| json!([header(event)["changeType"], header(event)["recordIds"]]))
        .collect();
    assert_eq!(
        seen,
        [
            json!(["UPDATE", [ids[0]]]),
            json!(["GAP_OVERFLOW", ["000000000000000AAA"]])
        ]
    );
}

#[tokio::test]
async fn a_transaction_has_holes_in_its_numbers() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (_, answer) = renamed(&sim, &client, json!({"kind": "sequence_hole", "skip": 2})).await;
    let numbers: Vec<_> = events(&answer)
        .map(|event| header(event)["sequenceNumber"].clone())
        .collect();
    assert_eq!(numbers, [1, 4, 5]);
}

#[tokio::test]
async fn a_transaction_comes_in_two_answers() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (_, first) = renamed(&sim, &client, json!({"kind": "split_transaction"})).await;
    let second = client.glance().await;
    assert_eq!(
        (replay_ids(&first).len(), replay_ids(&second).len()),
        (1, 2)
    );
    let key = |answer: &[Value]| header(events(answer).next().unwrap())["transactionKey"].clone();
    assert_eq!(key(&first), key(&second));
}

#[tokio::test]
async fn an_update_comes_without_its_date() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (_, answer) = renamed(&sim, &client, json!({"kind": "without_last_modified"})).await;
    let dated: Vec<_> = events(&answer)
        .map(|event| event["payload"]["LastModifiedDate"].is_string())
        .collect();
    assert_eq!(dated, [false, true, true]);
    let event = events(&answer).next().unwrap();
    assert_eq!(header(event)["changedFields"], json!(["Name"]));
}

#[tokio::test]
async fn a_payload_stays_unreadable() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let (before, _) = sim.account("Before").await;
    client.glance().await;
    for garble in ["text_payload", "no_header", "no_record_ids", "change_type"] {
        sim.script(json!({"do": {"kind": "undecodable", "garble": garble}}))
            .await;
        sim.account("Broken").await;
    }
    sim.account("Whole").await;
    let spoiled = |event: &Value| {
        let header = header(event);
        header["recordIds"].is_null() || header["changeType"] == "TRANSMUTE"
    };
    let first = client.glance().await;
    let again = sim.subscribed(ALL, id(before)).await;
    sim.script(json!({"do": {"kind": "redeliver", "after": before}}))
        .await;
    let again = again.glance().await;
    for answer in [&first, &again] {
        let broken: Vec<_> = events(answer).map(spoiled).collect();
        assert_eq!(broken, [true, true, true, true, false]);
    }
    let data = |answer: &[Value]| events(answer).cloned().collect::<Vec<_>>();
    assert_eq!(data(&first), data(&again));
}

#[tokio::test]
async fn a_cut_or_reset_makes_every_older_id_invalid() {
    for kind in ["cut_retention", "reset_stream"] {
        let sim = sim().await;
        let mut client = sim.subscribed(ALL, -1).await;
        let (old, _) = sim.account("Old").await;
        client.glance().await;
        sim.account("Undelivered").await;
        sim.script(json!({"do": {"kind": kind}})).await;
        assert_eq!(
            ack(&client.connect().await)["error"],
            "403::Unknown client",
            "{kind}: an event was lost, and that may not pass in silence"
        );
        client.handshake().await;
        let refused = client.subscribe(ALL, id(old)).await;
        let text = refused["error"].as_str().unwrap();
        assert!(text.starts_with("400::The replayId {"), "{kind}: {text}");
        assert_eq!(client.subscribe(ALL, -2).await["successful"], true);
        let (new, _) = sim.account("New").await;
        assert_eq!(new > old, kind == "cut_retention");
        assert_eq!(replay_ids(&client.glance().await), [new], "{kind}");
    }
}

#[tokio::test]
async fn a_forbidden_entity_is_dropped_without_a_word() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    sim.script(json!({"do": {"kind": "forbid", "entity": "Account"}}))
        .await;
    let written = sim
        .commit(json!([
            {"op": "create", "object": "Account", "fields": {"Name": "Acme"}},
            {"op": "create", "object": "Contact", "fields": {"LastName": "Roe"}},
        ]))
        .await;
    assert_eq!(replay_ids(&client.glance().await), [written[1].0]);
    sim.script(json!({"do": {"kind": "duplicate", "last": 2}}))
        .await;
    assert_eq!(replay_ids(&client.glance().await), [written[1].0]);
    assert_eq!(
        client.subscribe("/data/AccountChangeEvent", -1).await["error"],
        "403::User not allowed to subscribe CDC without View All Data permissions"
    );
}

#[tokio::test]
async fn a_transaction_has_one_replay_id_and_is_never_parted() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let ids = accounts(&sim, 3).await;
    client.glance().await;
    sim.script(json!([
        {"do": {"kind": "share_replay_id"}},
        {"do": {"kind": "limit_events", "events": 4}},
    ]))
    .await;
    rename(&sim, &ids).await;
    let answer = client.glance().await;
    let seen = replay_ids(&answer);
    assert_eq!(seen, [seen[0]; 3], "though the allocation had room for one");
    let records: Vec<_> = events(&answer)
        .map(|event| header(event)["recordIds"][0].clone())
        .collect();
    assert_eq!(json!(records), json!(ids));
}

#[tokio::test]
async fn a_long_text_comes_as_a_diff() {
    let sim = sim().await;
    let client = sim.subscribed(ALL, -1).await;
    let text = |last: &str| format!("{}{last}", "a line of text\n".repeat(80));
    let (_, account) = sim.account("Acme").await;
    let update = async |text: String| {
        let op = json!([{"op": "update", "object": "Account", "id": account, "fields": {"Description": text}}]);
        sim.commit(op).await;
        client.glance().await
    };
    update(text("one")).await;
    let mut hashes = Vec::new();
    for broken in [false, true] {
        sim.script(json!({"do": {"kind": "diff", "broken": broken}}))
            .await;
        update("short".to_owned()).await;
        update(text("one")).await;
        let answer = update(text("two")).await;
        let event = events(&answer).next().unwrap();
        assert_eq!(
            header(event)["changedFields"],
            json!(["Description", "LastModifiedDate"])
        );
        let diff = event["payload"]["Description"]["diff"].as_str().unwrap();
        let lines: Vec<_> = diff.split('\n').collect();
        assert_eq!(lines[0], "--- ");
        assert_eq!(lines[2], "@@ -78,4 +78,4 @@");
        assert_eq!(lines[6..], ["-one", "+two"]);
        hashes.push(lines[1].to_owned());
    }
    assert_ne!(hashes[0], hashes[1]);
    let whole = update(text("three")).await;
    assert!(events(&whole).next().unwrap()["payload"]["Description"].is_string());
}
