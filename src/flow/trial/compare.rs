//! Whether what a test expects is what there is: rows in any order, each once; errors by a part of their text.

use std::future::Future;
use std::pin::Pin;

use crate::config::Config;
use crate::config::job::{Expected, ExpectedRow, MappingTest};
use crate::config::problem::{Located, Problem};
use crate::fault::Fault;
use crate::mapping::cast::{cast, type_name};
use crate::mapping::decimal;
use crate::mapping::plan::Cell;
use crate::model::stored::StoredObject;
use crate::model::value::Value;
use crate::target::port::{RowsPage, StoredRow, Target};

/// Rows of a table that a test may leave.
const MOST_ROWS: usize = 10_000;

/// What is wrong about refused records: each was expected, and each expectation met.
pub(super) fn errors(test: &MappingTest, refused: &[String]) -> Vec<Problem> {
    let mut failures = Vec::new();
    for expected in &test.errors {
        if !refused
            .iter()
            .any(|reason| reason.contains(&expected.value))
        {
            let what = "no record was refused for that";
            let told = if refused.is_empty() {
                "none was refused; correct the record or the text".to_owned()
            } else {
                format!("refused were: {}", refused.join(" | "))
            };
            failures.push(
                Problem::new(&expected.spot, what, told).value(format!("{:?}", expected.value)),
            );
        }
    }
    for reason in refused {
        if !test
            .errors
            .iter()
            .any(|expected| reason.contains(&expected.value))
        {
            let what = format!("a record was refused: {reason}");
            failures.push(Problem::new(
                &test.spot,
                what,
                "correct the job, or expect it: errors = [\"…\"]",
            ));
        }
    }
    failures
}

/// What is wrong about the rows of one object.
pub(super) async fn rows(
    config: &Config,
    target: &dyn Target,
    label: &Located<String>,
    expected: &[ExpectedRow],
) -> Result<Vec<Problem>, Fault> {
    let Some(object) = config.objects.get(&label.value) else {
        let labels: Vec<&str> = config.objects.keys().map(String::as_str).collect();
        let remedy = format!("write one of {}", labels.join(", "));
        let problem = Problem::new(&label.spot, "no stored object", remedy);
        return Ok(vec![problem.value(format!("{:?}", label.value))]);
    };
    let unknown = unknown_columns(config, object, expected);
    if !unknown.is_empty() {
        let told = |what| Problem::new(&label.spot, what, "name columns as the object's file does");
        return Ok(unknown.into_iter().map(told).collect());
    }
    let found = target.rows(&object.table, everything()).await?;
    let mut fits = vec![vec![false; found.len()]; expected.len()];
    for (row, wanted) in fits.iter_mut().zip(expected) {
        for (fits, found) in row.iter_mut().zip(&found) {
            *fits = is_like(config, target, object, found, wanted).await?;
        }
    }
    let pairs = paired(&fits, found.len());
    let mut failures = Vec::new();
    for (at, wanted) in expected.iter().enumerate() {
        if !pairs.contains(&Some(at)) {
            let what = format!(
                "row {} of {} that is expected is not there: {}",
                at + 1,
                label.value,
                shown(wanted)
            );
            failures.push(Problem::new(&label.spot, what, told(&found)));
        }
    }
    for (row, pair) in found.iter().zip(&pairs) {
        if pair.is_none() {
            let what = format!(
                "a row of {} is there that is not expected: {}",
                label.value,
                json(row)
            );
            failures.push(Problem::new(
                &label.spot,
                what,
                "correct the job, or expect it",
            ));
        }
    }
    Ok(failures)
}

fn everything() -> RowsPage {
    RowsPage {
        limit: MOST_ROWS,
        ..RowsPage::default()
    }
}

fn told(found: &[StoredRow]) -> String {
    if found.is_empty() {
        return "there is none".to_owned();
    }
    let rows: Vec<String> = found.iter().map(json).collect();
    format!("there are: {}", rows.join(" "))
}

/// A row without what is empty and what no test can know.
fn json(row: &StoredRow) -> String {
    let mut json = row.to_json();
    json.retain(|column, value| {
        !value.is_null() && !matches!(column.as_str(), "gsid" | "created_date" | "modified_date")
    });
    serde_json::Value::Object(json).to_string()
}

fn shown(row: &ExpectedRow) -> String {
    let columns = row.iter().map(|(column, expected)| match expected {
        Expected::Value(value) => format!("{column} = {value}"),
        Expected::Row(row) => format!("{column} = {}", shown(row)),
    });
    format!("{{ {} }}", columns.collect::<Vec<_>>().join(", "))
}

