//! Faults of the stream.

use serde_json::{Value as Json, json};

use super::{Case, Deed, Stage, Transport, case, id};

/// A script for the next event.
fn next(on: Json, deed: Json) -> Json {
    json!({ "on": on, "do": deed })
}

fn at_once(kind: &str) -> Json {
    json!({ "do": { "kind": kind } })
}

/// What a stream may tell, over either transport.
fn told() -> Vec<Case> {
    let any = || json!({ "entity": "Account" });
    let of = |change_type: &str| json!({ "change_type": change_type });
    let garbled = |garble: &str| {
        next(
            of("CREATE"),
            json!({ "kind": "undecodable", "garble": garble }),
        )
    };
    let inject = json!({ "do": { "kind": "inject_gap", "entity": "Account", "change_type": "GAP_UPDATE",
        "record_ids": [id("001", 6)] } });
    let about = |kind: &str| json!({ "do": { "kind": kind, "entity": "Account" } });
    vec![
        case("duplicates", vec![], Deed::Changes)
            .then(vec![json!({ "do": { "kind": "duplicate", "last": 6 } })]),
        case(
            "merged records",
            vec![next(any(), json!({ "kind": "merge" }))],
            Deed::Changes,
        ),
        case(
            "a gap of a create",
            vec![next(of("CREATE"), json!({ "kind": "gap" }))],
            Deed::Changes,
        ),
        case(
            "a gap of an update",
            vec![next(of("UPDATE"), json!({ "kind": "gap" }))],
            Deed::Changes,
        ),
        case(
            "a gap of a delete",
            vec![next(of("DELETE"), json!({ "kind": "gap" }))],
            Deed::Changes,
        ),
        case(
            "a gap of an undelete",
            vec![next(of("UNDELETE"), json!({ "kind": "gap" }))],
            Deed::Changes,
        ),
        case("a gap from nowhere", vec![], Deed::Changes).then(vec![inject]),
        case(
            "an overflow",
            vec![next(any(), json!({ "kind": "overflow", "keep": 1 }))],
            Deed::Changes,
        )
        .opens(&["overflow"]),
        case("an overflow from nowhere", vec![], Deed::Unheard)
            .then(vec![about("inject_overflow")])
            .opens(&["overflow"]),
        case("a wildcard id", vec![], Deed::Unheard)
            .then(vec![about("wildcard")])
            .opens(&["wildcard"]),
        case("an event above a megabyte", vec![], Deed::Large),
        case(
            "a shared replay id",
            vec![next(any(), json!({ "kind": "share_replay_id" }))],
            Deed::Changes,
        ),
        case(
            "a difference",
            vec![next(
                json!({ "record_id": id("001", 3) }),
                json!({ "kind": "diff" }),
            )],
            Deed::Changes,
        ),
        case(
            "a difference that does not apply",
            vec![next(
                json!({ "record_id": id("001", 3) }),
                json!({ "kind": "diff", "broken": true }),
            )],
            Deed::Changes,
        ),
        case(
            "a hole in the sequence",
            vec![next(any(), json!({ "kind": "sequence_hole", "skip": 2 }))],
            Deed::Changes,
        ),
        case(
            "a transaction in two answers",
            vec![next(any(), json!({ "kind": "split_transaction" }))],
            Deed::Changes,
        ),
        case(
            "an update without its date",
            vec![next(
                of("UPDATE"),
                json!({ "kind": "without_last_modified" }),
            )],
            Deed::Changes,
        ),
        case(
            "an event without a header",
            vec![garbled("no_header")],
            Deed::Changes,
        )
        .opens(&["undecodable"]),
        case(
            "an event without ids",
            vec![garbled("no_record_ids")],
            Deed::Changes,
        )
        .opens(&["undecodable"]),
        case(
            "a kind of change that is new",
            vec![garbled("change_type")],
            Deed::Changes,
        ),
        case(
            "a payload that is none",
            vec![garbled("text_payload")],
            Deed::Changes,
        )
        .opens(&["undecodable"]),
    ]
}

/// The object's fields change while the stream runs, and with them the schema of its events.
async fn other_fields(stage: &mut Stage) {
    for (what, change) in [
        ("a field is added", json!({ "type": "string" })),
        ("a field is hidden", json!({ "visible": false })),
    ] {
        stage.world.control("fields/Account/Added__c", change).await;
        stage.meet(case(what, vec![], Deed::Changes)).await;
    }
}

