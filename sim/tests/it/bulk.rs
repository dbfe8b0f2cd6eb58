//! Bulk API 2.0 query jobs: their life, their pages, their CSV, and what they refuse.

use std::io::Read;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, ANN, TestOrg};

async fn create(org: &TestOrg, query: &str) -> crate::org::Answer {
    org.call(
        Method::POST,
        "jobs/query",
        json!({"operation": "query", "query": query}),
    )
    .await
}

async fn job(org: &TestOrg, query: &str) -> String {
    let created = create(org, query).await;
    assert_eq!(created.status, StatusCode::OK, "{}", created.body);
    created.body["id"].as_str().unwrap().to_owned()
}

async fn script(org: &TestOrg, act: Value) {
    let answer = org
        .call(Method::POST, "/_sim/faults", json!({"do": act}))
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.body);
}

/// A page: number of records, locator, text.
async fn page(org: &TestOrg, id: &str, query: &[(&str, &str)]) -> (usize, String, String) {
    let path = format!("jobs/query/{id}/results");
    let answer = org
        .request(Method::GET, &path)
        .query(query)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/csv");
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let (records, locator) = (header("sforce-numberofrecords"), header("sforce-locator"));
    (
        records.parse().unwrap(),
        locator,
        answer.text().await.unwrap(),
    )
}

