//! Reading rows: options, filters, pages, annotations, expansions, counts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ADA, BOB, EVE, EXAMPLE, OTHER, THIRD, TestOrg};

fn ids(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter()
        .map(|row| row[name].as_str().unwrap().to_owned())
        .collect()
}

/// The last digits of the accounts that a filter finds.
async fn found(org: &TestOrg, filter: &str) -> Vec<u32> {
    let request = org
        .request(Method::GET, "accounts")
        .query(&[("$select", "accountid"), ("$filter", filter)]);
    let answer = org.send(request).await.expect(200);
    ids(answer.rows(), "accountid")
        .iter()
        .map(|id| id[30..].parse().unwrap())
        .collect()
}

#[tokio::test]
async fn only_selected_columns_come_and_annotations_only_when_asked_for() {
    let org = TestOrg::start().await;
    let bare = org
        .get(&format!(
            "contacts({ADA})?$select=fullname,_parentcustomerid_value"
        ))
        .await
        .expect(200)
        .body;
    let names: Vec<_> = bare.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        [
            "@odata.context",
            "@odata.etag",
            "_parentcustomerid_value",
            "contactid",
            "fullname"
        ]
    );
    let all = org
        .prefer(
            "contacts?$select=fullname,_parentcustomerid_value,statecode,birthdate",
            "odata.include-annotations=\"*\"",
        )
        .await
        .expect(200);
    let row = &all.rows()[0];
    assert_eq!(
        row["_parentcustomerid_value@OData.Community.Display.V1.FormattedValue"],
        "Example Ltd"
    );
    assert_eq!(
        row["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"],
        "account"
    );
    assert_eq!(
        row["_parentcustomerid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"],
        "parentcustomerid_account"
    );
    assert_eq!(
        row["statecode@OData.Community.Display.V1.FormattedValue"],
        "Active"
    );
    assert_eq!(row["birthdate"], "1990-02-03");
    assert!(
        all.body["@odata.context"]
            .as_str()
            .unwrap()
            .ends_with("$metadata#contacts(fullname,_parentcustomerid_value,statecode,birthdate)")
    );
    assert_eq!(
        all.rows()[1]["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"],
        "contact"
    );
    let some = org
        .prefer(
            "contacts",
            "odata.include-annotations=\"Microsoft.Dynamics.CRM.*\"",
        )
        .await;
    assert_eq!(
        some.header("preference-applied"),
        "odata.include-annotations=\"Microsoft.Dynamics.CRM.*\""
    );
    assert!(
        some.rows()[0]
            .get("statecode@OData.Community.Display.V1.FormattedValue")
            .is_none()
    );
    assert!(
        !some.text.contains("_primary") && !some.text.contains("_owningteam_value@"),
        "null lookups have none"
    );
}

#[tokio::test]
async fn money_brings_its_currency_and_users_their_principal() {
    let org = TestOrg::start().await;
    let account = org
        .get(&format!("accounts({EXAMPLE})?$select=revenue"))
        .await
        .body;
    assert!(account.get("_transactioncurrencyid_value").is_some());
    let user = org
        .get(&format!("systemusers({EVE})?$select=fullname"))
        .await
        .body;
    assert_eq!(
        (&user["systemuserid"], &user["ownerid"]),
        (&json!(EVE), &json!(EVE))
    );
}

