//! `$batch`: parts in order, change sets in one transaction, references, going on after errors.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ADA, Answer, EXAMPLE, TestOrg};

fn get(path: &str) -> String {
    format!(
        "--batch_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nGET /api/data/v9.2/{path} HTTP/1.1\r\nAccept: application/json\r\n\r\n"
    )
}

fn set(calls: &[(&str, &str, &str)]) -> String {
    let mut text =
        "--batch_1\r\nContent-Type: multipart/mixed; boundary=changeset_1\r\n\r\n".to_owned();
    for (place, (method, path, body)) in calls.iter().enumerate() {
        text.push_str(&format!(
            "--changeset_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {}\r\n\r\n{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{body}\r\n",
            place + 1
        ));
    }
    text + "--changeset_1--\r\n"
}

async fn send(org: &TestOrg, parts: &[String], prefer: &str) -> Answer {
    let body = format!("{}--batch_1--\r\n", parts.concat());
    let request = org
        .request(Method::POST, "$batch")
        .header("content-type", "multipart/mixed;boundary=batch_1")
        .header("prefer", prefer);
    org.send(request.body(body)).await
}

#[tokio::test]
async fn a_change_set_is_one_transaction_and_knows_its_earlier_rows() {
    let org = TestOrg::start().await;
    let calls = [
        (
            "POST",
            "/api/data/v9.2/accounts",
            "{\"name\":\"From batch\"}",
        ),
        (
            "POST",
            "/api/data/v9.2/contacts",
            "{\"lastname\":\"B\",\"parentcustomerid_account@odata.bind\":\"$1\"}",
        ),
        ("PATCH", "$1", "{\"telephone1\":\"7\"}"),
    ];
    let answer = send(
        &org,
        &[
            get(&format!("contacts({ADA})?$select=fullname")),
            set(&calls),
            get("accounts/$count"),
        ],
        "",
    )
    .await
    .expect(200);
    assert!(
        answer
            .header("content-type")
            .starts_with("multipart/mixed; boundary=batchresponse_")
    );
    let text = &answer.text;
    let places: Vec<_> = [
        "Ada Example",
        "changesetresponse_",
        "Content-ID: 1",
        "Content-ID: 2",
        "Content-ID: 3",
        "\u{feff}4",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}")))
    .collect();
    assert!(places.is_sorted(), "{text}");
    assert_eq!(text.matches("HTTP/1.1 204").count(), 3);
    let row = org
        .get("accounts?$filter=name eq 'From batch'&$expand=contact_customer_accounts")
        .await;
    assert_eq!(
        (
            &row.rows()[0]["telephone1"],
            &row.rows()[0]["contact_customer_accounts"][0]["lastname"]
        ),
        (&json!("7"), &json!("B"))
    );
}

#[tokio::test]
async fn a_failed_change_set_leaves_nothing_and_ends_the_batch_unless_it_goes_on() {
    let org = TestOrg::start().await;
    let calls = [
        ("POST", "/api/data/v9.2/accounts", "{\"name\":\"Gone\"}"),
        (
            "PATCH",
            &format!("/api/data/v9.2/accounts({EXAMPLE})"),
            "{\"industrycode\":99}",
        ),
    ];
    let parts = [set(&calls), get("accounts/$count")];
    let stopped = send(&org, &parts, "").await.expect(200);
    assert!(
        stopped.text.contains("HTTP/1.1 400")
            && stopped.text.contains("0x80040203")
            && !stopped.text.contains("\u{feff}3"),
        "{}",
        stopped.text
    );
    let went_on = send(&org, &parts, "odata.continue-on-error")
        .await
        .expect(200);
    assert!(went_on.text.contains("\u{feff}3"), "{}", went_on.text);
    assert_eq!(
        org.get("accounts?$filter=name eq 'Gone'")
            .await
            .rows()
            .len(),
        0
    );
}

#[tokio::test]
async fn malformed_batches_are_refused() {
    let org = TestOrg::start().await;
    let lines = get("accounts").replace("\r\n", "\n");
    send(&org, &[lines], "").await.refused(400, "0x80060888");
    let forward = set(&[
        ("PATCH", "$2", "{\"name\":\"x\"}"),
        ("POST", "/api/data/v9.2/accounts", "{}"),
    ]);
    let answer = send(&org, &[forward], "").await.expect(200);
    assert!(
        answer.text.contains("HTTP/1.1 400") && answer.text.contains("'$2' does not exist"),
        "{}",
        answer.text
    );
    let inside = set(&[("GET", "/api/data/v9.2/accounts", "")]);
    assert!(
        send(&org, &[inside], "")
            .await
            .text
            .contains("must not hold GET")
    );
    let many: Vec<_> = (0..1001).map(|_| get("WhoAmI")).collect();
    send(&org, &many, "").await.refused(400, "0x80060888");
    let long = get(&format!(
        "accounts?$filter=name eq '{}'",
        "x".repeat(33_000)
    ));
    assert!(send(&org, &[long], "").await.text.contains("HTTP/1.1 400"));
    let kind = org
        .request(Method::POST, "$batch")
        .header("content-type", "application/json")
        .body("{}");
    org.send(kind).await.refused(400, "0x80060888");
}
