//! Faults that take minutes or hours to pass: the connection says what it waits for, and loses nothing meanwhile.

use serde_json::{Value as Json, json};

use super::{Deed, Stage, Transport};

impl Stage {
    /// The connection ends by this kind of fault and waits; after it has passed, a daemon that starts anew goes on from
    /// the stored place.
    async fn waits(&mut self, what: &str, kind: &str, scripts: &[Json]) {
        for script in scripts {
            self.world.control("faults", script.clone()).await;
        }
        self.does(Deed::Changes).await;
        self.daemon()
            .wait_for(what, |health| {
                let connection = &health["connections"]["acme"];
                connection["state"] == "retrying" && connection["fault"]["kind"] == kind
            })
            .await;
        self.does(Deed::Changes).await;
        self.clear().await;
        self.again().await;
        self.settle(what, &[]).await;
    }

    /// The org delivers nothing for a day: what is committed meanwhile is read, by a daemon that listened and by one that
    /// starts; then the stream goes on from its place.
    async fn outlives_the_limit(&mut self) {
        let what = "the delivery limit";
        let spent = json!({ "do": { "kind": "limit_events", "events": 1 } });
        self.world.control("faults", spent).await;
        for starts in [false, true] {
            if starts {
                self.again().await;
            }
            self.does(Deed::Changes).await;
            self.daemon()
                .wait_for(what, |health| {
                    let connection = &health["connections"]["acme"];
                    connection["state"] == "retrying" && connection["fault"]["kind"] == "throttled"
                })
                .await;
            self.does(Deed::Changes).await;
            self.agree(what).await;
        }
        self.clear().await;
        self.again().await;
        self.settle(what, &["delivery_limit"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cometd_has_to_wait_for_keeps_the_place() {
    let mut stage = Stage::begin(Transport::Cometd, "").await;
    for (reason, kind) in [
        ("too_busy", "unavailable"),
        ("too_busy_as_authentication", "unavailable"),
        ("too_many_clients", "throttled"),
    ] {
        let deny = json!({ "kind": "deny_handshake", "reason": reason });
        let deny = json!({ "on": { "message": "/meta/handshake" }, "forever": true, "do": deny });
        let forget = json!({ "do": { "kind": "forget_clients" } });
        stage.waits(reason, kind, &[deny, forget]).await;
    }
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pubsub_has_to_wait_for_keeps_the_place() {
    let mut stage = Stage::begin(Transport::PubSub, "").await;
    for code in [
        "service.protection.triggered",
        "concurrent.client.limit.exceeded",
    ] {
        let end = json!({ "kind": "rpc_status", "status": "RESOURCE_EXHAUSTED", "code": code, "message": "m", "at": "answer" });
        let end = json!({ "on": { "rpc": "Subscribe" }, "forever": true, "do": end });
        stage.waits(code, "throttled", &[end]).await;
    }
    stage.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_delivered_is_read_by_windows() {
    for transport in [Transport::Cometd, Transport::PubSub] {
        let mut stage = Stage::begin(transport, "poll_interval = \"1s\"\n").await;
        stage.outlives_the_limit().await;
        stage.end();
    }
}
