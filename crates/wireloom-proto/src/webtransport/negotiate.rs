//! The dialects of WebTransport over HTTP/3: what each announces, what it requires of the peer, and what it says in a
//! CONNECT. No other file knows them apart.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::flow::FlowControl;
use crate::h3::headers::RequestHead;
use crate::h3::settings::{self, Settings};
use crate::stream_id::Side;

use crate::connection::PeerTransport;
use crate::varint;

/// "The header corresponding to the version described in this draft" (draft 02 section 7).
const DRAFT02_FIELD: HeaderName = HeaderName::from_static("sec-webtransport-http3-draft02");

/// A family of drafts that share a setting, in the order of their age. What they do not share inside a family no peer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Drafts 02 to 06: what browsers speak by default.
    Draft02,
    /// Drafts 07 to 12. Clients of drafts 09 and later need not send the setting, and draft 12 has flow control.
    Draft07,
    /// Drafts 13 and 14. Flow control is negotiated as in draft 14. In draft 13 it is off where either end has
    /// SETTINGS_WT_MAX_SESSIONS of 1, whatever limits it announces: such a peer is held to limits that it ignores itself.
    Draft13,
    /// Drafts 15 and 16.
    Draft15,
}

impl Dialect {
    /// Every dialect, oldest first.
    pub const ALL: [Self; 4] = [Self::Draft02, Self::Draft07, Self::Draft13, Self::Draft15];

    /// The setting that announces it.
    const fn setting(self) -> u64 {
        match self {
            Self::Draft02 => settings::WEBTRANSPORT_DRAFT02,
            Self::Draft07 => settings::WEBTRANSPORT_MAX_SESSIONS_DRAFT07,
            Self::Draft13 => settings::WT_MAX_SESSIONS_DRAFT13,
            Self::Draft15 => settings::WT_ENABLED,
        }
    }

