//! A row as JSON: the selected columns, and the annotations that were asked for.

use std::collections::BTreeSet;

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::schema::{Kind, Table};
use super::super::store::{Row, Store};
use super::page::Prefer;

const FORMATTED: &str = "OData.Community.Display.V1.FormattedValue";
const LOOKUP: &str = "Microsoft.Dynamics.CRM.lookuplogicalname";
const NAVIGATION: &str = "Microsoft.Dynamics.CRM.associatednavigationproperty";

/// Columns to be shown, by place, in the order of the table.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub places: Vec<usize>,
    /// As they stand in `@odata.context`; empty if all are shown.
    pub names: Vec<String>,
}

/// The columns of `$select`; all if it is absent.
pub(crate) fn selection(
    table: &Table,
    select: Option<&Vec<String>>,
) -> Result<Selection, ApiError> {
    let Some(select) = select.filter(|select| select.iter().all(|name| name != "*")) else {
        let readable = (0..table.columns.len()).filter(|place| table.columns[*place].readable);
        return Ok(Selection {
            places: readable.collect(),
            names: Vec::new(),
        });
    };
    let mut places = BTreeSet::new();
    let mut names = Vec::new();
    for name in select {
        let place = table
            .property(name)
            .ok_or_else(|| ApiError::no_property(name, &table.type_name()))?;
        places.insert(place);
        names.push(name.clone());
    }
    places.insert(table.id_place());
    let money = places
        .iter()
        .any(|place| table.columns[*place].kind == Kind::Money);
    if let Some(currency) = table.place("transactioncurrencyid").filter(|_| money) {
        places.insert(currency);
    }
    // A user and a team are principals, whose key comes along.
    if matches!(table.name.as_str(), "systemuser" | "team") {
        places.extend(table.place("ownerid"));
    }
    Ok(Selection {
        places: places.into_iter().collect(),
        names,
    })
}

/// The ETag of a row.
pub(crate) fn etag(row: &Row) -> String {
    format!("W/\"{}\"", row.version)
}

/// The members of a row.
pub(crate) fn members(
    store: &Store,
    table: &Table,
    row: &Row,
    selection: &Selection,
    prefer: &Prefer,
) -> Vec<(String, Node)> {
    let mut members = Vec::with_capacity(selection.places.len() + 1);
    members.push(("@odata.etag".to_owned(), Node::from(etag(row))));
    let (formatted, lookup, navigation) = (
        prefer.annotated(FORMATTED),
        prefer.annotated(LOOKUP),
        prefer.annotated(NAVIGATION),
    );
    for place in &selection.places {
        let column = &table.columns[*place];
        let cell = match column.secured {
            true => &Cell::Null,
            false => row.cell(*place),
        };
        let property = column.property();
        if let Cell::Ref(target, id) = cell {
            if formatted && let Some(name) = name_of(store, target, *id) {
                members.push((format!("{property}@{FORMATTED}"), Node::from(name)));
            }
            let bound = column.targets.iter().find(|t| t.table == **target);
            if navigation && let Some(bound) = bound {
                members.push((
                    format!("{property}@{NAVIGATION}"),
                    Node::from(bound.navigation.clone()),
                ));
            }
            if lookup {
                members.push((
                    format!("{property}@{LOOKUP}"),
                    Node::from(target.to_string()),
                ));
            }
        } else if formatted && let Some(text) = cell.formatted(column) {
            members.push((format!("{property}@{FORMATTED}"), Node::from(text)));
        }
        members.push((property, cell.json()));
    }
    members
}

/// The primary name of a row.
pub(crate) fn name_of(store: &Store, table: &str, id: Guid) -> Option<String> {
    let rows = store.table(table)?;
    let place = rows.table.place(&rows.table.primary_name)?;
    match rows.row(id)?.cell(place) {
        Cell::Text(text) => Some(text.to_string()),
        _ => None,
    }
}
