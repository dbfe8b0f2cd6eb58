//! What of a filter a CRM can be asked for itself: a condition in its own language that holds for every record for
//! which the filter does, and maybe for more. The filter is evaluated on the image always.
//!
//! `NOT`s are driven inwards to the tests and what a test says of an empty field is written out, so that nothing hangs
//! on how a CRM negates a comparison with null. Date literals become dates, of the day in UTC on which it is asked.

use chrono::{DateTime, Days, NaiveDate, Utc};

use crate::model::name::FieldName;
use crate::model::schema::FieldKind;

use super::literal::{Operand, Pattern};
use super::{Comparison, Filter, Node, Test};

mod odata;
mod soql;

/// Languages of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// SOQL, of Salesforce.
    Soql,
    /// OData's `$filter`, of Dataverse.
    OData,
}

/// How a field is called in a condition, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The field, the relationship path or the navigation path.
    pub name: String,
    /// The kind.
    pub kind: FieldKind,
}

/// A condition without negation; tests say themselves what they negate.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    All(Vec<Term>),
    Any(Vec<Term>),
    Compare(Column, Comparison, Literal),
    /// Empty, or not.
    Null(Column, bool),
    Like(Column, Pattern, bool),
    Includes(Column, Vec<Vec<Box<str>>>, bool),
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Text(Box<str>),
    Number(Box<str>),
    Bool(bool),
    Day(NaiveDate),
    Instant(DateTime<Utc>),
}

impl Filter {
    /// The condition for a CRM; `None` if it can be asked for nothing of it. `column` knows the CRM's names, and tells
    /// none for what its language can't name.
    #[must_use]
    pub fn push_down(
        &self,
        language: Language,
        now: DateTime<Utc>,
        column: &dyn Fn(&FieldName) -> Option<Column>,
    ) -> Option<String> {
        let push = Push {
            fields: &self.fields,
            today: now.date_naive(),
            language,
            column,
        };
        let term = push.term(&self.root, false)?;
        match language {
            Language::Soql => soql::render(&term),
            Language::OData => odata::render(&term),
        }
    }
}

struct Push<'a> {
    fields: &'a [FieldName],
    today: NaiveDate,
    language: Language,
    column: &'a dyn Fn(&FieldName) -> Option<Column>,
}

