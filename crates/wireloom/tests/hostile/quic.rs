//! Packets that break the rules of QUIC (RFC 9000), made by hand.

use crate::common::handmade::{
    Handmade, Heard, Space, ack, crypto, new_connection_id, parameters, reset_stream, stream,
};
use crate::common::raw::int;
use crate::common::within;
use crate::support::{Hostile, hostile};
use crate::table::case;

async fn connected(f: &Hostile) -> Handmade {
    let mut peer = Handmade::new("127.0.0.1", f.server).await;
    within(peer.handshake()).await;
    peer
}

/// "A server MUST discard an Initial packet that is carried in a UDP datagram with a payload that is smaller than the smallest
/// allowed maximum datagram size of 1200 bytes."
#[tokio::test]
async fn short_initial() {
    case(84).harmless();
    hostile(async |f| {
        let mut short = Handmade::new("127.0.0.1", f.server).await;
        let hello = short.hello();
        short.send(Space::Initial, &hello).await;
        assert!(short.bytes_sent < 1200, "{}", short.bytes_sent);
        // What is sent after it, in order, is answered.
        let other = connected(f).await;
        assert_eq!(short.hear_now().await, None);
        assert_eq!(f.running.monitor.stats().connections, 2);
        // The same with enough padding is welcome.
        short.send_initial(&hello).await;
        assert_eq!(within(short.hear()).await, Heard::Packets);
        // Shorter than any packet, and of no version, short or long.
        short.send_bytes(&[0xc0]).await;
        short.send_bytes(&[0xc0; 1200]).await;
        short.send_bytes(&[0xc0, 9, 9, 9, 9, 0, 0]).await;
        connected(f).await.close().await;
        short.close().await;
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn broken_rules() {
    let many_ids: Vec<Vec<u8>> = (1..40).map(new_connection_id).collect();
    // In one packet: a stream that has been read to its end is forgotten, and what comes later of it is ignored.
    let changed = |last: Vec<u8>| vec![[stream(2, 0, &[0x21, 1, 2, 3], true), last].concat()];
    // Far ahead, so that nothing of it can be used and all must be kept.
    let hidden: Vec<Vec<u8>> = (0..40).map(|i| crypto(1 + i * 1000, &[0; 1000])).collect();
    let cases = [
        (case(86), Space::Data, vec![ack(1000)]),
        (case(86), Space::Data, vec![ack((1 << 62) - 1)]),
        (case(87), Space::Data, hidden),
        (case(87), Space::Data, vec![crypto(1 << 40, &[0])]),
        (case(89), Space::Data, changed(stream(2, 0, &[0x21, 1, 2, 3, 4], true))),
        (case(89), Space::Data, changed(stream(2, 9, &[0], false))),
        (case(89), Space::Data, changed(reset_stream(2, 0, 3))),
        (case(90), Space::Data, many_ids),
    ];
    hostile(async |f| {
        for (case, space, packets) in &cases {
            let mut peer = connected(f).await;
            for frames in packets {
                peer.send(*space, frames).await;
            }
            let heard = within(peer.closed()).await;
            assert_eq!(heard, Heard::Closed(case.quic()), "{}", case.what);
        }
        // In the Initial space, before anybody is known.
        let mut peer = Handmade::new("127.0.0.1", f.server).await;
        let hello = peer.hello();
        peer.send_initial(&[hello, ack(77)].concat()).await;
        assert_eq!(within(peer.closed()).await, Heard::Closed(case(86).quic()));
    })
    .await;
}

/// "An endpoint [...] could be forced to commit memory" (section 21.7): single bytes with gaps between them.
#[tokio::test]
async fn sparse_offsets() {
    case(88).harmless();
    hostile(async |f| {
        let mut peer = connected(f).await;
        // Every second byte from the far end down to the start, of a stream whose first byte never comes.
        let mut most = 0;
        let offsets: Vec<u64> = (0..3000).map(|i| 1 + 600 * i).collect();
        let mut closed = None;
        for chunk in offsets.chunks(100) {
            let frames: Vec<u8> = chunk
                .iter()
                .flat_map(|&offset| stream(2, offset, &[7], false))
                .collect();
            peer.send(Space::Data, &frames).await;
            // In step with the server, or the socket's buffer overflows.
            f.assert_undisturbed().await;
            most = most.max(f.memory());
            while let Some(heard) = peer.hear_now().await {
                if heard != Heard::Packets {
                    closed = Some(heard);
                }
            }
        }
        // A page for each byte would be 12 MB.
        assert!(most < 2 << 20, "{most} bytes");
        assert!(closed.is_some(), "more gaps than quinn-proto keeps");
    })
    .await;
}

#[tokio::test]
async fn transport_parameters() {
    let case = case(91);
    let bad: [(u64, Vec<u8>); 7] = [
        // ack_delay_exponent, max_ack_delay, active_connection_id_limit, max_udp_payload_size.
        (0x0a, int(21)),
        (0x0b, int(1 << 14)),
        (0x0e, int(1)),
        (0x03, int(1199)),
        // A number that is longer than its field.
        (0x04, vec![1, 2]),
        // initial_max_streams_bidi above 2^60.
        (0x08, int((1 << 60) + 1)),
        // What only a server may send: original_destination_connection_id.
        (0x00, vec![1; 8]),
    ];
    hostile(async |f| {
        for parameter in bad {
            let what = format!("{parameter:x?}");
            let list = |local: &[u8]| parameters(local, &[parameter]);
            let mut peer = Handmade::with_parameters("127.0.0.1", f.server, list).await;
            let hello = peer.hello();
            peer.send_initial(&hello).await;
            assert_eq!(within(peer.closed()).await, Heard::Closed(case.quic()), "{what}");
        }
        // Twice the same, another connection id than the packet's, and none at all.
        type List = fn(&[u8]) -> Vec<u8>;
        let lists: [List; 3] = [
            |local| parameters(local, &[(0x04, int(1)), (0x04, int(1))]),
            |local| parameters(local, &[(0x0f, vec![9; 8])]),
            |_| int(0x04).into_iter().chain(int(1)).chain(int(5)).collect(),
        ];
        for (index, list) in lists.into_iter().enumerate() {
            let mut peer = Handmade::with_parameters("127.0.0.1", f.server, list).await;
            let hello = peer.hello();
            peer.send_initial(&hello).await;
            assert_eq!(within(peer.closed()).await, Heard::Closed(case.quic()), "{index}");
        }
    })
    .await;
}

#[tokio::test]
async fn too_few_streams() {
    let case = case(103);
    hostile(async |f| {
        for most in [0, 2] {
            let list = |local: &[u8]| parameters(local, &[(0x09, int(most))]);
            let mut peer = Handmade::with_parameters("127.0.0.1", f.server, list).await;
            let hello = peer.hello();
            peer.send_initial(&hello).await;
            let closed = Heard::ClosedByApplication(case.close().into_u64());
            assert_eq!(within(peer.closed()).await, closed, "{most}");
        }
        // Three are enough.
        let list = |local: &[u8]| parameters(local, &[(0x09, int(3))]);
        let mut peer = Handmade::with_parameters("127.0.0.1", f.server, list).await;
        within(peer.handshake()).await;
        peer.close().await;
    })
    .await;
}
