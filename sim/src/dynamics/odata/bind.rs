//! Binds the names of a condition or an ordering to the columns of a table, and checks types.

use std::sync::Arc;

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::schema::{Column, Kind, Table};
use super::super::store::Store;
use super::functions::{self, Function};
use super::parser::{Compare, Expr, Matching, Operand};

/// A condition over rows.
#[derive(Debug, Clone)]
pub(crate) enum Bound {
    And(Box<Bound>, Box<Bound>),
    Or(Box<Bound>, Box<Bound>),
    Not(Box<Bound>),
    Compare(Compare, Side, Side),
    Match(Matching, Side, Side),
    Function(Reach, Function),
    Lambda {
        /// The rows that refer back by this column of this table.
        table: String,
        place: usize,
        any: bool,
        body: Option<Box<Bound>>,
    },
    Truth(Reach),
}

/// A side of a comparison.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    Column(Reach),
    Literal(Cell),
}

/// A column of the row, or of one that it refers to.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Lookups to follow, by place.
    pub via: Vec<usize>,
    pub place: usize,
    pub kind: Kind,
}

/// Binds a condition to a table.
pub(crate) fn bind(store: &Store, table: &Table, expr: Expr) -> Result<Bound, ApiError> {
    Ok(match expr {
        Expr::And(a, b) => Bound::And(both(store, table, *a)?, both(store, table, *b)?),
        Expr::Or(a, b) => Bound::Or(both(store, table, *a)?, both(store, table, *b)?),
        Expr::Not(a) => Bound::Not(both(store, table, *a)?),
        Expr::Compare(compare, left, right) => {
            let (left, right) = (side(store, table, left)?, side(store, table, right)?);
            let (left, right) = agree(compare, left, right)?;
            Bound::Compare(compare, left, right)
        }
        Expr::Match(matching, left, right) => {
            let (left, right) = (side(store, table, left)?, side(store, table, right)?);
            matchable(&left, &right)?;
            Bound::Match(matching, left, right)
        }
        Expr::Function(name, arguments) => {
            let property = functions::property(&name, &arguments)?;
            let path: Vec<String> = property.split('/').map(str::to_owned).collect();
            let (reach, column) = reach(store, table, &path)?;
            let function = functions::read(&name, &column, &arguments)?;
            Bound::Function(reach, function)
        }
        Expr::Lambda { path, any, body } => {
            let [navigation] = path.as_slice() else {
                return Err(ApiError::odata(format!(
                    "any and all take a collection of the row, not '{}'",
                    path.join("/")
                )));
            };
            let (child, place) = collection(store, table, navigation)
                .ok_or_else(|| ApiError::no_property(navigation, &table.type_name()))?;
            if body.is_none() && !any {
                return Err(ApiError::odata("all needs a condition"));
            }
            let body = body.map(|body| both(store, &child, *body)).transpose()?;
            Bound::Lambda {
                table: child.name.clone(),
                place,
                any,
                body,
            }
        }
        Expr::Truth(Operand::Path(path)) => match reach(store, table, &path)? {
            (reach, _) if reach.kind == Kind::Boolean => Bound::Truth(reach),
            _ => {
                return Err(ApiError::odata(
                    "The $filter expression must evaluate to a single boolean value.",
                ));
            }
        },
        Expr::Truth(_) => {
            return Err(ApiError::odata(
                "The $filter expression must evaluate to a single boolean value.",
            ));
        }
    })
}

fn both(store: &Store, table: &Table, expr: Expr) -> Result<Box<Bound>, ApiError> {
    bind(store, table, expr).map(Box::new)
}

/// A column by a path over single-valued navigation properties.
pub(crate) fn reach(
    store: &Store,
    table: &Table,
    path: &[String],
) -> Result<(Reach, Column), ApiError> {
    let (Some(first), rest) = (path.first(), path.get(1..).unwrap_or_default()) else {
        return Err(ApiError::odata("An empty path was found."));
    };
    if rest.is_empty() {
        let place = table
            .property(first)
            .ok_or_else(|| ApiError::no_property(first, &table.type_name()))?;
        let column = table.columns[place].clone();
        let kind = column.kind;
        return Ok((
            Reach {
                via: Vec::new(),
                place,
                kind,
            },
            column,
        ));
    }
    let missing = || ApiError::no_property(first, &table.type_name());
    let (place, targets) = table.navigation(first).ok_or_else(missing)?;
    let target = targets.first().ok_or_else(missing)?;
    let next = store.table(&target.table).ok_or_else(missing)?;
    // A row of `principal` has no columns but its id.
    if targets.len() > 1 && rest != ["ownerid"] {
        return Err(ApiError::no_property(
            &rest.join("/"),
            "Microsoft.Dynamics.CRM.principal",
        ));
    }
    let (mut reach, column) = reach(store, &next.table, rest)?;
    reach.via.insert(0, place);
    Ok((reach, column))
}

