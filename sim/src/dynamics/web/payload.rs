//! A body as columns of a table: values, and references bound to rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::super::cell::{Cell, Unfit};
use super::super::error::ApiError;
use super::super::schema::{Column, Table, Target};
use super::super::transaction::Tx;
use super::ROOT;
use super::address::{Address, find, row_key};

/// A JSON object whose values are still text.
pub(crate) type Members = BTreeMap<String, Box<RawValue>>;

/// Reads a body that is one object.
pub(crate) fn object(set: &str, body: &[u8]) -> Result<Members, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::payload(set, &format!("Invalid JSON. {error}")))
}

/// The columns that a body sets.
pub(crate) fn columns(
    tx: &Tx<'_>,
    table: &Table,
    body: &Members,
) -> Result<Vec<(usize, Cell)>, ApiError> {
    let mut set = Vec::with_capacity(body.len());
    for (name, raw) in body {
        if let Some(navigation) = name.strip_suffix("@odata.bind") {
            set.push(bound(tx, table, navigation, raw)?);
        } else if name.contains('@') {
            // Annotations say nothing about columns.
        } else {
            set.push(plain(table, name, raw)?);
        }
    }
    Ok(set)
}

fn plain(table: &Table, name: &str, raw: &RawValue) -> Result<(usize, Cell), ApiError> {
    if let Some(place) = table
        .place(name)
        .filter(|place| !table.columns[*place].kind.is_lookup())
    {
        let column = &table.columns[place];
        let cell =
            Cell::from_json(column, raw).map_err(|unfit| refused(table, column, raw, &unfit))?;
        return Ok((place, cell));
    }
    if let Some((place, _)) = table.navigation(name) {
        if raw.get() == "null" {
            return Ok((place, Cell::Null));
        }
        return Err(ApiError::payload(
            &table.set,
            &format!("Deep inserts are not simulated: bind '{name}' by '{name}@odata.bind'."),
        ));
    }
    if table
        .columns
        .iter()
        .any(|column| column.kind.is_lookup() && column.property() == name)
    {
        return Err(ApiError::payload(
            &table.set,
            &format!("'{name}' is read only: bind the navigation property of the lookup."),
        ));
    }
    Err(ApiError::payload(
        &table.set,
        &format!(
            "Invalid property '{name}' was found in entity '{}'.",
            table.type_name()
        ),
    ))
}

fn refused(table: &Table, column: &Column, raw: &RawValue, unfit: &Unfit) -> ApiError {
    let (value, name) = (raw.get(), &column.name);
    match unfit {
        Unfit::Type => ApiError::payload(
            &table.set,
            &format!(
                "Cannot convert the literal '{}' to the expected type '{}'.",
                value.trim_matches('"'),
                column.kind.edm()
            ),
        ),
        Unfit::TooLong => ApiError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "0x80044331",
            format!(
                "A validation error occurred. The length of the '{name}' attribute of the '{}' entity exceeded the maximum allowed length of '{}'.",
                table.name, column.max_length
            ),
        ),
        Unfit::Choice => ApiError::argument(format!(
            "A validation error occurred. The value {value} of '{name}' on record of type '{}' is outside the valid range.",
            table.name
        )),
        Unfit::Range => ApiError::argument(format!(
            "A validation error occurred. The value {value} of '{name}' is out of the range of its type."
        )),
    }
}

fn bound(
    tx: &Tx<'_>,
    table: &Table,
    navigation: &str,
    raw: &RawValue,
) -> Result<(usize, Cell), ApiError> {
    let (place, targets) = table.navigation(navigation).ok_or_else(|| {
        ApiError::payload(&table.set, &format!(
            "An undeclared property '{navigation}' which only has property annotations in the payload but no property value was found in the \
             payload. In OData, only declared navigation properties and declared named streams can be represented as properties without values."
        ))
    })?;
    if raw.get() == "null" {
        return Ok((place, Cell::Null));
    }
    let wrong = || {
        ApiError::payload(
            &table.set,
            &format!(
                "The value of '{navigation}@odata.bind' is no URL of a row: {}.",
                raw.get()
            ),
        )
    };
    let url: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    reference(tx, targets, &url)
        .map(|cell| (place, cell))
        .map_err(|error| error.unwrap_or_else(wrong))
}

/// The row that a URL names, if it is one of these tables; `None` for a URL of another form.
pub(crate) fn reference(
    tx: &Tx<'_>,
    targets: &[Target],
    url: &str,
) -> Result<Cell, Option<ApiError>> {
    let url = match url.strip_prefix('$') {
        Some(id) => tx.content_ids.get(id).map(String::as_str).ok_or_else(|| {
            Some(ApiError::odata(format!(
                "Content-ID Reference: '${id}' does not exist in the batch context."
            )))
        })?,
        None => url,
    };
    let path = match url.split_once(ROOT) {
        Some((_, path)) => path,
        None => url.trim_start_matches('/'),
    };
    let address = Address::read(path).map_err(Some)?;
    let [segment] = address.segments.as_slice() else {
        return Err(None);
    };
    let arguments = segment.arguments.as_ref().ok_or(None)?;
    let rows = tx
        .store
        .set(&segment.name)
        .ok_or_else(|| Some(ApiError::no_segment(&segment.name)))?;
    if !targets.iter().any(|target| target.table == rows.table.name) {
        return Err(None);
    }
    let key = row_key(&rows.table, arguments).map_err(Some)?;
    let id = find(rows, &key).map_err(Some)?;
    Ok(Cell::Ref(Arc::from(rows.table.name.as_str()), id))
}
