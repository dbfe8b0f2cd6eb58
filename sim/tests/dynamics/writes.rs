//! Create, update, upsert, delete: conditions, keys, references, and what the platform adds.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{ADA, BOB, EVE, EXAMPLE, OTHER, TestOrg};

#[tokio::test]
async fn a_created_row_has_an_address_and_what_the_platform_adds() {
    let org = TestOrg::start().await;
    let answer = org
        .post(
            "accounts",
            json!({"name": "New", "primarycontactid@odata.bind": format!("/contacts({ADA})")}),
        )
        .await
        .expect(204);
    let url = answer.header("odata-entityid").to_owned();
    assert!(
        url.starts_with(&format!("{}/api/data/v9.2/accounts(", org.running.url)),
        "{url}"
    );
    assert!(answer.text.is_empty());
    let row = org.get(&url).await.expect(200).body;
    assert_eq!(row["_primarycontactid_value"], ADA);
    assert_eq!(
        (&row["statecode"], &row["statuscode"], &row["donotemail"]),
        (&json!(0), &json!(1), &json!(false))
    );
    let me = org.get("WhoAmI").await.body["UserId"].clone();
    assert_eq!(
        (
            &row["_ownerid_value"],
            &row["_createdby_value"],
            &row["_owninguser_value"]
        ),
        (&me, &me, &me)
    );
    assert!(
        row["versionnumber"].is_i64()
            && row["createdon"].is_string()
            && row["createdon"] == row["modifiedon"]
    );
}

#[tokio::test]
async fn a_representation_is_sent_if_it_is_preferred() {
    let org = TestOrg::start().await;
    let post = org
        .request(Method::POST, "accounts?$select=name")
        .header("prefer", "return=representation")
        .json(&json!({"name": "New"}));
    let answer = org.send(post).await.expect(201);
    assert_eq!(answer.body["name"], "New");
    assert!(answer.body.get("telephone1").is_none());
    assert_eq!(answer.header("preference-applied"), "return=representation");
    let patch = |path: &str| {
        org.request(Method::PATCH, path)
            .header("prefer", "return=representation")
            .json(&json!({"telephone1": "1"}))
    };
    org.send(patch(&format!("accounts({EXAMPLE})")))
        .await
        .expect(200);
    org.send(patch("accounts(aaaaaaaa-0000-4000-8000-00000000ffff)"))
        .await
        .expect(201);
}

#[tokio::test]
async fn patch_is_an_upsert_unless_it_must_match() {
    let org = TestOrg::start().await;
    org.delete(&format!("accounts({OTHER})")).await.expect(204);
    let path = format!("accounts({OTHER})");
    org.patch(&path, json!({"name": "Back"}))
        .await
        .refused(404, "0x80040217");
    org.get(&path).await.expect(404);
    let bare = org
        .request(Method::PATCH, &path)
        .json(&json!({"name": "Back"}));
    org.send(bare).await.expect(204);
    assert_eq!(
        org.get(&path).await.body["name"],
        "Back",
        "a deleted row was brought back"
    );
    let only_new = org
        .request(Method::PATCH, &path)
        .header("if-none-match", "*")
        .json(&json!({"name": "X"}));
    let mut only_new = only_new.build().unwrap();
    only_new
        .headers_mut()
        .insert("if-none-match", "*".parse().unwrap());
    let answer = org.client.execute(only_new).await.unwrap();
    assert_eq!(answer.status().as_u16(), 412);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "0x80040237");
    org.delete(&path).await.expect(204);
    org.delete(&path).await.refused(404, "0x80040217");
}

