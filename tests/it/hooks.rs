//! A small HTTP server that is called by webhooks, and keeps what they said.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value as Json;

use crate::road::world::{LOOK, PATIENCE};

/// A part of its URL that nobody may read in a log.
pub const SECRET_PATH: &str = "hook-hunter2";

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Json>>>);

/// The server; it ends with the test.
pub struct Hooks {
    pub url: String,
    kept: Kept,
}

impl Hooks {
    pub async fn start() -> Self {
        let kept = Kept::default();
        let called = async |State(kept): State<Kept>, body: String| {
            let said = serde_json::from_str(&body).unwrap();
            kept.0.lock().unwrap().push(said);
        };
        let app = Router::new()
            .route(&format!("/{SECRET_PATH}"), post(called))
            .with_state(kept.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{SECRET_PATH}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, kept }
    }

    pub fn said(&self, event: &str) -> Vec<Json> {
        let all = self.kept.0.lock().unwrap();
        let of_event = all.iter().filter(|said| said["event"] == event);
        of_event.cloned().collect()
    }

    /// Waits until more than `before` calls of an event came; the newest.
    pub async fn more(&self, event: &str, before: usize) -> Json {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.said(event);
            if said.len() > before {
                return said.last().unwrap().clone();
            }
            assert!(Instant::now() < until, "no {event} is posted");
            tokio::time::sleep(LOOK).await;
        }
    }
}
