//! Cuts a query into tokens.

use chrono::{DateTime, NaiveDate, Utc};

use super::super::value::parse_datetime;
use super::SoqlError;

/// A token and the byte where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A name with its dots: `Owner.Email`.
    Word(String),
    Text(String),
    Number(f64),
    Date(NaiveDate),
    DateTime(DateTime<Utc>),
    /// One of `( ) , : = != < <= > >=`.
    Sign(&'static str),
}

impl Kind {
    /// As the query writes it, for an error.
    pub fn show(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Text(text) => format!("'{text}'"),
            Self::Number(number) => number.to_string(),
            Self::Date(date) => date.to_string(),
            Self::DateTime(time) => time.to_rfc3339(),
            Self::Sign(sign) => (*sign).to_owned(),
        }
    }
}

const SIGNS: [&str; 11] = ["!=", "<>", "<=", ">=", "(", ")", ",", ":", "=", "<", ">"];

/// The tokens of a query.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, SoqlError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let (kind, length) = if c == '\'' {
            string(text, at)?
        } else if c.is_ascii_digit()
            || c == '-' && rest[1..].starts_with(|c: char| c.is_ascii_digit())
        {
            literal(text, at)?
        } else if c.is_ascii_alphabetic() {
            let length = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(rest.len());
            (Kind::Word(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            let kind = Kind::Sign(if sign == "<>" { "!=" } else { sign });
            (kind, sign.len())
        } else {
            return Err(SoqlError::at(
                "MALFORMED_QUERY",
                text,
                at,
                &format!("line 1:{at} no viable alternative at character '{c}'"),
            ));
        };
        tokens.push(Token { kind, at });
        at += length;
    }
    Ok(tokens)
}

/// A number, a date or a datetime; both of the latter stand without quotes.
fn literal(text: &str, at: usize) -> Result<(Kind, usize), SoqlError> {
    let rest = &text[at..];
    let length = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | ':' | '.')))
        .unwrap_or(rest.len());
    let word = &rest[..length];
    let kind = if let Some(time) = parse_datetime(word) {
        Kind::DateTime(time)
    } else if word.len() == 10
        && !word.starts_with('-')
        && let Ok(date) = word.parse()
    {
        Kind::Date(date)
    } else if let Ok(number) = word.parse::<f64>() {
        Kind::Number(number)
    } else {
        return Err(SoqlError::at(
            "MALFORMED_QUERY",
            text,
            at,
            &format!("unexpected token: '{word}'"),
        ));
    };
    Ok((kind, length))
}

fn string(text: &str, at: usize) -> Result<(Kind, usize), SoqlError> {
    let bad = |message: &str| SoqlError::at("MALFORMED_QUERY", text, at, message);
    let mut value = String::new();
    let mut chars = text[at..].char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            '\'' => return Ok((Kind::Text(value), place + 1)),
            '\\' => {
                let (_, escape) = chars.next().ok_or_else(|| bad("missing closing quote"))?;
                match escape {
                    'n' | 'N' => value.push('\n'),
                    'r' | 'R' => value.push('\r'),
                    't' | 'T' => value.push('\t'),
                    'b' | 'B' => value.push('\u{8}'),
                    'f' | 'F' => value.push('\u{c}'),
                    '"' | '\'' => value.push(escape),
                    '\\' => value.push_str(r"\\"),
                    // Wildcards stay escaped until a LIKE reads them.
                    '_' | '%' => value.extend(['\\', escape]),
                    'u' => {
                        let code: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let digits = code.bytes().all(|b| b.is_ascii_hexdigit());
                        let code = u32::from_str_radix(&code, 16).ok().filter(|_| digits);
                        let c = code.and_then(char::from_u32);
                        value.push(c.ok_or_else(|| bad("Invalid unicode escape"))?);
                    }
                    other => return Err(bad(&format!("Illegal escape sequence '\\{other}'"))),
                }
            }
            // Raw line ends are no part of a string.
            '\n' | '\r' => return Err(bad("line breaking in string literal")),
            c => value.push(c),
        }
    }
    Err(bad("unterminated string literal"))
}

/// A string as it is compared: its escaped backslashes and wildcards bare.
pub(super) fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    plain
}
