//! Session flow control (draft-ietf-webtrans-http3-16 section 5) between two connections, and against a peer that breaks it.

mod credit;
mod limits;
mod negotiation;
mod sharing;

use bytes::Bytes;
use wireloom_proto::connection::SessionEnd;
use wireloom_proto::h3::frame;
use wireloom_proto::testing::peer::{LIMITED_SETTINGS, Lone, varints};
use wireloom_proto::testing::pipe::Pair;
use wireloom_proto::webtransport::flow::FlowControl;
use wireloom_proto::webtransport::negotiate::{Dialect, Dialects};
use wireloom_proto::{Action, Code, Config, Event, SessionId, StreamId};

pub(crate) const TIGHT: FlowControl = FlowControl {
    streams_uni: 2,
    streams_bi: 3,
    data: 10,
};

pub(crate) fn config(dialect: Dialect, limits: FlowControl) -> Config {
    let mut config = Config::default();
    config.dialects = Dialects::NONE.with(dialect);
    config.flow_control = limits;
    config
}

pub(crate) fn tight_pair() -> (Pair, SessionId) {
    let config = config(Dialect::Draft15, TIGHT);
    let mut pair = Pair::connected(config.clone(), config);
    let session = pair.session();
    (pair, session)
}

pub(crate) fn tight_server() -> (Lone, SessionId) {
    Lone::server_with_session(config(Dialect::Draft15, TIGHT), &LIMITED_SETTINGS)
}

pub(crate) fn id(stream: u64) -> StreamId {
    StreamId::from_u64(stream)
}

pub(crate) fn uni(session: SessionId, payload: &[u8]) -> Vec<u8> {
    [varints(&[0x54, session.into_u64()]), payload.to_vec()].concat()
}

/// The capsules that actions write on the CONNECT stream of session 0.
pub(crate) fn capsules(actions: Vec<Action>) -> Vec<Bytes> {
    let written = actions.into_iter().filter_map(|action| match action {
        Action::Write { stream, data, .. } if stream == id(0) => Some(data),
        _ => None,
    });
    written.collect()
}

pub(crate) fn framed(payload: &Bytes) -> Bytes {
    frame::encode(frame::DATA, payload)
}

/// Asserts that the session ended with WT_FLOW_CONTROL_ERROR and nothing else did.
pub(crate) fn assert_violated(lone: &mut Lone, what: &str) {
    let ends: Vec<_> = lone
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::SessionClosed { end, .. } => Some(end),
            _ => None,
        })
        .collect();
    assert!(
        matches!(
            ends[..],
            [SessionEnd::PeerMisbehaved {
                code: Code::WT_FLOW_CONTROL_ERROR,
                ..
            }]
        ),
        "{what}: {ends:?}"
    );
    let code = Code::WT_FLOW_CONTROL_ERROR;
    let actions = lone.actions();
    assert!(
        actions.contains(&Action::Reset { stream: id(0), code }),
        "{what}: {actions:?}"
    );
    assert!(actions.contains(&Action::StopSending { stream: id(0), code }), "{what}");
    assert!(!lone.core.is_closed(), "{what}");
}
