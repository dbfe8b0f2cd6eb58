//! Binds a query's names and literals to the org's objects, and refuses what does not fit.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::super::ids;
use super::super::schema::{Field, FieldType, Object};
use super::super::store::Store;
use super::super::value::Value;
use super::lexer::{Kind, unescaped};
use super::parser::{Condition, Literal, Operator, Path, Query};
use super::plan::{Column, Join, Place, Plan, Sort, Test};
use super::predicate::{Pattern, Predicate};
use super::{SoqlError, dates};

/// The largest OFFSET.
const FARTHEST: usize = 2000;
/// How many parents a path may go through.
const DEEPEST: usize = 5;

/// Makes a plan of a query.
pub(super) fn bind(store: &Store, query: &Query, now: DateTime<Utc>) -> Result<Plan, SoqlError> {
    let name = query.from.parts.join(".");
    let Some(table) = store.table(&name) else {
        let message = format!(
            "sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to append \
             the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate \
             names."
        );
        return Err(SoqlError::at(
            "INVALID_TYPE",
            &query.text,
            query.from.at,
            &message,
        ));
    };
    if query.offset > FARTHEST {
        return Err(SoqlError::new(
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Maximum SOQL offset allowed is 2000",
        ));
    }
    let mut binder = Binder {
        store,
        query,
        now,
        root: Arc::clone(&table.object),
        joins: Vec::new(),
        selected: Vec::new(),
    };
    let columns = binder.columns()?;
    let filter = match &query.filter {
        Some(condition) => Some(binder.test(condition)?),
        None => None,
    };
    let order = query
        .order
        .iter()
        .map(|order| {
            let (place, field) = binder.resolve(&order.field)?;
            if !field.filterable() {
                return Err(SoqlError::malformed(format!(
                    "field '{}' can not be sorted in a query call",
                    field.name
                )));
            }
            Ok(Sort {
                place,
                descending: order.descending,
                nulls_last: order.nulls_last,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Plan {
        object: binder.root,
        joins: binder.joins,
        columns,
        selected: binder.selected,
        filter,
        order,
        limit: query.limit,
        offset: query.offset,
    })
}

struct Binder<'a> {
    store: &'a Store,
    query: &'a Query,
    now: DateTime<Utc>,
    root: Arc<Object>,
    joins: Vec<Join>,
    selected: Vec<(String, Place)>,
}

impl Binder<'_> {
    fn columns(&mut self) -> Result<Vec<Column>, SoqlError> {
        let query = self.query;
        let mut seen = HashSet::new();
        let mut columns = Vec::new();
        for path in &query.select {
            let (place, field) = self.resolve(path)?;
            if !seen.insert((place.source, place.field)) {
                return Err(SoqlError::at(
                    "INVALID_FIELD",
                    &query.text,
                    path.at,
                    &format!("duplicate field selected: {}", field.name),
                ));
            }
            let path = self.path_of(place, &field);
            self.selected.push((path, place));
            self.group(&mut columns, place);
        }
        Ok(columns)
    }

    /// `Owner.Name`, in the spelling of the described names.
    fn path_of(&self, place: Place, field: &Field) -> String {
        let mut path = field.name.clone();
        let mut source = place.source;
        while source > 0 {
            let join = &self.joins[source - 1];
            let reference = &self.object(join.child).fields[join.reference];
            let name = reference.relationship.as_deref().unwrap_or_default();
            path = format!("{name}.{path}");
            source = join.child;
        }
        path
    }

    /// Hangs a column under the parents that its path goes through.
    fn group(&self, columns: &mut Vec<Column>, place: Place) {
        let mut sources = Vec::new();
        let mut source = place.source;
        while source > 0 {
            sources.push(source);
            source = self.joins[source - 1].child;
        }
        let mut level = columns;
        for source in sources.into_iter().rev() {
            let join = &self.joins[source - 1];
            let child = self.object(join.child);
            let name = child.fields[join.reference]
                .relationship
                .clone()
                .unwrap_or_default();
            let at = level
                .iter()
                .position(|column| matches!(column, Column::Parent { source: known, .. } if *known == source))
                .unwrap_or_else(|| {
                    level.push(Column::Parent {
                        name,
                        source,
                        columns: Vec::new(),
                    });
                    level.len() - 1
                });
            match &mut level[at] {
                Column::Parent { columns, .. } => level = columns,
                Column::Field { .. } => return,
            }
        }
        level.push(Column::Field { place });
    }

    fn object(&self, source: usize) -> &Object {
        match source {
            0 => &self.root,
            source => &self.joins[source - 1].object,
        }
    }

    fn resolve(&mut self, path: &Path) -> Result<(Place, Field), SoqlError> {
        let mut parts = path.parts.as_slice();
        if let [first, rest @ ..] = parts
            && !rest.is_empty()
        {
            let is_root = self
                .query
                .alias
                .as_ref()
                .is_some_and(|alias| alias.eq_ignore_ascii_case(first))
                || self.root.name.eq_ignore_ascii_case(first)
                    && self.root.relationship(first).is_none();
            if is_root {
                parts = rest;
            }
        }
        let (Some(last), hops) = (parts.last(), parts.len().saturating_sub(1)) else {
            return Err(SoqlError::malformed("empty field path"));
        };
        if hops > DEEPEST {
            return Err(SoqlError::malformed(format!(
                "SOQL relationships cannot be more than {DEEPEST} levels deep"
            )));
        }
        let mut source = 0;
        for hop in &parts[..hops] {
            source = self.join(source, hop, path.at)?;
        }
        let object = self.object(source);
        match object.field(last) {
            Some((field, described)) => Ok((Place { source, field }, described.clone())),
            None => Err(SoqlError::at(
                "INVALID_FIELD",
                &self.query.text,
                path.at,
                &format!(
                    "No such column '{last}' on entity '{}'. If you are attempting to use a custom field, be sure to \
                     append the '__c' after the custom field name. Please reference your WSDL or the describe call \
                     for the appropriate names.",
                    object.name
                ),
            )),
        }
    }

    fn join(&mut self, child: usize, name: &str, at: usize) -> Result<usize, SoqlError> {
        let unknown = || {
            SoqlError::at(
                "INVALID_FIELD",
                &self.query.text,
                at,
                &format!(
                    "Didn't understand relationship '{name}' in field path. If you are attempting to use a custom \
                     relationship, be sure to append the '__r' after the custom relationship name. Please reference \
                     your WSDL or the describe call for the appropriate names."
                ),
            )
        };
        let (reference, field) = self.object(child).relationship(name).ok_or_else(unknown)?;
        let object = field
            .reference_to
            .iter()
            .find_map(|name| self.store.table(name))
            .map(|table| Arc::clone(&table.object))
            .ok_or_else(unknown)?;
        let known = self
            .joins
            .iter()
            .position(|join| join.child == child && join.reference == reference);
        Ok(known.map_or_else(
            || {
                self.joins.push(Join {
                    child,
                    reference,
                    object,
                });
                self.joins.len()
            },
            |place| place + 1,
        ))
    }

    fn test(&mut self, condition: &Condition) -> Result<Test, SoqlError> {
        let mut all = |conditions: &[Condition]| {
            conditions
                .iter()
                .map(|condition| self.test(condition))
                .collect::<Result<Vec<_>, _>>()
        };
        match condition {
            Condition::And(conditions) => all(conditions).map(Test::And),
            Condition::Or(conditions) => all(conditions).map(Test::Or),
            Condition::Not(inner) => Ok(Test::Not(Box::new(self.test(inner)?))),
            Condition::Test {
                field,
                operator,
                values,
            } => {
                let (place, described) = self.resolve(field)?;
                let operand = Operand {
                    query: self.query,
                    now: self.now,
                    field: &described,
                    at: field.at,
                };
                Ok(Test::Field(place, operand.predicate(*operator, values)?))
            }
        }
    }
}

/// The right side of a comparison with a field.
struct Operand<'a> {
    query: &'a Query,
    now: DateTime<Utc>,
    field: &'a Field,
    at: usize,
}

