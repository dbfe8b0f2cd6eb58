//! `avatar` of a user: who they are at the connection, a row of User Avatar beside the row of User.

use crate::config::document::Node;
use crate::config::job::read::{Context, Origin};
use crate::config::job::{DeriveEntry, DeriveSource, DestinationConfig, MapEntry, MapSource, map};
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::model::policy::{OnMove, OnMultiple, OnNone};
use crate::model::value::Value;

/// The label of what has an avatar, and of what an avatar is kept in.
const OWNER: &str = "User";
const AVATAR: &str = "User Avatar";
/// Columns that are always filled, and how.
const CONNECTION: &str = "connection";
const USER_ID: &str = "user_id";
const USER: &str = "user";

/// The destination that an `avatar` of `owner` means, right behind it. Which CRM user it is is fixed; other columns of
/// User Avatar may be mapped.
pub(super) fn read(
    node: &Node,
    owner: &DestinationConfig,
    origin: &Origin<'_>,
    context: &Context<'_>,
) -> Option<DestinationConfig> {
    let report = context.report;
    let node = node.table()?.get("avatar")?;
    let inner = Reader::open(node, report)?;
    let spot = &node.spot;
    if owner.object.value != OWNER {
        report.wrong(spot, "only User has an avatar", "remove it");
        return None;
    }
    let label = Located::new(AVATAR.to_owned(), spot.clone());
    let object = context.objects.find(&label, report)?;
    let id = context
        .kind
        .map(|kind| kind.id_field(origin.source))
        .unwrap_or_default();
    let mut map = vec![
        constant(CONNECTION, origin.connection, &label),
        MapEntry {
            source: MapSource::Path(Located::new(id.clone(), spot.clone())),
            ..constant(USER_ID, "", &label)
        },
    ];
    for (column, node) in inner.entries() {
        let column = Located::new(column.clone(), node.spot.clone());
        context.objects.column(object, &column, report);
        let Some(entry) = map::read(column, node, context) else {
            continue;
        };
        let column = entry.column.value.as_str();
        let is_id = matches!(&entry.source, MapSource::Path(path) if path.value == id);
        match column {
            USER_ID if is_id => {}
            USER_ID | USER | CONNECTION => {
                let what = format!("`{column}` of an avatar is filled by itself");
                let problem = Problem::new(&entry.column.spot, what, "remove it");
                report.add(match &entry.source {
                    MapSource::Path(path) => problem.value(shown(&path.value)),
                    MapSource::Constant(_) => problem,
                });
            }
            _ => map.push(entry),
        }
    }
    let derive = DeriveEntry {
        column: Located::new(USER.to_owned(), spot.clone()),
        by: DeriveSource::Sibling(owner.object.clone()),
        on_multiple: OnMultiple::Error,
        on_none: OnNone::Null,
    };
    Some(DestinationConfig {
        object: label,
        filter: owner.filter.clone(),
        identifiers: [CONNECTION, USER_ID]
            .map(|column| Located::new(column.to_owned(), spot.clone()))
            .to_vec(),
        map,
        derive: vec![derive],
        on_delete: owner.on_delete,
        on_filter_exit: owner.on_filter_exit,
        on_empty_identifier: None,
        // It is known by its record's id.
        on_move: Some(OnMove::Update),
    })
}

fn constant(column: &str, value: &str, label: &Located<String>) -> MapEntry {
    MapEntry {
        column: Located::new(column.to_owned(), label.spot.clone()),
        source: MapSource::Constant(Located::new(Value::text(value), label.spot.clone())),
        values: None,
        default: None,
        insert_only: false,
        keep_on_null: false,
    }
}
