//! The list of versions, and a version's resources.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::super::org::Org;
use super::{Caught, Shared};

/// The oldest version served.
pub(super) const OLDEST: u32 = 31;

/// `GET /services/data`: needs no session and counts for nothing.
pub(super) async fn versions(State(org): Shared) -> Json<Value> {
    let newest = newest(&org);
    let versions: Vec<_> = (OLDEST..=newest)
        .map(|version| {
            json!({
                "label": label(version),
                "url": format!("/services/data/v{version}.0"),
                "version": format!("{version}.0"),
            })
        })
        .collect();
    Json(json!(versions))
}

/// `GET /services/data/vXX.X/`.
pub(super) async fn resources(State(org): Shared, Extension(caller): Caught) -> Json<Value> {
    let base = format!("/services/data/v{}", caller.version);
    let at = |name: &str| format!("{base}/{name}");
    let identity = super::oauth::identity_url(&org, &caller.user);
    Json(json!({
        "composite": at("composite"),
        "identity": identity,
        "limits": at("limits"),
        "query": at("query"),
        "queryAll": at("queryAll"),
        "jobs": at("jobs"),
        "sobjects": at("sobjects"),
        "tooling": at("tooling"),
    }))
}

fn newest(org: &Arc<Org>) -> u32 {
    org.profile
        .api_version
        .strip_suffix(".0")
        .and_then(|version| version.parse().ok())
        .unwrap_or(OLDEST)
}

/// Three releases a year: 66 is Spring '26, 67 Summer '26, 68 Winter '27.
fn label(version: u32) -> String {
    let (season, version) = match version % 3 {
        0 => ("Spring", version),
        1 => ("Summer", version),
        _ => ("Winter", version + 3),
    };
    format!("{season} '{:02}", version / 3 + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_names() {
        assert_eq!(label(66), "Spring '26");
        assert_eq!(label(67), "Summer '26");
        assert_eq!(label(68), "Winter '27");
        assert_eq!(label(65), "Winter '26");
        assert_eq!(label(54), "Spring '22");
    }
}