    /// The `:protocol` that a client sends.
    ///
    /// In drafts 15 and later it "MUST be set to webtransport-h3" (draft 16 section 3.2).
    pub const fn upgrade_token(self) -> &'static str {
        match self {
            Self::Draft15 => "webtransport-h3",
            _ => "webtransport",
        }
    }

    /// Sessions that a server lets be open at once, of the `configured` ones.
    ///
    /// "A WebTransport endpoint that allows a WebTransport session to share an underlying transport connection with
    /// other WebTransport sessions MUST enable flow control" (draft 16 section 5.1): without it there is one. "clients
    /// MUST NOT attempt to establish more than one simultaneous WebTransport session" (draft 16 section 5.1).
    /// "An endpoint that does not support pooling and flow control MUST NOT accept more than one incoming WebTransport
    /// session at a time" (draft 16 section 5.2). Drafts up to 12 have no such rule.
    pub(crate) fn max_sessions(self, configured: usize, flow_control: bool) -> usize {
        match self {
            Self::Draft13 | Self::Draft15 if !flow_control => configured.min(1),
            _ => configured,
        }
    }

    /// Whether a session beyond the limit may be answered, with 429, where several are allowed at all. Drafts 07 to 14 have the
    /// client know the limit, and the server "MUST reset all of the CONNECT streams it is not willing to process with the
    /// H3_REQUEST_REJECTED status" (draft 14 section 5.2).
    pub(crate) fn may_answer_surplus(self, flow_control: bool) -> bool {
        matches!(self, Self::Draft02 | Self::Draft15) && self.max_sessions(2, flow_control) > 1
    }

    /// Sessions that a client may have open at once towards a server with these settings.
    pub(crate) fn max_sessions_at(self, server: &Settings, configured: usize, flow_control: bool) -> usize {
        let allowed = self.max_sessions(configured, flow_control);
        match self {
            // "The client MUST NOT open more sessions than indicated in the server SETTINGS parameters" (draft 08 section
            // 3.4, draft 14 section 5.2).
            Self::Draft07 | Self::Draft13 => {
                let announced = server.get(self.setting()).unwrap_or(0);
                allowed.min(usize::try_from(announced).unwrap_or(usize::MAX))
            }
            Self::Draft02 | Self::Draft15 => allowed,
        }
    }

    /// What a peer with these settings lets each session use to begin with; `None` if it does not want flow control, or the
    /// dialect has none: "Flow control is enabled when both endpoints declare their intent to use flow control" (draft 16
    /// section 5.1).
    pub(crate) fn peer_limits(self, peer: &Settings) -> Option<FlowControl> {
        let value = |id| peer.get(id).unwrap_or(0);
        let limits = FlowControl {
            streams_uni: value(settings::WT_INITIAL_MAX_STREAMS_UNI),
            streams_bi: value(settings::WT_INITIAL_MAX_STREAMS_BIDI),
            data: value(settings::WT_INITIAL_MAX_DATA),
        };
        let wants_it = match self {
            Self::Draft02 => false,
            // Draft 12 has these limits without a word about whether they hold; drafts 07 to 11 send none.
            Self::Draft07 => limits.is_on(),
            // "Sending SETTINGS_WT_MAX_SESSIONS with a value greater than "1"" declares it too (draft 14 section 5.1).
            Self::Draft13 => limits.is_on() || value(self.setting()) > 1,
            Self::Draft15 => limits.is_on(),
        };
        wants_it.then(|| limits.clamped())
    }

    /// Whether all its peers know session flow control. Of draft 07's those of draft 12 do.
    pub(crate) const fn has_flow_control(self) -> bool {
        matches!(self, Self::Draft13 | Self::Draft15)
    }

    /// Whether a peer that announces no limits may still keep those that it was announced. In draft 12 they hold by
    /// themselves, and where there are none nothing may be sent. Drafts 13 and 14 know better, but Safari 26.4 is reported to
    /// do the same.
    pub(crate) const fn may_keep_limits(self) -> bool {
        matches!(self, Self::Draft07 | Self::Draft13)
    }

    /// Whether a capsule that repeats a limit is an error: draft 16 says "that does not increase the Maximum Data value
    /// previously received" (section 5.6.4), drafts 14 and 15 "less than a previously received value". As no peer tells draft 15
    /// from 16, one of draft 15 that repeats a limit, which brings nothing, loses its session.
    pub(crate) const fn limits_must_increase(self) -> bool {
        matches!(self, Self::Draft15)
    }

    /// Adds what this dialect says in a CONNECT request.
    pub(crate) fn add_request_fields(self, headers: &mut HeaderMap) {
        // "The header corresponding to the version described in this draft is Sec-Webtransport-Http3-Draft02; its value
        // SHALL be 1" (draft 02 section 7).
        if self == Self::Draft02 {
            headers.insert(DRAFT02_FIELD, HeaderValue::from_static("1"));
        }
    }

    /// Adds what this dialect says in the 2xx response to a CONNECT.
    pub(crate) fn add_response_fields(self, headers: &mut HeaderMap) {
        // "The server SHALL reply with a Sec-Webtransport-Http3-Draft header indicating the selected version" (draft 02
        // section 7).
        if self == Self::Draft02 {
            let value = HeaderValue::from_static("draft02");
            headers.insert(HeaderName::from_static("sec-webtransport-http3-draft"), value);
        }
    }

    /// Whether a peer with these settings and transport parameters speaks this dialect and has all that it requires.
    fn is_met(self, peer_side: Side, peer: &Settings, transport: PeerTransport) -> bool {
        peer.get(self.setting()).unwrap_or(0) != 0 && self.has_requirements(peer_side, peer, transport)
    }

    /// The same without the setting that announces it.
    fn has_requirements(self, peer_side: Side, peer: &Settings, transport: PeerTransport) -> bool {
        let on = |id| peer.get(id) == Some(1);
        match self {
            // "the SETTINGS_ENABLE_WEBTRANSPORT setting implies that an endpoint supports extended CONNECT" (draft 02
            // section 3.2). Browsers need no more than one of the datagram settings, and none the transport parameter.
            // So no session sends any before: "QUIC DATAGRAM frames MUST NOT be sent until the SETTINGS_H3_DATAGRAM
            // setting has been both sent and received with a value of 1" (RFC 9297 section 2.1.1).
            Self::Draft02 => has_datagrams(peer),
            // Draft 08 sections 3.1 and 3.2; draft 16 section 3.1. Drafts 14 and later want the reset_stream_at transport
            // parameter too. It is not asked for: hardly any QUIC library has it, and what it protects, the stream header
            // of a stream that is reset early, is then lost on that one stream only.
            _ => {
                on(settings::H3_DATAGRAM)
                    && transport.datagrams
                    && (peer_side == Side::Client || on(settings::ENABLE_CONNECT_PROTOCOL))
            }
        }
    }
}

/// A set of dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialects(u8);

impl Dialects {
    /// None of them: WebTransport is then off.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self::NONE
        .with(Dialect::Draft02)
        .with(Dialect::Draft07)
        .with(Dialect::Draft13)
        .with(Dialect::Draft15);

    /// The set and `dialect`.
    #[must_use]
    pub const fn with(self, dialect: Dialect) -> Self {
        Self(self.0 | 1 << dialect as u8)
    }