impl Push<'_> {
    fn term(&self, node: &Node, negated: bool) -> Option<Term> {
        match node {
            Node::All(nodes) if !negated => self.all(nodes, negated),
            Node::Any(nodes) if negated => self.all(nodes, negated),
            Node::All(nodes) | Node::Any(nodes) => {
                let terms = nodes.iter().map(|node| self.term(node, negated));
                terms.collect::<Option<Vec<_>>>().map(Term::Any)
            }
            Node::Not(node) => self.term(node, !negated),
            Node::Test(field, test) => {
                let column = (self.column)(self.fields.get(*field)?)?;
                self.test(&column, test, negated)
            }
        }
    }

    /// What can't be said is left out: the condition holds for more.
    fn all(&self, nodes: &[Node], negated: bool) -> Option<Term> {
        let terms: Vec<Term> = nodes
            .iter()
            .filter_map(|node| self.term(node, negated))
            .collect();
        (!terms.is_empty()).then_some(Term::All(terms))
    }

    fn test(&self, column: &Column, test: &Test, negated: bool) -> Option<Term> {
        match test {
            Test::Compare(comparison, operand) => {
                self.compare(column, *comparison, operand, negated)
            }
            Test::In(operands) => {
                let terms = operands
                    .iter()
                    .map(|operand| self.compare(column, Comparison::Equal, operand, negated));
                if negated {
                    let terms: Vec<Term> = terms.flatten().collect();
                    (!terms.is_empty()).then_some(Term::All(terms))
                } else {
                    terms.collect::<Option<Vec<_>>>().map(Term::Any)
                }
            }
            Test::Like(pattern) => {
                let said = match self.language {
                    Language::Soql => true,
                    Language::OData => odata::can_say(pattern),
                };
                let term = Term::Like(column.clone(), pattern.clone(), negated);
                (said && self.is_text(column.kind)).then(|| or_null(term, column, negated))
            }
            Test::Includes(sets) => {
                let said =
                    self.language == Language::Soql && column.kind == FieldKind::MultiPicklist;
                let term = Term::Includes(column.clone(), sets.clone(), negated);
                said.then(|| or_null(term, column, negated))
            }
        }
    }

    /// A picklist of Dataverse holds numbers.
    fn is_text(&self, kind: FieldKind) -> bool {
        matches!(kind, FieldKind::Text)
            || (kind == FieldKind::Picklist && self.language == Language::Soql)
    }

    fn compare(
        &self,
        column: &Column,
        comparison: Comparison,
        operand: &Operand,
        negated: bool,
    ) -> Option<Term> {
        if *operand == Operand::Null {
            let is_empty = (comparison == Comparison::Equal) != negated;
            return Some(Term::Null(column.clone(), is_empty));
        }
        let said = if negated {
            comparison.negation()
        } else {
            comparison
        };
        let holds_for_null = (comparison == Comparison::NotEqual) != negated;
        let term = self.bound(column, said, operand)?;
        Some(or_null(term, column, holds_for_null))
    }

    /// The comparison of a field that is not empty.
    fn bound(&self, column: &Column, said: Comparison, operand: &Operand) -> Option<Term> {
        let literal = match (operand, column.kind) {
            (Operand::Bool(value), FieldKind::Boolean) => Literal::Bool(*value),
            (Operand::Number(digits), FieldKind::Integer | FieldKind::Decimal) => {
                Literal::Number(digits.clone())
            }
            (Operand::Number(digits), FieldKind::Picklist) if self.language == Language::OData => {
                Literal::Number(digits.clone())
            }
            // An id of 15 characters in a text is equal to its spelling of 18 here only; and no two collations
            // order texts alike.
            (Operand::Text { text, id }, kind) => {
                let is_id = matches!(kind, FieldKind::Id | FieldKind::Reference);
                let is_known = is_id || (self.is_text(kind) && id.is_none());
                let is_equality = matches!(said, Comparison::Equal | Comparison::NotEqual);
                if !is_known || !is_equality || (is_id && !self.is_id(text)) {
                    return None;
                }
                Literal::Text(text.clone())
            }
            (Operand::Instant(at), FieldKind::DateTime) => Literal::Instant(*at),
            (Operand::Day(day), kind) => return days(column, said, (*day, next(*day)?), kind),
            (Operand::Relative(relative), kind) => {
                return days(column, said, relative.days(self.today), kind);
            }
            _ => return None,
        };
        Some(Term::Compare(column.clone(), said, literal))
    }

    fn is_id(&self, text: &str) -> bool {
        match self.language {
            Language::Soql => {
                matches!(text.len(), 15 | 18)
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
            }
            Language::OData => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
        }
    }
}

fn next(day: NaiveDate) -> Option<NaiveDate> {
    day.checked_add_days(Days::new(1))
}

/// A comparison with the days from the first up to the one after the last.
fn days(
    column: &Column,
    said: Comparison,
    (first, after): (NaiveDate, NaiveDate),
    kind: FieldKind,
) -> Option<Term> {
    let literal = |day: NaiveDate| match kind {
        FieldKind::Date => Some(Literal::Day(day)),
        FieldKind::DateTime => Some(Literal::Instant(day.and_hms_opt(0, 0, 0)?.and_utc())),
        _ => None,
    };
    let is = |comparison, day| Some(Term::Compare(column.clone(), comparison, literal(day)?));
    match said {
        Comparison::Equal => Some(Term::All(vec![
            is(Comparison::GreaterOrEqual, first)?,
            is(Comparison::Less, after)?,
        ])),
        Comparison::NotEqual => Some(Term::Any(vec![
            is(Comparison::Less, first)?,
            is(Comparison::GreaterOrEqual, after)?,
        ])),
        Comparison::Less => is(Comparison::Less, first),
        Comparison::LessOrEqual => is(Comparison::Less, after),
        Comparison::Greater => is(Comparison::GreaterOrEqual, after),
        Comparison::GreaterOrEqual => is(Comparison::GreaterOrEqual, first),
    }
}

fn or_null(term: Term, column: &Column, holds_for_null: bool) -> Term {
    if holds_for_null {
        Term::Any(vec![term, Term::Null(column.clone(), true)])
    } else {
        term
    }
}

impl Comparison {
    const fn negation(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }
}

/// Terms between parentheses, unless there is one alone.
fn joined(terms: &[Term], word: &str, one: impl Fn(&Term) -> Option<String>) -> Option<String> {
    let texts = terms.iter().map(one).collect::<Option<Vec<_>>>()?;
    match texts.as_slice() {
        [] => None,
        [single] => Some(single.clone()),
        _ => Some(format!("({})", texts.join(word))),
    }
}

#[cfg(test)]
mod tests;
