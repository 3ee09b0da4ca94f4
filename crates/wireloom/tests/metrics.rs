//! What servers count, with a recorder of the test's own.
#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use common::{run, within};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use wireloom::{ConnectionLimits, WebTransportUpgrade};

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// Keeps the values by their names and labels.
#[derive(Clone, Default)]
struct Kept(Values);

struct One(Values, String);

impl One {
    fn add(&self, n: f64) {
        *self.0.lock().unwrap().entry(self.1.clone()).or_default() += n;
    }
}

impl CounterFn for One {
    fn increment(&self, n: u64) {
        self.add(n as f64);
    }

    fn absolute(&self, _: u64) {
        unreachable!("nothing here is absolute")
    }
}

impl GaugeFn for One {
    fn increment(&self, n: f64) {
        self.add(n);
    }

    fn decrement(&self, n: f64) {
        self.add(-n);
    }

    fn set(&self, _: f64) {
        unreachable!("nothing here is set")
    }
}

impl Kept {
    fn one(&self, key: &Key) -> Arc<One> {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        Arc::new(One(
            self.0.clone(),
            [&[key.name().to_owned()], &labels[..]].concat().join(" "),
        ))
    }

    fn get(&self, name: &str) -> f64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    async fn until(&self, name: &str, value: f64) {
        within(async {
            while self.get(name) != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        unreachable!("nothing here is a histogram")
    }
}

#[tokio::test]
async fn connections_sessions_and_requests() {
    let kept = Kept::default();
    // Of this thread, on which everything runs.
    let _guard = metrics::set_default_local_recorder(&kept);
    let app = Router::new().route("/", get(|| async { "hello" })).route(
        "/wt",
        any(|upgrade: WebTransportUpgrade| async move {
            upgrade.on_upgrade(|session| async move {
                session.closed().await;
            })
        }),
    );
    let f = run(app, |builder| builder.connection_limits(ConnectionLimits::new(2, 2))).await;
    let connection = f.dial().await;
    let session = f.connect("/wt").await.unwrap();
    kept.until("wireloom_connections", 2.0).await;
    assert!(within(f.client.dial(&f.url)).await.is_err());
    kept.until("wireloom_connections_refused_total carrier=quic by=total", 1.0)
        .await;
    within(connection.request(f.request("GET", "/", b""))).await.unwrap();
    kept.until("wireloom_requests_total version=3", 1.0).await;
    kept.until("wireloom_sessions", 1.0).await;
    assert_eq!(kept.get("wireloom_sessions_total draft=15"), 1.0);
    session.close(0, "");
    kept.until("wireloom_sessions_ended_total how=client", 1.0).await;
    kept.until("wireloom_sessions", 0.0).await;
    drop((connection, session));
    kept.until("wireloom_connections", 0.0).await;
    assert!(matches!(
        f.connect("/nowhere").await,
        Err(wireloom::ConnectError::Rejected { .. })
    ));
    kept.until("wireloom_sessions_rejected_total status=404", 1.0).await;
    kept.until("wireloom_connections", 0.0).await;
    assert_eq!(kept.get("wireloom_connections_total carrier=quic"), 3.0);
    kept.until("wireloom_handshakes_failed_total carrier=quic", 0.0).await;
    assert!(kept.get("wireloom_quic_bytes_total direction=received") > 0.0);
}
