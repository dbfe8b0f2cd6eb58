//! `$batch`: calls in a multipart body, those of a change set in one transaction.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::super::error::ApiError;
use super::super::org::Org;
use super::super::transaction::Tx;
use super::address::Address;
use super::{Call, Caller, ROOT, Reply, is_write, single, write};

/// Operations that a batch may hold.
const MOST: usize = 1000;
/// Letters that the URL of a GET may have in a batch.
const LONGEST_URL: usize = 32_768;

/// A part of the body.
enum Part {
    Call(Box<Inner>),
    ChangeSet(Vec<Inner>),
}

struct Inner {
    call: Call,
    content_id: Option<String>,
}

/// Runs a batch.
pub(crate) async fn batch(org: &Arc<Org>, caller: Caller, call: &Call) -> Result<Reply, ApiError> {
    let boundary = boundary(&call.headers)?;
    let parts = parts(&call.body, &boundary)?;
    let total: usize = parts
        .iter()
        .map(|part| match part {
            Part::Call(_) => 1,
            Part::ChangeSet(calls) => calls.len(),
        })
        .sum();
    if total > MOST {
        return Err(ApiError::odata(format!(
            "The maximum number of change sets allowed in the message is exceeded: a batch takes {MOST} operations."
        )));
    }
    let go_on = call.prefer().continue_on_error;
    let response = format!("batchresponse_{}", org.draw());
    let mut text = String::new();
    for part in parts {
        text.push_str(&format!("--{response}\r\n"));
        let failed = match part {
            Part::Call(inner) => {
                let reply = outcome(inner_call(org, caller, &inner.call).await);
                let failed = reply.status.is_client_error() || reply.status.is_server_error();
                text.push_str(&http(&reply, None));
                failed
            }
            Part::ChangeSet(calls) => change_set(org, caller, &calls, &mut text).await,
        };
        if failed && !go_on {
            break;
        }
    }
    text.push_str(&format!("--{response}--\r\n"));
    let mut reply = Reply::empty(StatusCode::OK);
    // The media type names the boundary, which is this answer's own.
    reply.headers.push((
        "Content-Type",
        format!("multipart/mixed; boundary={response}"),
    ));
    reply.text = Some(("multipart/mixed", text));
    Ok(reply)
}

async fn inner_call(org: &Arc<Org>, caller: Caller, call: &Call) -> Result<Reply, ApiError> {
    if call.path.len() + call.query.len() > LONGEST_URL {
        return Err(ApiError::odata(
            "The URL of a request in a batch is too long.",
        ));
    }
    single(org, caller, call).await
}

/// An error as the answer that its part gets.
fn outcome(result: Result<Reply, ApiError>) -> Reply {
    result.unwrap_or_else(|error| Reply::error(&error, false))
}

/// All calls or none; tells whether it failed.
async fn change_set(org: &Arc<Org>, caller: Caller, calls: &[Inner], text: &mut String) -> bool {
    let done = org.transact(caller.user, |tx| {
        let mut replies = Vec::with_capacity(calls.len());
        for inner in calls {
            replies.push((inner.content_id.clone(), changed(org, tx, caller, inner)?));
        }
        Ok(replies)
    });
    match done.await {
        Ok(replies) => {
            let boundary = format!("changesetresponse_{}", org.draw());
            text.push_str(&format!(
                "Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n"
            ));
            for (id, reply) in replies {
                text.push_str(&format!("--{boundary}\r\n{}", http(&reply, id.as_deref())));
            }
            text.push_str(&format!("--{boundary}--\r\n"));
            false
        }
        Err(error) => {
            text.push_str(&http(&Reply::error(&error, false), None));
            true
        }
    }
}

fn changed(org: &Org, tx: &mut Tx<'_>, caller: Caller, inner: &Inner) -> Result<Reply, ApiError> {
    let mut call = inner.call.clone();
    if !is_write(&call) {
        return Err(ApiError::odata("A change set must not hold GET requests."));
    }
    if let Some(rest) = call.path.strip_prefix('$') {
        let (id, tail) = rest
            .split_once('/')
            .map_or((rest, None), |(id, tail)| (id, Some(tail)));
        let url = tx.content_ids.get(id).ok_or_else(|| {
            ApiError::odata(format!(
                "Content-ID Reference: '${id}' does not exist in the batch context."
            ))
        })?;
        let base = url.split_once(ROOT).map_or(url.as_str(), |(_, path)| path);
        call.path = tail.map_or_else(|| base.to_owned(), |tail| format!("{base}/{tail}"));
    }
    let address = Address::read(&call.path)?;
    org.counters.count(
        "web_api",
        &format!("{} {}", call.method, address.resource()),
    );
    let reply = write::write(org, tx, caller, &call, &address)?;
    let url = reply
        .headers
        .iter()
        .find(|(name, _)| *name == "OData-EntityId");
    if let (Some(id), Some((_, url))) = (&inner.content_id, url) {
        tx.content_ids.insert(id.clone(), url.clone());
    }
    Ok(reply)
}

