//! The tables that every org has, and the columns that every table of a kind has.

use serde_json::Value;

use super::super::schema::{Ownership, Table};
use super::definition::{Definition, DefinitionError, plain};

const CUSTOMER: &str = include_str!("../standard/customer.json");
const SYSTEM: &str = include_str!("../standard/system.json");

/// The standard tables, whole, in the order of their names.
pub(crate) fn tables() -> Result<Vec<Table>, DefinitionError> {
    let mut tables = Vec::new();
    for text in [CUSTOMER, SYSTEM] {
        let broken = |source| DefinitionError::Json {
            table: "the standard tables".to_owned(),
            source,
        };
        let all: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(broken)?;
        for (name, json) in all {
            let definition = Definition::read(&name, &json.to_string())?;
            let mut table = Table::new(&name, &format!("{name}s"));
            define(&mut table, &definition)?;
            tables.push(table);
        }
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// A table by its definition, with the columns of its kind.
pub(crate) fn define(table: &mut Table, definition: &Definition) -> Result<(), DefinitionError> {
    if let Some(ownership) = definition.ownership {
        table.ownership = ownership;
    }
    let name = table.name.clone();
    let mut add = |column: &str, kind: &str| {
        if !definition.columns.contains_key(column)
            && !table.columns.iter().any(|c| c.name == column)
        {
            table.columns.push(plain(&name, column, kind)?);
        }
        Ok::<(), DefinitionError>(())
    };
    let id = definition.id.clone().unwrap_or_else(|| format!("{name}id"));
    add(&id, "Uniqueidentifier createonly")?;
    add("versionnumber", "BigInt readonly")?;
    add("createdon", "DateTime readonly")?;
    add("modifiedon", "DateTime readonly")?;
    add("overriddencreatedon", "DateTime createonly")?;
    add("createdby", "Lookup(systemuser) readonly")?;
    add("modifiedby", "Lookup(systemuser) readonly")?;
    if definition.state.unwrap_or(true) {
        add("statecode", "State(0=Active,1=Inactive)")?;
        add("statuscode", "Status(0/1=Active,1/2=Inactive)")?;
    }
    if table.ownership == Ownership::UserOwned {
        let mut add = |column: &str, kind: &str| {
            if !table.columns.iter().any(|c| c.name == column) {
                table.columns.push(plain(&name, column, kind)?);
            }
            Ok::<(), DefinitionError>(())
        };
        add("ownerid", "Owner")?;
        add("owninguser", "Lookup(systemuser) readonly")?;
        add("owningteam", "Lookup(team) readonly")?;
        add("owningbusinessunit", "Lookup(businessunit) readonly")?;
    }
    definition.apply(table)?;
    table.index();
    Ok(())
}
