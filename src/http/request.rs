//! A request on its way out.

use std::time::Duration;

use bytes::Bytes;

use crate::secret::Secret;

/// A request; made by [`Request::get`] and the like, sent by [`super::Http::send`].
pub struct Request {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) bearer: Option<Secret>,
    pub(super) body: Body,
    pub(super) timeout: Option<Duration>,
}

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

pub(super) enum Body {
    None,
    Json(Bytes),
    Form(Vec<(&'static str, String)>),
}

impl Request {
    /// A request without a body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            bearer: None,
            body: Body::None,
            timeout: None,
        }
    }

    /// A GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// A POST.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::Post, url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends a bearer token.
    #[must_use]
    pub fn bearer(mut self, token: &Secret) -> Self {
        self.bearer = Some(token.clone());
        self
    }

    /// Sends JSON.
    #[must_use]
    pub fn json(mut self, json: impl Into<Bytes>) -> Self {
        self.body = Body::Json(json.into());
        self
    }

    /// Sends a form.
    #[must_use]
    pub fn form(mut self, fields: Vec<(&'static str, String)>) -> Self {
        self.body = Body::Form(fields);
        self
    }

    /// The longest this call may take, in place of the client's own limit.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Method, host and path: what faults and logs may show.
    pub(super) fn shown(&self) -> String {
        let end = self.url.find(['?', '#']).unwrap_or(self.url.len());
        let address = &self.url[..end];
        // User information in a URL is a secret too.
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if scheme.is_empty() {
            format!("{} {host}{path}", self.method.label())
        } else {
            format!("{} {scheme}://{host}{path}", self.method.label())
        }
    }
}

impl Method {
    const fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_neither_query_nor_user() {
        let shown = |url: &str| Request::get(url).shown();
        assert_eq!(
            shown("https://me:pw@acme.example/data/query?q=SELECT+Secret#x"),
            "GET https://acme.example/data/query"
        );
        assert_eq!(shown("http://acme.example"), "GET http://acme.example");
        assert_eq!(shown("acme.example/x?y"), "GET acme.example/x");
    }
}
