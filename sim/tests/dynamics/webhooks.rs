//! Webhooks: registration, bodies, authentication, failures, and faults in delivery; messages for queues.

use serde_json::{Value, json};

use crate::harness::{EXAMPLE, OTHER, TestOrg};
use crate::receiver::{Registered, attribute, filter, registered, settled, step, target};

#[tokio::test]
async fn a_create_an_update_and_a_delete_are_told() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k&y")).await;
    for message in ["Create", "Update", "Delete"] {
        step(&org, &endpoint, message, "account", json!({})).await;
    }
    let me = org.get("WhoAmI").await.body;
    let id = org.create("accounts", json!({"name": "New", "revenue": 2154.32, "industrycode": 6, "primarycontactid@odata.bind": format!("/contacts({})", crate::harness::ADA)})).await;
    let created = receiver.wait(1).await[0].clone();
    assert_eq!(created.uri, "/hook?code=k%26y");
    let header = |name: &str| created.headers[name].to_str().unwrap();
    assert_eq!(
        (
            header("x-ms-dynamics-entity-name"),
            header("x-ms-dynamics-request-name")
        ),
        ("account", "Create")
    );
    assert_eq!(
        header("x-ms-correlation-request-id"),
        created.body["CorrelationId"].as_str().unwrap()
    );
    assert!(
        created.headers.contains_key("x-ms-dynamics-organization")
            && !created
                .headers
                .contains_key("x-ms-dynamics-msg-size-exceeded")
    );
    let body = &created.body;
    assert_eq!(
        (
            &body["MessageName"],
            &body["PrimaryEntityName"],
            &body["PrimaryEntityId"]
        ),
        (&json!("Create"), &json!("account"), &json!(id))
    );
    assert_eq!(
        (
            &body["Stage"],
            &body["Mode"],
            &body["Depth"],
            &body["SecondaryEntityName"]
        ),
        (&json!(40), &json!(1), &json!(1), &json!("none"))
    );
    assert_eq!(
        (&body["InitiatingUserId"], &body["OrganizationId"]),
        (&me["UserId"], &me["OrganizationId"])
    );
    assert_eq!(
        body["OutputParameters"],
        json!([{"key": "id", "value": id}])
    );
    assert!(
        body["ParentContext"]["InputParameters"].is_array(),
        "the parent repeats the parameters"
    );
    let entity = target(&created);
    assert_eq!(
        entity["__type"],
        "Entity:http://schemas.microsoft.com/xrm/2011/Contracts"
    );
    assert!(
        created
            .text
            .contains("http:\\/\\/schemas.microsoft.com\\/xrm")
            && created.text.contains("\\/Date(")
    );
    assert!(created.text.contains("\"Value\":2154.32"));
    assert_eq!(
        attribute(entity, "industrycode").unwrap()["__type"],
        "OptionSetValue:http://schemas.microsoft.com/xrm/2011/Contracts"
    );
    assert_eq!(
        attribute(entity, "primarycontactid").unwrap()["LogicalName"],
        "contact"
    );
    assert_eq!(attribute(entity, "accountid").unwrap(), &json!(id));
    assert!(attribute(entity, "statecode").is_some(), "defaults too");

    org.patch(&format!("accounts({id})"), json!({"name": null}))
        .await
        .expect(204);
    let updated = receiver.wait(2).await[1].clone();
    let entity = target(&updated);
    assert_eq!(attribute(entity, "name"), Some(&Value::Null));
    assert!(
        attribute(entity, "modifiedon").is_some() && attribute(entity, "industrycode").is_none(),
        "only what was sent, and stamps"
    );

    org.delete(&format!("accounts({id})")).await.expect(204);
    let deleted = receiver.wait(3).await[2].clone();
    let reference = target(&deleted);
    assert_eq!(
        reference["__type"],
        "EntityReference:http://schemas.microsoft.com/xrm/2011/Contracts"
    );
    assert!(reference.get("Attributes").is_none() && reference["Id"] == id.as_str());
    assert_eq!(settled(&org).await.len(), 3);
    assert_eq!(
        org.get("asyncoperations").await.rows().len(),
        0,
        "jobs that succeeded are gone"
    );
}

#[tokio::test]
async fn the_operation_s_date_is_hours_off() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    step(&org, &endpoint, "Update", "account", json!({})).await;
    org.control("time", json!({"freeze": true})).await;
    org.control("time", json!({"set": "2026-01-05T10:11:12Z"}))
        .await;
    let org = {
        let mut org = org;
        org.sign_in().await;
        org
    };
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "x"}))
        .await
        .expect(204);
    let got = receiver.wait(1).await[0].clone();
    let modified = attribute(target(&got), "modifiedon").unwrap();
    assert_eq!(modified, "/Date(1767607872000)/");
    assert_eq!(
        got.body["OperationCreatedOn"], "/Date(1767633072000-0700)/",
        "seven hours later, and the offset takes them back"
    );
    org.control("webhooks", json!({"dates": "iso", "parent_context": false}))
        .await;
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "y"}))
        .await
        .expect(204);
    let got = receiver.wait(2).await[1].clone();
    assert_eq!(
        attribute(target(&got), "modifiedon").unwrap(),
        "2026-01-05T10:11:12Z"
    );
    assert_eq!(got.body["ParentContext"], Value::Null);
}

