//! A session's limits (draft-ietf-webtrans-http3-16 section 5).

use quinn::{RecvStream, SendStream};
use wireloom::proto::webtransport::flow::FlowControl;
use wireloom::{ServerBuilder, proto};
use wireloom_proto::{Code, capsule as types};

use crate::common::raw::{Answer, Raw, answer, capsule, int, wt_bi, wt_uni};
use crate::common::within;
use crate::support::{Hostile, hostile, hostile_with};
use crate::table::case;

/// WT_ENABLED, H3_DATAGRAM, and limits that turn flow control on.
const SETTINGS: &[(u64, u64)] = &[
    (0x2c7c_f000, 1),
    (0x33, 1),
    (proto::h3::settings::WT_INITIAL_MAX_STREAMS_UNI, 3),
    (proto::h3::settings::WT_INITIAL_MAX_STREAMS_BIDI, 3),
    (proto::h3::settings::WT_INITIAL_MAX_DATA, 1000),
];

fn tight(builder: ServerBuilder) -> ServerBuilder {
    let mut limits = FlowControl::OFF;
    (limits.streams_uni, limits.streams_bi, limits.data) = (2, 2, 1000);
    builder.flow_control(limits)
}

/// A session that is about to break a rule, and one beside it on the same connection.
struct Two {
    raw: Raw,
    connect: (SendStream, RecvStream),
    other: (SendStream, RecvStream),
}

impl Two {
    async fn new(f: &Hostile, path: &str) -> Self {
        let raw = f.raw_with(SETTINGS).await;
        let other = within(raw.session("/wt")).await;
        let connect = within(raw.session(path)).await;
        Self { raw, connect, other }
    }

    fn id(&self) -> u64 {
        u64::from(self.connect.0.id())
    }

    /// The session ended so, and nothing else did.
    async fn assert_ended(mut self, expected: Answer, what: &str) {
        assert_eq!(within(answer(self.connect.1)).await, expected, "{what}");
        let (mut send, mut recv) = self.raw.bi(&wt_bi(u64::from(self.other.0.id()), b"other"), false).await;
        send.finish().unwrap();
        assert_eq!(within(recv.read_to_end(100)).await.unwrap(), b"other", "{what}");
        self.other.0.finish().unwrap();
        // Credit for that stream may come first.
        assert!(within(self.other.1.read_to_end(1000)).await.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn too_many_streams() {
    let case = case(70);
    hostile_with(tight, async |f| {
        let two = Two::new(f, "/idle").await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(two.raw.bi(&wt_bi(two.id(), b"x"), false).await);
        }
        let gone = Answer::Reset(Code::WT_SESSION_GONE);
        for (_send, recv) in streams {
            assert_eq!(within(answer(recv)).await, gone);
        }
        two.assert_ended(case.answer(), "bidirectional").await;

        let two = Two::new(f, "/idle").await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(two.raw.uni(&wt_uni(two.id(), b"x")).await);
        }
        two.assert_ended(case.answer(), "unidirectional").await;
    })
    .await;
}

#[tokio::test]
async fn too_much_data() {
    let case = case(71);
    hostile_with(tight, async |f| {
        // On one stream, read or not.
        for path in ["/wt", "/idle"] {
            let two = Two::new(f, path).await;
            let _stream = two.raw.bi(&wt_bi(two.id(), &[7; 1100]), false).await;
            two.assert_ended(case.answer(), path).await;
        }
        // On two together.
        let two = Two::new(f, "/idle").await;
        let _streams = (
            two.raw.bi(&wt_bi(two.id(), &[7; 600]), false).await,
            two.raw.uni(&wt_uni(two.id(), &[7; 600])).await,
        );
        two.assert_ended(case.answer(), "two streams").await;
        // In one go with the end of the stream.
        let two = Two::new(f, "/idle").await;
        let _stream = two.raw.bi(&wt_bi(two.id(), &[7; 1100]), true).await;
        two.assert_ended(case.answer(), "FIN").await;
    })
    .await;
}

#[tokio::test]
async fn capsules() {
    let above = (1 << 60) + 1;
    let cases = [
        (case(72), types::WT_MAX_STREAMS_BIDI, above),
        (case(72), types::WT_MAX_STREAMS_UNI, above),
        (case(72), types::WT_MAX_STREAMS_UNI, (1 << 62) - 1),
        (case(73), types::WT_MAX_DATA, 1000),
        (case(73), types::WT_MAX_DATA, 0),
        (case(73), types::WT_MAX_STREAMS_BIDI, 3),
        (case(73), types::WT_MAX_STREAMS_UNI, 2),
        (case(74), types::WT_STREAMS_BLOCKED_BIDI, above),
        (case(74), types::WT_STREAMS_BLOCKED_UNI, above),
        (case(75), types::WT_MAX_STREAM_DATA, 0),
        (case(75), types::WT_STREAM_DATA_BLOCKED, 0),
    ];
    hostile(async |f| {
        for (case, ty, value) in cases {
            let mut two = Two::new(f, "/wt").await;
            two.connect.0.write_all(&capsule(ty, &int(value))).await.unwrap();
            two.assert_ended(case.answer(), &format!("{}: {ty:#x} {value}", case.what))
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn ignored_while_off() {
    case(76).harmless();
    let capsules = [
        (types::WT_MAX_STREAMS_BIDI, u64::MAX >> 2),
        (types::WT_MAX_STREAMS_UNI, 0),
        (types::WT_MAX_DATA, 5),
        (types::WT_MAX_DATA, 5),
        (types::WT_DATA_BLOCKED, 0),
        (types::WT_STREAMS_BLOCKED_BIDI, u64::MAX >> 2),
        (types::WT_STREAMS_BLOCKED_UNI, 0),
    ];
    hostile(async |f| {
        // Draft 02, which has none, and draft 15 without limits of the client's.
        for raw in [f.raw().await, f.raw_with(&SETTINGS[..2]).await] {
            let (mut send, recv) = within(raw.session("/wt")).await;
            for (ty, value) in capsules {
                send.write_all(&capsule(ty, &int(value))).await.unwrap();
            }
            let (mut stream, mut echoed) = raw.bi(&wt_bi(u64::from(send.id()), b"through"), false).await;
            stream.finish().unwrap();
            assert_eq!(within(echoed.read_to_end(100)).await.unwrap(), b"through");
            send.finish().unwrap();
            assert_eq!(within(answer(recv)).await, Answer::Empty);
        }
    })
    .await;
}
