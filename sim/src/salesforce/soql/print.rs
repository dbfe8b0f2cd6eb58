//! Writes a query out again: what was read is known whole only if it can be read from its own print.

use std::fmt::{self, Display, Formatter};

use super::aggregate::Function;
use super::lexer::Kind;
use super::parser::{Condition, Item, Literal, Operator, Order, Path, Query};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        match (self.select.is_empty(), self.items.is_empty()) {
            (true, true) => f.write_str("COUNT()")?,
            (true, false) => list(f, &self.items, ", ", Item::fmt)?,
            (false, _) => list(f, &self.select, ", ", Path::fmt)?,
        }
        write!(f, " FROM {}", self.from)?;
        if let Some(alias) = &self.alias {
            write!(f, " {alias}")?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if !self.group.is_empty() {
            f.write_str(" GROUP BY ")?;
            list(f, &self.group, ", ", Path::fmt)?;
        }
        if !self.order.is_empty() {
            f.write_str(" ORDER BY ")?;
            list(f, &self.order, ", ", Order::fmt)?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        if self.offset > 0 {
            write!(f, " OFFSET {}", self.offset)?;
        }
        Ok(())
    }
}

fn list<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    between: &str,
    print: impl Fn(&T, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            f.write_str(between)?;
        }
        print(item, f)?;
    }
    Ok(())
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("."))
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => field.fmt(f),
            Self::Aggregate {
                function,
                field,
                alias,
            } => {
                let function = match function {
                    Function::Count => "COUNT",
                    Function::CountDistinct => "COUNT_DISTINCT",
                    Function::Sum => "SUM",
                    Function::Average => "AVG",
                    Function::Least => "MIN",
                    Function::Greatest => "MAX",
                };
                write!(f, "{function}({field})")?;
                alias.iter().try_for_each(|alias| write!(f, " {alias}"))
            }
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let inner = |inner: &Self, f: &mut Formatter<'_>| match inner {
            Self::Test { .. } => inner.fmt(f),
            _ => write!(f, "({inner})"),
        };
        match self {
            Self::And(all) => list(f, all, " AND ", inner),
            Self::Or(all) => list(f, all, " OR ", inner),
            Self::Not(one) => {
                f.write_str("NOT ")?;
                inner(one, f)
            }
            Self::Test {
                field,
                operator,
                values,
            } => {
                write!(f, "{field} {operator} ")?;
                let is_list = matches!(operator, Operator::In | Operator::NotIn);
                f.write_str(if is_list { "(" } else { "" })?;
                list(f, values, ", ", Literal::fmt)?;
                f.write_str(if is_list { ")" } else { "" })
            }
        }
    }
}

impl Display for Order {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let descending = if self.descending { " DESC" } else { "" };
        let nulls_last = if self.nulls_last { " NULLS LAST" } else { "" };
        write!(f, "{}{descending}{nulls_last}", self.field)
    }
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Like => "LIKE",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
        })
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(true) => f.write_str("TRUE"),
            Self::Bool(false) => f.write_str("FALSE"),
            Self::Range(word, None) => f.write_str(word),
            Self::Range(word, Some(count)) => write!(f, "{word}:{count}"),
            Self::Value(Kind::Text(text)) => quoted(f, text),
            // More digits than a double has.
            Self::Value(Kind::Number(number)) if number.is_infinite() => {
                f.write_str(if *number < 0.0 { "-1e999" } else { "1e999" })
            }
            Self::Value(Kind::DateTime(time)) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%SZ")),
            Self::Value(kind) => f.write_str(&kind.show()),
        }
    }
}

/// Backslashes that the text has kept are escapes of what follows, unless they are alone.
fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next @ ('\\' | '_' | '%'))) => {
                write!(f, "\\{next}")?;
                chars.next();
            }
            ('\\' | '\'' | '\n' | '\r', _) => write!(f, "\\u{:04x}", u32::from(c))?,
            _ => write!(f, "{c}")?,
        }
    }
    f.write_str("'")
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse;

    #[test]
    fn a_query_is_read_from_its_print() {
        for (query, printed) in [
            ("select count() from Thing", "SELECT COUNT() FROM Thing"),
            (
                "SELECT Id, t.Name FROM Thing t WHERE (a < 1.50 AND (NOT b = null)) OR c NOT IN ('x', true) ORDER BY Id DESC NULLS LAST LIMIT 2 OFFSET 1",
                "SELECT Id, t.Name FROM Thing t WHERE (a < 1.5 AND (NOT b = NULL)) OR c NOT IN ('x', TRUE) ORDER BY Id DESC NULLS LAST LIMIT 2 OFFSET 1",
            ),
            (
                "SELECT Name, max(Size) m FROM Thing WHERE Day > last_n_days:3 GROUP BY Name",
                "SELECT Name, MAX(Size) m FROM Thing WHERE Day > LAST_N_DAYS:3 GROUP BY Name",
            ),
            (
                r"SELECT Id FROM Thing WHERE a LIKE '\\\_\u005cx\'\n' AND b >= 2024-01-01T01:00:00.5+01:00 AND c <> 2024-02-29 AND d = -1e999",
                r"SELECT Id FROM Thing WHERE a LIKE '\\\_\u005cx\u0027\u000a' AND b >= 2024-01-01T00:00:00Z AND c != 2024-02-29 AND d = -1e999",
            ),
        ] {
            let again = parse(query).unwrap().to_string();
            assert_eq!(again, printed);
            assert_eq!(parse(&again).unwrap().to_string(), printed);
        }
    }
}