#[tokio::test]
async fn wrong_names_and_options_are_refused() {
    let org = TestOrg::start().await;
    for path in [
        "accounts?$select=primarycontactid",
        "accounts?$select=Name",
        "accounts?$filter=nothing eq 1",
        "accounts?$orderby=nothing",
        "accounts?$expand=nothing",
        "accounts?$expand=PrimaryContactId",
        "accounts?$expand=ownerid($select=fullname)",
        "accounts?$skip=1",
        "accounts?$top=x",
        "accounts?$unknown=1",
        "accounts?$filter=name eq",
        "accounts?$filter=name eq 'open",
        "accounts?$filter=name eq 1",
        "accounts?$filter=statecode eq 'Active'",
        "accounts?$filter=accountid eq 'text'",
        "accounts?$filter=foo(name) eq 1",
        "accounts?$filter=startswith(name,'%25x')",
        "accounts?$filter=Microsoft.Dynamics.CRM.Nothing(PropertyName='name')",
        "accounts?$skiptoken=x",
    ] {
        org.get(path).await.refused(400, "0x80060888");
    }
    let answer = org.get("accounts?$select=nothing").await;
    assert_eq!(
        answer.message(),
        "Could not find a property named 'nothing' on type 'Microsoft.Dynamics.CRM.account'."
    );
    assert_eq!(
        org.get("accounts?$skip=1").await.message(),
        "Skip Clause is not supported in CRM"
    );
    org.get("account").await.refused(404, "0x8006088a");
    org.get("Accounts").await.refused(404, "0x8006088a");
    let details = org
        .prefer("accounts?$skip=1", "odata.include-annotations=\"*\"")
        .await;
    assert!(details.body["error"]["@Microsoft.PowerApps.CDS.InnerError.Message"].is_string());
}

#[tokio::test]
async fn filters_know_operators_functions_and_quotes() {
    let org = TestOrg::start().await;
    let cases: &[(&str, &[u32])] = &[
        ("name eq 'EXAMPLE LTD'", &[1]),
        ("name eq 'O''Brien & Sons'", &[2]),
        ("contains(name,'brien')", &[2]),
        ("startswith(name,'100[%]')", &[3]),
        ("contains(name,'0%l')", &[3]),
        ("endswith(name,'ltd') or accountnumber eq 'A-3'", &[1, 3]),
        ("not contains(name,'a')", &[2]),
        ("industrycode eq 1", &[1]),
        ("industrycode eq null", &[3]),
        ("industrycode ne null and numberofemployees gt 10", &[2]),
        ("revenue eq 5.5", &[3]),
        ("revenue ge 1234567890123456.78", &[1]),
        (
            "numberofemployees lt 15 and (name eq 'x' or industrycode eq 1)",
            &[1],
        ),
        ("createdon le 2026-01-05T10:11:12Z", &[1]),
        ("createdon lt 2026-01-06", &[1]),
        (
            "_primarycontactid_value eq cccccccc-0000-4000-8000-000000000001",
            &[1],
        ),
        ("primarycontactid/fullname eq 'Ada Example'", &[1]),
        (
            "contact_customer_accounts/any(c:c/firstname eq 'ada')",
            &[1],
        ),
        ("contact_customer_accounts/any()", &[1]),
        (
            "contact_customer_accounts/all(c:c/firstname eq 'nobody')",
            &[2, 3],
        ),
        ("name eq accountnumber", &[]),
        (
            "Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[\"O'Brien & Sons\",\"x\"])",
            &[2],
        ),
        (
            "Microsoft.Dynamics.CRM.NotIn(PropertyName='accountnumber',PropertyValues=[\"A-1\"])",
            &[2, 3],
        ),
        (
            "Microsoft.Dynamics.CRM.Between(PropertyName='numberofemployees',PropertyValues=[\"5\",\"15\"])",
            &[1],
        ),
        (
            "Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=1)",
            &[2, 3],
        ),
        (
            "Microsoft.Dynamics.CRM.OlderThanXDays(PropertyName='createdon',PropertyValue=1)",
            &[1],
        ),
        (
            "Microsoft.Dynamics.CRM.On(PropertyName='createdon',PropertyValue='2026-01-05')",
            &[1],
        ),
        ("statecode eq 0 and donotemail eq false", &[1, 2, 3]),
        ("donotemail", &[]),
        ("versionnumber gt 0", &[1, 2, 3]),
    ];
    // The rows without a date were made when the organization was, months later.
    org.control("time", json!({"freeze": true})).await;
    for (filter, wanted) in cases {
        assert_eq!(found(&org, filter).await, *wanted, "{filter}");
    }
    let aliased = org
        .request(Method::GET, "accounts")
        .query(&[("$filter", "name eq @p1"), ("@p1", "'Example Ltd'")]);
    assert_eq!(org.send(aliased).await.rows().len(), 1);
    let tags = org.request(Method::GET, "new_planset").query(&[(
        "$filter",
        "Microsoft.Dynamics.CRM.ContainValues(PropertyName='new_tags',PropertyValues=[\"3\"])",
    )]);
    assert_eq!(org.send(tags).await.rows()[0]["new_tags"], "1,3");
}

