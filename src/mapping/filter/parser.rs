//! The grammar of filters: conditions of tests, by recursive descent with a bounded depth.

use crate::mapping::decimal;
use crate::mapping::instant::{self, Moment};
use crate::mapping::path;
use crate::model::name::FieldName;

use super::lexer::{Placed, Quoted, Token, words};
use super::literal::{Operand, Pattern, Relative};
use super::{Comparison, FilterError, Node, Test};

/// Parentheses and `NOT`s within each other.
const MAX_DEPTH: usize = 50;

/// The condition, and the fields that its tests name by place.
pub(super) fn parse(text: &str) -> Result<(Node, Vec<FieldName>), FilterError> {
    let mut parser = Parser {
        words: words(text)?,
        at: 0,
        fields: Vec::new(),
    };
    if *parser.peek() == Token::End {
        return Err(parser.refuse(
            "the filter is empty",
            "write a condition, or leave `where` out",
        ));
    }
    let root = parser.condition(0)?;
    match parser.peek() {
        Token::End => Ok((root, parser.fields)),
        Token::Close => Err(parser.refuse("`)` closes nothing", "remove it, or open a `(` before")),
        _ => Err(parser.refuse(
            "the condition has ended before this",
            "join conditions by AND or OR",
        )),
    }
}

struct Parser {
    words: Vec<Placed>,
    at: usize,
    fields: Vec<FieldName>,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.words
            .get(self.at)
            .map_or(&Token::End, |word| &word.token)
    }

    fn position(&self) -> usize {
        let word = self.words.get(self.at).or_else(|| self.words.last());
        word.map_or(1, |word| word.position)
    }

    /// Takes the word in turn; [`Token::End`] stays.
    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn next_if(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == wanted;
        self.at += usize::from(found);
        found
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(self.peek(), Token::Name(name) if name.eq_ignore_ascii_case(wanted))
    }

    fn next_if_word(&mut self, wanted: &str) -> bool {
        let found = self.is_word(wanted);
        self.at += usize::from(found);
        found
    }

    fn refuse(&self, what: impl Into<String>, remedy: impl Into<String>) -> FilterError {
        FilterError {
            position: self.position(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// Terms, all joined by the same word.
    fn condition(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.refuse(
                format!("conditions lie more than {MAX_DEPTH} deep"),
                "remove parentheses that are not needed",
            ));
        }
        let mut terms = vec![self.unambiguous_term(depth)?];
        let (word, other) = if self.is_word("AND") {
            ("AND", "OR")
        } else {
            ("OR", "AND")
        };
        while self.next_if_word(word) {
            terms.push(self.unambiguous_term(depth)?);
        }
        if self.is_word(other) {
            return Err(self.refuse(
                format!("`{other}` follows `{word}` without parentheses"),
                "put into parentheses what belongs together",
            ));
        }
        Ok(match terms.len() {
            1 => terms.remove(0),
            _ if word == "AND" => Node::All(terms),
            _ => Node::Any(terms),
        })
    }

    /// A term; a `NOT` that more conditions follow needs parentheses.
    fn unambiguous_term(&mut self, depth: usize) -> Result<Node, FilterError> {
        let negated = self.is_word("NOT");
        let term = self.term(depth)?;
        let goes_on = self.is_word("AND") || self.is_word("OR");
        if negated && goes_on {
            return Err(self.refuse(
                "a `NOT` that more conditions follow can be read in two ways",
                "put the `NOT` and its condition into parentheses",
            ));
        }
        Ok(term)
    }

    fn term(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            return self.condition(depth);
        }
        if self.next_if_word("NOT") {
            return Ok(Node::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.next_if(&Token::Open) {
            let inner = self.condition(depth + 1)?;
            if !self.next_if(&Token::Close) {
                return Err(self.refuse("a `)` is missing here", "close the parenthesis"));
            }
            return Ok(inner);
        }
        self.test()
    }

    fn test(&mut self) -> Result<Node, FilterError> {
        let field = self.field()?;
        if self.next_if_word("NOT") {
            if self.next_if_word("IN") {
                let operands = self.list(Self::operand)?;
                return Ok(Node::Not(Box::new(Node::Test(field, Test::In(operands)))));
            }
            return Err(self.refuse(
                "`NOT` after a field goes with `IN` only",
                "write `NOT Field LIKE '…'` for a negated LIKE",
            ));
        }
        if self.next_if_word("IN") {
            return Ok(Node::Test(field, Test::In(self.list(Self::operand)?)));
        }
        if self.next_if_word("LIKE") {
            let pattern = Pattern::new(&self.text("LIKE")?);
            return Ok(Node::Test(field, Test::Like(pattern)));
        }
        for (word, negated) in [("INCLUDES", false), ("EXCLUDES", true)] {
            if self.next_if_word(word) {
                let test = Node::Test(field, Test::Includes(self.list(Self::choices)?));
                return Ok(if negated {
                    Node::Not(Box::new(test))
                } else {
                    test
                });
            }
        }
        self.comparison(field)
    }

    fn comparison(&mut self, field: usize) -> Result<Node, FilterError> {
        let comparison = match self.peek() {
            Token::Equal => Comparison::Equal,
            Token::NotEqual => Comparison::NotEqual,
            Token::Less => Comparison::Less,
            Token::LessOrEqual => Comparison::LessOrEqual,
            Token::Greater => Comparison::Greater,
            Token::GreaterOrEqual => Comparison::GreaterOrEqual,
            Token::Open => {
                return Err(self.refuse("functions are not evaluated", "compare the field itself"));
            }
            _ => {
                return Err(self.refuse(
                    "an operator is missing here",
                    "use =, !=, <, <=, >, >=, LIKE, IN, NOT IN, INCLUDES or EXCLUDES",
                ));
            }
        };
        self.at += 1;
        let position = self.position();
        let operand = self.operand()?;
        let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if ordered && matches!(operand, Operand::Null | Operand::Bool(_)) {
            return Err(FilterError {
                position,
                what: "null, true and false are neither less nor greater".to_owned(),
                remedy: "compare with = or !=".to_owned(),
            });
        }
        Ok(Node::Test(field, Test::Compare(comparison, operand)))
    }

    /// A field's place.
    fn field(&mut self) -> Result<usize, FilterError> {
        let Token::Name(name) = self.peek() else {
            return Err(self.refuse(
                "a field is missing here",
                "a condition is a field, an operator and a value: Industry = 'Energy'",
            ));
        };
        let reserved = [
            "AND", "OR", "IN", "LIKE", "INCLUDES", "EXCLUDES", "NULL", "TRUE", "FALSE",
        ];
        if reserved.iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return Err(self.refuse(
                format!("`{name}` stands where a field should"),
                "a condition is a field, an operator and a value: Industry = 'Energy'",
            ));
        }
        // `lookup:table.field` comes as three words.
        let (mut path, mut length) = (name.clone(), 1);
        while let Some([colon, table]) = self.words.get(self.at + length..self.at + length + 2)
            && let (Token::Colon, Token::Name(table)) = (&colon.token, &table.token)
        {
            path = format!("{path}:{table}");
            length += 2;
        }
        let field =
            path::parse(&path).map_err(|invalid| self.refuse(invalid.what, invalid.remedy))?;
        self.at += length;
        let known = self.fields.iter().position(|known| *known == field);
        Ok(known.unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        }))
    }

    /// `(item, item, …)`.
    fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, FilterError>,
    ) -> Result<Vec<T>, FilterError> {
        if !self.next_if(&Token::Open) {
            return Err(self.refuse("a list is missing here", "write the values as ('A', 'B')"));
        }
        if self.is_word("SELECT") {
            return Err(self.refuse(
                "queries within filters are not evaluated",
                "list the values",
            ));
        }
        let mut items = vec![item(self)?];
        while self.next_if(&Token::Comma) {
            items.push(item(self)?);
        }
        if !self.next_if(&Token::Close) {
            return Err(self.refuse(
                "a `,` or `)` is missing here",
                "write the values as ('A', 'B')",
            ));
        }
        Ok(items)
    }

    fn text(&mut self, after: &str) -> Result<Quoted, FilterError> {
        match self.peek() {
            Token::Text(_) => match self.next() {
                Token::Text(quoted) => Ok(quoted),
                _ => Ok(Quoted::default()),
            },
            _ => Err(self.refuse(
                format!("`{after}` needs a text here"),
                "put it into single quotes",
            )),
        }
    }

    /// Choices that must all be chosen, `;` between them.
    fn choices(&mut self) -> Result<Vec<Box<str>>, FilterError> {
        let quoted = self.text("INCLUDES and EXCLUDES")?;
        Ok(quoted
            .text
            .split(';')
            .map(|choice| choice.trim().into())
            .collect())
    }

    fn operand(&mut self) -> Result<Operand, FilterError> {
        let operand = match self.peek() {
            Token::Text(quoted) => Operand::text(quoted.text.clone()),
            Token::Figure(figure) => self.figure(figure)?,
            Token::Name(name) if name.eq_ignore_ascii_case("null") => Operand::Null,
            Token::Name(name) if name.eq_ignore_ascii_case("true") => Operand::Bool(true),
            Token::Name(name) if name.eq_ignore_ascii_case("false") => Operand::Bool(false),
            Token::Name(name) => return self.relative(name.clone()),
            Token::Colon => {
                return Err(self.refuse(
                    "variables can't stand in a filter",
                    "write the value itself",
                ));
            }
            _ => {
                return Err(self.refuse(
                    "a value is missing here",
                    "write a text in single quotes, a number, a date, true, false or null",
                ));
            }
        };
        self.at += 1;
        Ok(operand)
    }

    fn figure(&self, figure: &str) -> Result<Operand, FilterError> {
        if let Some(moment) = instant::parse(figure) {
            return Ok(match moment {
                Moment::Day(day) => Operand::Day(day),
                Moment::Instant(at) => Operand::Instant(at),
            });
        }
        let looks_like_a_date = figure.matches('-').count() > 1;
        match decimal::plain(figure) {
            Ok(plain) => Ok(Operand::Number(plain.into())),
            Err(error) if !looks_like_a_date => Err(self.refuse(
                format!("`{figure}` is {error}"),
                "write numbers with digits and a point; texts go into single quotes",
            )),
            Err(_) => Err(self.refuse(
                format!("`{figure}` is not a date"),
                "write dates as 2026-01-31, times as 2026-01-31T10:00:00Z or with an offset (+01:00)",
            )),
        }
    }

    fn relative(&mut self, name: String) -> Result<Operand, FilterError> {
        let count = match self.words.get(self.at + 1..self.at + 3) {
            Some([colon, figure]) if colon.token == Token::Colon => match &figure.token {
                Token::Figure(figure) => Some(figure.clone()),
                _ => None,
            },
            _ => None,
        };
        match Relative::parse(&name, count.as_deref()) {
            Ok(Some(relative)) => {
                self.at += if count.is_some() { 3 } else { 1 };
                Ok(Operand::Relative(relative))
            }
            Ok(None) => Err(self.refuse(
                format!("`{name}` is no value"),
                "put texts into single quotes; fields can't be compared with fields",
            )),
            Err(why) => Err(self.refuse(
                format!("`{name}`: {why}"),
                "use LAST_N_DAYS:30, THIS_YEAR or a date",
            )),
        }
    }
}
