//! Grouped queries.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::org::{ACME, TestOrg};

async fn groups(org: &TestOrg, soql: &str) -> Vec<Value> {
    let answer = org.query(soql).await;
    assert_eq!(answer.status, StatusCode::OK, "{soql}: {}", answer.body);
    let mut records = answer.body["records"].as_array().unwrap().clone();
    assert_eq!(answer.body["totalSize"], records.len());
    for record in &mut records {
        let kind = record.as_object_mut().unwrap().remove("attributes");
        assert_eq!(kind, Some(json!({"type": "AggregateResult"})));
    }
    records
}

#[tokio::test]
async fn rows_are_grouped_and_summed_up() {
    let org = TestOrg::start().await;
    org.transact(json!([{"ops": [
        {"op": "create", "object": "Account", "fields": {"Name": "Delta", "Industry": "energy", "NumberOfEmployees": 30}}]}]))
        .await;
    assert_eq!(
        groups(
            &org,
            "SELECT Industry, COUNT(Id) n, SUM(NumberOfEmployees), AVG(NumberOfEmployees) mean FROM Account GROUP BY Industry"
        )
        .await,
        [
            json!({"Industry": null, "n": 1, "expr0": 20.0, "mean": 20.0}),
            json!({"Industry": "Energy", "n": 2, "expr0": 40.0, "mean": 20.0}),
            json!({"Industry": "Finance", "n": 1, "expr0": null, "mean": null}),
        ]
    );
    assert_eq!(
        groups(&org, "SELECT MIN(Name) least, MAX(CreatedDate), COUNT(ParentId) kids, COUNT_DISTINCT(Industry) kinds FROM Account")
            .await[0]["kids"],
        2
    );
    let one = groups(
        &org,
        "SELECT MIN(Name) least, COUNT_DISTINCT(Industry) kinds FROM Account",
    )
    .await;
    assert_eq!(one, [json!({"least": "Acme", "kinds": 2})]);
    let none = groups(
        &org,
        "SELECT COUNT(Id) n, MAX(Name) m FROM Account WHERE Name = 'x'",
    )
    .await;
    assert_eq!(none, [json!({"n": 0, "m": null})]);
    let none = groups(
        &org,
        "SELECT Industry, COUNT(Id) FROM Account WHERE Name = 'x' GROUP BY Industry",
    );
    assert!(none.await.is_empty());
    let last = groups(
        &org,
        "SELECT Industry FROM Account GROUP BY Industry ORDER BY Industry DESC NULLS LAST LIMIT 1",
    );
    assert_eq!(last.await, [json!({"Industry": "Finance"})]);
    let parents = groups(
        &org,
        "SELECT Parent.Name, COUNT(Id) n FROM Account WHERE ParentId != null GROUP BY Parent.Name",
    );
    assert_eq!(parents.await, [json!({"Name": "Acme", "n": 2})]);
    let bulk = org
        .call(
            reqwest::Method::POST,
            "jobs/query",
            json!({"operation": "query", "query": "SELECT COUNT(Id) FROM Account"}),
        )
        .await;
    assert_eq!(bulk.code(), "INVALIDJOB");
    assert_eq!(
        org.column(
            &format!("SELECT Name FROM Account WHERE Id = '{ACME}'"),
            "Name"
        )
        .await,
        ["Acme"]
    );
}