#[tokio::test]
async fn pages_follow_links_and_see_every_row_once() {
    let org = TestOrg::start().await;
    for n in 0..7 {
        org.create(
            "accounts",
            json!({"name": format!("n{}", n % 3), "numberofemployees": n}),
        )
        .await;
    }
    for query in [
        "accounts?$select=name",
        "accounts?$select=name&$orderby=name desc,numberofemployees",
        "accounts?$orderby=primarycontactid/fullname&$filter=statecode eq 0",
    ] {
        let (mut seen, mut pages, mut next) = (Vec::new(), 0, Some(query.to_owned()));
        while let Some(path) = next {
            let page = org.prefer(&path, "odata.maxpagesize=3").await.expect(200);
            assert_eq!(page.header("preference-applied"), "odata.maxpagesize=3");
            assert!(page.rows().len() <= 3);
            seen.extend(ids(page.rows(), "accountid"));
            pages += 1;
            next = page.link("nextLink").map(str::to_owned);
            if let Some(link) = &next {
                assert!(
                    link.starts_with(&org.running.url)
                        && link.contains("$skiptoken=%3ccookie%20pagenumber=")
                        || link.contains("%3ccookie"),
                    "{link}"
                );
                org.prefer(&format!("{link}&$count=true"), "odata.maxpagesize=3")
                    .await
                    .refused(400, "0x80060888");
            }
        }
        assert_eq!(pages, 4, "{query}");
        let all = ids(org.get(query).await.rows(), "accountid");
        assert_eq!(seen, all, "{query}");
        assert_eq!(all.len(), 10);
    }
    let top = org.get("accounts?$top=2").await;
    assert!(top.rows().len() == 2 && top.link("nextLink").is_none());
    let ignored = org.prefer("accounts?$top=2", "odata.maxpagesize=4").await;
    assert!(
        ignored.rows().len() == 4 && ignored.link("nextLink").is_some(),
        "$top means nothing beside a page size"
    );
}

#[tokio::test]
async fn order_is_by_column_and_direction() {
    let org = TestOrg::start().await;
    let ordered = ids(
        org.get("accounts?$orderby=accountnumber desc").await.rows(),
        "accountid",
    );
    assert_eq!(ordered, [THIRD, OTHER, EXAMPLE]);
}

#[tokio::test]
async fn expansions_reach_single_and_many_rows() {
    let org = TestOrg::start().await;
    let answer = org.get(&format!("accounts({EXAMPLE})?$select=name&$expand=primarycontactid($select=fullname),contact_customer_accounts($select=lastname;$filter=firstname eq 'Ada')")).await.expect(200);
    assert_eq!(answer.body["primarycontactid"]["fullname"], "Ada Example");
    assert_eq!(
        answer.body["contact_customer_accounts"][0]["contactid"],
        ADA
    );
    let nested = org.get("contacts?$expand=parentcustomerid_account($select=name;$expand=primarycontactid($select=lastname))").await.expect(200);
    assert_eq!(
        nested.rows()[0]["parentcustomerid_account"]["primarycontactid"]["lastname"],
        "Example"
    );
    assert_eq!(nested.rows()[1]["parentcustomerid_account"], Value::Null);
    for n in 0..5 {
        org.create("contacts", json!({"lastname": format!("n{n}"), "parentcustomerid_account@odata.bind": format!("/accounts({EXAMPLE})")})).await;
    }
    let path = format!(
        "accounts({EXAMPLE})?$expand=contact_customer_accounts($select=lastname;$orderby=lastname)"
    );
    let first = org
        .prefer(&path, "odata.maxpagesize=4")
        .await
        .expect(200)
        .body;
    let mut seen = ids(
        first["contact_customer_accounts"].as_array().unwrap(),
        "contactid",
    );
    let link = first["contact_customer_accounts@odata.nextLink"]
        .as_str()
        .unwrap();
    seen.extend(ids(
        org.prefer(link, "odata.maxpagesize=4")
            .await
            .expect(200)
            .rows(),
        "contactid",
    ));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);
    let many = ["primarycontactid"; 16].join(",");
    org.get(&format!("accounts?$expand={many}"))
        .await
        .refused(400, "0x80060888");
    org.get("contacts?$expand=contact_customer_contacts($expand=account_primary_contact($orderby=name))").await.refused(400, "0x80060888");
}

