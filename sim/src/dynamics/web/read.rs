//! GET: rows, one row, a column, a related row, counts, functions, metadata.

use axum::http::{Method, StatusCode};

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::odata::bind;
use super::super::odata::options::Options;
use super::super::org::Org;
use super::super::store::{Rows, Store};
use super::address::{Address, Segment, find, row_key};
use super::query::{self, Plan, Scene, context};
use super::rows::etag;
use super::{Call, Caller, ROOT, Reply, csdl, delta, functions, metadata};
use crate::salesforce::lock::lock;

/// Answers a call that changes nothing.
pub(crate) fn read(
    org: &Org,
    caller: Caller,
    call: &Call,
    address: &Address,
) -> Result<Reply, ApiError> {
    if call.method != Method::GET {
        return Err(ApiError::not_allowed(format!(
            "The requested resource does not support http method '{}'.",
            call.method
        )));
    }
    let store = org.store();
    let prefer = call.prefer();
    let applied = prefer.applied();
    let scene = Scene::new(org, &store, caller, &prefer);
    let mut reply = match address.segments.as_slice() {
        [] => csdl::service_document(org, &store),
        [one] if one.name == "$metadata" => csdl::document(org, &store, &call.query),
        [one, ..] if one.name == "EntityDefinitions" => {
            metadata::definitions(&scene, call, address)
        }
        [one, ..] if functions::is_function(&one.name) => {
            functions::call(&scene, caller, call, one)
        }
        [one, rest @ ..] => {
            let rows = store
                .set(&one.name)
                .ok_or_else(|| ApiError::no_segment(&one.name))?;
            permit(org, caller, "Read", &rows.table.name)?;
            table(&scene, call, rows, one, rest)
        }
    }?;
    if let Some(applied) = applied {
        reply.headers.push(("Preference-Applied", applied));
    }
    Ok(reply)
}

/// Refuses what a privilege was taken away for.
pub(crate) fn permit(org: &Org, caller: Caller, action: &str, table: &str) -> Result<(), ApiError> {
    let denied = (action.to_owned(), table.to_owned());
    if lock(&org.switches).denied.contains(&denied) {
        return Err(ApiError::privilege(caller.user, action, table));
    }
    Ok(())
}

fn table(
    scene: &Scene<'_>,
    call: &Call,
    rows: &Rows,
    head: &Segment,
    rest: &[Segment],
) -> Result<Reply, ApiError> {
    let Some(arguments) = &head.arguments else {
        return match rest {
            [] => collection(scene, call, rows),
            [count] if count.name == "$count" => counted(scene, call, rows),
            [other, ..] => Err(ApiError::no_segment(&other.name)),
        };
    };
    let key = row_key(&rows.table, arguments)?;
    let id = find(rows, &key)?;
    match rest {
        [] => one(scene, call, rows, id),
        [part] if part.name == "$ref" => Err(ApiError::no_segment("$ref")),
        [part, tail @ ..] => part_of(scene, call, rows, id, part, tail),
    }
}

fn collection(scene: &Scene<'_>, call: &Call, rows: &Rows) -> Result<Reply, ApiError> {
    let options = Options::read(&call.query)?;
    let body = match delta::is_tracked(scene, &options) {
        true => delta::page(scene, rows, &options)?,
        false => query::page(scene, rows, &options, &rows.table.set, None)?,
    };
    Ok(Reply::json(body))
}

fn counted(scene: &Scene<'_>, call: &Call, rows: &Rows) -> Result<Reply, ApiError> {
    let options = Options::read(&call.query)?;
    let count = match &options.delta_token {
        Some(text) => delta::count(scene, rows, text)?,
        None => {
            let plan = Plan::bind(scene.store, &rows.table, &options, false)?;
            query::counted(scene, rows, &plan, None).0
        }
    };
    // The real one begins with a byte-order mark, as .NET writes texts.
    Ok(Reply::text("text/plain", format!("\u{feff}{count}")))
}

fn one(scene: &Scene<'_>, call: &Call, rows: &Rows, id: Guid) -> Result<Reply, ApiError> {
    let options = Options::read(&call.query)?;
    if options.filter.is_some()
        || options.top.is_some()
        || !options.order.is_empty()
        || options.count
    {
        return Err(ApiError::odata(
            "The query options $filter, $orderby, $top and $count are not valid for a single row.",
        ));
    }
    let row = rows
        .row(id)
        .ok_or_else(|| ApiError::no_row(&rows.table.name, id))?;
    if let Some(held) = call.header("if-none-match").filter(|held| *held != "null") {
        let plain = options.expand.is_empty() && scene.prefer.annotations.is_empty();
        if plain && held == etag(row) {
            return Ok(Reply::empty(StatusCode::NOT_MODIFIED).with("ETag", etag(row)));
        }
    }
    shown(scene, rows, id, &options).map(|body| Reply::json(body).with("ETag", etag(row)))
}

