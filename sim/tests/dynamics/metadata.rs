//! Definitions of tables, columns and keys; the model; the service document.

use serde_json::{Value, json};

use crate::harness::TestOrg;

fn find<'r>(rows: &'r [Value], name: &str) -> &'r Value {
    rows.iter()
        .find(|row| row["LogicalName"] == name)
        .unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

#[tokio::test]
async fn a_table_is_described_with_its_columns() {
    let org = TestOrg::start().await;
    let path = "EntityDefinitions(LogicalName='account')?$select=LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,\
                ChangeTrackingEnabled,IsOptimisticConcurrencyEnabled,OwnershipType&$expand=Attributes($select=LogicalName,AttributeType,\
                AttributeTypeName,SchemaName,RequiredLevel,IsValidForRead,IsValidForCreate,IsValidForUpdate)";
    let body = org.get(path).await.expect(200).body;
    assert_eq!(
        (
            &body["EntitySetName"],
            &body["PrimaryIdAttribute"],
            &body["PrimaryNameAttribute"]
        ),
        (&json!("accounts"), &json!("accountid"), &json!("name"))
    );
    assert_eq!(
        (&body["ChangeTrackingEnabled"], &body["OwnershipType"]),
        (&json!(true), &json!("UserOwned"))
    );
    assert!(
        body.get("value").is_none()
            && body.get("SchemaName").is_none()
            && body["MetadataId"].is_string()
    );
    let columns = body["Attributes"].as_array().unwrap();
    let name = find(columns, "name");
    assert_eq!(
        (
            &name["AttributeType"],
            &name["AttributeTypeName"]["Value"],
            &name["RequiredLevel"]["Value"]
        ),
        (
            &json!("String"),
            &json!("StringType"),
            &json!("ApplicationRequired")
        )
    );
    assert_eq!(find(columns, "modifiedon")["IsValidForUpdate"], false);
    assert_eq!(find(columns, "ownerid")["AttributeType"], "Owner");
    org.get("EntityDefinitions(LogicalName='nothing')")
        .await
        .expect(404);
    let task = org
        .get("EntityDefinitions(LogicalName='task')?$select=PrimaryIdAttribute")
        .await
        .body;
    assert_eq!(task["PrimaryIdAttribute"], "activityid");
}

#[tokio::test]
async fn definitions_are_filtered_by_qualified_members_and_paths() {
    let org = TestOrg::start().await;
    let tracked = org.get("EntityDefinitions?$select=LogicalName,EntitySetName&$filter=ChangeTrackingEnabled eq true").await.expect(200);
    find(tracked.rows(), "account");
    assert!(
        tracked
            .rows()
            .iter()
            .all(|row| row["LogicalName"] != "new_plan")
    );
    let can = org.get("EntityDefinitions?$select=LogicalName&$filter=CanChangeTrackingBeEnabled/Value eq true").await.expect(200);
    find(can.rows(), "new_plan");
    let base = "EntityDefinitions(LogicalName='account')/Attributes?$select=LogicalName&$filter=AttributeType eq ";
    let picklists = org
        .get(&format!(
            "{base}Microsoft.Dynamics.CRM.AttributeTypeCode'Picklist'"
        ))
        .await
        .expect(200);
    find(picklists.rows(), "industrycode");
    assert!(
        picklists
            .rows()
            .iter()
            .all(|row| row["LogicalName"] != "name")
    );
    org.get(&format!("{base}'Picklist'"))
        .await
        .refused(400, "0x80060888");
    org.get("EntityDefinitions?$select=Nothing")
        .await
        .refused(400, "0x80060888");
}

