//! The grammar: `SELECT … FROM … WHERE … ORDER BY … LIMIT … OFFSET …`, and nothing that an org would refuse.

use super::SoqlError;
use super::aggregate::Function;
use super::lexer::{Kind, Token, tokens};

/// A query as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub text: String,
    /// Empty for `COUNT()`.
    pub select: Vec<Path>,
    /// What a grouped query shows, instead of `select`.
    pub items: Vec<Item>,
    /// What it is grouped by.
    pub group: Vec<Path>,
    pub from: Path,
    pub alias: Option<String>,
    pub filter: Option<Condition>,
    pub order: Vec<Order>,
    pub limit: Option<usize>,
    pub offset: usize,
}

/// What a grouped query shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Field(Path),
    Aggregate {
        function: Function,
        field: Path,
        alias: Option<String>,
    },
}

impl Item {
    pub fn field(&self) -> &Path {
        match self {
            Self::Field(field) | Self::Aggregate { field, .. } => field,
        }
    }
}

/// A field path and the byte where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    pub parts: Vec<String>,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Test {
        field: Path,
        operator: Operator,
        values: Vec<Literal>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    In,
    NotIn,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    /// Text, number, date or datetime.
    Value(Kind),
    /// `TODAY`, `LAST_N_DAYS:3`.
    Range(String, Option<u32>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub field: Path,
    pub descending: bool,
    /// By default nulls come first.
    pub nulls_last: bool,
}

const KEYWORDS: [&str; 26] = [
    "SELECT", "FROM", "WHERE", "ORDER", "BY", "LIMIT", "OFFSET", "AND", "OR", "NOT", "LIKE", "IN",
    "NULL", "TRUE", "FALSE", "ASC", "DESC", "NULLS", "FIRST", "LAST", "GROUP", "HAVING", "WITH",
    "FOR", "USING", "UPDATE",
];

