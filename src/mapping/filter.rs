//! Filters: `where` in the words of SOQL, evaluated on an image.
//!
//! Semantics, after the SOQL and SOSL Reference ("Comparison Operators", "Logical Operators", "Date Formats and Date
//! Literals in WHERE", "Quoted String Escape Sequences", "Query Multi-Select Picklists"):
//! * Text is compared without case. An id of 15 characters equals its own spelling of 18.
//! * Logic has two values: `NOT x` "is true if x is false", so that `NOT Name LIKE 'A%'` holds for an empty name.
//! * `= null` asks for an empty field. A comparison of an empty field with a value is false, but for `!=`, `NOT IN` and
//!   `EXCLUDES`, which are the negations of `=`, `IN` and `INCLUDES` and so hold.
//! * "Parentheses are required whenever you mix the operators": `a AND b OR c` is refused, as is `NOT a AND b`.
//! * A date literal is a range of days in UTC; `=` means within, `<` before, `>` after, `<=` and `>=` include it. A date
//!   is the range of its day, so that it may be compared with dates and with times. Weeks begin on Sunday, as in the
//!   locale en_US. Literals of fiscal years are refused: they depend on settings of the org.
//! * A value of another kind than what it is compared with is read as that kind (`'5'` as a number); if it has no such
//!   reading it is unequal, and neither less nor greater.

mod lexer;
mod literal;
mod parser;
pub mod push;

use std::fmt;

use chrono::{DateTime, Utc};

use crate::model::name::FieldName;
use crate::model::value::{Fields, Scalar};

use literal::{Operand, Pattern};

/// A parsed filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    fields: Vec<FieldName>,
    root: Node,
}

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The character at which it goes wrong, from 1.
    pub position: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// A condition; tests name their field by its place in [`Filter::fields`].
#[derive(Debug, Clone, PartialEq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(usize, Test),
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Compare(Comparison, Operand),
    In(Vec<Operand>),
    Like(Pattern),
    /// One of these sets of choices is chosen whole.
    Includes(Vec<Vec<Box<str>>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Reads a filter.
///
/// # Errors
/// [`FilterError`], at the first thing that is wrong.
pub fn parse(text: &str) -> Result<Filter, FilterError> {
    let (root, fields) = parser::parse(text)?;
    Ok(Filter { fields, root })
}

impl Filter {
    /// The fields it reads, each once; parents' fields under their dotted names.
    #[must_use]
    pub fn fields(&self) -> &[FieldName] {
        &self.fields
    }

    /// Whether an image passes.
    ///
    /// # Errors
    /// The fields that the image lacks: nothing is said about it then (I5).
    pub fn matches(&self, image: &Fields, now: DateTime<Utc>) -> Result<bool, Vec<FieldName>> {
        let values: Vec<Option<Scalar<'_>>> = self
            .fields
            .iter()
            .map(|field| image.get(field).map(Scalar::from))
            .collect();
        let absent: Vec<FieldName> = self
            .fields
            .iter()
            .zip(&values)
            .filter(|(_, value)| value.is_none())
            .map(|(field, _)| field.clone())
            .collect();
        if !absent.is_empty() {
            return Err(absent);
        }
        Ok(self.holds(&|field| values[field].unwrap_or(Scalar::Null), now))
    }

    /// Whether it holds for these values of its fields.
    pub(super) fn holds<'v>(
        &self,
        value: &impl Fn(usize) -> Scalar<'v>,
        now: DateTime<Utc>,
    ) -> bool {
        self.root.holds(value, now)
    }
}

impl Node {
    fn holds<'v>(&self, value: &impl Fn(usize) -> Scalar<'v>, now: DateTime<Utc>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(value, now)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(value, now)),
            Self::Not(node) => !node.holds(value, now),
            Self::Test(field, test) => test.holds(value(*field), now),
        }
    }
}

impl Test {
    fn holds(&self, value: Scalar<'_>, now: DateTime<Utc>) -> bool {
        match self {
            Self::Compare(comparison, operand) => comparison.holds(value, operand, now),
            Self::In(operands) => operands
                .iter()
                .any(|operand| Comparison::Equal.holds(value, operand, now)),
            Self::Like(pattern) => value
                .as_text()
                .is_some_and(|text| !text.is_empty() && pattern.matches(text)),
            Self::Includes(sets) => {
                let chosen = value.as_text().unwrap_or_default();
                let has = |choice: &str| {
                    chosen
                        .split(';')
                        .any(|one| literal::order(one.trim(), choice).is_eq())
                };
                sets.iter().any(|set| set.iter().all(|choice| has(choice)))
            }
        }
    }
}

impl Comparison {
    fn holds(self, value: Scalar<'_>, operand: &Operand, now: DateTime<Utc>) -> bool {
        let is_null = literal::is_null(value);
        if is_null || *operand == Operand::Null {
            let both = is_null && *operand == Operand::Null;
            return match self {
                Self::Equal => both,
                Self::NotEqual => !both,
                _ => false,
            };
        }
        let Some(order) = operand.order(value, now) else {
            return self == Self::NotEqual;
        };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at character {}: {} (remedy: {})",
            self.position, self.what, self.remedy
        )
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests;
