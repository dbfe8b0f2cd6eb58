//! Faults of requests: whole reads by REST and by the Bulk API, reads by id, and the log of deletes.

use serde_json::{Value as Json, json};

use super::{Case, Deed, Stage, Transport, case};

const QUERY: &str = "/services/data/v66.0/query";

/// What any request may suffer, once as many of those that `on` matches have passed.
fn suffered(on: &Json, after: u64) -> Vec<Case> {
    let of = |what, deed: Json| {
        let script = json!({ "on": on, "after": after, "do": deed });
        case(what, vec![script], Deed::Sync)
    };
    let limit = json!({ "kind": "status", "status": 403, "retry_after": 1 });
    vec![
        of(
            "a token ends between pages",
            json!({ "kind": "expire_tokens", "when": "after" }),
        ),
        of(
            "a session is refused once",
            json!({ "kind": "status", "status": 401 }),
        ),
        of("the org's calls are spent", limit),
        of(
            "too many requests",
            json!({ "kind": "status", "status": 429, "retry_after": 1 }),
        ),
        of(
            "the org is down",
            json!({ "kind": "status", "status": 503 }),
        ),
        of("the org fails", json!({ "kind": "status", "status": 500 })),
        of("a body is cut", json!({ "kind": "cut" })),
        of(
            "a body is slow",
            json!({ "kind": "slow_body", "chunk": 20_000, "seconds": 1 }),
        ),
        of("a reply is lost", json!({ "kind": "lost_reply" })),
        of("a request is lost", json!({ "kind": "lost_request" })),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_requests_by_rest_ends_in_the_store() {
    let mut stage = Stage::begin(Transport::Cometd, "bulk_from = 0\n").await;
    stage.meet_all(suffered(&json!({ "path": QUERY }), 1)).await;
    let refused = |path: &str, code: &str| {
        let status = json!({ "kind": "status", "status": 400, "code": code, "message": "m" });
        json!({ "on": { "path": path }, "do": status })
    };
    let by_id = json!({ "on": { "path": "/services/data/v66.0/composite" }, "do": { "kind": "status", "status": 503 } });
    let gap = json!({ "on": { "change_type": "UPDATE" }, "times": 3, "do": { "kind": "gap" } });
    let deleted = "/services/data/v66.0/sobjects/Account/deleted";
    let lost = ["cut_retention", "forget_clients"].map(|kind| json!({ "do": { "kind": kind } }));
    stage
        .meet_all(vec![
            case(
                "a page's address is no longer known",
                vec![refused(&format!("{QUERY}/"), "INVALID_QUERY_LOCATOR")],
                Deed::Sync,
            ),
            case("a read by id fails", vec![gap, by_id], Deed::Changes),
            case(
                "the log of deletes does not reach back",
                vec![refused(deleted, "INVALID_REPLICATION_DATE")],
                Deed::Unheard,
            )
            .then(lost.to_vec())
            .opens(&["expired_position"]),
            // There is a place again that can be lost.
            case("something is told", vec![], Deed::Changes),
            case(
                "the log of deletes tells too many",
                vec![refused(deleted, "EXCEEDED_ID_LIMIT")],
                Deed::Unheard,
            )
            .then(lost.to_vec())
            .opens(&["expired_position"]),
        ])
        .await;
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_requests_by_the_bulk_api_ends_in_the_store() {
    let mut stage = Stage::begin(Transport::Cometd, "bulk_from = 1\n").await;
    stage
        // Between the pages of the results.
        .meet_all(suffered(&json!({ "surface": "bulk" }), 4))
        .await;
    let at_once = |what, deed: Json| case(what, vec![json!({ "do": deed })], Deed::Sync);
    stage
        .meet_all(vec![
            at_once(
                "results are compressed always",
                json!({ "kind": "bulk_gzip", "when": "always" }),
            ),
            at_once(
                "results are compressed never",
                json!({ "kind": "bulk_gzip", "when": "never" }),
            ),
            at_once(
                "a job fails",
                json!({ "kind": "bulk_fail", "message": "InternalServerError: m" }),
            ),
            at_once(
                "jobs take long",
                json!({ "kind": "bulk_delay", "seconds": 3 }),
            ),
            case("jobs are forgotten", vec![], Deed::Sync)
                .then(vec![json!({ "do": { "kind": "bulk_forget" } })]),
            at_once(
                "an object is refused",
                json!({ "kind": "bulk_refuse", "object": "Account" }),
            ),
        ])
        .await;
    stage.end();
}
