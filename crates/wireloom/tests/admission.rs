//! Which clients get a place, whatever others do.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use common::handmade::Handmade;
use common::raw::Raw;
use common::{Running, run, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wireloom::{Admit, Client, ConnectError, ConnectionError};

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

fn address(run: &Running) -> SocketAddr {
    run.url.trim_start_matches("https://").parse().unwrap()
}

/// Waits for an answer; it proves nothing to the server.
async fn is_retry(peer: &Handmade) -> bool {
    let mut datagram = [0; 2048];
    peer.socket.recv(&mut datagram).await.unwrap();
    datagram[0] & 0xf0 == 0xf0
}

/// A CONNECTION_CLOSE without a code or a reason.
const CLOSE: [u8; 4] = [0x1c, 0, 0, 0];

/// Whoever spoofs addresses can end handshakes, too: QUIC remembers those for a while, and so they are counted.
#[tokio::test]
async fn connections_that_are_closing_have_places_too() {
    let run = run(app(), |b| b.retry_above(16)).await;
    let server = address(&run);
    within(async {
        for number in 0..1000 {
            let mut peer = Handmade::new(&format!("127.0.1.{}", number % 200 + 1), server).await;
            let hello = peer.hello();
            peer.send_initial(&hello).await;
            if is_retry(&peer).await {
                return;
            }
            // As who spoofs: nothing of the answer is needed.
            peer.send_initial(&CLOSE).await;
        }
        panic!("nobody had to prove its address");
    })
    .await;
    // Those who can prove it are served.
    run.dial().await;
}

/// Handshakes from an address that somebody spoofs do not use up its places, nor all.
#[tokio::test]
async fn spoofed_handshakes_lock_nobody_out() {
    for (total, per_address, source) in [(1000, 20, "127.0.0.1"), (20, 20, "127.0.9.9")] {
        let run = run(app(), |b| b.max_connections(total, per_address)).await;
        let mut peers = Vec::new();
        for _ in 0..20 {
            let mut peer = Handmade::new(source, address(&run)).await;
            let hello = peer.hello();
            peer.send_initial(&hello).await;
            within(is_retry(&peer)).await;
            peers.push(peer);
        }
        run.dial().await;
    }
}

/// Deadlines that no clock can count are none; they ended the task of the socket, and with it every connection.
#[tokio::test]
async fn the_longest_durations() {
    const MAX: Duration = Duration::MAX;
    for case in 0..5 {
        let run = run(app(), |b| match case {
            0 => b.handshake_timeout(MAX),
            1 => b.unused_timeout(MAX),
            2 => b.header_timeout(MAX),
            3 => b.keep_alive(Some(MAX)),
            _ => b.idle_timeout(MAX).shutdown_deadline(MAX),
        })
        .await;
        let raw = Raw::connect(address(&run)).await;
        // The first byte of a frame.
        let (mut send, _recv) = within(raw.conn.open_bi()).await.unwrap();
        send.write_all(&[1]).await.unwrap();
        let request = run.request("GET", "/", b"");
        let first = run.dial().await;
        within(first.request_whole(request, 100)).await.unwrap();
        let other = Client::builder().server_certificate_hash(run.hash).build().unwrap();
        within(other.dial(&run.url)).await.unwrap();
        assert!(!run.task.is_finished(), "{case}");
    }
}

/// What a client of ours is told over QUIC, and whether curl's connection over TCP gets an answer.
#[tokio::test]
async fn the_application_decides_by_the_address() {
    for (answer, is_served) in [
        (Admit::Yes, true),
        (Admit::Retry, true),
        (Admit::Refuse, false),
        (Admit::Ignore, false),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let decide = move |client: SocketAddr| {
            assert!(client.ip().is_loopback() && client.port() > 0, "{client}");
            counted.fetch_add(1, Ordering::Relaxed);
            answer
        };
        let run = run(app(), |b| b.admit(decide)).await;
        let server = address(&run);
        let client = Client::builder().server_certificate_hash(run.hash);
        let client = client.connect_timeout(Duration::from_secs(if is_served { 60 } else { 2 }));
        let client = client.build().unwrap();
        let dialled = within(client.dial(&run.url)).await.map(drop);
        let is_right = match answer {
            Admit::Yes | Admit::Retry => dialled.is_ok(),
            Admit::Refuse => matches!(
                dialled,
                Err(ConnectError::Connection(ConnectionError::AbortedByPeer { code: 2, .. }))
            ),
            Admit::Ignore => matches!(dialled, Err(ConnectError::Unreachable)),
        };
        assert!(is_right, "{answer:?}: {dialled:?}");
        let attempts = asked.load(Ordering::Relaxed);
        // With its proof a client is asked about again.
        assert!(attempts >= if answer == Admit::Retry { 2 } else { 1 });

        let mut tcp = TcpStream::connect(server).await.unwrap();
        // No TLS: whoever is admitted hears so, an alert; the others hear nothing.
        let _ = tcp.write_all(b"no TLS").await;
        let mut heard = Vec::new();
        let _ = within(tcp.read_to_end(&mut heard)).await;
        assert_eq!(!heard.is_empty(), is_served, "{answer:?}");
        assert!(asked.load(Ordering::Relaxed) > attempts);
    }
}
