//! Queries on the wire: shapes, pages, cursors, refusals.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::org::{ACME, ANN, BETA, TestOrg, id};

#[tokio::test]
async fn a_row_has_attributes_nulls_compounds_and_parents() {
    let org = TestOrg::start().await;
    let answer = org
        .query(
            "SELECT Id, Name, Industry, NumberOfEmployees, AnnualRevenue, BillingAddress, Geo__c, SystemModstamp, \
             Renewal__c, Owner.Email, Parent.Owner.Name FROM Account WHERE Id = '001SIM000000002'",
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["totalSize"], 1);
    assert_eq!(answer.body["done"], true);
    assert!(answer.body.get("nextRecordsUrl").is_none());
    assert_eq!(
        answer.body["records"][0],
        json!({
            "attributes": {"type": "Account", "url": format!("/services/data/v66.0/sobjects/Account/{BETA}")},
            "Id": BETA, "Name": "beta", "Industry": null, "NumberOfEmployees": 20, "AnnualRevenue": null,
            "BillingAddress": null, "Geo__c": null, "SystemModstamp": "2024-01-02T00:00:00.000+0000",
            "Renewal__c": "2024-07-01",
            "Owner": {
                "attributes": {"type": "User", "url": format!("/services/data/v66.0/sobjects/User/{ANN}")},
                "Email": "ann@acme.example",
            },
            "Parent": {
                "attributes": {"type": "Account", "url": format!("/services/data/v66.0/sobjects/Account/{ACME}")},
                "Owner": {
                    "attributes": {"type": "User", "url": format!("/services/data/v66.0/sobjects/User/{ANN}")},
                    "Name": "Ann Owner",
                },
            },
        })
    );
    let rows = org
        .column(
            "SELECT BillingAddress, Geo__c FROM Account ORDER BY Name",
            "BillingAddress",
        )
        .await;
    assert_eq!(
        rows[0],
        json!({"city": "Springfield", "country": "USA", "geocodeAccuracy": null, "latitude": null,
               "longitude": null, "postalCode": null, "state": null, "street": "1 Main St"})
    );
    let geo = org
        .column("SELECT Geo__c FROM Account ORDER BY Name", "Geo__c")
        .await;
    assert_eq!(geo[0], json!({"latitude": 1.5, "longitude": 2.5}));
    let parents = org
        .column("SELECT Parent.Name FROM Account ORDER BY Id", "Parent")
        .await;
    assert_eq!(parents[0], Value::Null);
    assert_eq!(parents[1]["Name"], "Acme");
}

async fn many(org: &TestOrg, count: usize) {
    let ops: Vec<_> = (0..count)
        .map(|n| json!({"op": "create", "object": "Employee__c", "fields": {"Name": format!("E{n}"), "Grade__c": 1}}))
        .collect();
    org.transact(json!([{"ops": ops}])).await;
}

#[tokio::test]
async fn pages_follow_one_another_and_show_the_beginning() {
    let org = TestOrg::with(|options| options.page_size = 300).await;
    many(&org, 700).await;
    let soql = "SELECT Id, Name FROM Employee__c ORDER BY Id";
    let request = org.request(Method::GET, "queryAll").query(&[("q", soql)]);
    let mut page = org.send(request).await;
    // A change after the query's start is not seen by its later pages.
    let last = org
        .column("SELECT Id FROM Employee__c ORDER BY Id DESC LIMIT 1", "Id")
        .await[0]
        .clone();
    org.transact(json!([{"ops": [{"op": "update", "object": "Employee__c", "id": last, "fields": {"Name": "new"}}]}]))
        .await;
    let mut ids = Vec::new();
    let mut pages = 0;
    loop {
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert_eq!(page.body["totalSize"], 702);
        let rows = page.body["records"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["Name"] != "new"));
        ids.extend(
            rows.iter()
                .map(|row| row["Id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        if page.body["done"] == true {
            break;
        }
        let next = page.body["nextRecordsUrl"].as_str().unwrap().to_owned();
        assert!(next.starts_with("/services/data/v66.0/query/01g"), "{next}");
        page = org.get(&next).await;
        let again = org.get(&next).await;
        assert_eq!(page.body, again.body, "a page can be asked for again");
    }
    assert_eq!((pages, ids.len()), (3, 702));
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
}

#[tokio::test]
async fn a_batch_size_is_kept_within_its_bounds() {
    let org = TestOrg::start().await;
    many(&org, 2100).await;
    for (asked, rows) in [
        ("batchSize=250", 250),
        ("batchSize=5", 200),
        ("batchSize=9999", 2000),
        ("", 2000),
    ] {
        let request = org
            .request(Method::GET, "query")
            .header("Sforce-Query-Options", asked)
            .query(&[("q", "SELECT Id FROM Employee__c")]);
        let answer = org.send(request).await;
        assert_eq!(
            answer.body["records"].as_array().unwrap().len(),
            rows,
            "{asked}"
        );
        assert_eq!(answer.body["done"], false);
    }
}

#[tokio::test]
async fn a_cursor_dies_after_two_days_and_a_wrong_one_never_lived() {
    let org = TestOrg::with(|options| options.page_size = 1).await;
    let first = org.query("SELECT Id FROM Account").await;
    let next = first.body["nextRecordsUrl"].as_str().unwrap().to_owned();
    assert_eq!(org.get(&next).await.status, StatusCode::OK);
    let (start, _) = next.rsplit_once('-').unwrap();
    for wrong in [
        format!("{start}-3"),
        start.to_owned(),
        format!("{start}-x"),
        "query/01gxx0000001abc-1".to_owned(),
    ] {
        let answer = org.get(&wrong).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "INVALID_QUERY_LOCATOR"),
            "{wrong}"
        );
    }
    org.running
        .org
        .sessions
        .set_lifetime(chrono::TimeDelta::days(9));
    org.running
        .org
        .clock
        .advance(Duration::from_secs(2 * 86_400));
    assert_eq!(org.get(&next).await.code(), "INVALID_QUERY_LOCATOR");
}

