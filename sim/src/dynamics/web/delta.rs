//! Change tracking: the first full read, the changes behind a token, and their count.
//!
//! A token names the row version at which the read began, so that what changes while it is paged comes with the next.

use axum::http::StatusCode;
use chrono::TimeDelta;

use super::super::error::ApiError;
use super::super::node::Node;
use super::super::odata::options::Options;
use super::super::odata::percent;
use super::super::org::Org;
use super::super::store::{Rows, Store};
use super::ROOT;
use super::page::{Cookie, DeltaToken, LARGEST, digest};
use super::query::{Scene, context, next_link, versioned};
use super::rows::{members, selection};
use crate::salesforce::lock::lock;

/// Refuses what can't go with change tracking.
fn allowed(options: &Options) -> Result<(), ApiError> {
    let forbidden = [
        ("$filter", options.filter.is_some()),
        ("$orderby", !options.order.is_empty()),
        ("$expand", !options.expand.is_empty()),
        ("$top", options.top.is_some()),
    ];
    match forbidden.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(ApiError::odata(format!(
            "The \"{name}\" query parameter isn't supported when Change Tracking is enabled."
        ))),
        None => Ok(()),
    }
}

/// The token of a request, if it is still good.
fn token(org: &Org, store: &Store, rows: &Rows, text: &str) -> Result<DeltaToken, ApiError> {
    let token =
        DeltaToken::read(text).ok_or_else(|| ApiError::odata("The delta token is not valid."))?;
    let days = TimeDelta::days(org.tracking_days(store));
    if org.clock.now() - token.at >= days || token.version < rows.described {
        let status = lock(&org.switches).expired_status;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        return Err(ApiError::stale_token(status));
    }
    Ok(token)
}

/// Whether a request is about changes.
pub(crate) fn is_tracked(scene: &Scene<'_>, options: &Options) -> bool {
    scene.prefer.track || options.delta_token.is_some()
}

/// A page of the first read or of the changes.
pub(crate) fn page(scene: &Scene<'_>, rows: &Rows, options: &Options) -> Result<Node, ApiError> {
    allowed(options)?;
    let table = &rows.table;
    if !table.tracked {
        return Err(ApiError::not_tracked(&table.name));
    }
    let selection = selection(table, options.select.as_ref())?;
    let cookie = options
        .skip_token
        .as_deref()
        .map(|text| Cookie::read(text, options))
        .transpose()?;
    let since = match &options.delta_token {
        Some(text) => Some(token(scene.org, scene.store, rows, text)?),
        None => None,
    };
    let size = scene.prefer.page.unwrap_or(LARGEST);
    let number = |name: &str| {
        cookie
            .as_ref()
            .and_then(|cookie| cookie.value(name)?.parse::<i64>().ok())
    };
    let wrong = || ApiError::odata("Malformed XML in the Paging Cookie");
    let now = DeltaToken {
        version: scene.store.version,
        at: scene.org.clock.second(),
    };
    // Later pages see the state of the first one, as far as its versions tell.
    let until = match &cookie {
        Some(_) => DeltaToken::read(
            cookie
                .as_ref()
                .and_then(|c| c.value("until"))
                .unwrap_or_default(),
        )
        .ok_or_else(wrong)?,
        None => now,
    };
    let show = |row| Node::Object(members(scene.store, table, row, &selection, scene.prefer));
    let mut last: Vec<(String, String)> = Vec::new();
    let mut shown: Vec<Node> = Vec::new();
    let mut more = false;
    match since {
        None => {
            let from = cookie
                .as_ref()
                .map(|cookie| {
                    cookie
                        .value("id")
                        .and_then(|id| id.parse().ok())
                        .ok_or_else(wrong)
                })
                .transpose()?;
            for (id, row) in rows.rows_after(from) {
                if shown.len() == size {
                    more = true;
                    break;
                }
                shown.push(show(row));
                last = vec![("id".to_owned(), id.to_string())];
            }
        }
        Some(since) => {
            let (mut changed, mut deleted) = (
                number("changed").unwrap_or(since.version),
                number("deleted").unwrap_or(since.version),
            );
            for (_, row) in rows.changed(changed, until.version) {
                if shown.len() == size {
                    more = true;
                    break;
                }
                shown.push(show(row));
                changed = row.version;
            }
            for (version, id) in rows.deleted(deleted, until.version) {
                if more || shown.len() == size {
                    more = true;
                    break;
                }
                shown.push(tombstone(scene.org, &table.set, id.to_string()));
                deleted = version;
            }
            last = vec![
                ("changed".to_owned(), changed.to_string()),
                ("deleted".to_owned(), deleted.to_string()),
            ];
        }
    }
    let ending = if since.is_some() { "/$delta" } else { "" };
    let mut body = vec![(
        "@odata.context".to_owned(),
        Node::from(context(scene.org, table, &selection, ending)),
    )];
    versioned(scene, &mut body);
    if more {
        last.push(("until".to_owned(), until.text()));
        let cookie = Cookie {
            number: cookie.map_or(1, |cookie| cookie.number) + 1,
            tracking: true,
            last,
            digest: digest(options),
        };
        body.push((
            "@odata.nextLink".to_owned(),
            Node::from(next_link(scene.org, &table.set, options, &cookie)),
        ));
    } else {
        let link = options.link();
        let before = if link.is_empty() {
            String::new()
        } else {
            format!("{link}&")
        };
        let token = percent::encode(&until.text());
        let link = format!(
            "{}{ROOT}{}?{before}$deltatoken={token}",
            scene.org.url(),
            table.set
        );
        body.push(("@odata.deltaLink".to_owned(), Node::from(link)));
    }
    body.push(("value".to_owned(), Node::Array(shown)));
    Ok(Node::Object(body))
}

fn tombstone(org: &Org, set: &str, id: String) -> Node {
    let context = format!("{}{ROOT}$metadata#{set}/$deletedEntity", org.url());
    Node::Object(vec![
        ("@odata.context".to_owned(), Node::from(context)),
        ("id".to_owned(), Node::from(id)),
        ("reason".to_owned(), Node::from("deleted")),
    ])
}

/// The number of changes behind a token.
pub(crate) fn count(scene: &Scene<'_>, rows: &Rows, text: &str) -> Result<usize, ApiError> {
    if !rows.table.tracked {
        return Err(ApiError::not_tracked(&rows.table.name));
    }
    let since = token(scene.org, scene.store, rows, text)?.version;
    let until = scene.store.version;
    Ok(rows.changed(since, until).count() + rows.deleted(since, until).count())
}
