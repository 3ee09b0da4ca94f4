//! One span for each connection and each session, for whoever listens.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::any;
use common::{run, within};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use wireloom::WebTransportUpgrade;

/// A span as it was opened, and what was said in it.
#[derive(Debug, Clone, Default)]
struct Span {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    events: Vec<String>,
    /// Handles to it.
    open: usize,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    /// Entered, innermost last. All tests here run on one thread.
    current: Vec<u64>,
}

/// Keeps the spans and events of wireloom and of this test.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Seen>>);

impl Visit for Span {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wireloom") || metadata.target() == "test"
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut seen = self.0.lock().unwrap();
        let mut span = Span {
            name: attributes.metadata().name(),
            open: 1,
            ..Span::default()
        };
        attributes.record(&mut span);
        span.parent = match attributes.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if attributes.is_contextual() => seen.current.last().copied(),
            None => None,
        };
        seen.spans.push(span);
        Id::from_u64(seen.spans.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut seen = self.0.lock().unwrap();
        let parent = match event.parent() {
            Some(parent) => Some(parent.into_u64()),
            None => seen.current.last().copied(),
        };
        if let Some(id) = parent {
            let mut text = Span::default();
            event.record(&mut text);
            seen.spans[id as usize - 1].events.push(format!("{:?}", text.fields));
        }
    }
    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().current.push(span.into_u64());
    }
    fn exit(&self, span: &Id) {
        let mut seen = self.0.lock().unwrap();
        let at = seen.current.iter().rposition(|id| *id == span.into_u64()).unwrap();
        seen.current.remove(at);
    }
    fn clone_span(&self, id: &Id) -> Id {
        self.0.lock().unwrap().spans[id.into_u64() as usize - 1].open += 1;
        id.clone()
    }
    fn try_close(&self, id: Id) -> bool {
        let mut seen = self.0.lock().unwrap();
        let span = &mut seen.spans[id.into_u64() as usize - 1];
        span.open -= 1;
        span.open == 0
    }
}

impl Capture {
    /// The spans of this name at one end: ids count from 1.
    fn spans(&self, name: &str) -> Vec<(u64, Span)> {
        let seen = self.0.lock().unwrap();
        let all = seen.spans.iter().enumerate();
        let of_name = all.filter(|(_, span)| span.name == name);
        of_name.map(|(i, span)| (i as u64 + 1, span.clone())).collect()
    }

    fn everything(&self) -> String {
        format!("{:?}", self.0.lock().unwrap().spans)
    }
}

// One test, since whether anybody listens is settled for the whole process.
#[tokio::test]
async fn a_span_for_each_connection_and_each_session_if_somebody_listens() {
    let f = common::fixture().await;
    let (server, client) = f.session().await;
    assert!(server.span().is_disabled() && client.span().is_disabled());
    drop((server, client, f));

    let capture = Capture::default();
    let _guard = tracing::subscriber::set_default(capture.clone());
    let app = Router::new().route(
        "/live/{room}",
        any(|upgrade: WebTransportUpgrade| async move {
            upgrade.on_upgrade(|session| async move {
                tracing::info!(target: "test", "in the handler");
                let datagram = session.recv_datagram().await.unwrap();
                session.send_datagram(&datagram).unwrap();
                session.closed().await;
            })
        }),
    );
    let run = run(app, |b| b).await;
    let connection = run.dial().await;
    let authority = run.url.trim_start_matches("https://");
    let open = async |path: &str| {
        let mut request = wireloom::proto::connection::SessionRequest::new(authority, path);
        let secret = http::HeaderValue::from_static("Bearer s3cr3t");
        request.headers.insert(http::header::AUTHORIZATION, secret);
        within(connection.open(request)).await.unwrap()
    };
    let first = open("/live/1?token=s3cr3t").await;
    let second = open("/live/2").await;
    for session in [&first, &second] {
        session.send_datagram(b"s3cr3t").unwrap();
        within(session.recv_datagram()).await.unwrap();
    }
    first.close(7, "done");
    second.close(0, "");
    let gone = async {
        while run.monitor.stats().sessions > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;

    let connections = capture.spans("connection");
    let sides: Vec<_> = connections.iter().map(|(_, span)| &*span.fields["side"]).collect();
    assert_eq!(sides.len(), 2);
    assert!(sides.contains(&"client") && sides.contains(&"server"));
    let sessions = capture.spans("session");
    assert_eq!(sessions.len(), 4, "{sessions:?}");
    for (id, connection) in &connections {
        let remote = &connection.fields["remote"];
        assert!(remote.starts_with("127.0.0.1:"), "{remote}");
        let own: Vec<_> = sessions.iter().filter(|(_, span)| span.parent == Some(*id)).collect();
        let fields: Vec<_> = own
            .iter()
            .map(|(_, s)| (&*s.fields["id"], &*s.fields["path"], &*s.fields["draft"]))
            .collect();
        assert_eq!(fields, [("0", "/live/1", "Draft15"), ("4", "/live/2", "Draft15")]);
        let ended = format!("{:?}", own[0].1.events);
        assert!(ended.contains("session over") && ended.contains("code 7"), "{ended}");
        let handled = own
            .iter()
            .all(|(_, s)| s.events.iter().any(|e| e.contains("in the handler")));
        assert_eq!(handled, connection.fields["side"] == "server");
    }
    // The first is closed by both ends and nobody holds it.
    drop((first, second));
    let closed = async {
        while capture.spans("session").iter().any(|(_, span)| span.open > 0) {
            tokio::task::yield_now().await;
        }
    };
    within(closed).await;
    assert!(!capture.everything().contains("s3cr3t"), "{}", capture.everything());
}
