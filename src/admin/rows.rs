//! Rows of the store, newest first.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::target::port::{RowsPage, Target};

use super::Sources;
use super::reply::Failure;

const MAX_LIMIT: usize = 1000;

#[derive(Deserialize)]
pub(super) struct RowsQuery {
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    offset: usize,
}

pub(super) async fn rows(
    State(sources): State<Sources>,
    Path(table): Path<String>,
    Query(query): Query<RowsQuery>,
) -> Result<Json<Vec<Map<String, Value>>>, Failure> {
    let page = RowsPage {
        limit: query.limit.min(MAX_LIMIT),
        offset: query.offset,
        filter: Vec::new(),
    };
    let rows = sources.target.rows(&table, page).await?;
    Ok(Json(
        rows.iter()
            .map(crate::target::port::StoredRow::to_json)
            .collect(),
    ))
}
