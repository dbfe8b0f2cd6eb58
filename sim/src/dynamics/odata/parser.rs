//! The grammar of `$filter`.

use chrono::NaiveDate;

use super::super::cell::{Cell, time};
use super::super::decimal::Decimal;
use super::super::error::ApiError;

/// A condition.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Compare(Compare, Operand, Operand),
    /// `contains`, `startswith`, `endswith`.
    Match(Matching, Operand, Operand),
    /// `Microsoft.Dynamics.CRM.…(PropertyName='x',…)`: the name after the last dot, and the arguments.
    Function(String, Vec<(String, String)>),
    /// `path/any(x:…)`; without a condition it asks whether there is a row.
    Lambda {
        path: Vec<String>,
        any: bool,
        body: Option<Box<Expr>>,
    },
    /// A Boolean by itself.
    Truth(Operand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

impl Compare {
    /// The operator's name in an error.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Eq => "Equal",
            Self::Ne => "NotEqual",
            Self::Gt => "GreaterThan",
            Self::Ge => "GreaterThanOrEqual",
            Self::Lt => "LessThan",
            Self::Le => "LessThanOrEqual",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matching {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Path(Vec<String>),
    Literal(Cell),
    /// A qualified enum literal: the member's name.
    Member(String),
}

/// Nesting that a condition may have.
const DEEPEST: usize = 50;

/// Reads a condition.
pub(crate) fn parse(text: &str) -> Result<Expr, ApiError> {
    let mut parser = Parser {
        text,
        place: 0,
        variables: Vec::new(),
        depth: 0,
    };
    let expr = parser.or()?;
    parser.space();
    if parser.place < text.len() {
        return Err(parser.wrong());
    }
    Ok(expr)
}

struct Parser<'t> {
    text: &'t str,
    place: usize,
    variables: Vec<String>,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.place..]
    }

    fn space(&mut self) {
        self.place += self.rest().len() - self.rest().trim_start().len();
    }

    fn wrong(&self) -> ApiError {
        ApiError::odata(format!(
            "Syntax error at position {} in '{}'.",
            self.place, self.text
        ))
    }

    fn sign(&mut self, sign: char) -> bool {
        self.space();
        let hit = self.rest().starts_with(sign);
        if hit {
            self.place += sign.len_utf8();
        }
        hit
    }

    fn need(&mut self, sign: char) -> Result<(), ApiError> {
        if self.sign(sign) {
            Ok(())
        } else {
            Err(self.wrong())
        }
    }

    /// A run of the letters of names, numbers, dates and ids.
    fn peek(&mut self) -> &'t str {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-.:+$@".contains(c)));
        &rest[..end.unwrap_or(rest.len())]
    }

    fn word(&mut self, wanted: &str) -> bool {
        let hit = self.peek() == wanted;
        if hit {
            self.place += wanted.len();
        }
        hit
    }

    fn or(&mut self) -> Result<Expr, ApiError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(ApiError::odata(
                "The recursion limit of the filter has been exceeded.",
            ));
        }
        let mut left = self.and()?;
        while self.word("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, ApiError> {
        let mut left = self.not()?;
        while self.word("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, ApiError> {
        if self.word("not") {
            return Ok(Expr::Not(Box::new(self.not()?)));
        }
        if self.sign('(') {
            let inner = self.or()?;
            self.need(')')?;
            return Ok(inner);
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Expr, ApiError> {
        let word = self.peek();
        let called = self.text[self.place + word.len()..].starts_with('(');
        let matching = match word {
            "contains" => Some(Matching::Contains),
            "startswith" => Some(Matching::StartsWith),
            "endswith" => Some(Matching::EndsWith),
            _ => None,
        };
        if let (Some(matching), true) = (matching, called) {
            self.place += word.len();
            self.need('(')?;
            let left = self.operand()?;
            self.need(',')?;
            let right = self.operand()?;
            self.need(')')?;
            return Ok(Expr::Match(matching, left, right));
        }
        if called && let Some(name) = word.strip_prefix("Microsoft.Dynamics.CRM.") {
            self.place += word.len();
            return Ok(Expr::Function(name.to_owned(), self.arguments()?));
        }
        if called {
            return Err(ApiError::odata(format!(
                "An unknown function with name '{word}' was found."
            )));
        }
        let left = self.operand()?;
        if let Operand::Path(path) = &left
            && let Some(last @ ("any" | "all")) = path.last().map(String::as_str)
            && self.rest().starts_with('(')
        {
            let any = last == "any";
            return self.lambda(path[..path.len() - 1].to_vec(), any);
        }
        let compare = match self.peek() {
            "eq" => Compare::Eq,
            "ne" => Compare::Ne,
            "gt" => Compare::Gt,
            "ge" => Compare::Ge,
            "lt" => Compare::Lt,
            "le" => Compare::Le,
            _ => return Ok(Expr::Truth(left)),
        };
        self.place += 2;
        Ok(Expr::Compare(compare, left, self.operand()?))
    }

    fn lambda(&mut self, path: Vec<String>, any: bool) -> Result<Expr, ApiError> {
        self.need('(')?;
        if self.sign(')') {
            return Ok(Expr::Lambda {
                path,
                any,
                body: None,
            });
        }
        self.space();
        let end = self.rest().find(':').ok_or_else(|| self.wrong())?;
        let variable = self.rest()[..end].trim().to_owned();
        self.place += end + 1;
        self.variables.push(variable);
        let body = self.or()?;
        self.variables.pop();
        self.need(')')?;
        Ok(Expr::Lambda {
            path,
            any,
            body: Some(Box::new(body)),
        })
    }

    /// `Name=value` pairs; the values stay as text.
    fn arguments(&mut self) -> Result<Vec<(String, String)>, ApiError> {
        self.need('(')?;
        let start = self.place;
        let (mut depth, mut single, mut double) = (1, false, false);
        for (at, letter) in self.rest().char_indices() {
            match letter {
                '\'' if !double => single = !single,
                '"' if !single => double = !double,
                '(' if !single && !double => depth += 1,
                ')' if !single && !double => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.place = start + at + 1;
                return pairs(&self.text[start..start + at]).ok_or_else(|| self.wrong());
            }
        }
        Err(self.wrong())
    }

    fn operand(&mut self) -> Result<Operand, ApiError> {
        self.space();
        if self.rest().starts_with('\'') {
            return Ok(Operand::Literal(Cell::text(&self.quoted()?)));
        }
        let word = self.peek();
        if word.is_empty() {
            return Err(self.wrong());
        }
        self.place += word.len();
        if self.rest().starts_with('\'') {
            let member = self.quoted()?;
            if !word.contains('.') {
                return Err(ApiError::odata(format!(
                    "Unrecognized literal '{word}'{member}'."
                )));
            }
            return Ok(Operand::Member(member));
        }
        if let Some(literal) = literal(word) {
            return Ok(Operand::Literal(literal));
        }
        let mut path = vec![word.to_owned()];
        while self.rest().starts_with('/') {
            self.place += 1;
            let word = self.peek();
            if word.is_empty() {
                return Err(self.wrong());
            }
            self.place += word.len();
            path.push(word.to_owned());
        }
        if path.len() > 1 && self.variables.last() == path.first() {
            path.remove(0);
        }
        let named = |name: &String| name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if path.iter().all(named) {
            Ok(Operand::Path(path))
        } else {
            Err(self.wrong())
        }
    }

    fn quoted(&mut self) -> Result<String, ApiError> {
        self.need('\'')?;
        let mut out = String::new();
        let mut letters = self.rest().char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            if letter != '\'' {
                out.push(letter);
            } else if letters.next_if(|(_, next)| *next == '\'').is_some() {
                out.push('\'');
            } else {
                self.place += at + 1;
                return Ok(out);
            }
        }
        Err(ApiError::odata(format!(
            "There is an unterminated string literal at position {} in '{}'.",
            self.text.len(),
            self.text
        )))
    }
}

/// A bare literal: null, Boolean, id, date, date-time, number.
fn literal(word: &str) -> Option<Cell> {
    match word {
        "null" => return Some(Cell::Null),
        "true" => return Some(Cell::Bool(true)),
        "false" => return Some(Cell::Bool(false)),
        _ => {}
    }
    if let Ok(id) = word.parse() {
        return Some(Cell::Id(id));
    }
    if !word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') {
        return None;
    }
    if word.len() == 10
        && let Ok(date) = word.parse::<NaiveDate>()
    {
        return Some(Cell::Date(date));
    }
    if word.contains('T')
        && let Some(time) = time(word)
    {
        return Some(Cell::Time(time));
    }
    if let Ok(whole) = word.parse::<i64>() {
        return Some(Cell::Int(whole));
    }
    Decimal::parse(word).map(Cell::Decimal)
}

/// `PropertyName='x',PropertyValues=["a","b"]`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let (mut start, mut depth, mut single, mut double) = (0, 0, false, false);
    let mut push = |part: &str| {
        let (name, value) = part.split_once('=')?;
        found.push((name.trim().to_owned(), value.trim().to_owned()));
        Some(())
    };
    for (at, letter) in text.char_indices() {
        match letter {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '[' if !single && !double => depth += 1,
            ']' if !single && !double => depth -= 1,
            ',' if depth == 0 && !single && !double => {
                push(&text[start..at])?;
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        push(&text[start..])?;
    }
    Some(found)
}
