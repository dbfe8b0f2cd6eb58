//! What a user may do, by the functions that tell it and by the definitions that name it.

use serde_json::{Value, json};

use crate::harness::TestOrg;

async fn user(org: &TestOrg) -> String {
    let who = org.get("WhoAmI").await.expect(200).body;
    who["UserId"].as_str().unwrap().to_owned()
}

async fn held(org: &TestOrg) -> Vec<Value> {
    let path = format!(
        "systemusers({})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges",
        user(org).await
    );
    let body = org.get(&path).await.expect(200).body;
    body["RolePrivileges"].as_array().unwrap().clone()
}

#[tokio::test]
async fn definitions_name_the_privileges_that_users_hold() {
    let org = TestOrg::start().await;
    for (table, name) in [
        ("account", "prvReadAccount"),
        ("systemuser", "prvReadUser"),
        ("transactioncurrency", "prvReadTransactionCurrency"),
        ("task", "prvReadActivity"),
    ] {
        let path =
            format!("EntityDefinitions(LogicalName='{table}')?$select=LogicalName,Privileges");
        let body = org.get(&path).await.expect(200).body;
        let privileges = body["Privileges"].as_array().unwrap();
        let read = privileges
            .iter()
            .find(|one| one["PrivilegeType"] == "Read")
            .unwrap();
        assert_eq!(read["Name"], name);
        let held = held(&org).await;
        let own = held
            .iter()
            .find(|one| one["PrivilegeId"] == read["PrivilegeId"]);
        let own = own.unwrap_or_else(|| panic!("{name} is not held"));
        assert_eq!(
            (&own["Depth"], &own["PrivilegeName"]),
            (&json!("Global"), &json!(name))
        );
    }
    org.control("privileges", json!({"deny": [["Read", "account"]]}))
        .await;
    let held = held(&org).await;
    assert!(
        held.iter()
            .all(|one| one["PrivilegeName"] != "prvReadAccount")
    );
    assert!(
        held.iter()
            .any(|one| one["PrivilegeName"] == "prvWriteAccount")
    );
}

#[tokio::test]
async fn nobody_is_in_a_column_security_profile() {
    let org = TestOrg::start().await;
    let user = user(&org).await;
    let path =
        format!("systemusers({user})/Microsoft.Dynamics.CRM.RetrievePrincipalAttributePrivileges");
    let body = org.get(&path).await.expect(200).body;
    assert_eq!(body["AttributePrivileges"], json!([]));
    let unknown = format!("systemusers({user})/Microsoft.Dynamics.CRM.RetrieveEverything");
    org.get(&unknown).await.expect(404);
}