#[tokio::test]
async fn a_job_lives_by_the_orgs_clock() {
    let org = TestOrg::start().await;
    org.running.org.clock.freeze();
    script(&org, json!({"kind": "bulk_delay", "seconds": 60})).await;
    let created = create(&org, "SELECT Id FROM Account").await.body;
    assert_eq!(created["state"], "UploadComplete");
    assert_eq!(created["object"], "Account");
    assert_eq!(created["apiVersion"], 66.0);
    assert_eq!(created["createdById"], ANN);
    assert_eq!(created["concurrencyMode"], "Parallel");
    let id = created["id"].as_str().unwrap();
    assert!(id.starts_with("750") && id.len() == 18);
    let path = format!("jobs/query/{id}");
    for (state, seconds) in [
        ("UploadComplete", 19),
        ("UploadComplete", 1),
        ("InProgress", 39),
        ("InProgress", 1),
    ] {
        assert_eq!(org.get(&path).await.body["state"], state);
        let results = org.get(&format!("{path}/results")).await;
        assert_eq!(results.code(), "INVALIDJOBSTATE");
        org.running
            .org
            .clock
            .advance(std::time::Duration::from_secs(seconds));
    }
    let done = org.get(&path).await.body;
    assert_eq!(done["state"], "JobComplete");
    assert_eq!(done["jobType"], "V2Query");
    assert_eq!(done["numberRecordsProcessed"], 3);
    assert_eq!(done["totalProcessingTime"], 60_000);
    assert_eq!(done["isPkChunkingSupported"], true);
    assert!(done.get("errorMessage").is_none());
    let list = org.get("jobs/query").await.body;
    assert_eq!(list["records"][0]["id"], id);
    assert_eq!(
        org.call(Method::PATCH, &path, json!({"state": "Aborted"}))
            .await
            .code(),
        "INVALIDJOBSTATE"
    );
    let deleted = org.send(org.request(Method::DELETE, &path)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(org.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_job_can_be_aborted_fail_and_be_forgotten() {
    let org = TestOrg::start().await;
    org.running.org.clock.freeze();
    script(&org, json!({"kind": "bulk_delay", "seconds": 60})).await;
    let id = job(&org, "SELECT Id FROM Account").await;
    let path = format!("jobs/query/{id}");
    let early = org.send(org.request(Method::DELETE, &path)).await;
    assert_eq!(early.code(), "INVALIDJOBSTATE");
    let aborted = org
        .call(Method::PATCH, &path, json!({"state": "Aborted"}))
        .await;
    assert_eq!(aborted.body["state"], "Aborted");
    assert_eq!(org.get(&path).await.body["state"], "Aborted");

    script(&org, json!({"kind": "bulk_delay", "seconds": 0})).await;
    script(
        &org,
        json!({"kind": "bulk_fail", "message": "Query has timed out"}),
    )
    .await;
    let failed = job(&org, "SELECT Id FROM Account").await;
    let shown = org.get(&format!("jobs/query/{failed}")).await.body;
    assert_eq!(shown["state"], "Failed");
    assert_eq!(shown["errorMessage"], "Query has timed out");
    let next = job(&org, "SELECT Id FROM Account").await;
    assert_eq!(
        org.get(&format!("jobs/query/{next}")).await.body["state"],
        "JobComplete"
    );
    script(&org, json!({"kind": "bulk_forget"})).await;
    assert_eq!(
        org.get(&format!("jobs/query/{next}/results")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn rows_come_in_the_order_of_the_select_all_in_quotes() {
    let org = TestOrg::start().await;
    let weird = "a \"quoted\", text;\nwith\r\nlines\tand | ` ^ ümläut";
    org.call(
        Method::PATCH,
        &format!("sobjects/Account/{ACME}"),
        json!({"Description": weird}),
    )
    .await;
    let query = "SELECT Owner.Email, Id, Description, Industry, AnnualRevenue, Renewal__c, SystemModstamp, Owner.Name \
                 FROM Account ORDER BY Id";
    for (delimiter, byte) in [
        ("COMMA", b','),
        ("TAB", b'\t'),
        ("PIPE", b'|'),
        ("SEMICOLON", b';'),
        ("CARET", b'^'),
        ("BACKQUOTE", b'`'),
    ] {
        for (ending, line) in [("LF", "\n"), ("CRLF", "\r\n")] {
            let order = json!({"operation": "query", "query": query, "contentType": "CSV",
                "columnDelimiter": delimiter, "lineEnding": ending});
            let created = org.call(Method::POST, "jobs/query", order).await;
            let id = created.body["id"].as_str().unwrap();
            let (records, locator, text) = page(&org, id, &[]).await;
            assert_eq!((records, locator.as_str()), (3, "null"));
            let first = ["Owner.Email", "Id", "Description", "Industry"];
            let header = first.map(|name| format!("\"{name}\""));
            let separator = char::from(byte).to_string();
            assert!(text.starts_with(&header.join(&separator)), "{text}");
            assert!(text.ends_with(&format!("\"{line}")));
            let mut reader = csv::ReaderBuilder::new()
                .delimiter(byte)
                .from_reader(text.as_bytes());
            let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
            assert_eq!(rows.len(), 3);
            assert_eq!(&rows[0][0], "ann@acme.example");
            assert_eq!(&rows[0][1], ACME);
            assert_eq!(&rows[0][2], weird);
            assert_eq!(&rows[0][4], "1000.5");
            assert_eq!(&rows[0][5], "2024-06-01");
            assert!(rows[0][6].ends_with(".000Z"));
            assert_eq!(&rows[0][7], "Ann Owner");
            assert_eq!(&rows[1][3], "", "null is empty");
        }
    }
}

#[tokio::test]
async fn pages_are_repeatable_and_the_last_locator_says_null() {
    let org = TestOrg::with(|options| options.bulk_page_size = 2).await;
    let ops: Vec<_> = (0..20)
        .map(|n| json!({"op": "create", "object": "Account", "fields": {"Name": format!("N{n}")}}))
        .collect();
    org.transact(json!([{"ops": ops}])).await;
    let id = job(&org, "SELECT Id FROM Account").await;
    org.transact(json!([{"ops": [{"op": "delete", "object": "Account", "id": ACME}]}]))
        .await;
    let mut seen = Vec::new();
    let mut locator = String::new();
    while locator != "null" {
        let query: &[_] = if locator.is_empty() {
            &[("maxRecords", "5")]
        } else {
            &[("maxRecords", "5"), ("locator", &locator)]
        };
        let once = page(&org, &id, query).await;
        assert_eq!(once, page(&org, &id, query).await);
        let lines: Vec<_> = once.2.lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "\"Id\"");
        assert_eq!(lines.len(), once.0 + 1);
        assert!(once.0 <= 2, "the server may give fewer");
        seen.extend_from_slice(&lines[1..]);
        locator = once.1;
    }
    assert_eq!(seen.len(), 23);
    assert!(seen.contains(&format!("\"{ACME}\"")));

    let mut url = format!("jobs/query/{id}/resultPages");
    let mut pages = Vec::new();
    loop {
        let answer = org.get(&url).await.body;
        let named = answer["resultPages"].as_array().unwrap();
        assert!(named.len() <= 5);
        pages.extend(named.iter().map(|page| page["resultUrl"].clone()));
        if answer["done"] == true {
            break;
        }
        url = answer["nextRecordsUrl"].as_str().unwrap().to_owned();
    }
    assert_eq!(pages.len(), 12);
    let mut again = Vec::new();
    for page in pages {
        let text = org
            .request(Method::GET, page.as_str().unwrap())
            .send()
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        again.extend(text.lines().skip(1).map(str::to_owned));
    }
    assert_eq!(again, seen);
    for query in [
        "locator=xyz",
        "locator=OTk5",
        "maxRecords=0",
        "maxRecords=x",
    ] {
        let answer = org.get(&format!("jobs/query/{id}/results?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    let other = format!("/services/data/v65.0/jobs/query/{id}/results");
    assert_eq!(org.get(&other).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn results_are_compressed_when_asked_always_or_never() {
    let org = TestOrg::start().await;
    let id = job(&org, "SELECT Id, Name FROM Account").await;
    let plain = reqwest::Client::builder().no_gzip().build().unwrap();
    let get = async |accept: &str| {
        let url = format!(
            "{}/services/data/v66.0/jobs/query/{id}/results",
            org.running.url
        );
        let mut request = plain.get(url).bearer_auth(&org.token);
        if !accept.is_empty() {
            request = request.header("accept-encoding", accept);
        }
        let answer = request.send().await.unwrap();
        let zipped = answer.headers().contains_key("content-encoding");
        let body = answer.bytes().await.unwrap();
        let text = if zipped {
            let mut text = String::new();
            flate2::read::GzDecoder::new(&body[..])
                .read_to_string(&mut text)
                .unwrap();
            text
        } else {
            String::from_utf8(body.to_vec()).unwrap()
        };
        assert!(text.starts_with("\"Id\",\"Name\"\n"));
        zipped
    };
    assert!(get("deflate, gzip").await);
    assert!(!get("").await);
    script(&org, json!({"kind": "bulk_gzip", "when": "always"})).await;
    assert!(get("").await);
    script(&org, json!({"kind": "bulk_gzip", "when": "never"})).await;
    assert!(!get("gzip").await);
}

#[tokio::test]
async fn no_rows_are_a_header_or_nothing() {
    let org = TestOrg::start().await;
    let id = job(&org, "SELECT Id FROM Account WHERE Name = 'nobody'").await;
    let header = (0, "null".to_owned(), "\"Id\"\n".to_owned());
    assert_eq!(page(&org, &id, &[]).await, header);
    script(&org, json!({"kind": "bulk_empty_body"})).await;
    assert_eq!(
        page(&org, &id, &[]).await,
        (0, "null".into(), String::new())
    );
}

#[tokio::test]
async fn query_all_sees_the_bin() {
    let org = TestOrg::start().await;
    org.transact(json!([{"ops": [{"op": "delete", "object": "Account", "id": ACME}]}]))
        .await;
    for (operation, rows) in [("query", 2), ("queryAll", 3)] {
        let order = json!({"operation": operation, "query": "SELECT Id, IsDeleted FROM Account"});
        let created = org.call(Method::POST, "jobs/query", order).await;
        let id = created.body["id"].as_str().unwrap();
        assert_eq!(page(&org, id, &[]).await.0, rows);
    }
}

#[tokio::test]
async fn what_bulk_does_not_do_is_refused() {
    let org = TestOrg::start().await;
    script(&org, json!({"kind": "bulk_refuse", "object": "Contact"})).await;
    for (query, code) in [
        ("SELECT COUNT() FROM Account", "INVALIDJOB"),
        ("SELECT Id FROM Account LIMIT 5 OFFSET 2", "INVALIDJOB"),
        ("SELECT BillingAddress FROM Account", "API_ERROR"),
        ("SELECT Id FROM Attachment", "INVALIDENTITY"),
        ("SELECT Id FROM Contact", "INVALIDENTITY"),
        ("SELECT Id FROM Nothing__c", "INVALID_TYPE"),
        ("SELECT Nope FROM Account", "INVALID_FIELD"),
        ("SELECT FROM Account", "MALFORMED_QUERY"),
    ] {
        let answer = create(&org, query).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{query}"
        );
    }
    for order in [
        json!({"operation": "delete", "query": "SELECT Id FROM Account"}),
        json!({"operation": "query", "query": "SELECT Id FROM Account", "contentType": "JSON"}),
        json!({"operation": "query", "query": "SELECT Id FROM Account", "columnDelimiter": "DOT"}),
        json!({"operation": "query", "query": "SELECT Id FROM Account", "lineEnding": "CR"}),
        json!({"operation": "query"}),
    ] {
        let answer = org.call(Method::POST, "jobs/query", order).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let limited = job(&org, "SELECT Id FROM Account LIMIT 1").await;
    let shown = org.get(&format!("jobs/query/{limited}")).await.body;
    assert_eq!(shown["isPkChunkingSupported"], false);
    let limits = org.get("limits").await.body;
    assert_eq!(limits["DailyBulkV2QueryJobs"]["Remaining"], 9999);
}