#[tokio::test]
async fn what_belongs_to_a_kind_comes_with_its_cast() {
    let org = TestOrg::start().await;
    let base = "EntityDefinitions(LogicalName='account')/Attributes";
    let picklist = org.get(&format!("{base}/Microsoft.Dynamics.CRM.PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet,GlobalOptionSet")).await.expect(200);
    let industry = find(picklist.rows(), "industrycode");
    let options = industry["OptionSet"]["Options"].as_array().unwrap();
    assert_eq!(
        (
            options.len(),
            &options[0]["Value"],
            &options[0]["Label"]["UserLocalizedLabel"]["Label"]
        ),
        (33, &json!(1), &json!("Accounting"))
    );
    assert_eq!(
        (&options[0]["Color"], &industry["GlobalOptionSet"]),
        (&Value::Null, &Value::Null)
    );
    let status = org
        .get(&format!(
            "{base}/Microsoft.Dynamics.CRM.StatusAttributeMetadata?$expand=OptionSet"
        ))
        .await
        .expect(200);
    assert_eq!(
        find(status.rows(), "statuscode")["OptionSet"]["Options"][1]["State"],
        1
    );
    let state = org
        .get(&format!(
            "{base}/Microsoft.Dynamics.CRM.StateAttributeMetadata?$expand=OptionSet"
        ))
        .await
        .expect(200);
    assert_eq!(state.rows().len(), 1);
    let boolean = org.get(&format!("{base}/Microsoft.Dynamics.CRM.BooleanAttributeMetadata?$select=LogicalName&$expand=OptionSet")).await.expect(200);
    assert_eq!(
        find(boolean.rows(), "donotemail")["OptionSet"]["TrueOption"]["Value"],
        1
    );
    let lookup = org
        .get(&format!(
            "{base}/Microsoft.Dynamics.CRM.LookupAttributeMetadata?$select=LogicalName,Targets"
        ))
        .await
        .expect(200);
    assert_eq!(
        find(lookup.rows(), "ownerid")["Targets"],
        json!(["systemuser", "team"])
    );
    let money = org
        .get(&format!(
            "{base}/Microsoft.Dynamics.CRM.MoneyAttributeMetadata?$select=Precision,LogicalName"
        ))
        .await
        .expect(200);
    assert_eq!(find(money.rows(), "revenue")["Precision"], 2);
    let one = org
        .get(&format!(
            "{base}(LogicalName='revenue')/Microsoft.Dynamics.CRM.MoneyAttributeMetadata"
        ))
        .await
        .expect(200);
    assert_eq!(one.body["Precision"], 2);
    let multi = org.get("EntityDefinitions(LogicalName='new_plan')/Attributes/Microsoft.Dynamics.CRM.MultiSelectPicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet").await.expect(200);
    assert_eq!(
        find(multi.rows(), "new_tags")["OptionSet"]["Options"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    org.get(&format!("{base}?$select=Targets"))
        .await
        .refused(400, "0x80060888");
    org.get(&format!("{base}?$expand=OptionSet"))
        .await
        .refused(400, "0x80060888");
    org.get(&format!(
        "{base}/Microsoft.Dynamics.CRM.EnumAttributeMetadata"
    ))
    .await
    .refused(400, "0x80060888");
}

#[tokio::test]
async fn keys_are_listed() {
    let org = TestOrg::start().await;
    let all = org.get("EntityDefinitions?$select=LogicalName&$expand=Keys($select=KeyAttributes,EntityKeyIndexStatus)").await.expect(200);
    let keys = &find(all.rows(), "account")["Keys"];
    assert_eq!(
        (&keys[0]["KeyAttributes"], &keys[0]["EntityKeyIndexStatus"]),
        (&json!(["accountnumber"]), &json!("Active"))
    );
    assert_eq!(
        org.get("EntityDefinitions(LogicalName='account')/Keys")
            .await
            .expect(200)
            .rows()
            .len(),
        1
    );
}

#[tokio::test]
async fn the_model_and_the_service_document_name_every_set() {
    let org = TestOrg::start().await;
    let sets = org.get("").await.expect(200);
    assert!(sets.rows().iter().any(|row| row["url"] == "opportunities"));
    let plain = org.get("$metadata").await.expect(200);
    assert!(plain.text.contains(
        "<EntitySet Name=\"opportunities\" EntityType=\"Microsoft.Dynamics.CRM.opportunity\">"
    ));
    assert!(
        plain
            .text
            .contains("<Property Name=\"_primarycontactid_value\" Type=\"Edm.Guid\"")
    );
    assert!(!plain.text.contains("ChangeTracking"));
    let annotated = org.get("$metadata?annotations=true").await.expect(200);
    assert!(
        annotated
            .text
            .contains("Org.OData.Capabilities.V1.ChangeTracking")
    );
}

#[tokio::test]
async fn the_metadata_version_moves_with_every_definition() {
    let org = TestOrg::start().await;
    let version = async || {
        org.prefer("accounts?$top=1", "odata.include-annotations=\"*\"")
            .await
            .body["@Microsoft.Dynamics.CRM.globalmetadataversion"]
            .clone()
    };
    let before = version().await;
    assert_eq!(before, version().await);
    org.control("tables", json!({"table": "new_other", "definition": {"columns": {"new_name": "String(50)"}, "name": "new_name"}})).await;
    assert_ne!(before, version().await);
    org.create("new_others", json!({"new_name": "x"})).await;
}
