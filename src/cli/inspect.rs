//! `rows`, `holes`, `explain`, `health`: looking at what a daemon has, on its files, beside it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::app;
use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::http::request::Request;
use crate::http::{Http, HttpSettings};
use crate::image::merge::Image;
use crate::image::sqlite::SqliteImages;
use crate::mapping::compile::{Mapped, Mapping};
use crate::mapping::plan::{MappedRow, Reference};
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::model::record_id::RecordId;
use crate::runtime::clock::{Clock, SystemClock};
use crate::target::port::review::{Review, Which};
use crate::target::port::{RowsPage, StoredRow, Traced};
use crate::telemetry::metrics::Metrics;

use super::output;

/// Prints rows of a stored object, newest first.
pub(super) async fn rows(
    path: &Path,
    object: &str,
    limit: usize,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let table = table_of(&config, object)?;
    let page = RowsPage {
        limit,
        ..RowsPage::default()
    };
    let target = app::beside::store(&config)?;
    let rows = target.rows(&table, page).await?;
    if json {
        let rows: Vec<_> = rows.iter().map(StoredRow::to_json).collect();
        output::json(&rows);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(first) = rows.first() else {
        output::print(&format!("`{table}` holds no rows"));
        return Ok(ExitCode::SUCCESS);
    };
    let filled: Vec<usize> = (0..first.columns.len())
        .filter(|column| {
            rows.iter()
                .any(|row| !row.columns[*column].1.to_json().is_null())
        })
        .collect();
    let heads: Vec<&str> = filled
        .iter()
        .map(|column| first.columns[*column].0.as_str())
        .collect();
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cells = filled.iter();
            cells
                .map(|column| output::shown(&row.columns[*column].1.to_json()))
                .collect()
        })
        .collect();
    output::table(&heads, &lines);
    Ok(ExitCode::SUCCESS)
}

fn table_of(config: &Config, object: &str) -> Result<String, Fault> {
    let found = config
        .objects
        .values()
        .find(|stored| stored.label == object || stored.table == object);
    found.map(|stored| stored.table.clone()).ok_or_else(|| {
        let labels: Vec<&str> = config
            .objects
            .values()
            .map(|stored| stored.label.as_str())
            .collect();
        Fault::new(
            FaultKind::Missing,
            format!("there is no stored object `{object}`"),
        )
        .remedy(format!("name one of {}", labels.join(", ")))
    })
}

/// Prints the hole ledger; exit code 3 while a hole is open.
pub(super) async fn holes(path: &Path, all: bool, json: bool) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let holes = app::state::holes(&config, all).await?;
    let open = holes.iter().filter(|hole| hole.closed_at.is_none()).count();
    if json {
        output::json(&holes);
    } else if holes.is_empty() {
        output::print("no open holes");
    } else {
        let rows: Vec<Vec<String>> = holes
            .iter()
            .map(|hole| {
                vec![
                    hole.id.to_string(),
                    hole.connection.to_string(),
                    hole.object.to_string(),
                    hole.cause.label().to_owned(),
                    format!("{:?}", hole.state).to_lowercase(),
                    hole.scope.to_string(),
                    hole.opened_at
                        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                    hole.evidence.as_ref().map_or_else(
                        || "–".to_owned(),
                        |evidence| {
                            format!(
                                "{} rows, {} deleted, as of {}",
                                evidence.rows,
                                evidence.deleted,
                                evidence
                                    .as_of
                                    .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
                            )
                        },
                    ),
                ]
            })
            .collect();
        let heads = [
            "HOLE",
            "CONNECTION",
            "OBJECT",
            "CAUSE",
            "STATE",
            "SCOPE",
            "OPENED",
            "EVIDENCE",
        ];
        output::table(&heads, &rows);
    }
    Ok(ExitCode::from(if open > 0 { 3 } else { 0 }))
}

