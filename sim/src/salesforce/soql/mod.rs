//! SOQL as an org answers it: strict about syntax and types, its own about nulls and case.
//!
//! Read in three steps: [`parser`] knows the grammar, [`bind`](bind::bind) the org's objects, [`evaluate`] the rows
//! (SOQL and SOSL Reference, "SOQL SELECT Syntax", "Comparison Operators", "Date Formats and Date Literals").

mod aggregate;
mod bind;
mod dates;
mod evaluate;
mod lexer;
mod parser;
mod plan;
mod predicate;
#[cfg(any(test, fuzzing))]
mod print;

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};

pub(crate) use self::evaluate::{ResultSet, attributes, rest_value};

use super::store::Store;

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct SoqlError {
    pub code: &'static str,
    pub message: String,
}

impl SoqlError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn malformed(message: impl Into<String>) -> Self {
        Self::new("MALFORMED_QUERY", message)
    }

    /// An error that shows its place in the text, as Salesforce does.
    fn at(code: &'static str, text: &str, at: usize, message: &str) -> Self {
        const AROUND: usize = 40;
        let before = text.get(..at).unwrap_or(text);
        let row = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before[line_start..].chars().count() + 1;
        let one_line = text.replace('\n', " ");
        let place = before.chars().count();
        let from = place.saturating_sub(AROUND);
        let shown: String = one_line.chars().skip(from).take(AROUND * 2).collect();
        let pad = " ".repeat(place - from);
        Self::new(
            code,
            format!("\n{shown}\n{pad}^\nERROR at Row:{row}:Column:{column}\n{message}"),
        )
    }
}

/// What a query is about, before it is bound: some surfaces take only some queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub object: String,
    pub aggregates: bool,
    pub offset: bool,
    pub ordered: bool,
    pub limited: bool,
}

/// Reads what a query is about.
pub(crate) fn scope(text: &str) -> Result<Scope, SoqlError> {
    let query = parser::parse(text)?;
    Ok(Scope {
        object: query.from.parts.join("."),
        aggregates: query.select.is_empty(),
        offset: query.offset > 0,
        ordered: !query.order.is_empty(),
        limited: query.limit.is_some(),
    })
}

/// A query as it was understood.
#[cfg(fuzzing)]
pub(crate) fn printed(text: &str) -> Result<String, SoqlError> {
    parser::parse(text).map(|query| query.to_string())
}

/// The longest query.
const LONGEST: usize = 100_000;

/// Runs a query on the org as reads see it at `now`; with `all_rows`, the bin too.
pub(crate) fn run(
    store: &Store,
    text: &str,
    all_rows: bool,
    now: DateTime<Utc>,
) -> Result<ResultSet, SoqlError> {
    if text.chars().count() > LONGEST {
        return Err(SoqlError::malformed(
            "SOQL statements cannot be longer than 100000 characters.",
        ));
    }
    let query = parser::parse(text)?;
    if query.items.is_empty() {
        let plan = bind::bind(store, &query, now)?;
        return Ok(evaluate::evaluate(store, plan, all_rows, now));
    }
    let plain = aggregate::plain(&query);
    let mut plan = bind::bind(store, &plain, now)?;
    let grouping = aggregate::bind(&query, &plan, &plain.select)?;
    if plan.order.is_empty() {
        let keys = grouping.keys().iter();
        plan.order = keys.map(|place| plan::Sort::up(*place)).collect();
    }
    let mut results = evaluate::evaluate(store, plan, all_rows, now);
    results.group(&grouping);
    Ok(results)
}