#[tokio::test]
async fn receivers_know_the_sender_by_headers_or_query() {
    let settings = "<settings><setting name=\"x-key\" value=\"a&amp;b\" /><setting name=\"other\" value=\"2\" /></settings>";
    for kind in [5, 6] {
        let Registered {
            org,
            receiver,
            endpoint,
        } = registered((kind, settings)).await;
        step(&org, &endpoint, "Update", "account", json!({})).await;
        org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "x"}))
            .await
            .expect(204);
        let got = receiver.wait(1).await[0].clone();
        if kind == 5 {
            assert_eq!(
                (got.headers["x-key"].to_str().unwrap(), got.uri.as_str()),
                ("a&b", "/hook")
            );
        } else {
            assert_eq!(got.uri, "/hook?x-key=a%26b&other=2");
        }
        let row = org
            .get(&format!("serviceendpoints({endpoint})"))
            .await
            .expect(200)
            .body;
        assert!(
            row.get("authvalue").is_none() && row.get("saskey").is_none(),
            "secrets can't be read"
        );
    }
}

#[tokio::test]
async fn state_beside_other_columns_fires_twice() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    step(&org, &endpoint, "Update", "account", json!({})).await;
    org.patch(
        &format!("accounts({EXAMPLE})"),
        json!({"name": "x", "statecode": 1, "statuscode": 2}),
    )
    .await
    .expect(204);
    let mut got = receiver.wait(2).await;
    got.sort_by_key(|one| attribute(target(one), "statecode").is_some());
    assert!(
        attribute(target(&got[0]), "name").is_some()
            && attribute(target(&got[0]), "statecode").is_none()
    );
    assert!(
        attribute(target(&got[1]), "name").is_none()
            && attribute(target(&got[1]), "statuscode").is_some()
    );
    org.patch(
        &format!("accounts({EXAMPLE})"),
        json!({"statecode": 0, "statuscode": 1}),
    )
    .await
    .expect(204);
    settled(&org).await;
    assert_eq!(receiver.all().len(), 3);
}

#[tokio::test]
async fn filtering_attributes_choose_updates_that_include_them() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    let id = step(
        &org,
        &endpoint,
        "Update",
        "account",
        json!({"filteringattributes": "name,telephone1"}),
    )
    .await;
    let path = format!("accounts({EXAMPLE})");
    org.patch(&path, json!({"fax": "1"})).await.expect(204);
    // It fires though nothing changes: the column is there.
    org.patch(&path, json!({"name": "Example Ltd"}))
        .await
        .expect(204);
    settled(&org).await;
    assert_eq!(receiver.all().len(), 1);
    org.patch(
        &format!("sdkmessageprocessingsteps({id})"),
        json!({"statecode": 1, "statuscode": 2}),
    )
    .await
    .expect(204);
    org.patch(&path, json!({"name": "x"})).await.expect(204);
    settled(&org).await;
    assert_eq!(receiver.all().len(), 1, "a disabled step is silent");
}

#[tokio::test]
async fn bulk_writes_fire_for_every_row() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    step(&org, &endpoint, "Create", "account", json!({})).await;
    let targets: Vec<_> = (0..3)
        .map(|n| json!({"@odata.type": "Microsoft.Dynamics.CRM.account", "name": n.to_string()}))
        .collect();
    org.post(
        "accounts/Microsoft.Dynamics.CRM.CreateMultiple",
        json!({"Targets": targets}),
    )
    .await
    .expect(200);
    receiver.wait(3).await;
}