#[tokio::test]
async fn parts_of_a_row_have_addresses() {
    let org = TestOrg::start().await;
    let base = format!("accounts({EXAMPLE})");
    assert_eq!(
        org.get(&format!("{base}/name")).await.expect(200).body["value"],
        "Example Ltd"
    );
    assert_eq!(
        org.get(&format!("{base}/name/$value"))
            .await
            .expect(200)
            .text,
        "Example Ltd"
    );
    org.get(&format!("accounts({OTHER})/revenue"))
        .await
        .expect(204);
    assert_eq!(
        org.get(&format!("{base}/primarycontactid?$select=fullname"))
            .await
            .expect(200)
            .body["contactid"],
        ADA
    );
    assert_eq!(
        org.get(&format!("{base}/contact_customer_accounts"))
            .await
            .expect(200)
            .rows()
            .len(),
        1
    );
    assert!(
        org.get(&format!("{base}/primarycontactid/$ref")).await.body["@odata.id"]
            .as_str()
            .unwrap()
            .ends_with(&format!("contacts({ADA})"))
    );
    org.get(&format!("{base}/nothing")).await.expect(404);
    org.get(&format!("contacts({BOB})/parentcustomerid_account"))
        .await
        .expect(200);
}

#[tokio::test]
async fn counts_stop_at_five_thousand() {
    let org = TestOrg::start().await;
    let count = async |path: &str| {
        org.get(path)
            .await
            .expect(200)
            .text
            .trim_start_matches('\u{feff}')
            .parse::<usize>()
            .unwrap()
    };
    assert_eq!(count("accounts/$count").await, 3);
    assert_eq!(count("accounts/$count?$filter=industrycode eq 1").await, 1);
    let with = org.get("accounts?$count=true&$top=1").await;
    assert_eq!(
        (with.body["@odata.count"].as_u64(), with.rows().len()),
        (Some(3), 1)
    );
    let targets: Vec<_> = (0..5000)
        .map(|_| json!({"@odata.type": "Microsoft.Dynamics.CRM.account", "name": "x"}))
        .collect();
    org.post(
        "accounts/Microsoft.Dynamics.CRM.CreateMultiple",
        json!({"Targets": targets}),
    )
    .await
    .expect(200);
    assert_eq!(count("accounts/$count").await, 5000);
    let limited = org
        .prefer(
            "accounts?$count=true&$select=name",
            "odata.include-annotations=\"*\"",
        )
        .await;
    assert_eq!(
        limited.body["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"],
        true
    );
    assert_eq!(limited.rows().len(), 5000, "the largest page");
    let total = org
        .get("RetrieveTotalRecordCount(EntityNames=@p1)?@p1=[\"account\",\"contact\"]")
        .await
        .expect(200);
    assert_eq!(
        total.body["EntityRecordCountCollection"]["Values"],
        json!([5003, 2])
    );
    org.get("RetrieveTotalRecordCount(EntityNames=['account'])")
        .await
        .expect(200);
}

#[tokio::test]
async fn the_protocol_is_strict() {
    let org = TestOrg::start().await;
    let old = org
        .client
        .get(format!("{}/api/data/v9.2/accounts", org.running.url))
        .bearer_auth(&org.token)
        .header("odata-version", "3.0");
    org.send(old).await.expect(400);
    org.send(org.request(Method::PUT, "accounts"))
        .await
        .expect(405);
    let answer = org.get("accounts").await;
    assert_eq!(answer.header("odata-version"), "4.0");
    assert!(
        answer
            .header("content-type")
            .starts_with("application/json; odata.metadata=minimal")
    );
    assert!(
        !answer
            .header("x-ms-ratelimit-burst-remaining-xrm-requests")
            .is_empty()
    );
}
