//! How a file is laid over the out-of-the-box job of the same id: tables merge, all else replaces, `false` removes.

use crate::config::document::{Node, Report, Shape, Table};
use crate::config::problem::Spot;

use super::Template;

/// The job, with its file laid over it.
pub(super) fn lay_over(template: &Template, patch: Option<Node>, report: &Report) -> Node {
    let mut node = template.node.clone();
    let Some(mut patch) = patch else {
        return node;
    };
    let spot = patch.spot.clone();
    let replaces = match patch.table_mut() {
        // Told already, or told when it is read.
        None => return patch,
        Some(table) => table.remove("replace"),
    };
    let replaces = replaces.and_then(|node| node.boolean(report)) == Some(true);
    keep_fixed(template, &patch, replaces, report);
    if replaces {
        if let (Some(table), Some(name)) = (patch.table_mut(), node.at(&["name"]))
            && table.get("name").is_none()
        {
            table.0.push(("name".to_owned(), name.clone()));
        }
        return patch;
    }
    merge(&mut node, patch);
    narrow(&mut node, report);
    if let Some(Table(destinations)) = node
        .table_mut()
        .and_then(|table| table.get_mut("to"))
        .and_then(Node::table_mut)
    {
        for (_, destination) in destinations {
            narrow(destination, report);
        }
    }
    node.spot = spot;
    node
}

/// Lays `patch` over `base`.
pub(super) fn merge(base: &mut Node, patch: Node) {
    let Shape::Table(Table(entries)) = patch.shape else {
        *base = patch;
        return;
    };
    let Shape::Table(table) = &mut base.shape else {
        base.shape = Shape::Table(Table(entries));
        base.spot = patch.spot;
        return;
    };
    for (key, node) in entries {
        let Some(own) = table.get_mut(&key) else {
            table.0.push((key, node));
            continue;
        };
        let removes =
            matches!(node.shape, Shape::Boolean(false)) && !matches!(own.shape, Shape::Boolean(_));
        if removes {
            table.remove(&key);
        } else {
            merge(own, node);
        }
    }
}

/// `and_where`: both conditions.
fn narrow(node: &mut Node, report: &Report) {
    let Some(table) = node.table_mut() else {
        return;
    };
    let Some(narrower) = table.remove("and_where") else {
        return;
    };
    let Some(text) = narrower.text(report) else {
        return;
    };
    match table.get_mut("where") {
        Some(Node {
            spot,
            shape: Shape::Text(wide),
            ..
        }) => {
            *wide = format!("({wide}) AND ({})", text.value);
            *spot = text.spot;
        }
        _ => table.0.push((
            "where".to_owned(),
            Node::new(text.spot, Shape::Text(text.value)),
        )),
    }
}

/// What the job is about stays; so does the identity that a user has at the connection.
fn keep_fixed(template: &Template, patch: &Node, replaces: bool, report: &Report) {
    for path in &template.fixed {
        let keys: Vec<&str> = path.split('.').collect();
        let (Some(own), found) = (template.node.at(&keys), patch.at(&keys)) else {
            continue;
        };
        let stays = match (found, &own.shape) {
            (None, _) => !replaces && !cut_above(patch, &keys),
            (Some(found), Shape::Text(own)) => {
                matches!(&found.shape, Shape::Text(text) if text == own)
            }
            (Some(found), _) => found.table().is_some(),
        };
        if stays {
            continue;
        }
        let spot = found.map_or_else(|| nearest_spot(patch, &keys), |found| found.spot.clone());
        let what = format!("`{path}` of an out-of-the-box {} is fixed", template.id);
        let remedy = match &own.shape {
            Shape::Text(text) => format!("write {text:?}, or make a job with another id"),
            _ => "leave it, or make a job with another id".to_owned(),
        };
        report.wrong(&spot, what, remedy);
    }
}

/// Whether something above the path is no table any more.
fn cut_above(patch: &Node, keys: &[&str]) -> bool {
    (1..keys.len()).any(|length| {
        keys.get(..length)
            .and_then(|keys| patch.at(keys))
            .is_some_and(|node| node.table().is_none())
    })
}

fn nearest_spot(patch: &Node, keys: &[&str]) -> Spot {
    let found = (0..keys.len())
        .rev()
        .filter_map(|length| patch.at(keys.get(..length)?))
        .next();
    found.map_or_else(|| patch.spot.clone(), |node| node.spot.clone())
}