#[tokio::test]
async fn images_show_the_row_before_and_after() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    let update = step(&org, &endpoint, "Update", "account", json!({})).await;
    let delete = step(&org, &endpoint, "Delete", "account", json!({})).await;
    let image = |step: &str, kind: u8, property: &str| json!({"name": "i", "entityalias": "row", "imagetype": kind, "messagepropertyname": property, "attributes": "name,accountnumber", "sdkmessageprocessingstepid@odata.bind": format!("/sdkmessageprocessingsteps({step})")});
    org.create(
        "sdkmessageprocessingstepimages",
        image(&update, 2, "Target"),
    )
    .await;
    org.create(
        "sdkmessageprocessingstepimages",
        image(&delete, 0, "Target"),
    )
    .await;
    org.post(
        "sdkmessageprocessingstepimages",
        image(&delete, 1, "Target"),
    )
    .await
    .expect(400);
    org.post("sdkmessageprocessingstepimages", image(&update, 0, "Id"))
        .await
        .expect(400);
    let create = step(&org, &endpoint, "Create", "account", json!({})).await;
    org.post("sdkmessageprocessingstepimages", image(&create, 0, "Id"))
        .await
        .expect(400);
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "After"}))
        .await
        .expect(204);
    let got = receiver.wait(1).await[0].clone();
    let (before, after) = (
        &got.body["PreEntityImages"][0],
        &got.body["PostEntityImages"][0],
    );
    assert_eq!(
        (&before["key"], attribute(&before["value"], "name").unwrap()),
        (&json!("row"), &json!("Example Ltd"))
    );
    assert_eq!(attribute(&after["value"], "name").unwrap(), "After");
    assert!(
        after["value"].get("__type").is_none(),
        "images carry no type"
    );
    assert_eq!(after["value"]["Attributes"].as_array().unwrap().len(), 2);
    org.delete(&format!("accounts({EXAMPLE})"))
        .await
        .expect(204);
    let all = receiver.wait(2).await;
    let got = all
        .iter()
        .find(|got| got.body["MessageName"] == "Delete")
        .unwrap();
    assert_eq!(
        attribute(&got.body["PreEntityImages"][0]["value"], "name").unwrap(),
        "After"
    );
    assert_eq!(got.body["PostEntityImages"], json!([]));
}

#[tokio::test]
async fn large_messages_lose_four_members() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    org.control(
        "tables",
        json!({"table": "account", "definition": {"columns": {"new_notes": "Memo(1000000)"}}}),
    )
    .await;
    step(&org, &endpoint, "Update", "account", json!({})).await;
    let path = format!("accounts({EXAMPLE})");
    // The parent repeats the parameters: half the limit is too much already.
    org.patch(&path, json!({"new_notes": "x".repeat(140_000)}))
        .await
        .expect(204);
    let got = receiver.wait(1).await[0].clone();
    assert_eq!(got.headers["x-ms-dynamics-msg-size-exceeded"], "true");
    for member in [
        "ParentContext",
        "InputParameters",
        "PreEntityImages",
        "PostEntityImages",
    ] {
        assert!(got.body.get(member).is_none(), "{member}");
    }
    assert_eq!(got.body["PrimaryEntityId"], EXAMPLE);
    org.patch(&path, json!({"new_notes": "x".repeat(120_000)}))
        .await
        .expect(204);
    assert!(
        !receiver.wait(2).await[1]
            .headers
            .contains_key("x-ms-dynamics-msg-size-exceeded")
    );
}

#[tokio::test]
async fn gateway_errors_are_tried_once_more_and_failures_leave_a_job() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    let step = step(&org, &endpoint, "Update", "account", json!({})).await;
    let path = format!("accounts({EXAMPLE})");
    let failed = async || {
        let request = org
            .request(reqwest::Method::GET, "asyncoperations")
            .query(&[(
                "$filter",
                format!("_owningextensionid_value eq {step} and statuscode eq 31"),
            )]);
        org.send(request).await.expect(200).rows().len()
    };
    let write = async |answers: &[u16]| {
        receiver.answer(answers);
        let before = receiver.all().len();
        org.patch(&path, json!({"name": "x"})).await.expect(204);
        settled(&org).await;
        receiver.all().len() - before
    };
    for status in [502, 503, 504] {
        assert_eq!(write(&[status]).await, 2, "{status}");
    }
    assert_eq!(failed().await, 0);
    assert_eq!(write(&[503, 503]).await, 2, "one more attempt, no third");
    assert_eq!(failed().await, 1);
    for status in [500, 429, 400, 302] {
        assert_eq!(write(&[status]).await, 1, "{status}");
    }
    assert_eq!(failed().await, 5);
    org.control("webhooks", json!({"timeout_ms": 50})).await;
    assert_eq!(write(&[1]).await, 1, "a receiver that does not answer");
    assert_eq!(failed().await, 6);
}

#[tokio::test]
async fn a_synchronous_step_that_fails_undoes_the_write() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    step(&org, &endpoint, "Update", "account", json!({"mode": 0})).await;
    let path = format!("accounts({EXAMPLE})");
    let before = org.get(&path).await.body;
    receiver.answer(&[500]);
    org.patch(&path, json!({"name": "x"}))
        .await
        .refused(400, "0x80040265");
    assert_eq!(org.get(&path).await.body, before, "row version and all");
    assert_eq!(
        receiver.all().len(),
        1,
        "what was sent can't be called back"
    );
    org.patch(&path, json!({"name": "y"})).await.expect(204);
    assert_eq!(receiver.all().len(), 2, "called before the answer");
    assert_eq!(org.get(&path).await.body["name"], "y");
}