#[tokio::test]
async fn etags_are_row_versions_and_guard_writes() {
    let org = TestOrg::start().await;
    let path = format!("accounts({EXAMPLE})");
    let row = org.get(&path).await;
    let etag = row.body["@odata.etag"].as_str().unwrap().to_owned();
    assert_eq!(etag, format!("W/\"{}\"", row.body["versionnumber"]));
    let with = |method: Method, etag: &str| {
        org.request(method, &path)
            .header("if-match", etag)
            .json(&json!({"name": "Two"}))
    };
    org.send(with(Method::PATCH, &etag)).await.expect(204);
    let stale = org
        .send(with(Method::PATCH, &etag))
        .await
        .refused(412, "0x80060882");
    assert!(
        stale
            .message()
            .contains("doesn't match the RowVersion property")
    );
    org.send(with(Method::DELETE, &etag))
        .await
        .refused(412, "0x80060882");
    let now = org.get(&path).await.body["@odata.etag"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut conditional = org.request(Method::GET, &path).build().unwrap();
    conditional
        .headers_mut()
        .insert("if-none-match", now.parse().unwrap());
    let mut annotated = conditional.try_clone().unwrap();
    annotated
        .headers_mut()
        .insert("prefer", "odata.include-annotations=\"*\"".parse().unwrap());
    assert_eq!(
        org.client
            .execute(conditional)
            .await
            .unwrap()
            .status()
            .as_u16(),
        304
    );
    assert_eq!(
        org.client
            .execute(annotated)
            .await
            .unwrap()
            .status()
            .as_u16(),
        200
    );
}

#[tokio::test]
async fn alternate_keys_name_rows() {
    let org = TestOrg::start().await;
    org.get("accounts(accountnumber='A-1')").await.expect(200);
    org.get("accounts(accountnumber='none')")
        .await
        .refused(404, "0x80060891");
    org.get("accounts(name='Example Ltd')")
        .await
        .refused(400, "0x80060888");
    org.get("accounts(accountnumber='A%2F1')").await.expect(400);
    let upsert = |prefer: &str| {
        let request = org.request(
            Method::PATCH,
            "accounts(accountnumber='A-9')?$select=accountid,accountnumber",
        );
        request
            .header("prefer", prefer.to_owned())
            .json(&json!({"name": "Nine"}))
    };
    let created = org.send(upsert("return=representation")).await.expect(201);
    assert_eq!(created.body["accountnumber"], "A-9");
    org.send(upsert("return=representation")).await.expect(200);
    org.send(upsert("")).await.expect(204);
    org.post("accounts", json!({"accountnumber": "a-9"}))
        .await
        .refused(412, "0x80060892");
    // The body's key column means nothing on update, and wins on create.
    let body = json!({"accountnumber": "B-1", "name": "Key"});
    org.patch("accounts(accountnumber='A-9')", body.clone())
        .await
        .expect(204);
    org.get("accounts(accountnumber='B-1')").await.expect(404);
    org.send(
        org.request(Method::PATCH, "accounts(accountnumber='C-1')")
            .json(&body),
    )
    .await
    .expect(204);
    org.get("accounts(accountnumber='B-1')").await.expect(200);
    org.get("accounts(accountnumber='C-1')").await.expect(404);
}

#[tokio::test]
async fn lookups_are_bound_by_navigation_property() {
    let org = TestOrg::start().await;
    let bound = json!({"lastname": "C", "parentcustomerid_account@odata.bind": format!("/accounts({EXAMPLE})")});
    let id = org.create("contacts", bound).await;
    let path = format!("contacts({id})");
    let value =
        async |path: &str| org.get(path).await.expect(200).body["_parentcustomerid_value"].clone();
    assert_eq!(value(&path).await, EXAMPLE);
    org.patch(
        &path,
        json!({"parentcustomerid_contact@odata.bind": format!("contacts({BOB})")}),
    )
    .await
    .expect(204);
    assert_eq!(value(&path).await, BOB);
    org.delete(&format!("{path}/parentcustomerid_contact/$ref"))
        .await
        .expect(204);
    assert_eq!(value(&path).await, Value::Null);
    let reference =
        json!({"@odata.id": format!("{}/api/data/v9.2/accounts({OTHER})", org.running.url)});
    org.send(
        org.request(
            Method::PUT,
            &format!("{path}/parentcustomerid_account/$ref"),
        )
        .json(&reference),
    )
    .await
    .expect(204);
    org.patch(&path, json!({"parentcustomerid_account@odata.bind": null}))
        .await
        .expect(204);
    assert_eq!(value(&path).await, Value::Null);
    for wrong in [
        json!({"parentcustomerid@odata.bind": format!("/accounts({EXAMPLE})")}),
        json!({"ParentCustomerId_account@odata.bind": format!("/accounts({EXAMPLE})")}),
        json!({"parentcustomerid_account@odata.bind": format!("/contacts({ADA})")}),
        json!({"_parentcustomerid_value": EXAMPLE}),
        json!({"nothing": 1}),
    ] {
        org.patch(&path, wrong).await.refused(400, "0x80048d19");
    }
    let missing = json!({"parentcustomerid_account@odata.bind": "/accounts(aaaaaaaa-0000-4000-8000-00000000dead)"});
    org.patch(&path, missing).await.refused(404, "0x80040217");
}

#[tokio::test]
async fn owners_are_users_or_teams() {
    let org = TestOrg::start().await;
    let team = org.create("teams", json!({"name": "T"})).await;
    let path = format!("accounts({EXAMPLE})");
    org.patch(
        &path,
        json!({"ownerid@odata.bind": format!("/teams({team})")}),
    )
    .await
    .expect(204);
    let row = org
        .prefer(&path, "odata.include-annotations=\"*\"")
        .await
        .body;
    assert_eq!(
        (
            &row["_ownerid_value"],
            &row["_owningteam_value"],
            &row["_owninguser_value"]
        ),
        (&json!(team), &json!(team), &Value::Null)
    );
    assert_eq!(
        row["_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"],
        "team"
    );
    org.patch(
        &path,
        json!({"ownerid@odata.bind": format!("/systemusers({EVE})")}),
    )
    .await
    .expect(204);
    assert_eq!(org.get(&path).await.body["_owninguser_value"], EVE);
}

#[tokio::test]
async fn values_must_fit_their_columns() {
    let org = TestOrg::start().await;
    let path = format!("accounts({EXAMPLE})");
    let cases = [
        (json!({"numberofemployees": "ten"}), "0x80048d19"),
        (json!({"name": 5}), "0x80048d19"),
        (json!({"accountnumber": "x".repeat(21)}), "0x80044331"),
        (json!({"industrycode": 99}), "0x80040203"),
        (
            json!({"numberofemployees": 3_000_000_000_i64}),
            "0x80040203",
        ),
        (json!({"statecode": 0, "statuscode": 2}), "0x80048408"),
    ];
    for (body, code) in cases {
        org.patch(&path, body).await.refused(400, code);
    }
    org.post("incidents", json!({"title": "No customer"}))
        .await
        .refused(400, "0x80040203");
    let broken = org
        .request(Method::POST, "accounts")
        .header("content-type", "application/json")
        .body("{");
    org.send(broken).await.refused(400, "0x80048d19");
}

#[tokio::test]
async fn state_and_status_go_together_and_cases_are_closed_by_their_action() {
    let org = TestOrg::start().await;
    let path = format!("accounts({EXAMPLE})");
    org.patch(&path, json!({"statecode": 1, "statuscode": 2}))
        .await
        .expect(204);
    org.patch(&path, json!({"statecode": 0})).await.expect(204);
    assert_eq!(
        org.get(&path).await.body["statuscode"],
        1,
        "the state's first status"
    );
    let case = org.create("incidents", json!({"title": "Help", "customerid_account@odata.bind": format!("/accounts({EXAMPLE})")})).await;
    let row = org.get(&format!("incidents({case})")).await.body;
    assert!(row["ticketnumber"].as_str().unwrap().starts_with("CAS-"));
    let resolution = json!({"IncidentResolution": {"subject": "Done", "incidentid@odata.bind": format!("/incidents({case})")}, "Status": 5});
    org.post("CloseIncident", resolution).await.expect(204);
    let row = org.get(&format!("incidents({case})")).await.body;
    assert_eq!(
        (&row["statecode"], &row["statuscode"]),
        (&json!(1), &json!(5))
    );
}

#[tokio::test]
async fn decimals_keep_their_digits() {
    let org = TestOrg::start().await;
    let body = "{\"revenue\": 987654321098765.43}";
    let request = org
        .request(Method::PATCH, &format!("accounts({OTHER})"))
        .header("if-match", "*")
        .header("content-type", "application/json");
    org.send(request.body(body)).await.expect(204);
    let answer = org
        .get(&format!("accounts({OTHER})?$select=revenue"))
        .await
        .expect(200);
    assert!(
        answer.text.contains("\"revenue\":987654321098765.43"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn deletion_cuts_links_or_is_refused() {
    let org = TestOrg::start().await;
    let before = org.get(&format!("contacts({ADA})")).await.body["versionnumber"]
        .as_i64()
        .unwrap();
    org.delete(&format!("accounts({EXAMPLE})"))
        .await
        .expect(204);
    let ada = org.get(&format!("contacts({ADA})")).await.body;
    assert_eq!(ada["_parentcustomerid_value"], Value::Null);
    assert!(ada["versionnumber"].as_i64().unwrap() > before);
    let unit = org.get("WhoAmI").await.body["BusinessUnitId"]
        .as_str()
        .unwrap()
        .to_owned();
    org.delete(&format!("businessunits({unit})"))
        .await
        .refused(405, "0x80040227");
}

#[tokio::test]
async fn names_are_computed_and_read_only() {
    let org = TestOrg::start().await;
    let path = format!("contacts({ADA})");
    org.patch(&path, json!({"lastname": "Lovelace", "fullname": "X"}))
        .await
        .expect(204);
    assert_eq!(org.get(&path).await.body["fullname"], "Ada Lovelace");
}

#[tokio::test]
async fn privileges_can_be_taken_away() {
    let org = TestOrg::start().await;
    let all = ["Read", "Create", "Write", "Delete"].map(|action| json!([action, "account"]));
    org.control("privileges", json!({"deny": all})).await;
    org.get("accounts").await.refused(403, "0x80040220");
    org.post("accounts", json!({"name": "x"}))
        .await
        .refused(403, "0x80040220");
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "x"}))
        .await
        .refused(403, "0x80040220");
    org.delete(&format!("accounts({EXAMPLE})"))
        .await
        .refused(403, "0x80040220");
    org.get("contacts").await.expect(200);
    org.control("privileges", json!({"allow": all})).await;
    org.get("accounts").await.expect(200);
}

#[tokio::test]
async fn bulk_writes_are_all_or_nothing() {
    let org = TestOrg::start().await;
    let kind = "Microsoft.Dynamics.CRM.account";
    let target = |more: Value| {
        let mut target = json!({"@odata.type": kind});
        target
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        target
    };
    let call = async |action: &str, targets: Vec<Value>| {
        org.post(
            &format!("accounts/Microsoft.Dynamics.CRM.{action}"),
            json!({"Targets": targets}),
        )
        .await
    };
    let made = call(
        "CreateMultiple",
        vec![target(json!({"name": "a"})), target(json!({"name": "b"}))],
    )
    .await
    .expect(200);
    let ids = made.body["Ids"].as_array().unwrap();
    assert_eq!(ids.len(), 2);
    let updates = vec![
        target(json!({"accountid": ids[0], "name": "a2"})),
        target(json!({"accountid": "aaaaaaaa-0000-4000-8000-00000000dead", "name": "x"})),
    ];
    call("UpdateMultiple", updates)
        .await
        .refused(404, "0x80040217");
    assert_eq!(
        org.get(&format!("accounts({})", ids[0].as_str().unwrap()))
            .await
            .body["name"],
        "a"
    );
    let upserts = vec![
        target(json!({"@odata.id": "accounts(accountnumber='A-1')", "name": "one"})),
        target(json!({"@odata.id": "accounts(accountnumber='Z-1')", "name": "zed"})),
    ];
    let answer = call("UpsertMultiple", upserts).await.expect(204);
    assert!(answer.text.is_empty(), "what was created is not told");
    assert_eq!(
        org.get("accounts(accountnumber='A-1')").await.body["name"],
        "one"
    );
    org.get("accounts(accountnumber='Z-1')").await.expect(200);
    org.post(
        "accounts/Microsoft.Dynamics.CRM.CreateMultiple",
        json!({"Targets": [{"name": "untyped"}]}),
    )
    .await
    .expect(400);
    org.post(
        "serviceendpoints/Microsoft.Dynamics.CRM.CreateMultiple",
        json!({"Targets": []}),
    )
    .await
    .expect(400);
}