impl Operand<'_> {
    fn predicate(&self, operator: Operator, values: &[Literal]) -> Result<Predicate, SoqlError> {
        let field = self.field;
        if !field.filterable() {
            return Err(self.error(
                "INVALID_FIELD",
                &format!("field '{}' can not be filtered in a query call", field.name),
            ));
        }
        if matches!(operator, Operator::In | Operator::NotIn) {
            let null = values.contains(&Literal::Null);
            let bound = values
                .iter()
                .filter(|value| **value != Literal::Null)
                .map(|value| self.value(value))
                .collect::<Result<_, _>>()?;
            return Ok(Predicate::one_of(bound, null, operator == Operator::NotIn));
        }
        let Some(literal) = values.first() else {
            return Err(self.error("MALFORMED_QUERY", "missing value"));
        };
        let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
        match (literal, operator) {
            (Literal::Null, _) if ordered => {
                Err(self.error("MALFORMED_QUERY", "null can only be compared by = and !="))
            }
            (Literal::Null, _) => Ok(Predicate::IsNull(operator == Operator::Equal)),
            (Literal::Value(Kind::Text(text)), Operator::Like) if field.kind.is_text() => {
                Ok(Predicate::Like(Pattern::new(text)))
            }
            (_, Operator::Like) => Err(self.bad_operator()),
            _ if ordered && field.kind == FieldType::Boolean => Err(self.bad_operator()),
            (Literal::Range(word, count), _) => self.span(operator, word, *count),
            (literal, _) => Ok(Predicate::Compare(operator, self.value(literal)?)),
        }
    }

    fn span(
        &self,
        operator: Operator,
        word: &str,
        count: Option<u32>,
    ) -> Result<Predicate, SoqlError> {
        let (from, to) = dates::span(word, count, self.now).ok_or_else(|| {
            self.error("MALFORMED_QUERY", &format!("Invalid date literal: {word}"))
        })?;
        let of = |day| match self.field.kind {
            FieldType::Date => Ok(Value::Date(day)),
            FieldType::DateTime => Ok(Value::DateTime(dates::midnight(day))),
            _ => Err(self.wrong_type()),
        };
        Ok(Predicate::Span(operator, of(from)?, of(to)?))
    }

    /// A literal as a value of the field's type: texts in quotes, everything else without.
    fn value(&self, literal: &Literal) -> Result<Value, SoqlError> {
        let kind = self.field.kind;
        match literal {
            Literal::Bool(value) if kind == FieldType::Boolean => Ok(Value::Bool(*value)),
            Literal::Value(Kind::Number(number)) if kind.is_number() => Ok(Value::Double(*number)),
            Literal::Value(Kind::Date(date)) if kind == FieldType::Date => Ok(Value::Date(*date)),
            Literal::Value(Kind::DateTime(time)) if kind == FieldType::DateTime => {
                Ok(Value::DateTime(*time))
            }
            Literal::Value(Kind::Text(text)) if kind.is_text() => Ok(Value::text(&unescaped(text))),
            Literal::Value(Kind::Text(text))
                if matches!(kind, FieldType::Id | FieldType::Reference) =>
            {
                ids::normalise(text)
                    .map(|id| Value::id(&id))
                    .ok_or_else(|| {
                        self.error(
                            "INVALID_QUERY_FILTER_OPERATOR",
                            &format!("invalid ID field: {text}"),
                        )
                    })
            }
            _ => Err(self.wrong_type()),
        }
    }

    fn wrong_type(&self) -> SoqlError {
        let kind = self.field.kind;
        let quoted = kind.is_text() || matches!(kind, FieldType::Id | FieldType::Reference);
        let name = match kind {
            FieldType::DateTime => "dateTime",
            kind if kind.is_text() => "string",
            kind => kind.name(),
        };
        let quotes = if quoted { "should be" } else { "should not be" };
        self.error(
            "INVALID_FIELD",
            &format!(
                "value of filter criterion for field '{}' must be of type {name} and {quotes} enclosed in quotes",
                self.field.name
            ),
        )
    }

    fn bad_operator(&self) -> SoqlError {
        self.error(
            "INVALID_QUERY_FILTER_OPERATOR",
            &format!("invalid operator on {} field", self.field.kind.name()),
        )
    }

    fn error(&self, code: &'static str, message: &str) -> SoqlError {
        SoqlError::at(code, &self.query.text, self.at, message)
    }
}