/// What every table has besides its object's columns, and a test may know.
fn is_of_the_daemon(column: &str) -> bool {
    matches!(column, "crm_state" | "crm_state_at")
}

fn unknown_columns(config: &Config, object: &StoredObject, rows: &[ExpectedRow]) -> Vec<String> {
    let mut unknown = Vec::new();
    for (column, expected) in rows.iter().flatten() {
        let field = object.field(column);
        match (expected, field) {
            (_, None) if is_of_the_daemon(column) => {}
            (_, None) => unknown.push(format!("{} has no column `{column}`", object.label)),
            (Expected::Value(value), Some(field)) => {
                if let Err(error) = cast(value, field.ty) {
                    unknown.push(format!(
                        "{error}, but column `{column}` is of type {}",
                        type_name(field.ty)
                    ));
                }
            }
            (Expected::Row(row), Some(field)) => match pointed(config, field.references.as_deref())
            {
                Some(object) => {
                    unknown.extend(unknown_columns(config, object, std::slice::from_ref(row)));
                }
                None => unknown.push(format!("`{column}` of {} holds no row's id", object.label)),
            },
        }
    }
    unknown
}

fn pointed<'c>(config: &'c Config, table: Option<&str>) -> Option<&'c StoredObject> {
    config
        .objects
        .values()
        .find(|object| Some(object.table.as_str()) == table)
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send + 'a>>;

/// Whether a row holds what is expected of it.
fn is_like<'a>(
    config: &'a Config,
    target: &'a dyn Target,
    object: &'a StoredObject,
    row: &'a StoredRow,
    wanted: &'a ExpectedRow,
) -> Answer<'a> {
    Box::pin(async move {
        for (column, expected) in wanted {
            let found = row.columns.iter().find(|(name, _)| name == column);
            let cell = found.map_or(&Cell::Null, |(_, cell)| cell);
            let holds = match expected {
                Expected::Value(value) => match object.field(column) {
                    Some(field) => {
                        cast(value, field.ty).is_ok_and(|wanted| is_equal(&wanted, cell))
                    }
                    None => is_told(value, cell),
                },
                Expected::Row(inner) => {
                    let references = object
                        .field(column)
                        .and_then(|field| field.references.as_deref());
                    let (Cell::Gsid(gsid), Some(object)) = (cell, pointed(config, references))
                    else {
                        return Ok(false);
                    };
                    let rows = target.rows(&object.table, everything()).await?;
                    match rows.iter().find(|row| row.gsid == *gsid) {
                        Some(row) => is_like(config, target, object, row, inner).await?,
                        None => false,
                    }
                }
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Numbers by value, other cells as they are.
fn is_equal(wanted: &Cell, found: &Cell) -> bool {
    match (wanted, found) {
        (Cell::Number(wanted), Cell::Number(found)) => decimal::compare(wanted, found).is_eq(),
        _ => wanted == found,
    }
}

/// A column of the daemon, by its text.
fn is_told(value: &Value, found: &Cell) -> bool {
    match found.to_json() {
        serde_json::Value::Null => value.to_string().is_empty() || value.is_null(),
        serde_json::Value::String(text) => text == value.to_string(),
        _ => false,
    }
}

/// For each row found, the expectation that is its own: as many as can have one (augmenting paths).
fn paired(fits: &[Vec<bool>], found: usize) -> Vec<Option<usize>> {
    let mut pairs = vec![None; found];
    for at in 0..fits.len() {
        claim(at, fits, &mut pairs, &mut vec![false; found]);
    }
    pairs
}

fn claim(at: usize, fits: &[Vec<bool>], pairs: &mut [Option<usize>], seen: &mut [bool]) -> bool {
    for row in 0..pairs.len() {
        let fits_row = fits.get(at).and_then(|fits| fits.get(row)) == Some(&true);
        if !fits_row || seen.get(row) == Some(&true) {
            continue;
        }
        if let Some(seen) = seen.get_mut(row) {
            *seen = true;
        }
        let owner = pairs.get(row).copied().flatten();
        if owner.is_none_or(|owner| claim(owner, fits, pairs, seen)) {
            if let Some(pair) = pairs.get_mut(row) {
                *pair = Some(at);
            }
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_as_can_be_are_paired() {
        // The first fits both, the second only the first row: neither may take what the other needs.
        assert_eq!(
            paired(&[vec![true, true], vec![true, false]], 2),
            [Some(1), Some(0)]
        );
        assert_eq!(paired(&[vec![true], vec![true]], 1), [Some(0)]);
        assert_eq!(paired(&[vec![false, true]], 2), [None, Some(0)]);
        assert_eq!(paired(&[], 1), [None]);
    }
}
