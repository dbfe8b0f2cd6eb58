//! What users are granted, as queries tell it, and what they are not told without a look at Setup.

use reqwest::StatusCode;
use serde_json::json;

use crate::org::TestOrg;

#[tokio::test]
async fn grants_are_told_by_permission_sets() {
    let org = TestOrg::start().await;
    let user = &org.running.org.profile.run_as.id;
    let assigned =
        format!("SELECT PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = '{user}'");
    let set = org.column(&assigned, "PermissionSetId").await;
    assert_eq!(set.len(), 1);
    let set = set[0].as_str().unwrap();
    let sees = format!(
        "SELECT SobjectType FROM ObjectPermissions WHERE ParentId IN ('{set}') AND PermissionsViewAllRecords = true \
         ORDER BY SobjectType"
    );
    let all = ["Account", "Contact", "Employee__c", "User"];
    assert_eq!(org.column(&sees, "SobjectType").await, all);
    // Who sees not all of an entity's records is told no change of it.
    org.running.org.streaming.forbid("Account");
    assert_eq!(org.column(&sees, "SobjectType").await, all[1..]);
    let users = format!(
        "SELECT PermissionsViewAllData,PermissionsViewAllUsers FROM PermissionSet WHERE Id IN ('{set}')"
    );
    assert_eq!(org.column(&users, "PermissionsViewAllUsers").await, [true]);
    assert_eq!(org.column(&users, "PermissionsViewAllData").await, [false]);

    let granted = "SELECT ParentId, Field FROM FieldPermissions WHERE SobjectType = 'Account' AND \
                   Field IN ('Account.Industry', 'Account.Nothing')";
    assert_eq!(org.column(granted, "ParentId").await, [set]);
    assert!(org.running.org.show_field("Account", "Industry", false));
    let others = org.column(granted, "ParentId").await;
    assert_eq!(others.len(), 1, "it is there for others");
    assert_ne!(others, [set]);
}

#[tokio::test]
async fn without_a_look_at_setup_there_is_nothing_to_see() {
    let org = TestOrg::start().await;
    org.running.org.view_setup(false);
    let limits = org.get("limits").await;
    assert_eq!(
        (limits.status, limits.code()),
        (StatusCode::FORBIDDEN, "INSUFFICIENT_ACCESS")
    );
    for object in [
        "FieldPermissions",
        "ObjectPermissions",
        "PermissionSetAssignment",
    ] {
        let answer = org.query(&format!("SELECT Id FROM {object}")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "INVALID_TYPE")
        );
    }
    let soql = "SELECT Id FROM PlatformEventChannelMember";
    let request = org.request(reqwest::Method::GET, "tooling/query");
    let answer = org.send(request.query(&[("q", soql)])).await;
    assert_eq!(answer.code(), "INVALID_TYPE");
    let member = json!({"FullName": "x", "Metadata": {}});
    let path = "tooling/sobjects/PlatformEventChannelMember";
    let answer = org.call(reqwest::Method::POST, path, member).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    // Records are none of Setup.
    assert_eq!(
        org.query("SELECT Id FROM Account").await.status,
        StatusCode::OK
    );
}
