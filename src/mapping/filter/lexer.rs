//! The words of a filter, with their places.

use super::FilterError;

/// A word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A field, a keyword or a date literal.
    Name(String),
    /// A number, date or time: what begins with a digit or a sign.
    Figure(String),
    /// A quoted text.
    Text(Quoted),
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Colon,
    End,
}

/// A quoted text, escapes resolved.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Quoted {
    pub text: String,
    /// Where in `text` a `%` or `_` stands that was escaped and so is no wildcard.
    pub escaped: Vec<usize>,
}

/// A word and the character at which it begins, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub token: Token,
    pub position: usize,
}

/// Cuts a text into words; the last is [`Token::End`].
pub(super) fn words(text: &str) -> Result<Vec<Placed>, FilterError> {
    let mut lexer = Lexer {
        chars: text.chars().collect(),
        at: 0,
    };
    let mut words = Vec::new();
    loop {
        let word = lexer.word()?;
        let ended = word.token == Token::End;
        words.push(word);
        if ended {
            return Ok(words);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let found = self.peek();
        self.at += usize::from(found.is_some());
        found
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn run(&mut self, first: char, admits: impl Fn(char) -> bool) -> String {
        let mut run = String::from(first);
        while let Some(found) = self.peek().filter(|found| admits(*found)) {
            run.push(found);
            self.at += 1;
        }
        run
    }

    fn word(&mut self) -> Result<Placed, FilterError> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let position = self.at + 1;
        let token = self.token(position)?;
        Ok(Placed { token, position })
    }

    fn token(&mut self, position: usize) -> Result<Token, FilterError> {
        let Some(first) = self.next() else {
            return Ok(Token::End);
        };
        Ok(match first {
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            ':' => Token::Colon,
            '=' => Token::Equal,
            '!' if self.next_if('=') => Token::NotEqual,
            '<' if self.next_if('>') => Token::NotEqual,
            '<' if self.next_if('=') => Token::LessOrEqual,
            '<' => Token::Less,
            '>' if self.next_if('=') => Token::GreaterOrEqual,
            '>' => Token::Greater,
            '\'' => Token::Text(self.quoted(position)?),
            '0'..='9' | '+' | '-' | '.' => Token::Figure(self.run(first, |c| {
                c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '+' | '-')
            })),
            c if c.is_ascii_alphabetic() || c == '_' => {
                Token::Name(self.run(c, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
            }
            other => return Err(stray(other, position)),
        })
    }

    /// The rest of a quoted text (SOQL and SOSL Reference, "Quoted String Escape Sequences").
    fn quoted(&mut self, position: usize) -> Result<Quoted, FilterError> {
        let mut quoted = Quoted::default();
        loop {
            let at = self.at + 1;
            match self.next() {
                None => {
                    return Err(FilterError {
                        position,
                        what: "the text that begins here does not end".to_owned(),
                        remedy: "close it with `'`; a `'` within it is written `\\'`".to_owned(),
                    });
                }
                Some('\'') => return Ok(quoted),
                Some('\\') => {
                    let escape = self.next();
                    let meant = escape.and_then(unescape).ok_or_else(|| FilterError {
                        position: at,
                        what: match escape {
                            Some(escape) => format!("`\\{escape}` is no escape"),
                            None => "the text ends within an escape".to_owned(),
                        },
                        remedy: "use \\n, \\r, \\t, \\b, \\f, \\\", \\', \\\\, \\_ or \\%; a backslash itself is \\\\"
                            .to_owned(),
                    })?;
                    if matches!(meant, '%' | '_') {
                        quoted.escaped.push(quoted.text.len());
                    }
                    quoted.text.push(meant);
                }
                Some(other) => quoted.text.push(other),
            }
        }
    }
}

const fn unescape(escape: char) -> Option<char> {
    Some(match escape {
        'n' | 'N' => '\n',
        'r' | 'R' => '\r',
        't' | 'T' => '\t',
        // The bell, as the reference has it.
        'b' | 'B' => '\u{7}',
        'f' | 'F' => '\u{c}',
        '"' | '\'' | '\\' | '_' | '%' => escape,
        _ => return None,
    })
}

fn stray(found: char, position: usize) -> FilterError {
    let remedy = match found {
        '"' => "put texts into single quotes",
        '!' => "write `!=` for unequal, `NOT` for a negation",
        '@' => "filter on the field itself; `@label` and `@type` belong to mappings",
        '&' | '|' => "write `AND` and `OR`",
        _ => "remove it, or put it into a text in single quotes",
    };
    FilterError {
        position,
        what: format!("`{found}` has no meaning here"),
        remedy: remedy.to_owned(),
    }
}