/// The table and the column behind a collection-valued navigation property.
pub(crate) fn collection(
    store: &Store,
    table: &Table,
    navigation: &str,
) -> Option<(Arc<Table>, usize)> {
    store.tables().find_map(|rows| {
        let place = rows.table.columns.iter().position(|column| {
            let mut targets = column.targets.iter();
            targets.any(|target| target.table == table.name && target.back == navigation)
        })?;
        Some((Arc::clone(&rows.table), place))
    })
}

fn side(store: &Store, table: &Table, operand: Operand) -> Result<Side, ApiError> {
    Ok(match operand {
        Operand::Path(path) => Side::Column(reach(store, table, &path)?.0),
        Operand::Literal(cell) => Side::Literal(cell),
        Operand::Member(member) => {
            return Err(ApiError::odata(format!(
                "The string '{member}' is not a valid enumeration type constant."
            )));
        }
    })
}

/// The type of a side, in the words of an error; `None` for null, which fits all.
fn edm(side: &Side) -> Option<&'static str> {
    match side {
        Side::Column(reach) => Some(reach.kind.edm()),
        Side::Literal(cell) => match cell {
            Cell::Null => None,
            Cell::Text(_) | Cell::Choices(_) => Some("Edm.String"),
            Cell::Int(_) => Some("Edm.Int32"),
            Cell::Double(_) => Some("Edm.Double"),
            Cell::Decimal(_) => Some("Edm.Decimal"),
            Cell::Bool(_) => Some("Edm.Boolean"),
            Cell::Time(_) => Some("Edm.DateTimeOffset"),
            Cell::Date(_) => Some("Edm.Date"),
            Cell::Id(_) | Cell::Ref(..) => Some("Edm.Guid"),
        },
    }
}

fn is_number(edm: &str) -> bool {
    matches!(
        edm,
        "Edm.Int32" | "Edm.Int64" | "Edm.Double" | "Edm.Decimal"
    )
}

/// Lets a date stand for midnight beside a date-time; refuses other unlike types.
fn agree(compare: Compare, left: Side, right: Side) -> Result<(Side, Side), ApiError> {
    let (Some(a), Some(b)) = (edm(&left), edm(&right)) else {
        return Ok((left, right));
    };
    if a == b || is_number(a) && is_number(b) {
        return Ok((left, right));
    }
    let midnight = |side: Side| match side {
        Side::Literal(Cell::Date(date)) => {
            let time = date.and_time(chrono::NaiveTime::MIN).and_utc();
            Side::Literal(Cell::Time(time))
        }
        other => other,
    };
    if a == "Edm.DateTimeOffset" && b == "Edm.Date" || a == "Edm.Date" && b == "Edm.DateTimeOffset"
    {
        let (left, right) = (midnight(left), midnight(right));
        if edm(&left) == edm(&right) {
            return Ok((left, right));
        }
    }
    Err(ApiError::odata(format!(
        "A binary operator with incompatible types was detected. Found operand types '{a}' and '{b}' for operator kind '{}'.",
        compare.kind()
    )))
}

fn matchable(left: &Side, right: &Side) -> Result<(), ApiError> {
    if edm(left) != Some("Edm.String") || edm(right).is_some_and(|edm| edm != "Edm.String") {
        return Err(ApiError::odata(
            "No function signature for the function matches the specified arguments: texts are wanted.",
        ));
    }
    if let Side::Literal(Cell::Text(text)) = right
        && text.starts_with(['%', '_'])
    {
        return Err(ApiError::odata(
            "Leading wildcards are not supported in a text search.",
        ));
    }
    Ok(())
}
