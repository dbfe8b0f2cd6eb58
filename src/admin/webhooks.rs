//! Webhooks: calls of a CRM that says what changed. Each connection's carries its own secret, not the admin's token.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use crate::crm::dynamics::push::webhook::{Call, MAX_BODY, Receiver, Refused};
use crate::model::name::ConnectionId;

/// The receivers by connection.
pub type Receivers = Arc<BTreeMap<ConnectionId, Receiver>>;

/// Present where members were left out of the body for size.
const CUT: &str = "x-ms-dynamics-msg-size-exceeded";

/// The routes, without the limits of the other ones.
pub(super) fn routes(receivers: Receivers) -> Router {
    Router::new()
        .route("/webhooks/{connection}", post(receive))
        .with_state(receivers)
}

/// Nothing of the body is read before the caller is proven.
async fn receive(
    State(receivers): State<Receivers>,
    Path(connection): Path<String>,
    request: Request,
) -> Response {
    let Some(receiver) = receivers.get(connection.as_str()) else {
        return (StatusCode::NOT_FOUND, "no webhook is set up here\n").into_response();
    };
    let (head, body) = request.into_parts();
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    let query = query.map(|Query(pairs)| pairs).unwrap_or_default();
    let text = |name: &str| text(&head.headers, name);
    let call = Call {
        query: &query,
        header: receiver.header().and_then(text),
        length: text(header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
    };
    if let Err(refused) = receiver.admit(&call) {
        return answer(&refused);
    }
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return answer(&receiver.too_large());
    };
    let content_type = text(header::CONTENT_TYPE.as_str());
    let is_cut = head.headers.contains_key(CUT);
    match receiver.take(content_type, &body, is_cut).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => answer(&refused),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn answer(refused: &Refused) -> Response {
    let (status, text) = refused.answer();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, format!("{text}\n")).into_response()
}
