//! The one place that turns a fault into an HTTP reply.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::fault::{Fault, FaultKind};

/// A fault on its way out.
pub(super) struct Failure(Fault);

#[derive(Serialize)]
struct Body {
    kind: &'static str,
    error: String,
    remedy: Option<String>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            FaultKind::Missing => StatusCode::NOT_FOUND,
            FaultKind::Config | FaultKind::Record => StatusCode::BAD_REQUEST,
            FaultKind::Unavailable | FaultKind::Throttled | FaultKind::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = Body {
            kind: self.0.kind().label(),
            error: self.0.report(),
            remedy: self.0.remedy_text().map(str::to_owned),
        };
        (status, Json(body)).into_response()
    }
}