/// What no longer holds of the stored place once the stream has to begin again; `breaks` makes it.
fn lost(breaks: &Json) -> Vec<Case> {
    let lost = |what, kind| {
        case(what, vec![], Deed::Unheard)
            .then(vec![at_once(kind), breaks.clone()])
            .opens(&["expired_position"])
    };
    vec![
        lost("retention is over", "cut_retention"),
        // There is a place again that can be lost.
        case("something is told", vec![], Deed::Changes),
        lost("the stream was reset", "reset_stream"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_events_over_cometd_ends_in_the_store() {
    let mut stage = Stage::begin(Transport::Cometd, "").await;
    stage.meet_all(told()).await;
    other_fields(&mut stage).await;
    stage.meet_all(lost(&at_once("forget_clients"))).await;
    let on = |message: &str, deed: Json| json!({ "on": { "message": message }, "do": deed });
    let denied = |reason: &str| {
        let deny = json!({ "kind": "deny_handshake", "reason": reason });
        vec![on("/meta/handshake", deny), at_once("forget_clients")]
    };
    let broken = |what, before| case(what, before, Deed::Changes);
    let connect = "/meta/connect";
    stage
        .meet_all(vec![
            broken("sessions are forgotten", vec![at_once("forget_clients")]),
            broken(
                "the client is unknown",
                vec![on(connect, json!({ "kind": "unknown_client" }))],
            ),
            broken("cookies are forgotten", vec![at_once("forget_cookies")]),
            broken(
                "the cookie is lost",
                vec![on(connect, json!({ "kind": "lost_cookie" }))],
            ),
            broken("the server disconnects", vec![at_once("disconnect")]),
            broken(
                "the server disconnects in an answer",
                vec![on(connect, json!({ "kind": "dismiss" }))],
            ),
            broken("tokens end", vec![at_once("expire_tokens_now")]),
            broken(
                "tokens end under a held poll",
                vec![on(
                    connect,
                    json!({ "kind": "expire_tokens", "when": "during" }),
                )],
            ),
            broken(
                "an answer is cut",
                vec![on(connect, json!({ "kind": "cut" }))],
            ),
            broken(
                "a poll's reply is lost",
                vec![on(connect, json!({ "kind": "lost_reply" }))],
            ),
            broken(
                "a poll is lost",
                vec![on(connect, json!({ "kind": "lost_request" }))],
            ),
            broken(
                "a poll's gateway is down",
                vec![on(connect, json!({ "kind": "status", "status": 503 }))],
            ),
            broken(
                "a handshake's token is dead",
                denied("authentication_invalid"),
            ),
            broken(
                "a handshake asks for a token",
                denied("authentication_required"),
            ),
        ])
        .await;
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_events_over_pubsub_ends_in_the_store() {
    let mut stage = Stage::begin(Transport::PubSub, "").await;
    stage.meet_all(told()).await;
    other_fields(&mut stage).await;
    stage.meet_all(lost(&at_once("end_streams"))).await;
    let broken = |what, before| case(what, before, Deed::Changes);
    let answer = |deed: Json| vec![json!({ "on": { "rpc": "Subscribe" }, "do": deed })];
    let status = |status: &str, code: &str| {
        answer(
            json!({ "kind": "rpc_status", "status": status, "code": code, "message": "m", "at": "answer" }),
        )
    };
    stage
        .meet_all(vec![
            broken("the server ends streams", vec![at_once("end_streams")]),
            broken("connections are cut", vec![at_once("cut_connections")]),
            broken(
                "tokens end",
                vec![at_once("expire_tokens_now"), at_once("end_streams")],
            ),
            broken(
                "a stream is cut",
                answer(json!({ "kind": "rpc_cut", "at": "answer" })),
            ),
            broken(
                "the service is away",
                status("UNAVAILABLE", "service.unavailable"),
            ),
            broken(
                "the token is refused",
                status("UNAUTHENTICATED", "service.auth.error"),
            ),
            broken(
                "an answer has one event",
                vec![json!({ "do": { "kind": "limit_batch", "events": 1 } })],
            ),
        ])
        .await;
    stage.end();
}

/// The fields that enrich an event are of the time of its delivery, and are not what changed.
#[tokio::test(flavor = "multi_thread")]
async fn enriched_events_end_in_the_store() {
    for transport in [Transport::PubSub, Transport::Cometd] {
        let mut stage = Stage::on_a_channel(transport, &["Name", "Industry"]).await;
        let merge = next(json!({ "entity": "Account" }), json!({ "kind": "merge" }));
        stage
            .meet(case("enriched and merged", vec![merge], Deed::Changes))
            .await;
        stage.end();
    }
}

/// Events of an object are dropped without a word: the probe finds what they would have told.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_dropped_without_a_word_end_in_the_store() {
    let mut stage = Stage::begin(Transport::PubSub, "probe_interval = \"1s\"\n").await;
    let forbid = json!({ "do": { "kind": "forbid", "entity": "Account" } });
    stage.world.control("faults", forbid).await;
    stage.does(Deed::Changes).await;
    stage
        .daemon()
        .wait_for("the probe", |health| {
            health["connections"]["acme"]["objects"]["Account"]["missed"].as_u64() > Some(0)
        })
        .await;
    stage
        .settle("permission is lost", &["missed_changes"])
        .await;
    stage.end();
}