/// Reads a query.
pub(super) fn parse(text: &str) -> Result<Query, SoqlError> {
    let mut parser = Parser {
        text,
        tokens: tokens(text)?,
        next: 0,
        nested: 0,
    };
    let query = parser.query()?;
    match parser.peek() {
        None => Ok(query),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    /// Open parentheses around conditions.
    nested: usize,
}

/// Parentheses in each other, at most: the stack is not the client's.
const NESTED: usize = 200;

impl Parser<'_> {
    fn query(&mut self) -> Result<Query, SoqlError> {
        self.expect_word("SELECT")?;
        let mut items = self.select()?;
        self.expect_word("FROM")?;
        let from = self.path()?;
        let alias = match self.peek() {
            Some(Kind::Word(word)) if !is_keyword(word) => Some(self.name()?),
            _ => None,
        };
        let filter = if self.take_word("WHERE") {
            Some(self.condition()?)
        } else {
            None
        };
        let group = self.group()?;
        let mut order = Vec::new();
        if self.take_word("ORDER") {
            self.expect_word("BY")?;
            order.push(self.order()?);
            while self.take_sign(",") {
                order.push(self.order()?);
            }
        }
        let limit = if self.take_word("LIMIT") {
            Some(self.count()?)
        } else {
            None
        };
        let offset = if self.take_word("OFFSET") {
            self.count()?
        } else {
            0
        };
        let is_field = |item: &Item| matches!(item, Item::Field(_));
        let mut select = Vec::new();
        if group.is_empty() && items.iter().all(is_field) {
            select = items.drain(..).map(|item| item.field().clone()).collect();
        }
        if select.is_empty() && items.is_empty() && !group.is_empty() {
            return Err(SoqlError::malformed(
                "Grouped query cannot select COUNT() without a field",
            ));
        }
        if select.is_empty() && items.is_empty() && !order.is_empty() {
            return Err(SoqlError::malformed(
                "Grouped query with COUNT() cannot have an ORDER BY clause",
            ));
        }
        Ok(Query {
            text: self.text.to_owned(),
            select,
            items,
            group,
            from,
            alias,
            filter,
            order,
            limit,
            offset,
        })
    }

    fn group(&mut self) -> Result<Vec<Path>, SoqlError> {
        let mut group = Vec::new();
        if self.take_word("GROUP") {
            self.expect_word("BY")?;
            group.push(self.path()?);
            while self.take_sign(",") {
                group.push(self.path()?);
            }
        }
        Ok(group)
    }

    /// Empty for `COUNT()`, which stands alone.
    fn select(&mut self) -> Result<Vec<Item>, SoqlError> {
        if matches!(self.peek(), Some(Kind::Word(word)) if word.eq_ignore_ascii_case("COUNT"))
            && self.peek_after() == Some(&Kind::Sign("("))
            && self.peek_at(2) == Some(&Kind::Sign(")"))
        {
            self.next += 3;
            return Ok(Vec::new());
        }
        let mut items = vec![self.item()?];
        while self.take_sign(",") {
            items.push(self.item()?);
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<Item, SoqlError> {
        let function = match self.peek() {
            Some(Kind::Word(word)) if self.peek_after() == Some(&Kind::Sign("(")) => {
                Function::of(word)
            }
            _ => None,
        };
        let Some(function) = function else {
            return self.path().map(Item::Field);
        };
        self.next += 2;
        let field = self.path()?;
        self.expect_sign(")")?;
        let alias = match self.peek() {
            Some(Kind::Word(word)) if !is_keyword(word) => Some(self.name()?),
            _ => None,
        };
        Ok(Item::Aggregate {
            function,
            field,
            alias,
        })
    }

    /// AND and OR may not be mixed without parentheses, and NOT stands alone or in them.
    fn condition(&mut self) -> Result<Condition, SoqlError> {
        if self.take_word("NOT") {
            let inner = self.simple()?;
            return Ok(Condition::Not(Box::new(inner)));
        }
        let first = self.simple()?;
        let (word, join): (_, fn(Vec<Condition>) -> Condition) = if self.peek_word("AND") {
            ("AND", Condition::And)
        } else if self.peek_word("OR") {
            ("OR", Condition::Or)
        } else {
            return Ok(first);
        };
        let mut all = vec![first];
        while self.take_word(word) {
            all.push(self.simple()?);
        }
        Ok(join(all))
    }

    fn simple(&mut self) -> Result<Condition, SoqlError> {
        if self.take_sign("(") {
            self.nested += 1;
            if self.nested > NESTED {
                return Err(SoqlError::malformed("conditions are nested too deeply"));
            }
            let inner = self.condition()?;
            self.expect_sign(")")?;
            self.nested -= 1;
            return Ok(inner);
        }
        let field = self.path()?;
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => {
                self.expect_sign("(")?;
                let mut values = vec![self.literal()?];
                while self.take_sign(",") {
                    values.push(self.literal()?);
                }
                self.expect_sign(")")?;
                values
            }
            _ => vec![self.literal()?],
        };
        Ok(Condition::Test {
            field,
            operator,
            values,
        })
    }

    fn operator(&mut self) -> Result<Operator, SoqlError> {
        let operator = match self.peek() {
            Some(Kind::Sign("=")) => Operator::Equal,
            Some(Kind::Sign("!=")) => Operator::NotEqual,
            Some(Kind::Sign("<")) => Operator::Less,
            Some(Kind::Sign("<=")) => Operator::LessOrEqual,
            Some(Kind::Sign(">")) => Operator::Greater,
            Some(Kind::Sign(">=")) => Operator::GreaterOrEqual,
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("LIKE") => Operator::Like,
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("IN") => Operator::In,
            Some(Kind::Word(word)) if word.eq_ignore_ascii_case("NOT") => {
                self.next += 1;
                return if self.take_word("IN") {
                    Ok(Operator::NotIn)
                } else {
                    Err(self.unexpected())
                };
            }
            _ => return Err(self.unexpected()),
        };
        self.next += 1;
        Ok(operator)
    }

    fn literal(&mut self) -> Result<Literal, SoqlError> {
        let literal = match self.peek() {
            Some(Kind::Word(word)) => {
                let word = word.to_ascii_uppercase();
                match word.as_str() {
                    "NULL" => Literal::Null,
                    "TRUE" => Literal::Bool(true),
                    "FALSE" => Literal::Bool(false),
                    _ if super::dates::is_literal(&word) => {
                        self.next += 1;
                        let count = if self.take_sign(":") {
                            let count = self.count()?;
                            Some(u32::try_from(count).map_err(|_| self.unexpected())?)
                        } else {
                            None
                        };
                        return Ok(Literal::Range(word, count));
                    }
                    _ => return Err(self.unexpected()),
                }
            }
            Some(kind @ (Kind::Text(_) | Kind::Number(_) | Kind::Date(_) | Kind::DateTime(_))) => {
                Literal::Value(kind.clone())
            }
            _ => return Err(self.unexpected()),
        };
        self.next += 1;
        Ok(literal)
    }

    fn order(&mut self) -> Result<Order, SoqlError> {
        let field = self.path()?;
        let descending = !self.take_word("ASC") && self.take_word("DESC");
        let mut nulls_last = false;
        if self.take_word("NULLS") {
            nulls_last = self.take_word("LAST");
            if !nulls_last {
                self.expect_word("FIRST")?;
            }
        }
        Ok(Order {
            field,
            descending,
            nulls_last,
        })
    }

    fn path(&mut self) -> Result<Path, SoqlError> {
        let at = self.at();
        let parts: Vec<_> = self.name()?.split('.').map(str::to_owned).collect();
        if parts.iter().any(String::is_empty) {
            self.next -= 1;
            return Err(self.unexpected());
        }
        Ok(Path { parts, at })
    }

    fn name(&mut self) -> Result<String, SoqlError> {
        match self.peek() {
            Some(Kind::Word(word)) if !is_keyword(word) => {
                let word = word.clone();
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn count(&mut self) -> Result<usize, SoqlError> {
        match self.peek() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(Kind::Number(number))
                if number.fract() == 0.0 && (0.0..=f64::from(i32::MAX)).contains(number) =>
            {
                let count = *number as usize;
                self.next += 1;
                Ok(count)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn peek_after(&self) -> Option<&Kind> {
        self.peek_at(1)
    }

    fn peek_at(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.next + ahead).map(|token| &token.kind)
    }

    fn peek_word(&self, expected: &str) -> bool {
        matches!(self.peek(), Some(Kind::Word(word)) if word.eq_ignore_ascii_case(expected))
    }

    fn take_word(&mut self, expected: &str) -> bool {
        let found = self.peek_word(expected);
        self.next += usize::from(found);
        found
    }

    fn take_sign(&mut self, expected: &'static str) -> bool {
        let found = self.peek() == Some(&Kind::Sign(expected));
        self.next += usize::from(found);
        found
    }

    fn expect_word(&mut self, expected: &str) -> Result<(), SoqlError> {
        if self.take_word(expected) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn expect_sign(&mut self, expected: &'static str) -> Result<(), SoqlError> {
        if self.take_sign(expected) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn at(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.text.len(), |token| token.at)
    }

    fn unexpected(&self) -> SoqlError {
        let message = match self.peek() {
            Some(kind) => format!("unexpected token: '{}'", kind.show()),
            None => "unexpected end of query".to_owned(),
        };
        SoqlError::at("MALFORMED_QUERY", self.text, self.at(), &message)
    }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(word))
}