/// An answer as a part of the body.
fn http(reply: &Reply, content_id: Option<&str>) -> String {
    let mut text =
        "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n".to_owned();
    if let Some(id) = content_id {
        text.push_str(&format!("Content-ID: {id}\r\n"));
    }
    let reason = reply.status.canonical_reason().unwrap_or_default();
    text.push_str(&format!(
        "\r\nHTTP/1.1 {} {reason}\r\n",
        reply.status.as_u16()
    ));
    let content = reply.content();
    if let Some((kind, _)) = &content {
        text.push_str(&format!("Content-Type: {kind}\r\n"));
    }
    text.push_str("OData-Version: 4.0\r\n");
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    if let Some((_, body)) = content {
        text.push_str(&body);
    }
    text.push_str("\r\n");
    text
}

fn malformed(problem: &str) -> ApiError {
    ApiError::odata(format!("The batch is malformed: {problem}."))
}

fn boundary(headers: &HeaderMap) -> Result<String, ApiError> {
    let kind = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    named_boundary(kind)
        .ok_or_else(|| malformed("the content type is no multipart/mixed with a boundary"))
}

fn named_boundary(kind: &str) -> Option<String> {
    if !kind
        .trim_start()
        .to_ascii_lowercase()
        .starts_with("multipart/mixed")
    {
        return None;
    }
    let value = kind
        .split(';')
        .find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(value.trim_matches('"').to_owned())
}

fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| malformed("it is no UTF-8"))?;
    let mut found = Vec::new();
    for part in pieces(text, boundary)? {
        let (headers, content) = head(part)?;
        let kind = headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        match named_boundary(&kind) {
            Some(inner) => {
                let calls = pieces(content, &inner)?.into_iter().map(|piece| {
                    let (headers, content) = head(piece)?;
                    request(&headers, content)
                });
                let calls: Vec<_> = calls.collect::<Result<_, _>>()?;
                if calls.iter().any(|inner| inner.content_id.is_none()) {
                    return Err(malformed("a request of a change set has no Content-ID"));
                }
                found.push(Part::ChangeSet(calls));
            }
            None => found.push(Part::Call(Box::new(request(&headers, content)?))),
        }
    }
    Ok(found)
}

/// What stands between the boundaries. Lines end in CRLF.
fn pieces<'t>(text: &'t str, boundary: &str) -> Result<Vec<&'t str>, ApiError> {
    let line = format!("--{boundary}");
    let mut found = Vec::new();
    let start = text
        .find(&line)
        .ok_or_else(|| malformed("its boundary is not there"))?;
    let mut rest = &text[start + line.len()..];
    loop {
        if rest.starts_with("--") {
            return Ok(found);
        }
        rest = rest
            .strip_prefix("\r\n")
            .ok_or_else(|| malformed("lines must end in CRLF"))?;
        let end = rest
            .find(&line)
            .ok_or_else(|| malformed("its last boundary is not there"))?;
        found.push(&rest[..end]);
        rest = &rest[end + line.len()..];
    }
}

/// Headers, and what comes behind the empty line.
fn head(text: &str) -> Result<(HeaderMap, &str), ApiError> {
    let text = text.trim_start_matches("\r\n");
    let (head, content) = text.split_once("\r\n\r\n").unwrap_or((text.trim_end(), ""));
    let mut headers = HeaderMap::new();
    for line in head.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| malformed("a header has no colon"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| malformed("a header's name is none"))?;
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| malformed("a header's value is none"))?;
        headers.append(name, value);
    }
    Ok((headers, content))
}

fn request(outer: &HeaderMap, content: &str) -> Result<Inner, ApiError> {
    let kind = outer
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !kind.starts_with("application/http") {
        return Err(malformed("a part is no application/http"));
    }
    let content = content.trim_start_matches("\r\n");
    let (line, rest) = content
        .split_once("\r\n")
        .ok_or_else(|| malformed("a request has no first line"))?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(url)) = (words.next(), words.next()) else {
        return Err(malformed("a request's first line is `METHOD url HTTP/1.1`"));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| malformed("a request's method is none"))?;
    let (headers, body) = match rest.starts_with("\r\n") {
        true => (HeaderMap::new(), rest.trim_start_matches("\r\n")),
        false => head(rest)?,
    };
    let path = match url.split_once(ROOT) {
        Some((_, path)) => path,
        None => url.trim_start_matches('/'),
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let content_id = outer
        .get("content-id")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    Ok(Inner {
        call: Call {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Bytes::copy_from_slice(body.trim_end().as_bytes()),
        },
        content_id,
    })
}