/// A row as the body of an answer.
pub(crate) fn shown(
    scene: &Scene<'_>,
    rows: &Rows,
    id: Guid,
    options: &Options,
) -> Result<Node, ApiError> {
    let plan = Plan::bind(scene.store, &rows.table, options, false)?;
    let row = rows
        .row(id)
        .ok_or_else(|| ApiError::no_row(&rows.table.name, id))?;
    let mut body = vec![(
        "@odata.context".to_owned(),
        Node::from(context(scene.org, &rows.table, &plan.selection, "/$entity")),
    )];
    query::versioned(scene, &mut body);
    if let Node::Object(members) = plan.show(scene, &rows.table, id, row) {
        body.extend(members);
    }
    Ok(Node::Object(body))
}

/// A column's value, or a related row or rows.
fn part_of(
    scene: &Scene<'_>,
    call: &Call,
    rows: &Rows,
    id: Guid,
    part: &Segment,
    tail: &[Segment],
) -> Result<Reply, ApiError> {
    let (store, table) = (scene.store, &rows.table);
    let row = rows
        .row(id)
        .ok_or_else(|| ApiError::no_row(&table.name, id))?;
    let bound = part.name.strip_prefix("Microsoft.Dynamics.CRM.");
    if let (Some(function), "systemuser", []) = (bound, table.name.as_str(), tail) {
        return functions::of_user(scene, function);
    }
    let reference = matches!(tail, [last] if last.name == "$ref");
    if let Some((place, _)) = table.navigation(&part.name) {
        let Cell::Ref(target, to) = row.cell(place) else {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        };
        let next = store
            .table(target)
            .ok_or_else(|| ApiError::no_segment(target))?;
        if reference {
            let id = format!("{}{ROOT}{}({to})", scene.org.url(), next.table.set);
            let context = format!("{}{ROOT}$metadata#$ref", scene.org.url());
            return Ok(Reply::json(Node::Object(vec![
                ("@odata.context".to_owned(), Node::from(context)),
                ("@odata.id".to_owned(), Node::from(id)),
            ])));
        }
        return match tail {
            [] => one(scene, call, next, *to),
            [part, tail @ ..] => part_of(scene, call, next, *to, part, tail),
        };
    }
    if let Some((child, place)) = bind::collection(store, table, &part.name) {
        let rows = child_rows(store, &child.name)?;
        let options = Options::read(&call.query)?;
        let path = format!("{}({id})/{}", table.set, part.name);
        return match tail {
            [] => Ok(Reply::json(query::page(
                scene,
                rows,
                &options,
                &path,
                Some((place, id)),
            )?)),
            [count] if count.name == "$count" => {
                let plan = Plan::bind(store, &child, &options, false)?;
                let (count, _) = query::counted(scene, rows, &plan, Some((place, id)));
                Ok(Reply::text("text/plain", format!("\u{feff}{count}")))
            }
            [other, ..] => Err(ApiError::no_segment(&other.name)),
        };
    }
    let place = table
        .property(&part.name)
        .ok_or_else(|| ApiError::no_segment(&part.name))?;
    let raw = matches!(tail, [last] if last.name == "$value");
    if !raw && !tail.is_empty() {
        return Err(ApiError::no_segment(&tail[0].name));
    }
    let cell = row.cell(place);
    if cell.is_null() {
        return Ok(Reply::empty(StatusCode::NO_CONTENT));
    }
    if raw {
        return Ok(Reply::text(
            "text/plain",
            cell.json().text().trim_matches('"').to_owned(),
        ));
    }
    let context = format!(
        "{}{ROOT}$metadata#{}({id})/{}",
        scene.org.url(),
        table.set,
        part.name
    );
    Ok(Reply::json(Node::Object(vec![
        ("@odata.context".to_owned(), Node::from(context)),
        ("value".to_owned(), cell.json()),
    ])))
}

fn child_rows<'s>(store: &'s Store, name: &str) -> Result<&'s Rows, ApiError> {
    store.table(name).ok_or_else(|| ApiError::no_segment(name))
}
