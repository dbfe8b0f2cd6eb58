//! The query part of a URL, taken apart: options by name, expansions with options of their own.

use super::super::error::ApiError;
use super::percent;

/// The options of a request or of an expansion.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub select: Option<Vec<String>>,
    pub filter: Option<String>,
    pub order: Vec<(String, bool)>,
    pub top: Option<usize>,
    pub count: bool,
    pub expand: Vec<Expansion>,
    pub skip_token: Option<String>,
    pub delta_token: Option<String>,
    /// `@p1` and its like.
    pub aliases: Vec<(String, String)>,
    /// As sent and decoded, in order.
    pub given: Vec<(String, String)>,
}

/// A navigation property to be followed, with options.
#[derive(Debug, Clone)]
pub(crate) struct Expansion {
    pub navigation: String,
    pub options: Options,
}

/// Navigation properties that one request may expand.
const MOST_EXPANSIONS: usize = 15;

impl Options {
    /// Reads the text after the question mark.
    pub fn read(query: &str) -> Result<Self, ApiError> {
        let pairs = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                (percent::decode(key), percent::decode(value))
            });
        let mut options = Self::of(pairs)?;
        let expansions = options.expand.iter().map(Expansion::total).sum::<usize>();
        if expansions > MOST_EXPANSIONS {
            return Err(ApiError::odata(format!(
                "The number of $expand options must not exceed {MOST_EXPANSIONS}; this query has {expansions}."
            )));
        }
        for (name, value) in options.aliases.clone() {
            if let Some(filter) = &mut options.filter {
                *filter = filter.replace(&name, &value);
            }
        }
        Ok(options)
    }

    fn of(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for (key, value) in pairs {
            if options.given.iter().any(|(known, _)| *known == key) {
                return Err(ApiError::odata(format!(
                    "Query option '{key}' was specified more than once, but it must be specified at most once."
                )));
            }
            match key.as_str() {
                "$select" => options.select = Some(names(&value)),
                "$filter" => options.filter = Some(value.clone()),
                "$orderby" => options.order = order(&value)?,
                "$top" => options.top = Some(top(&value)?),
                "$count" => {
                    options.count = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => {
                            return Err(ApiError::odata(format!(
                                "Invalid value '{value}' for $count query option found. Valid values are 'true' or 'false'."
                            )));
                        }
                    };
                }
                "$expand" => options.expand = expansions(&value)?,
                "$skiptoken" => options.skip_token = Some(value.clone()),
                "$deltatoken" => options.delta_token = Some(value.clone()),
                "$skip" => return Err(ApiError::odata("Skip Clause is not supported in CRM")),
                "$search" | "$format" | "$apply" | "$compute" | "$levels" | "fetchXml"
                | "savedQuery" | "userQuery" => {
                    return Err(ApiError::odata(format!(
                        "The query parameter {key} is not supported by this simulator"
                    )));
                }
                alias if alias.starts_with('@') => {
                    options.aliases.push((key.clone(), value.clone()))
                }
                _ => {
                    return Err(ApiError::odata(format!(
                        "The query parameter {key} is not supported"
                    )));
                }
            }
            options.given.push((key, value));
        }
        Ok(options)
    }

    /// The options without the paging token, as text for a link.
    pub fn link(&self) -> String {
        let kept = self
            .given
            .iter()
            .filter(|(key, _)| key != "$skiptoken" && key != "$deltatoken");
        let pairs = kept.map(|(key, value)| format!("{key}={}", percent::encode_option(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

impl Expansion {
    fn total(&self) -> usize {
        1 + self.options.expand.iter().map(Self::total).sum::<usize>()
    }
}

fn names(text: &str) -> Vec<String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn top(text: &str) -> Result<usize, ApiError> {
    text.parse().map_err(|_| {
        ApiError::odata(format!("Invalid value '{text}' for $top query option found. The $top query option requires a non-negative integer value."))
    })
}

/// Columns with true for descending.
fn order(text: &str) -> Result<Vec<(String, bool)>, ApiError> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let mut words = part.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            match (words.next(), words.next()) {
                (None | Some("asc"), None) => Ok((name, false)),
                (Some("desc"), None) => Ok((name, true)),
                _ => Err(ApiError::odata(format!(
                    "Syntax error in $orderby: '{part}'."
                ))),
            }
        })
        .collect()
}

/// Navigation properties, each with its options in parentheses, parted by semicolons.
pub(crate) fn expansions(text: &str) -> Result<Vec<Expansion>, ApiError> {
    let mut found = Vec::new();
    for part in split(text, ',')? {
        let part = part.trim();
        if part.is_empty() {
            return Err(ApiError::odata("Found an empty $expand term."));
        }
        let (navigation, inner) = match part.split_once('(') {
            Some((navigation, rest)) => {
                let inner = rest.strip_suffix(')').ok_or_else(|| {
                    ApiError::odata(format!(
                        "Found an unbalanced bracket expression in '{part}'."
                    ))
                })?;
                (navigation, inner)
            }
            None => (part, ""),
        };
        let pairs = split(inner, ';')?
            .into_iter()
            .filter(|p| !p.trim().is_empty())
            .map(|pair| {
                let (key, value) = pair.trim().split_once('=').unwrap_or((pair, ""));
                (key.to_owned(), value.to_owned())
            });
        found.push(Expansion {
            navigation: navigation.trim().to_owned(),
            options: Options::of(pairs)?,
        });
    }
    Ok(found)
}

/// Splits at a sign outside of quotes and parentheses.
pub(crate) fn split(text: &str, sign: char) -> Result<Vec<&str>, ApiError> {
    let mut parts = Vec::new();
    let (mut depth, mut quoted, mut start) = (0_i32, false, 0);
    for (place, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ if letter == sign && depth == 0 && !quoted => {
                parts.push(&text[start..place]);
                start = place + letter.len_utf8();
            }
            _ => {}
        }
    }
    if depth != 0 || quoted {
        return Err(ApiError::odata(format!(
            "Found an unbalanced bracket expression in '{text}'."
        )));
    }
    parts.push(&text[start..]);
    Ok(parts)
}
