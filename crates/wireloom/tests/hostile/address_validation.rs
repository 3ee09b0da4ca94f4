//! Handshakes from addresses that nothing has proven (RFC 9000 sections 8.1 and 21.2).

use std::time::Duration;

use tokio::net::UdpSocket;

use crate::common::handmade::Handmade;
use crate::common::within;
use crate::support::{Hostile, hostile_with};
use crate::table::case;

/// So many handshakes may wait for unproven addresses.
const ABOVE: usize = 16;
const SOURCES: u8 = 200;
const INITIAL: usize = 1200;

/// Sends a good Initial from `source` and never anything else, as who only pretends to be there. What comes is left in the
/// socket.
async fn spoof(f: &Hostile, source: u8) -> UdpSocket {
    let mut peer = Handmade::new(&format!("127.0.1.{source}"), f.server).await;
    let hello = peer.hello();
    peer.send_initial(&hello).await;
    assert_eq!(peer.bytes_sent, INITIAL);
    peer.socket
}

/// All that was sent to `socket`: bytes, and whether it was a Retry.
fn heard(socket: &UdpSocket) -> (usize, bool) {
    let (mut bytes, mut retry) = (0, false);
    let mut datagram = [0; 2048];
    while let Ok(len) = socket.try_recv(&mut datagram) {
        bytes += len;
        retry |= datagram[0] & 0xf0 == 0xf0;
    }
    (bytes, retry)
}

#[tokio::test]
async fn a_flood_of_initials() {
    case(85).harmless();
    hostile_with(
        // Long enough that none is given up before the last has come, on a busy machine too.
        |b| b.retry_above(ABOVE).handshake_timeout(Duration::from_secs(8)),
        async |f| {
            let mut most = 0;
            let mut sockets = Vec::new();
            for source in 1..=SOURCES {
                sockets.push(spoof(f, source).await);
                if source % 10 == 0 {
                    // In step with the server, or the socket's buffer overflows. Established sessions go on.
                    f.assert_undisturbed().await;
                    most = most.max(f.memory());
                    let stats = f.running.monitor.stats();
                    assert!(stats.unproven <= ABOVE && stats.connections <= ABOVE + 1, "{stats:?}");
                }
            }
            assert_eq!(f.running.monitor.stats().unproven, ABOVE);
            // Some 50 KiB for each that waits; all of them would be 10 MB.
            assert!(most < 3 << 20, "{most} bytes");

            // Who really is where he says gets in, through Retry.
            let mut valid = Handmade::new("127.0.0.1", f.server).await;
            assert!(within(valid.handshake()).await, "without Retry");
            valid.close().await;
            within(f.raw().await.assert_alive()).await;
            let session = f.running.connect("/wt").await.unwrap();
            session.close(0, "");
            drop(session);

            // Until they are given up, with all repetitions, and QUIC has forgotten them.
            while f.running.monitor.stats().unproven > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let heard: Vec<(usize, bool)> = sockets.iter().map(heard).collect();
            let retried = heard.iter().filter(|(_, retry)| *retry).count();
            assert!(retried >= usize::from(SOURCES) - ABOVE - 1, "{retried} of them");
            assert!(heard.iter().all(|(bytes, _)| *bytes <= 3 * INITIAL), "{heard:?}");
            assert!(f.running.monitor.stats().connections <= 1);
            // From now on without.
            let mut valid = Handmade::new("127.0.0.1", f.server).await;
            assert!(!within(valid.handshake()).await, "Retry without need");
            valid.close().await;
        },
    )
    .await;
}

#[tokio::test]
async fn always() {
    hostile_with(
        |b| b.retry_above(0),
        async |f| {
            let mut valid = Handmade::new("127.0.0.1", f.server).await;
            assert!(within(valid.handshake()).await, "without Retry");
            valid.close().await;
            // Nothing is kept for who does not answer the Retry.
            let socket = spoof(f, 1).await;
            f.assert_undisturbed().await;
            let (bytes, retry) = heard(&socket);
            assert!(retry && bytes <= 3 * INITIAL);
        },
    )
    .await;
}
