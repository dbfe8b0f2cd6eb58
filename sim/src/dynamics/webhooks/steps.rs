//! Finds the steps that a write fires.

use std::sync::Arc;

use super::super::cell::Cell;
use super::super::guid::Guid;
use super::super::org::Org;
use super::super::schema::{Ownership, Table};
use super::super::store::{Row, Rows, Store};
use super::super::transaction::{Author, Change, Message};
use super::context::{Image, Subject, body};
use super::{Auth, Post, QUEUE_MOST, Settings, WEBHOOK_MOST};

/// A registered step that is enabled.
struct Step {
    id: Guid,
    name: String,
    message: String,
    /// All tables if absent.
    table: Option<String>,
    synchronous: bool,
    stage: i64,
    rank: i64,
    auto_delete: bool,
    /// Columns that must be in an update; any if empty.
    filter: Vec<String>,
    endpoint: Guid,
}

/// The columns of a row by name.
struct Named<'r>(&'r Table, &'r Row);

impl Named<'_> {
    fn cell(&self, name: &str) -> &Cell {
        self.0
            .place(name)
            .map_or(&Cell::Null, |place| self.1.cell(place))
    }

    fn int(&self, name: &str) -> Option<i64> {
        match self.cell(name) {
            Cell::Int(value) => Some(*value),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> String {
        match self.cell(name) {
            Cell::Text(text) => text.to_string(),
            _ => String::new(),
        }
    }

    fn id(&self, name: &str) -> Option<Guid> {
        self.cell(name).id()
    }
}

fn row<'s>(store: &'s Store, table: &str, id: Option<Guid>) -> Option<Named<'s>> {
    let rows = store.table(table)?;
    Some(Named(&rows.table, rows.row(id?)?))
}

fn steps(store: &Store) -> Vec<Step> {
    let Some(rows) = store.table("sdkmessageprocessingstep") else {
        return Vec::new();
    };
    let mut steps: Vec<Step> = rows
        .rows()
        .filter_map(|(id, row)| step(store, rows, id, row))
        .collect();
    steps.sort_by_key(|step| (step.stage, step.rank, step.id));
    steps
}

fn step(store: &Store, rows: &Rows, id: Guid, found: &Row) -> Option<Step> {
    let named = Named(&rows.table, found);
    if named.int("statecode") != Some(0) {
        return None;
    }
    let message = row(store, "sdkmessage", named.id("sdkmessageid"))?.text("name");
    let filter = named.id("sdkmessagefilterid");
    let table = match filter {
        None => None,
        Some(filter) => {
            Some(row(store, "sdkmessagefilter", Some(filter))?.text("primaryobjecttypecode"))
        }
    };
    let columns = named.text("filteringattributes");
    Some(Step {
        id,
        name: named.text("name"),
        message,
        table,
        synchronous: named.int("mode") == Some(0),
        stage: named.int("stage").unwrap_or(40),
        rank: named.int("rank").unwrap_or(1),
        auto_delete: *named.cell("asyncautodelete") == Cell::Bool(true),
        filter: columns
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        endpoint: named.id("eventhandler")?,
    })
}

/// The messages of changes, in their order.
pub(super) fn posts(
    org: &Org,
    store: &Store,
    changes: &[Change],
    author: Author,
    settings: Settings,
) -> Vec<Post> {
    let steps = steps(store);
    if steps.is_empty() {
        return Vec::new();
    }
    let correlation = org.draw();
    let mut posts = Vec::new();
    for change in changes {
        for input in saves(change) {
            for step in &steps {
                if fires(step, change, &input) {
                    posts.extend(post(
                        org,
                        store,
                        step,
                        change,
                        &input,
                        author,
                        settings,
                        correlation,
                    ));
                }
            }
        }
    }
    posts
}

