//! The control API: limits, counters, time; and what it refuses.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{EXAMPLE, TestOrg};

#[tokio::test]
async fn three_limits_protect_the_service() {
    let org = TestOrg::start().await;
    org.control("time", json!({"freeze": true})).await;
    org.control("limits", json!({"requests": 2})).await;
    org.get("WhoAmI").await.expect(200);
    org.get("WhoAmI").await.expect(200);
    let answer = org.get("WhoAmI").await.refused(429, "0x80072322");
    assert_eq!(
        answer.message(),
        "Number of requests exceeded the limit of 2 over time window of 300 seconds."
    );
    assert_eq!(answer.header("retry-after"), "300");
    org.control("time", json!({"advance_seconds": 300})).await;
    org.get("WhoAmI").await.expect(200);

    org.control("limits", json!({"execution_ms": 1000, "cost_ms": 600}))
        .await;
    org.get("WhoAmI").await.expect(200);
    org.get("WhoAmI").await.expect(200);
    let answer = org.get("WhoAmI").await.refused(429, "0x80072321");
    assert!(
        answer
            .message()
            .starts_with("Combined execution time of incoming requests exceeded limit of 1000")
    );

    org.control("limits", json!({"concurrency": 0})).await;
    let answer = org.get("WhoAmI").await.refused(429, "0x80072326");
    assert_eq!(
        answer.message(),
        "Number of concurrent requests exceeded the limit of 0."
    );
}

#[tokio::test]
async fn limits_are_each_user_s_own() {
    let org = TestOrg::with(|options| options.refresh_token = Some("given".into())).await;
    org.control("limits", json!({"requests": 1})).await;
    org.get("WhoAmI").await.expect(200);
    org.get("WhoAmI").await.expect(429);
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "c11e0000-0000-4000-8000-000000000001"),
        ("client_secret", "simulated-secret"),
        ("refresh_token", "given"),
    ];
    let token = org.token(&form).await.body["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let url = format!("{}/api/data/v9.2/WhoAmI", org.running.url);
    org.send(org.client.get(url).bearer_auth(token))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_caller_may_stand_in_for_another() {
    let org = TestOrg::start().await;
    let id = org
        .create(
            "systemusers",
            json!({"firstname": "Stand", "lastname": "In"}),
        )
        .await;
    let object = "0b1ec700-0000-4000-8000-000000000001";
    org.send(
        org.request(Method::GET, "WhoAmI")
            .header("callerobjectid", object),
    )
    .await
    .refused(403, "0x80072560");
    // The object id comes from the directory: it can't be written.
    org.patch(
        &format!("systemusers({id})"),
        json!({"azureactivedirectoryobjectid": object}),
    )
    .await
    .expect(204);
    org.send(
        org.request(Method::GET, "WhoAmI")
            .header("callerobjectid", object),
    )
    .await
    .refused(403, "0x80072560");
}

#[tokio::test]
async fn a_caller_is_found_by_the_directory_s_id() {
    let org = TestOrg::with(|options| options.data = None).await;
    let people = org
        .get("systemusers?$filter=azureactivedirectoryobjectid ne null")
        .await
        .expect(200);
    let (user, object) = (
        &people.rows()[0]["systemuserid"],
        people.rows()[0]["azureactivedirectoryobjectid"].as_str(),
    );
    let request = org.request(Method::GET, "WhoAmI");
    let request = request.header("callerobjectid", object.unwrap());
    assert_eq!(&org.send(request).await.expect(200).body["UserId"], user);
}

#[tokio::test]
async fn calls_are_counted() {
    let org = TestOrg::start().await;
    org.get("accounts").await.expect(200);
    org.get(&format!("accounts({EXAMPLE})/name"))
        .await
        .expect(200);
    let calls = org.look("calls").await;
    assert_eq!(
        (
            &calls["web_api"]["GET accounts"],
            &calls["web_api"]["GET accounts/name"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(calls["entra"]["POST token client_credentials"], 1);
    let url = format!("{}/_sim/calls", org.running.url);
    org.send(org.client.delete(url)).await.expect(204);
    assert_eq!(org.look("calls").await, json!({}));
}

#[tokio::test]
async fn orders_are_checked() {
    let org = TestOrg::start().await;
    let cases: &[(&str, Value)] = &[
        ("time", json!({"advance_seconds": 1, "freeze": true})),
        ("time", json!({"other": 1})),
        ("faults", json!({"do": {"kind": "nothing"}})),
        ("faults", json!({"times": 0, "do": {"kind": "stall"}})),
        ("faults", json!({"do": {"kind": "status", "status": 99}})),
        (
            "faults",
            json!({"on": {"color": "red"}, "do": {"kind": "stall"}}),
        ),
        ("snapshots", json!({"restore": "none"})),
        ("snapshots", json!({})),
        ("privileges", json!({"deny": [["Fly", "account"]]})),
        ("switches", json!({"expired_status": 200})),
        ("limits", json!({"others": 1})),
        (
            "tables",
            json!({"table": "new_x", "definition": {"columns": {"a": "Nothing"}}}),
        ),
        (
            "tables",
            json!({"table": "new_x", "definition": {"keys": {"k": ["none"]}}}),
        ),
        ("webhooks", json!({"dates": "other"})),
    ];
    for (path, body) in cases {
        let url = format!("{}/_sim/{path}", org.running.url);
        let answer = org.send(org.client.post(url).json(body)).await.expect(400);
        assert!(answer.body["error"].is_string(), "{path} {body}");
    }
    let time = org.look("time").await;
    assert_eq!(time["frozen"], false);
}