#[tokio::test]
async fn keyset_paging_meets_every_row_of_one_second_once() {
    let org = TestOrg::start().await;
    org.running.org.clock.freeze();
    many(&org, 500).await;
    let mut seen = Vec::new();
    let (mut stamp, mut last) = (
        "1970-01-01T00:00:00Z".to_owned(),
        "000000000000000AAA".to_owned(),
    );
    loop {
        let soql = format!(
            "SELECT Id, SystemModstamp FROM Employee__c WHERE SystemModstamp > {stamp} OR (SystemModstamp = {stamp} \
             AND Id > '{last}') ORDER BY SystemModstamp, Id LIMIT 64"
        );
        let answer = org.query(&soql).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let rows = answer.body["records"].as_array().unwrap();
        let Some(end) = rows.last() else { break };
        end["SystemModstamp"]
            .as_str()
            .unwrap()
            .clone_into(&mut stamp);
        end["Id"].as_str().unwrap().clone_into(&mut last);
        seen.extend(
            rows.iter()
                .map(|row| row["Id"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(seen.len(), 502);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 502);
}

#[tokio::test]
async fn the_bin_is_seen_by_query_all_only() {
    let org = TestOrg::start().await;
    org.transact(json!([{"ops": [{"op": "delete", "object": "Account", "id": BETA}]}]))
        .await;
    let soql = "SELECT Id, IsDeleted FROM Account ORDER BY Id";
    assert_eq!(
        org.column(soql, "Id").await,
        [json!(ACME), json!(id("001", 3))]
    );
    let request = org.request(Method::GET, "queryAll").query(&[("q", soql)]);
    let all = org.send(request).await;
    assert_eq!(all.body["totalSize"], 3);
    assert_eq!(all.body["records"][1]["IsDeleted"], true);
    let count = org.query("SELECT COUNT() FROM Account").await;
    assert_eq!(
        count.body,
        json!({"totalSize": 2, "done": true, "records": []})
    );
}

#[tokio::test]
async fn refusals_are_salesforces() {
    let org = TestOrg::start().await;
    let cases = [
        (
            "SELECT Nope FROM Account",
            "INVALID_FIELD",
            "No such column 'Nope' on entity 'Account'.",
        ),
        (
            "SELECT Id FROM Nope",
            "INVALID_TYPE",
            "sObject type 'Nope' is not supported.",
        ),
        (
            "SELECT Boss.Name FROM Account",
            "INVALID_FIELD",
            "Didn't understand relationship 'Boss' in field path.",
        ),
        (
            "SELECT Id FROM Account WHERE CreatedDate > '2024-01-01T00:00:00Z'",
            "INVALID_FIELD",
            "value of filter criterion for field 'CreatedDate' must be of type dateTime and should not be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Account WHERE Id = 001SIM000000001YBA",
            "MALFORMED_QUERY",
            "unexpected token",
        ),
        (
            "SELECT Id FROM Account WHERE Id = 'short'",
            "INVALID_QUERY_FILTER_OPERATOR",
            "invalid ID field: short",
        ),
        (
            "SELECT Id FROM Account WHERE",
            "MALFORMED_QUERY",
            "unexpected end",
        ),
        (
            "SELECT Id, Id FROM Account",
            "INVALID_FIELD",
            "duplicate field selected: Id",
        ),
        (
            "SELECT Id FROM Account WHERE Description = 'x'",
            "INVALID_FIELD",
            "can not be filtered in a query call",
        ),
        ("", "MALFORMED_QUERY", "A query string has to be specified"),
    ];
    for (soql, code, message) in cases {
        let answer = org.query(soql).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{soql}: {}",
            answer.body
        );
        assert!(
            answer.message().contains(message),
            "{soql}: {}",
            answer.message()
        );
    }
    let place = org.query("SELECT Id, Nope FROM Account").await;
    assert_eq!(
        place.message().lines().take(4).collect::<Vec<_>>(),
        [
            "",
            "SELECT Id, Nope FROM Account",
            "           ^",
            "ERROR at Row:1:Column:12"
        ]
    );
}