/// The columns of each event: a change of state, or of a user's unit, beside other columns is an update of its own.
fn saves(change: &Change) -> Vec<Vec<usize>> {
    if change.message != Message::Update {
        return vec![change.input.clone()];
    }
    let name = |place: &usize| change.table.columns[*place].name.as_str();
    let special = |place: &usize| match name(place) {
        "statecode" | "statuscode" => true,
        "businessunitid" => change.table.ownership == Ownership::BusinessOwned,
        _ => false,
    };
    let platform = |place: &usize| matches!(name(place), "modifiedon" | "modifiedby");
    let (apart, rest): (Vec<usize>, Vec<usize>) =
        change.input.iter().partition(|place| special(place));
    if apart.is_empty() || rest.iter().all(platform) {
        return vec![change.input.clone()];
    }
    let stamps: Vec<usize> = rest.iter().copied().filter(platform).collect();
    vec![rest, apart.into_iter().chain(stamps).collect()]
}

fn fires(step: &Step, change: &Change, input: &[usize]) -> bool {
    let named = |place: &usize| step.filter.contains(&change.table.columns[*place].name);
    step.message == change.message.name()
        && step
            .table
            .as_ref()
            .is_none_or(|table| *table == change.table.name)
        && (change.message != Message::Update || step.filter.is_empty() || input.iter().any(named))
}

#[allow(
    clippy::too_many_arguments,
    reason = "a change, a step, and where they meet"
)]
fn post(
    org: &Org,
    store: &Store,
    step: &Step,
    change: &Change,
    input: &[usize],
    author: Author,
    settings: Settings,
    correlation: Guid,
) -> Option<Post> {
    let endpoint = row(store, "serviceendpoint", Some(step.endpoint))?;
    let contract = endpoint.int("contract")?;
    let subject = Subject {
        org,
        change,
        input,
        author,
        settings,
        correlation,
        operation: org.draw(),
        stage: step.stage,
        synchronous: step.synchronous,
        step: (step.id, &step.name),
        images: images(store, step.id),
    };
    let most = if contract == 8 {
        WEBHOOK_MOST
    } else {
        QUEUE_MOST
    };
    let whole = body(&subject, false);
    let oversized = whole.len() > most;
    Some(Post {
        synchronous: step.synchronous && contract == 8,
        step: step.id,
        step_name: step.name.clone(),
        auto_delete: step.auto_delete,
        endpoint: step.endpoint,
        url: endpoint.text("url"),
        path: endpoint.text("path"),
        contract,
        message_format: endpoint
            .int("messageformat")
            .unwrap_or(if contract == 8 { 2 } else { 1 }),
        auth: auth(&endpoint),
        table: change.table.name.clone(),
        message: change.message.name(),
        correlation,
        user: author.user,
        body: if oversized {
            body(&subject, true)
        } else {
            whole
        },
        oversized,
    })
}

fn auth(endpoint: &Named<'_>) -> Auth {
    let value = endpoint.text("authvalue");
    match endpoint.int("authtype") {
        Some(4) => Auth::Code(value),
        Some(5) => Auth::Headers(settings(&value)),
        Some(6) => Auth::Query(settings(&value)),
        _ => Auth::None,
    }
}

/// `<settings><setting name="K" value="V" /></settings>`
fn settings(xml: &str) -> Vec<(String, String)> {
    let attribute = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("{name}=\""))?;
        let (value, _) = rest.split_once('"')?;
        let plain = value
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'");
        Some(plain.replace("&amp;", "&"))
    };
    xml.split("<setting ")
        .skip(1)
        .filter_map(|part| Some((attribute(part, "name")?, attribute(part, "value")?)))
        .collect()
}

fn images(store: &Store, step: Guid) -> Vec<Image> {
    let Some(rows) = store.table("sdkmessageprocessingstepimage") else {
        return Vec::new();
    };
    let all = rows
        .rows()
        .map(|(_, row): (Guid, &Arc<Row>)| Named(&rows.table, row));
    all.filter(|image| image.id("sdkmessageprocessingstepid") == Some(step))
        .map(|image| {
            let columns = image.text("attributes");
            Image {
                alias: image.text("entityalias"),
                kind: image.int("imagetype").unwrap_or(0),
                columns: columns
                    .split(',')
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .map(str::to_owned)
                    .collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_their_xml() {
        let xml = "<settings><setting name=\"x-key\" value=\"a&amp;b\" /><setting name=\"k\" value=\"v\"/></settings>";
        let pairs = settings(xml);
        assert_eq!(
            pairs,
            [("x-key".into(), "a&b".into()), ("k".into(), "v".into())]
        );
        assert!(settings("secret").is_empty());
    }
}