#[tokio::test]
async fn deliveries_are_lost_doubled_or_out_of_order_by_script() {
    let Registered {
        org,
        receiver,
        endpoint,
    } = registered((4, "k")).await;
    step(&org, &endpoint, "Update", "account", json!({})).await;
    let path = format!("accounts({EXAMPLE})");
    let write = async |name: &str| org.patch(&path, json!({"name": name})).await.expect(204);
    org.control(
        "faults",
        json!({"on": {"table": "account", "message": "Update"}, "do": {"kind": "lose"}}),
    )
    .await;
    write("lost").await;
    org.control("faults", json!({"do": {"kind": "double"}}))
        .await;
    write("twice").await;
    receiver.wait(2).await;
    org.control("faults", json!({"do": {"kind": "hold", "behind": 1}}))
        .await;
    write("first").await;
    write("second").await;
    let names: Vec<_> = receiver
        .wait(4)
        .await
        .iter()
        .map(|got| attribute(target(got), "name").unwrap().clone())
        .collect();
    assert_eq!(names, ["twice", "twice", "second", "first"]);
    let log = settled(&org).await;
    assert_eq!(log[0]["outcome"], "lost");
}

#[tokio::test]
async fn registrations_that_can_t_work_are_refused() {
    let Registered { org, endpoint, .. } = registered((4, "k")).await;
    let (filter, message) = filter(&org, "Update", "account").await;
    let body = |more: Value| {
        let mut body = json!({
            "name": "s", "mode": 1, "stage": 40, "rank": 1, "supporteddeployment": 0,
            "sdkmessageid@odata.bind": format!("/sdkmessages({message})"),
            "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({filter})"),
            "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})"),
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    org.post("sdkmessageprocessingsteps", body(json!({"stage": 20})))
        .await
        .refused(400, "0x80040203");
    org.post("sdkmessageprocessingsteps", body(json!({"EventHandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})")}))).await.refused(400, "0x80048d19");
    let mut bare = body(json!({}));
    bare.as_object_mut()
        .unwrap()
        .remove("eventhandler_serviceendpoint@odata.bind");
    org.post("sdkmessageprocessingsteps", bare)
        .await
        .refused(400, "0x80040203");
    org.post(
        "serviceendpoints",
        json!({"name": "x", "contract": 8, "authtype": 4, "url": "ftp://x"}),
    )
    .await
    .refused(400, "0x80040203");
    let id = org
        .create("sdkmessageprocessingsteps", body(json!({})))
        .await;
    org.delete(&format!("serviceendpoints({endpoint})"))
        .await
        .refused(405, "0x80040227");
    org.delete(&format!("sdkmessageprocessingsteps({id})"))
        .await
        .expect(204);
    org.delete(&format!("serviceendpoints({endpoint})"))
        .await
        .expect(204);
}

#[tokio::test]
async fn a_queue_s_messages_wait_for_a_broker() {
    let org = TestOrg::start().await;
    let queue = json!({"name": "q", "contract": 2, "authtype": 2, "messageformat": 2, "path": "changes", "saskeyname": "send", "saskey": "k", "namespaceaddress": "sb://x.example/"});
    let endpoint = org.create("serviceendpoints", queue).await;
    step(&org, &endpoint, "Update", "account", json!({})).await;
    org.control(
        "tables",
        json!({"table": "account", "definition": {"columns": {"new_notes": "Memo(1000000)"}}}),
    )
    .await;
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "x"}))
        .await
        .expect(204);
    settled(&org).await;
    org.patch(
        &format!("accounts({OTHER})"),
        json!({"new_notes": "x".repeat(100_000)}),
    )
    .await
    .expect(204);
    settled(&org).await;
    assert_eq!(org.look("bus").await["waiting"], 2);
    let take = async || {
        org.send(org.client.delete(format!("{}/_sim/bus", org.running.url)))
            .await
            .body
    };
    let first = take().await;
    assert_eq!(
        (&first["entity"], &first["content_type"], &first["contract"]),
        (&json!("changes"), &json!("application/json"), &json!(2))
    );
    let body: Value = serde_json::from_str(first["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["PrimaryEntityId"], EXAMPLE);
    let claim = |name: &str| {
        first["properties"][format!("http://schemas.microsoft.com/xrm/2011/Claims/{name}")].clone()
    };
    assert_eq!(
        (claim("EntityLogicalName"), claim("RequestName")),
        (json!("account"), json!("Update"))
    );
    let second = take().await;
    assert_eq!(second["properties"]["MessageMaxSizeExceeded"], "true");
    assert_eq!(take().await, Value::Null);
}
