//! A server on threads of its own: every connection has one of them, whatever it speaks, and ends as on any runtime.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::routing::{any, get};
use common::{run, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use wireloom::{Client, Session, SessionError, Threads, WebTransportUpgrade, tcp};

fn here() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// Tells where it runs, and where what it spawns does.
fn places() -> Router {
    let session = async |session: Session| {
        while let Ok(mut send) = session.open_uni().await {
            let place = tokio::spawn(async { here() }).await.unwrap();
            if send.write_all(place.as_bytes()).await.is_err() || send.finish().is_err() {
                break;
            }
            if session.recv_datagram().await.is_err() {
                break;
            }
        }
    };
    Router::new().route("/", get(async || here())).route(
        "/wt",
        any(async move |upgrade: WebTransportUpgrade| upgrade.on_upgrade(session)),
    )
}

#[tokio::test]
async fn a_connection_over_quic_stays_on_its_thread() {
    let threads = Threads::start(3).unwrap();
    let run = run(places(), |builder| builder.threads(threads)).await;
    let mut all = HashSet::new();
    let expected = if cfg!(target_os = "linux") { 3 } else { 1 };
    // The kernel chooses by the client's address: each has a socket of its own. So many in vain are one chance in 10^30.
    for client in 0..200 {
        if client >= 12 && all.len() == expected {
            break;
        }
        let client = Client::builder().server_certificate_hash(run.hash).build().unwrap();
        let connection = within(client.dial(&run.url)).await.unwrap();
        let page = within(connection.request_whole(run.request("GET", "/", b""), 100))
            .await
            .unwrap();
        let place = String::from_utf8(page.body().to_vec()).unwrap();
        assert!(place.starts_with("wireloom-"), "{place}");
        let authority = run.url.trim_start_matches("https://");
        let request = wireloom::proto::connection::SessionRequest::new(authority, "/wt");
        let session = within(connection.open(request)).await.unwrap();
        for _ in 0..3 {
            let mut recv = within(session.accept_uni()).await.unwrap();
            session.send_datagram(b"next").unwrap();
            assert_eq!(within(recv.read_to_end(100)).await.unwrap(), place.as_bytes());
        }
        all.insert(place);
    }
    assert_eq!(all.len(), expected, "{all:?}");
}

#[tokio::test]
async fn connections_over_tcp_have_them_by_turns() {
    let threads = Threads::start(3).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = tcp::Options::new().threads(threads);
    tokio::spawn(tcp::serve(listener, None, places(), options, std::future::pending()));
    let mut all = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut places = HashSet::new();
        for last in [false, true] {
            let connection = if last { "close" } else { "keep-alive" };
            let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            while !answer.contains("wireloom-") || answer.ends_with('-') {
                let mut part = [0; 1000];
                let read = within(stream.read(&mut part)).await.unwrap();
                assert!(read > 0, "{answer}");
                answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            places.insert(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
        }
        assert_eq!(places.len(), 1, "{places:?}");
        all.extend(places);
    }
    assert_eq!(all[..3], all[3..]);
    assert_eq!(all[..3].iter().collect::<HashSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_graceful_shutdown_waits_for_what_runs_on_every_thread() {
    const CLIENTS: usize = 8;
    let go = Arc::new(Notify::new());
    let (begun, mut beginning) = mpsc::unbounded_channel();
    let app = Router::new().route("/", {
        let go = go.clone();
        get(async move || {
            let going = go.notified();
            begun.send(()).unwrap();
            going.await;
            here()
        })
    });
    let mut run = run(app, |builder| builder.threads(Threads::start(2).unwrap())).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::builder().server_certificate_hash(run.hash).build().unwrap();
        let (url, request) = (run.url.clone(), run.request("GET", "/", b""));
        waiting.spawn(async move {
            let connection = client.dial(&url).await.unwrap();
            connection.request_whole(request, 100).await.unwrap()
        });
    }
    for _ in 0..CLIENTS {
        within(beginning.recv()).await.unwrap();
    }
    run.stop.take().unwrap().send(()).unwrap();
    // Newcomers are refused from now on.
    while within(run.client.dial(&run.url)).await.is_ok() {}
    assert!(!run.task.is_finished());
    go.notify_waiters();
    while let Some(answer) = within(waiting.join_next()).await {
        assert!(answer.unwrap().body().starts_with(b"wireloom-"));
    }
    within(&mut run.task).await.unwrap();
}

#[tokio::test]
async fn dropping_the_server_ends_sessions_and_handlers_at_once() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/wt",
        any(async move |upgrade: WebTransportUpgrade| {
            upgrade.on_upgrade(async move |session: Session| {
                struct Ends(mpsc::UnboundedSender<String>);
                impl Drop for Ends {
                    fn drop(&mut self) {
                        let _ = self.0.send(here());
                    }
                }
                let _ends = Ends(tell);
                session.send_datagram(b"begun").unwrap();
                std::future::pending::<()>().await;
            })
        }),
    );
    let run = run(app, |builder| builder.threads(Threads::start(2).unwrap())).await;
    let session = run.connect("/wt").await.unwrap();
    within(session.recv_datagram()).await.unwrap();
    run.task.abort();
    // Of the session, which its handler drops, and the connection, either may be first.
    let ended = within(session.closed()).await;
    assert!(
        matches!(
            ended,
            SessionError::Connection(_) | SessionError::Closed { code: 0, .. }
        ),
        "{ended:?}"
    );
    assert!(within(told.recv()).await.unwrap().starts_with("wireloom-"));
}