/// Prints a record's way: image, what each job makes of it, stored rows.
pub(super) async fn explain(
    path: &Path,
    connection: &str,
    object: &str,
    record: &str,
    json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let connection = ConnectionId::new(connection);
    if !config.connections.contains_key(&connection) {
        let known: Vec<&str> = config
            .connections
            .keys()
            .map(ConnectionId::as_str)
            .collect();
        return Err(Fault::new(
            FaultKind::Missing,
            format!("there is no connection `{connection}`"),
        )
        .remedy(format!("name one of {}", known.join(", "))));
    }
    let key = ObjectKey {
        connection,
        object: ObjectName::new(object),
    };
    let record = RecordId::salesforce(record)
        .map_err(|error| Fault::new(FaultKind::Config, error.to_string()))?;
    let image = SqliteImages::read_only(&config.daemon.data_dir)
        .image(&key, &record)
        .await?;
    let target = app::beside::store(&config)?;
    let traced = target.trace(&key.connection, &key.object, &record).await?;
    let which = Which {
        connection: Some(key.connection.clone()),
        object: Some(key.object.clone()),
        record: Some(record.clone()),
        ..Which::default()
    };
    let reviews = target.reviews(&which).await?;
    let bindings = target.bindings().await?.into_iter().filter(|binding| {
        (&binding.connection, &binding.object, &binding.record)
            == (&key.connection, &key.object, &record)
    });
    let bindings: Vec<Json> = bindings.map(|binding| binding.to_json()).collect();
    let jobs: Vec<Json> = app::compile(&config)?
        .iter()
        .filter(|mapping| {
            mapping.plan().connection == key.connection && mapping.plan().source == key.object
        })
        .map(|mapping| explain_job(mapping, &key, &record, image.as_ref()))
        .collect();
    let explained = json!({
        "connection": key.connection, "object": key.object, "record": record, "image": image,
        "jobs": jobs, "rows": traced.iter().map(traced_json).collect::<Vec<_>>(),
        "reviews": reviews.iter().map(Review::to_json).collect::<Vec<_>>(), "decisions": bindings,
    });
    if json {
        output::json(&explained);
    } else {
        output::print(&serde_json::to_string_pretty(&explained).unwrap_or_default());
    }
    Ok(ExitCode::from(if image.is_none() && traced.is_empty() {
        3
    } else {
        0
    }))
}

fn explain_job(
    mapping: &Mapping,
    key: &ObjectKey,
    record: &RecordId,
    image: Option<&Image>,
) -> Json {
    let plan = mapping.plan();
    let Some(image) = image else {
        return json!({ "job": plan.job, "outcome": "the record has no image: no event or read has told of it" });
    };
    let dead = image.life == crate::image::merge::Life::Dead;
    let change = Change {
        v: WIRE_VERSION,
        connection: key.connection.clone(),
        object: key.object.clone(),
        id: record.clone(),
        op: if dead { Op::Delete } else { Op::Snapshot },
        version: image.version,
        committed_at: image.base,
        origin: Origin::Reconcile,
        position: None,
        transaction: None,
        changed: Vec::new(),
        fields: image.fields.clone(),
        row: None,
        synced: image.synced,
    };
    match mapping.map(&change, (0, 0), SystemClock.now()) {
        Mapped::Rows(rows) => {
            let destinations = plan.destinations.iter().zip(rows);
            let destinations: Vec<Json> = destinations
                .map(|(destination, row)| {
                    let mut shown = json!({
                        "destination": destination.label,
                        "row": row_json(destination, &row),
                    });
                    if !destination.scheduled.is_empty() && image.is_ahead_of_syncs() {
                        shown["waits_for_full_sync"] = json!(destination.scheduled);
                    }
                    shown
                })
                .collect();
            json!({ "job": plan.job, "destinations": destinations })
        }
        Mapped::NotEvaluated(missing) => {
            json!({ "job": plan.job, "outcome": "not evaluated", "missing_fields": missing })
        }
        Mapped::Rejected(reason) => {
            json!({ "job": plan.job, "outcome": "rejected", "reason": reason })
        }
    }
}

fn row_json(destination: &crate::mapping::plan::DestinationPlan, row: &MappedRow) -> Json {
    let cells = destination.columns.iter().zip(&row.cells);
    let columns: serde_json::Map<String, Json> = cells
        .filter_map(|(column, cell)| Some((column.name.clone(), cell.as_ref()?.to_json())))
        .collect();
    let references = destination.derives.iter().zip(&row.references);
    let looked_up: serde_json::Map<String, Json> = references
        .filter_map(|(derive, reference)| {
            let by = match reference.as_ref()? {
                Reference::Empty => Json::Null,
                Reference::Values(values) => values.iter().map(|cell| cell.to_json()).collect(),
                Reference::Sibling => "sibling".into(),
            };
            Some((
                derive.column.clone(),
                json!({ "table": derive.table, "by": by }),
            ))
        })
        .collect();
    json!({ "life": format!("{:?}", row.life).to_lowercase(), "columns": columns, "look_ups": looked_up })
}

fn traced_json(traced: &Traced) -> Json {
    json!({
        "table": traced.table, "version": traced.version, "parked": traced.parked,
        "row": traced.row.as_ref().map(StoredRow::to_json),
    })
}

/// Asks a daemon whether it is alive; for container health checks.
pub(super) async fn health(url: &str) -> Result<ExitCode, Fault> {
    let url = format!("{}/healthz", url.trim_end_matches('/'));
    probe(&url).await?;
    output::print("alive");
    Ok(ExitCode::SUCCESS)
}

async fn probe(url: &str) -> Result<(), Fault> {
    let settings = HttpSettings {
        plain_text: true,
        timeout: Duration::from_secs(4),
        ..HttpSettings::new("health")
    };
    let answer = Http::new(settings, &Metrics::none())?
        .send(Request::get(url))
        .await?;
    if answer.is_success() {
        Ok(())
    } else {
        Err(answer.fault())
    }
}