    /// The set without `dialect`.
    #[must_use]
    pub const fn without(self, dialect: Dialect) -> Self {
        Self(self.0 & !(1 << dialect as u8))
    }

    /// Whether `dialect` is in the set.
    pub const fn contains(self, dialect: Dialect) -> bool {
        self.0 & 1 << dialect as u8 != 0
    }

    /// The members, oldest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Dialect> {
        Dialect::ALL.into_iter().filter(move |&dialect| self.contains(dialect))
    }
}

impl FromIterator<Dialect> for Dialects {
    fn from_iter<I: IntoIterator<Item = Dialect>>(dialects: I) -> Self {
        dialects.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Whether `protocol` asks for WebTransport over HTTP/3. Both tokens are taken from every client: the draft numbers behind
/// them have been mixed up in practice.
///
/// The price: since draft 15 "webtransport" stands for the protocol of HTTP/2, whose streams are capsules, also over HTTP/3
/// (draft 16 section 2.1.2). It is not spoken here, and a client that means it is not told so: it gets a session in which its
/// capsules of streams are skipped as unknown ones.
pub(crate) fn is_upgrade_token(protocol: &str) -> bool {
    matches!(protocol, "webtransport" | "webtransport-h3")
}

/// Adds what an endpoint announces that speaks `dialects`, with these limits on what each session may use and on sessions.
pub(crate) fn announce(dialects: Dialects, limits: FlowControl, max_sessions: usize, settings: &mut Settings) {
    if dialects == Dialects::NONE {
        return;
    }
    settings.set(settings::ENABLE_CONNECT_PROTOCOL, 1);
    // "The value of the SETTINGS_H3_DATAGRAM setting MUST be either 0 or 1" (RFC 9297 section 2.1.1).
    settings.set(settings::H3_DATAGRAM, 1);
    if dialects.contains(Dialect::Draft02) {
        settings.set(settings::H3_DATAGRAM_DRAFT04, 1);
    }
    for dialect in dialects.iter() {
        // "clients MUST also send SETTINGS_WT_ENABLED with the draft-specific codepoint" (draft 16 section 3.1): a
        // server announces its own all the same.
        let value = match dialect {
            // A number of sessions, which must not be 0. Without flow control more would be a promise that peers refuse, and
            // most peers of draft 07 have none.
            Dialect::Draft13 if limits.is_on() => (max_sessions as u64).clamp(1, varint::MAX),
            _ => 1,
        };
        settings.set(dialect.setting(), value);
    }
    if dialects.iter().any(|dialect| dialect != Dialect::Draft02) {
        let limits = [
            (settings::WT_INITIAL_MAX_STREAMS_UNI, limits.streams_uni),
            (settings::WT_INITIAL_MAX_STREAMS_BIDI, limits.streams_bi),
            (settings::WT_INITIAL_MAX_DATA, limits.data),
        ];
        for (id, limit) in limits.into_iter().filter(|&(_, limit)| limit > 0) {
            settings.set(id, limit);
        }
    }
}

/// Checks the values of the peer's WebTransport settings; an error closes the connection with H3_SETTINGS_ERROR.
pub(crate) fn validate(dialects: Dialects, peer: &Settings) -> Result<(), &'static str> {
    // "an endpoint that receives a value other than "0" or "1" MUST close the connection with the H3_SETTINGS_ERROR error
    // code" (draft 02 section 3.1).
    // "Clients MUST treat values greater than "1" as a connection error of type H3_SETTINGS_ERROR" (draft 16 section
    // 3.1).
    for dialect in [Dialect::Draft02, Dialect::Draft15] {
        if dialects.contains(dialect) && peer.get(dialect.setting()).is_some_and(|value| value > 1) {
            return Err("a WebTransport setting that is 0 or 1 has another value");
        }
    }
    Ok(())
}

/// The dialect that the connection will speak: "The highest version supported by both endpoints is selected" (draft 16
/// section 7.1), of those whose requirements the peer meets.
pub(crate) fn choose(
    peer_side: Side,
    dialects: Dialects,
    peer: &Settings,
    transport: PeerTransport,
) -> Option<Dialect> {
    dialects
        .iter()
        .rev()
        .find(|dialect| dialect.is_met(peer_side, peer, transport))
}

/// Either of the settings that stood for datagrams, once.
fn has_datagrams(peer: &Settings) -> bool {
    [settings::H3_DATAGRAM, settings::H3_DATAGRAM_DRAFT04]
        .into_iter()
        .any(|id| peer.get(id) == Some(1))
}

/// Whether a client's CONNECT may still tell a dialect, since its settings have announced none.
pub(crate) fn may_be_told_by_request(dialects: Dialects, peer: &Settings) -> bool {
    let has_announced = Dialect::ALL.iter().any(|dialect| peer.get(dialect.setting()).is_some());
    let has_one = dialects.contains(Dialect::Draft02) || dialects.contains(Dialect::Draft07);
    !has_announced && has_one && has_datagrams(peer)
}

/// The dialect of a client whose settings have announced none, as its CONNECT tells. All the rest must be there.
pub(crate) fn choose_by_request(
    dialects: Dialects,
    peer: &Settings,
    transport: PeerTransport,
    request: &RequestHead,
) -> Option<Dialect> {
    if !may_be_told_by_request(dialects, peer) {
        return None;
    }
    // webtransport-go up to 0.9 sends the header field of draft 02 without the setting that section 3.1 of that draft demands.
    if request
        .head
        .headers()
        .get(DRAFT02_FIELD)
        .is_some_and(|value| value == "1")
    {
        return dialects.contains(Dialect::Draft02).then_some(Dialect::Draft02);
    }
    // "Note that the client does not need to send any value to indicate support for WebTransport" (drafts 09 to 12 section
    // 3.1): it does so by the token.
    let draft = Dialect::Draft07;
    let asks = request.protocol.as_deref() == Some(draft.upgrade_token());
    (asks && dialects.contains(draft) && draft.has_requirements(Side::Client, peer, transport)).then_some(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAMS: PeerTransport = PeerTransport {
        datagrams: true,
        reset_stream_at: false,
    };

    fn settings(list: &[(u64, u64)]) -> Settings {
        list.iter().copied().collect()
    }

    #[test]
    fn browsers_get_draft_02() {
        let chromium = settings(&[
            (1, 65_536),
            (6, 16_384),
            (7, 100),
            (0x33, 1),
            (0xff_d277, 1),
            (0x2b60_3742, 1),
        ]);
        let firefox = settings(&[
            (1, 65_536),
            (7, 20),
            (0x2b60_3742, 1),
            (0xff_d277, 1),
            (0x33, 1),
            (8, 1),
        ]);
        for browser in [chromium, firefox] {
            for transport in [DATAGRAMS, PeerTransport::default()] {
                assert_eq!(
                    choose(Side::Client, Dialects::ALL, &browser, transport),
                    Some(Dialect::Draft02)
                );
            }
        }
        let old = settings(&[(0xff_d277, 1), (0x2b60_3742, 1)]);
        assert_eq!(
            choose(Side::Client, Dialects::ALL, &old, DATAGRAMS),
            Some(Dialect::Draft02)
        );
        let none = settings(&[(0x2b60_3742, 1)]);
        assert_eq!(choose(Side::Client, Dialects::ALL, &none, DATAGRAMS), None);
    }

    #[test]
    fn the_newest_dialect_of_both_whose_requirements_are_met() {
        let mut all = Settings::new();
        announce(Dialects::ALL, FlowControl::OFF, 1, &mut all);
        for peer in [Side::Client, Side::Server] {
            assert_eq!(choose(peer, Dialects::ALL, &all, DATAGRAMS), Some(Dialect::Draft15));
            assert_eq!(
                choose(peer, Dialects::ALL.without(Dialect::Draft15), &all, DATAGRAMS),
                Some(Dialect::Draft13)
            );
            // Without QUIC datagrams only draft 02 is left.
            assert_eq!(
                choose(peer, Dialects::ALL, &all, PeerTransport::default()),
                Some(Dialect::Draft02)
            );
            assert_eq!(choose(peer, Dialects::NONE, &all, DATAGRAMS), None);
        }
        let no_connect = settings(&[(0x33, 1), (0x2c7c_f000, 1)]);
        assert_eq!(
            choose(Side::Client, Dialects::ALL, &no_connect, DATAGRAMS),
            Some(Dialect::Draft15)
        );
        assert_eq!(choose(Side::Server, Dialects::ALL, &no_connect, DATAGRAMS), None);
        let no_datagrams = settings(&[(8, 1), (0x2c7c_f000, 1)]);
        assert_eq!(choose(Side::Server, Dialects::ALL, &no_datagrams, DATAGRAMS), None);
    }

    #[test]
    fn values_above_one_are_an_error() {
        for id in [0x2b60_3742, 0x2c7c_f000] {
            assert!(validate(Dialects::ALL, &settings(&[(id, 2)])).is_err());
            assert!(validate(Dialects::ALL, &settings(&[(id, 1)])).is_ok());
            assert!(validate(Dialects::NONE, &settings(&[(id, 2)])).is_ok());
        }
        assert!(validate(Dialects::ALL, &settings(&[(0xc671_706a, 100)])).is_ok());
    }
}
