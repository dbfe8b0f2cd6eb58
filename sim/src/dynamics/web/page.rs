//! Preferences of a request, and the links from page to page.

use axum::http::HeaderMap;
use chrono::{DateTime, NaiveDateTime, Utc};

use super::super::error::ApiError;
use super::super::odata::options::Options;
use super::super::odata::percent;

/// The largest page.
pub(crate) const LARGEST: usize = 5000;

/// What a request prefers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefer {
    pub page: Option<usize>,
    pub track: bool,
    pub representation: bool,
    pub continue_on_error: bool,
    /// Patterns of annotations.
    pub annotations: Vec<String>,
    given: Vec<String>,
}

impl Prefer {
    /// Reads every `Prefer` header.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        for value in headers.get_all("prefer") {
            for part in parts(value.to_str().unwrap_or_default()) {
                prefer.take(part.trim());
            }
        }
        prefer
    }

    fn take(&mut self, part: &str) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "odata.maxpagesize" => match value.parse::<usize>() {
                Ok(size) if size > 0 => {
                    self.page = Some(size.min(LARGEST));
                }
                _ => return,
            },
            "odata.track-changes" => self.track = true,
            "return" if value == "representation" => self.representation = true,
            "odata.continue-on-error" => self.continue_on_error = value != "false",
            "odata.include-annotations" => {
                self.annotations
                    .extend(value.split(',').map(|name| name.trim().to_owned()));
            }
            _ => return,
        }
        self.given.push(part.to_owned());
    }

    /// Whether an annotation is asked for.
    pub fn annotated(&self, name: &str) -> bool {
        let mut wanted = false;
        for pattern in &self.annotations {
            let (pattern, include) = match pattern.strip_prefix('-') {
                Some(pattern) => (pattern, false),
                None => (pattern.as_str(), true),
            };
            let hit = match pattern.strip_suffix('*') {
                Some(begin) => name.starts_with(begin),
                None => pattern == name,
            };
            if hit {
                wanted = include;
            }
        }
        wanted
    }

    /// Whether all annotations are asked for, errors' details too.
    pub fn every_annotation(&self) -> bool {
        self.annotations.iter().any(|pattern| pattern == "*")
    }

    /// The value of `Preference-Applied`.
    pub fn applied(&self) -> Option<String> {
        (!self.given.is_empty()).then(|| self.given.join(","))
    }
}

/// Commas part preferences, but not those within quotes.
fn parts(value: &str) -> Vec<&str> {
    let (mut parts, mut quoted, mut start) = (Vec::new(), false, 0);
    for (place, letter) in value.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&value[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&value[start..]);
    parts
}

/// Where a page ended: what a skip token holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cookie {
    pub number: usize,
    pub tracking: bool,
    /// Names and texts of where the page ended.
    pub last: Vec<(String, String)>,
    /// Of the options that the link goes on with.
    pub digest: u64,
}

impl Cookie {
    /// The token's text: an XML element, the inner cookie escaped twice.
    pub fn text(&self) -> String {
        let mut inner = format!(
            "<cookie page=\"{}\" check=\"{:x}\">",
            self.number - 1,
            self.digest
        );
        for (name, value) in &self.last {
            inner.push_str(&format!("<{name} last=\"{}\" />", percent::encode(value)));
        }
        inner.push_str("</cookie>");
        format!(
            "<cookie pagenumber=\"{}\" pagingcookie=\"{}\" istracking=\"{}\" />",
            self.number,
            percent::encode(&percent::encode(&inner)),
            if self.tracking { "True" } else { "False" }
        )
    }

    /// Reads a token; `options` are those of the request it came with.
    pub fn read(text: &str, options: &Options) -> Result<Self, ApiError> {
        let cookie = Self::parse(text)
            .ok_or_else(|| ApiError::odata("Malformed XML in the Paging Cookie"))?;
        if cookie.digest != digest(options) {
            return Err(ApiError::odata(
                "The paging cookie does not fit the query: follow @odata.nextLink unchanged.",
            ));
        }
        Ok(cookie)
    }

    fn parse(text: &str) -> Option<Self> {
        let number = attribute(text, "pagenumber")?.parse().ok()?;
        let tracking = attribute(text, "istracking")? == "True";
        let inner = percent::decode(&percent::decode(attribute(text, "pagingcookie")?));
        let digest = u64::from_str_radix(attribute(&inner, "check")?, 16).ok()?;
        let mut last = Vec::new();
        for element in inner
            .split('<')
            .skip(2)
            .filter(|element| !element.starts_with('/'))
        {
            let name = element.split_whitespace().next()?;
            last.push((
                name.to_owned(),
                percent::decode(attribute(element, "last")?),
            ));
        }
        Some(Self {
            number,
            tracking,
            last,
            digest,
        })
    }

    /// Where the page ended, by name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.last
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

fn attribute<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// A digest of the options without the paging token.
pub(crate) fn digest(options: &Options) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (key, value) in options.given.iter().filter(|(key, _)| key != "$skiptoken") {
        for byte in key.bytes().chain([b'=']).chain(value.bytes()).chain([b'&']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// A change token: `<row version>!<MM/dd/yyyy HH:mm:ss>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaToken {
    pub version: i64,
    pub at: DateTime<Utc>,
}

impl DeltaToken {
    pub fn text(&self) -> String {
        format!("{}!{}", self.version, self.at.format("%m/%d/%Y %H:%M:%S"))
    }

    pub fn read(text: &str) -> Option<Self> {
        let (version, at) = text.split_once('!')?;
        let at = NaiveDateTime::parse_from_str(at, "%m/%d/%Y %H:%M:%S").ok()?;
        Some(Self {
            version: version.parse().ok()?,
            at: at.and_utc(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_read_as_it_is_written() {
        let options = Options::read("$select=name&$orderby=name").unwrap();
        let cookie = Cookie {
            number: 2,
            tracking: false,
            last: vec![
                ("name".into(), "O'Brien <&> \"x\"".into()),
                ("accountid".into(), "1".into()),
            ],
            digest: digest(&options),
        };
        assert_eq!(Cookie::read(&cookie.text(), &options).unwrap(), cookie);
        let other = Options::read("$select=name").unwrap();
        assert!(Cookie::read(&cookie.text(), &other).is_err());
        assert!(Cookie::read("<cookie />", &options).is_err());
    }

    #[test]
    fn preferences_are_joined_or_repeated() {
        let mut headers = HeaderMap::new();
        headers.append(
            "prefer",
            "odata.maxpagesize=2,odata.track-changes".parse().unwrap(),
        );
        headers.append(
            "prefer",
            "odata.include-annotations=\"A.B,C.*\"".parse().unwrap(),
        );
        let prefer = Prefer::read(&headers);
        assert!(prefer.track && prefer.page == Some(2));
        assert!(prefer.annotated("A.B") && prefer.annotated("C.D") && !prefer.annotated("A.C"));
        let delta = DeltaToken {
            version: 7,
            at: DateTime::UNIX_EPOCH,
        };
        assert_eq!(delta.text(), "7!01/01/1970 00:00:00");
        assert_eq!(DeltaToken::read(&delta.text()), Some(delta));
    }
}
