//! The client against small servers: limits, cut answers, compression, the count of calls.

pub(crate) mod server;
pub mod trust;

use std::sync::Arc;

use ::metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use axum::http::header;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::secret::Secret;

use super::*;
use server::{Reply, Server};

/// `{"a":"xxx…"}` with 100,000 x, compressed.
const PACKED: &str = "1f8b0800000000000203edc1410d00300804302f270337734142f03e1b3cda4e5e2a0d000000000000000000000000000000 \
     0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
     000000000000000000000000000000000000000000000000000000000000009c95fdc1505c84a8860100";

fn packed() -> Bytes {
    let digits: Vec<u8> = PACKED.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect::<Vec<u8>>()
        .into()
}

fn settings() -> HttpSettings {
    HttpSettings {
        plain_text: true,
        ..HttpSettings::new("acme")
    }
}

fn client(settings: HttpSettings) -> Http {
    Http::new(settings, &Metrics::none()).unwrap()
}

#[tokio::test]
async fn sends_what_it_is_given_and_reads_all() {
    let server = Server::start(|_| async { Reply::new(201, "hello").with("x-own", "1") }).await;
    let request = Request::post(format!("{}/a/b?q=1", server.url))
        .bearer(&Secret::new("token-1"))
        .header("Accept", "application/json")
        .json("{}");
    let answer = client(settings()).send(request).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.body().as_ref(), b"hello");
    assert_eq!(answer.header("x-own"), Some("1"));
    assert!(answer.date().is_some());
    let seen = &server.seen()[0];
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.header("authorization"), "Bearer token-1");
    assert_eq!(seen.header("content-type"), "application/json");
    assert!(seen.header("accept-encoding").contains("gzip"));
    assert_eq!(seen.query["q"], "1");
}

#[tokio::test]
async fn unpacks_within_the_limit_and_not_past_it() {
    let server =
        Server::start(|_| async { Reply::new(200, packed()).with("content-encoding", "gzip") })
            .await;
    let whole = client(settings())
        .send(Request::get(&server.url))
        .await
        .unwrap();
    assert_eq!(whole.body().len(), 100_008);
    let small = client(HttpSettings {
        max_answer: 50_000,
        ..settings()
    });
    let fault = small.send(Request::get(&server.url)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Protocol);
    assert!(fault.report().contains("50000 bytes"), "{}", fault.report());
}

#[tokio::test]
async fn a_cut_answer_passes() {
    let server = Server::start(|_| async { Reply::new(200, "0123456789").cut() }).await;
    let fault = client(settings())
        .send(Request::get(&server.url))
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.report().contains("cut off"), "{}", fault.report());
}

#[tokio::test]
async fn a_silent_peer_is_left() {
    let server = Server::start(|_| std::future::pending()).await;
    let request =
        Request::get(format!("{}/slow?secret=1", server.url)).timeout(Duration::from_millis(50));
    let fault = client(settings()).send(request).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    let report = fault.report();
    assert!(
        report.contains("/slow: no whole answer within 0.05 s"),
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
}

#[tokio::test]
async fn nobody_there_passes() {
    let server = Server::start(|_| std::future::pending()).await;
    let url = server.url.clone();
    drop(server);
    // The port is free again, or its listener is gone: both refuse.
    let request = Request::get(url).timeout(Duration::from_secs(5));
    let fault = client(settings()).send(request).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
}

#[tokio::test]
async fn plain_text_needs_its_flag() {
    let server = Server::start(|_| async { Reply::new(200, "") }).await;
    let strict = client(HttpSettings {
        plain_text: false,
        ..settings()
    });
    for url in [server.url.as_str(), "acme.example", "ftp://acme.example"] {
        let fault = strict.send(Request::get(url)).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config, "{url}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_answer_asked_for_twice() {
    let server =
        Server::start(|_| async { Reply::new(302, "").with("location", "/elsewhere") }).await;
    let answer = client(settings())
        .send(Request::get(&server.url))
        .await
        .unwrap();
    assert_eq!(answer.fault().kind(), FaultKind::Config);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn cookies_are_kept_where_wanted() {
    let server = Server::start(|_| async {
        Reply::new(200, "").with(header::SET_COOKIE.as_str(), "sid=7; Path=/")
    })
    .await;
    for (cookies, expected) in [(true, "sid=7"), (false, "")] {
        let http = client(HttpSettings {
            cookies,
            ..settings()
        });
        http.send(Request::get(&server.url)).await.unwrap();
        http.send(Request::get(&server.url)).await.unwrap();
        assert_eq!(server.seen().last().unwrap().header("cookie"), expected);
    }
}

#[tokio::test]
async fn every_call_is_counted() {
    let recorder = Arc::new(Calls::default());
    let metrics = Metrics::new(Arc::clone(&recorder) as Arc<dyn ::metrics::Recorder + Send + Sync>);
    let server = Server::start(|_| async { Reply::new(500, "") }).await;
    let http = Http::new(settings(), &metrics).unwrap();
    for _ in 0..3 {
        http.send(Request::get(&server.url)).await.unwrap();
    }
    assert_eq!(recorder.0.0.load(Ordering::Relaxed), 3);
}

/// Counts the calls of connection `acme`.
#[derive(Default)]
struct Calls(Arc<Count>);

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl ::metrics::Recorder for Calls {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let ours = key.name() == metrics::CRM_CALLS
            && key
                .labels()
                .any(|label| label.key() == "connection" && label.value() == "acme");
        if ours {
            Counter::from_arc(Arc::clone(&self.0))
        } else {
            Counter::noop()
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
