//! The service document, and the model as CSDL.

use serde_json::json;

use super::super::error::ApiError;
use super::super::node::Node;
use super::super::odata::percent;
use super::super::org::Org;
use super::super::schema::{Kind, Table};
use super::super::store::Store;
use super::{ROOT, Reply};

/// Every entity set.
pub(crate) fn service_document(org: &Org, store: &Store) -> Result<Reply, ApiError> {
    let sets = store.tables().map(|rows| {
        let set = &rows.table.set;
        Node::Value(json!({"name": set, "kind": "EntitySet", "url": set}))
    });
    Ok(Reply::json(Node::Object(vec![
        (
            "@odata.context".to_owned(),
            Node::from(format!("{}{ROOT}$metadata", org.url())),
        ),
        ("value".to_owned(), Node::Array(sets.collect())),
    ])))
}

/// `$metadata`, with annotations if they are asked for.
pub(crate) fn document(_: &Org, store: &Store, query: &str) -> Result<Reply, ApiError> {
    let annotated = match percent::decode(query).as_str() {
        "" => false,
        "annotations=true" => true,
        other => {
            return Err(ApiError::odata(format!(
                "The query parameter {other} is not supported"
            )));
        }
    };
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><edmx:Edmx Version=\"4.0\" xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\">\
         <edmx:DataServices><Schema Namespace=\"Microsoft.Dynamics.CRM\" Alias=\"mscrm\" xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">\
         <EntityType Name=\"crmbaseentity\" Abstract=\"true\" /><EntityType Name=\"principal\" BaseType=\"mscrm.crmbaseentity\">\
         <Key><PropertyRef Name=\"ownerid\" /></Key><Property Name=\"ownerid\" Type=\"Edm.Guid\" /></EntityType>",
    );
    let all = || store.tables().map(|rows| rows.table.as_ref());
    for table in all() {
        entity_type(&mut text, table, store);
    }
    text.push_str(FUNCTIONS);
    text.push_str("<EntityContainer Name=\"System\">");
    for table in all() {
        entity_set(&mut text, table, store, annotated);
    }
    text.push_str(
        "<FunctionImport Name=\"WhoAmI\" Function=\"Microsoft.Dynamics.CRM.WhoAmI\" />\
         <FunctionImport Name=\"RetrieveTotalRecordCount\" Function=\"Microsoft.Dynamics.CRM.RetrieveTotalRecordCount\" />\
         <ActionImport Name=\"CloseIncident\" Action=\"Microsoft.Dynamics.CRM.CloseIncident\" />\
         </EntityContainer></Schema></edmx:DataServices></edmx:Edmx>",
    );
    Ok(Reply::text("application/xml", text))
}

const FUNCTIONS: &str = "<ComplexType Name=\"WhoAmIResponse\"><Property Name=\"BusinessUnitId\" Type=\"Edm.Guid\" Nullable=\"false\" />\
    <Property Name=\"UserId\" Type=\"Edm.Guid\" Nullable=\"false\" /><Property Name=\"OrganizationId\" Type=\"Edm.Guid\" Nullable=\"false\" />\
    </ComplexType><Function Name=\"WhoAmI\"><ReturnType Type=\"mscrm.WhoAmIResponse\" Nullable=\"false\" /></Function>\
    <Function Name=\"RetrieveTotalRecordCount\"><Parameter Name=\"EntityNames\" Type=\"Collection(Edm.String)\" Nullable=\"false\" />\
    <ReturnType Type=\"mscrm.crmbaseentity\" /></Function>\
    <Action Name=\"CloseIncident\"><Parameter Name=\"IncidentResolution\" Type=\"mscrm.crmbaseentity\" Nullable=\"false\" />\
    <Parameter Name=\"Status\" Type=\"Edm.Int32\" Nullable=\"false\" /></Action>";

fn entity_type(text: &mut String, table: &Table, store: &Store) {
    let mut out = format!(
        "<EntityType Name=\"{}\" BaseType=\"mscrm.crmbaseentity\"><Key><PropertyRef Name=\"{}\" /></Key>",
        table.name, table.primary_id
    );
    for column in table.columns.iter().filter(|column| column.readable) {
        let computed = if column.creatable || column.updatable {
            ""
        } else {
            " Org.OData.Core.V1.Computed=\"true\""
        };
        let property = column.property();
        let scale = match column.kind {
            Kind::Decimal | Kind::Money => " Scale=\"Variable\"",
            _ => "",
        };
        out.push_str(&format!(
            "<Property Name=\"{property}\" Type=\"{}\"{scale}{computed} />",
            column.kind.edm()
        ));
    }
    for column in &table.columns {
        let mut before = "";
        for target in &column.targets {
            if target.navigation == before {
                continue;
            }
            before = &target.navigation;
            let kind = match column.kind {
                Kind::Owner => "principal",
                _ => target.table.as_str(),
            };
            out.push_str(&format!(
                "<NavigationProperty Name=\"{}\" Type=\"mscrm.{kind}\" Nullable=\"true\" Partner=\"{}\">\
                 <ReferentialConstraint Property=\"{}\" ReferencedProperty=\"{}\" /></NavigationProperty>",
                target.navigation,
                target.back,
                column.property(),
                store.table(&target.table).map_or("ownerid", |rows| rows.table.primary_id.as_str()),
            ));
        }
    }
    for rows in store.tables() {
        for target in rows.table.columns.iter().flat_map(|column| &column.targets) {
            if target.table == table.name {
                out.push_str(&format!(
                    "<NavigationProperty Name=\"{}\" Type=\"Collection(mscrm.{})\" Partner=\"{}\" />",
                    target.back, rows.table.name, target.navigation
                ));
            }
        }
    }
    out.push_str("</EntityType>");
    text.push_str(&out);
}

fn entity_set(text: &mut String, table: &Table, store: &Store, annotated: bool) {
    text.push_str(&format!(
        "<EntitySet Name=\"{}\" EntityType=\"Microsoft.Dynamics.CRM.{}\">",
        table.set, table.name
    ));
    for column in &table.columns {
        for target in column.targets.iter().filter(|_| column.kind != Kind::Owner) {
            if let Some(rows) = store.table(&target.table) {
                let (path, set) = (&target.navigation, &rows.table.set);
                text.push_str(&format!(
                    "<NavigationPropertyBinding Path=\"{path}\" Target=\"{set}\" />"
                ));
            }
        }
    }
    if annotated {
        text.push_str(&format!(
            "<Annotation Term=\"Org.OData.Capabilities.V1.ChangeTracking\"><Record><PropertyValue Property=\"Supported\" Bool=\"{}\" />\
             </Record></Annotation>",
            table.tracked
        ));
    }
    text.push_str("</EntitySet>");
}
