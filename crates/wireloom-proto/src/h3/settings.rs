//! SETTINGS (RFC 9114 section 7.2.4).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::frame;
use crate::codes::Code;
use crate::varint;

/// SETTINGS_QPACK_MAX_TABLE_CAPACITY, bytes (RFC 9204 section 5). Default 0.
pub const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
/// SETTINGS_MAX_FIELD_SECTION_SIZE, bytes (RFC 9114 section 7.2.4.1). Default unlimited.
pub const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
/// SETTINGS_QPACK_BLOCKED_STREAMS, streams (RFC 9204 section 5). Default 0.
pub const QPACK_BLOCKED_STREAMS: u64 = 0x07;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL, 0 or 1 (RFC 9220 section 5). Default 0.
pub const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
/// SETTINGS_H3_DATAGRAM, 0 or 1 (RFC 9297 section 2.1.1). Default 0.
pub const H3_DATAGRAM: u64 = 0x33;
/// SETTINGS_H3_DATAGRAM as draft 04 numbered it; browsers still send it.
pub const H3_DATAGRAM_DRAFT04: u64 = 0xff_d277;
/// SETTINGS_ENABLE_WEBTRANSPORT of drafts 02 to 06, 0 or 1.
pub const WEBTRANSPORT_DRAFT02: u64 = 0x2b60_3742;
/// SETTINGS_WEBTRANSPORT_MAX_SESSIONS of drafts 07 to 12, sessions.
pub const WEBTRANSPORT_MAX_SESSIONS_DRAFT07: u64 = 0xc671_706a;
/// SETTINGS_WT_MAX_SESSIONS of drafts 13 and 14, sessions.
pub const WT_MAX_SESSIONS_DRAFT13: u64 = 0x14e9_cd29;
/// SETTINGS_WT_ENABLED of drafts 15 and later, 0 or 1.
pub const WT_ENABLED: u64 = 0x2c7c_f000;
/// SETTINGS_WT_INITIAL_MAX_STREAMS_UNI, streams (draft-ietf-webtrans-http3-16 section 5.5).
pub const WT_INITIAL_MAX_STREAMS_UNI: u64 = 0x2b64;
/// SETTINGS_WT_INITIAL_MAX_STREAMS_BIDI, streams (draft-ietf-webtrans-http3-16 section 5.5).
pub const WT_INITIAL_MAX_STREAMS_BIDI: u64 = 0x2b65;
/// SETTINGS_WT_INITIAL_MAX_DATA, bytes (draft-ietf-webtrans-http3-16 section 5.5).
pub const WT_INITIAL_MAX_DATA: u64 = 0x2b61;

/// The name of a known identifier.
pub const fn name(id: u64) -> Option<&'static str> {
    Some(match id {
        QPACK_MAX_TABLE_CAPACITY => "QPACK_MAX_TABLE_CAPACITY",
        MAX_FIELD_SECTION_SIZE => "MAX_FIELD_SECTION_SIZE",
        QPACK_BLOCKED_STREAMS => "QPACK_BLOCKED_STREAMS",
        ENABLE_CONNECT_PROTOCOL => "ENABLE_CONNECT_PROTOCOL",
        H3_DATAGRAM => "H3_DATAGRAM",
        H3_DATAGRAM_DRAFT04 => "H3_DATAGRAM_DRAFT04",
        WEBTRANSPORT_DRAFT02 => "WEBTRANSPORT_DRAFT02",
        WEBTRANSPORT_MAX_SESSIONS_DRAFT07 => "WEBTRANSPORT_MAX_SESSIONS_DRAFT07",
        WT_MAX_SESSIONS_DRAFT13 => "WT_MAX_SESSIONS_DRAFT13",
        WT_ENABLED => "WT_ENABLED",
        WT_INITIAL_MAX_STREAMS_UNI => "WT_INITIAL_MAX_STREAMS_UNI",
        WT_INITIAL_MAX_STREAMS_BIDI => "WT_INITIAL_MAX_STREAMS_BIDI",
        WT_INITIAL_MAX_DATA => "WT_INITIAL_MAX_DATA",
        _ => return None,
    })
}

/// Most settings that one frame may hold; about a dozen are in use.
const MAX_SETTINGS: usize = 64;

/// An ordered list of settings, of this end or as received, unknown ones included. At most 64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    list: Vec<(u64, u64)>,
}

/// Why a SETTINGS frame closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An identifier comes twice.
    #[error("setting {0:#x} comes twice")]
    Duplicate(u64),
    /// An identifier that HTTP/2 used and HTTP/3 forbids.
    #[error("setting {0:#x} of HTTP/2")]
    Http2(u64),
    /// A setting that is 0 or 1 has another value.
    #[error("setting {id:#x} has the value {value}")]
    InvalidValue {
        /// Which one.
        id: u64,
        /// Its value.
        value: u64,
    },
    /// The frame ends inside a setting.
    #[error("SETTINGS ends inside a setting")]
    Truncated,
    /// More than 64 settings.
    #[error("too many settings")]
    TooMany,
}

impl SettingsError {
    /// The connection error.
    pub const fn code(self) -> Code {
        match self {
            Self::Duplicate(_) | Self::Http2(_) | Self::InvalidValue { .. } => Code::H3_SETTINGS_ERROR,
            Self::Truncated => Code::H3_FRAME_ERROR,
            Self::TooMany => Code::H3_EXCESSIVE_LOAD,
        }
    }
}

impl Settings {
    /// No settings, which means all defaults.
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// The value of `id`, if it is in the list. Whoever wants a setting asks for it, so what nobody knows has no
    /// effect: "An implementation MUST ignore any parameter with an identifier it does not understand" (RFC 9114
    /// section 7.2.4), and of the reserved ones "Endpoints MUST NOT consider such settings to have any meaning upon
    /// receipt" (RFC 9114 section 7.2.4.1).
    pub fn get(&self, id: u64) -> Option<u64> {
        self.list
            .iter()
            .find(|setting| setting.0 == id)
            .map(|setting| setting.1)
    }

    /// Changes `id` where it stands, or appends it. Either number counts as [`varint::MAX`] if it is larger.
    ///
    /// "The same setting identifier MUST NOT occur more than once in the SETTINGS frame" (RFC 9114 section 7.2.4). None
    /// but the identifiers of this module and a reserved one is ever set: "These reserved settings MUST NOT be sent"
    /// (RFC 9114 section 7.2.4.1).
    pub fn set(&mut self, id: u64, value: u64) {
        let (id, value) = (id.min(varint::MAX), value.min(varint::MAX));
        match self.list.iter_mut().find(|setting| setting.0 == id) {
            Some(setting) => setting.1 = value,
            None => self.list.push((id, value)),
        }
    }

    /// All settings as (identifier, value), in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.list.iter().copied()
    }

    /// Whether a server that accepted early data (0-RTT) under the `remembered` settings may send these now. If it
    /// omits one "that was previously specified to have a non-default value, this MUST be treated as a connection error
    /// of type H3_SETTINGS_ERROR" (RFC 9114 section 7.2.4.2).
    /// "they MUST validate that the new value of the SETTINGS_H3_DATAGRAM setting sent by the server in the handshake
    /// is greater than or equal to the stored value" (RFC 9297 section 2.1.1).
    /// "A client MUST close the connection with H3_SETTINGS_ERROR if the SETTINGS frame received in the resumed
    /// connection reduces any flow control values from the cached previous values" (draft 16 section 3.2).
    ///
    /// An error is the connection's. QPACK's table has one of its own, since its capacity, unless it was 0, may not even grow
    /// (RFC 9204 section 3.2.3).
    pub fn keeps(&self, remembered: &Self) -> Result<(), Code> {
        let capacity = |settings: &Self| settings.get(QPACK_MAX_TABLE_CAPACITY).unwrap_or(0);
        if capacity(remembered) != 0 && capacity(self) != capacity(remembered) {
            return Err(Code::QPACK_DECODER_STREAM_ERROR);
        }
        let is_kept = |(id, before): (u64, u64)| match self.get(id) {
            // Unknown and reserved ones bind nobody.
            _ if name(id).is_none() => true,
            Some(now) => now >= before,
            // The default of this one is "unlimited", of all others 0.
            None => before == 0 && id != MAX_FIELD_SECTION_SIZE,
        };
        let is_limited_now = self.get(MAX_FIELD_SECTION_SIZE).is_some();
        let was_unlimited = remembered.get(MAX_FIELD_SECTION_SIZE).is_none();
        if remembered.iter().all(is_kept) && !(was_unlimited && is_limited_now) {
            Ok(())
        } else {
            Err(Code::H3_SETTINGS_ERROR)
        }
    }

    /// The whole SETTINGS frame.
    pub fn encode_frame(&self) -> Bytes {
        let len = self
            .list
            .iter()
            .map(|&(id, value)| varint::size(id) + varint::size(value))
            .sum::<usize>() as u64;
        let mut out = BytesMut::with_capacity(frame::header_len(frame::SETTINGS, len) + len as usize);
        frame::encode_header(frame::SETTINGS, len, &mut out);
        self.encode(&mut out);
        out.freeze()
    }

    /// The payload of the SETTINGS frame.
    pub fn encode(&self, out: &mut impl BufMut) {
        for &(id, value) in &self.list {
            varint::encode(id, out);
            varint::encode(value, out);
        }
    }

    /// Reads the payload of a SETTINGS frame.
    pub fn decode(mut payload: &[u8]) -> Result<Self, SettingsError> {
        let mut settings = Self::new();
        let next = |payload: &mut &[u8]| {
            let (value, len) = varint::decode(payload).ok_or(SettingsError::Truncated)?;
            *payload = &payload[len..];
            Ok(value)
        };
        while !payload.is_empty() {
            let id = next(&mut payload)?;
            let value = next(&mut payload)?;
            // "Setting identifiers that were defined in [HTTP/2] where there is no corresponding HTTP/3 setting have also been
            // reserved": "their receipt MUST be treated as a connection error of type H3_SETTINGS_ERROR" (RFC 9114
            // section 7.2.4.1). Section 11.2.2 reserves 0x00 along with 0x02 to 0x05.
            if matches!(id, 0x00 | 0x02..=0x05) {
                return Err(SettingsError::Http2(id));
            }
            // For SETTINGS_H3_DATAGRAM "the receiver MUST terminate the connection with error H3_SETTINGS_ERROR" (RFC
            // 9297 section 2.1.1). The other: RFC 9220 section 3 by way of RFC 8441 section 3. Those of WebTransport are
            // unknown where it is off: `negotiate::validate`.
            if value > 1 && matches!(id, ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM) {
                return Err(SettingsError::InvalidValue { id, value });
            }
            // "A receiver MAY treat the presence of duplicate setting identifiers as a connection error" (RFC 9114 section
            // 7.2.4).
            if settings.get(id).is_some() {
                return Err(SettingsError::Duplicate(id));
            }
            if settings.list.len() == MAX_SETTINGS {
                return Err(SettingsError::TooMany);
            }
            settings.list.push((id, value));
        }
        // Kept as long as the connection.
        settings.list.shrink_to_fit();
        Ok(settings)
    }
}

impl FromIterator<(u64, u64)> for Settings {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(settings: I) -> Self {
        let mut list = Self::new();
        settings.into_iter().for_each(|(id, value)| list.set(id, value));
        list
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (id, value) in self.iter() {
            match name(id) {
                Some(name) => map.entry(&format_args!("{name}"), &value),
                None => map.entry(&format_args!("{id:#x}"), &value),
            };
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(settings: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        settings.iter().for_each(|&(id, value)| {
            varint::encode(id, &mut out);
            varint::encode(value, &mut out);
        });
        out
    }

    #[test]
    fn round_trip_keeps_order_and_unknown_settings() {
        let settings: Settings = [(0x21, 7), (H3_DATAGRAM, 1), (WT_ENABLED, 1)].into_iter().collect();
        let frame = settings.encode_frame();
        assert_eq!(frame[0], 0x04);
        let decoded = Settings::decode(&frame[2..]).expect("own settings");
        assert_eq!(decoded, settings);
        assert_eq!(decoded.get(WT_ENABLED), Some(1));
        assert_eq!(decoded.get(H3_DATAGRAM_DRAFT04), None);
        assert_eq!(format!("{decoded:?}"), "{0x21: 7, H3_DATAGRAM: 1, WT_ENABLED: 1}");
    }

    #[test]
    fn numbers_that_do_not_fit_are_the_largest() {
        let settings: Settings = [(MAX_FIELD_SECTION_SIZE, u64::MAX), (u64::MAX, 1), (u64::MAX - 1, 2)]
            .into_iter()
            .collect();
        let expected = payload(&[(MAX_FIELD_SECTION_SIZE, varint::MAX), (varint::MAX, 2)]);
        assert_eq!(settings.encode_frame()[2..], expected);
    }

    #[test]
    fn hostile() {
        for id in [0x00, 0x02, 0x03, 0x04, 0x05] {
            assert_eq!(Settings::decode(&payload(&[(id, 0)])), Err(SettingsError::Http2(id)));
        }
        assert_eq!(
            Settings::decode(&payload(&[(0x21, 0), (0x21, 0)])),
            Err(SettingsError::Duplicate(0x21))
        );
        for id in [ENABLE_CONNECT_PROTOCOL, H3_DATAGRAM] {
            let error = SettingsError::InvalidValue { id, value: 2 };
            assert_eq!(Settings::decode(&payload(&[(id, 2)])), Err(error));
            assert_eq!(error.code(), Code::H3_SETTINGS_ERROR);
        }
        assert_eq!(Settings::decode(&[0x06]), Err(SettingsError::Truncated));
        assert_eq!(SettingsError::Truncated.code(), Code::H3_FRAME_ERROR);
        let many: Vec<_> = (0x100..0x141).map(|id| (id, 0)).collect();
        assert_eq!(Settings::decode(&payload(&many)), Err(SettingsError::TooMany));
        assert!(Settings::decode(&payload(&many[1..])).is_ok());
    }

    /// "A client MUST close the connection with H3_SETTINGS_ERROR if the SETTINGS frame received in the resumed
    /// connection reduces any flow control values from the cached previous values" (draft 16 section 3.2).
    /// "that was previously specified to have a non-default value, this MUST be treated as a connection error of type
    /// H3_SETTINGS_ERROR" (RFC 9114 section 7.2.4.2).
    #[test]
    fn early_data_binds_the_server_to_what_it_announced() {
        let of = |list: &[(u64, u64)]| {
            let mut settings = Settings::new();
            list.iter().for_each(|&(id, value)| settings.set(id, value));
            settings
        };
        let before = of(&[(WT_INITIAL_MAX_DATA, 100), (QPACK_BLOCKED_STREAMS, 0), (0x21, 9)]);
        assert_eq!(before.keeps(&before), Ok(()));
        assert_eq!(
            of(&[(WT_INITIAL_MAX_DATA, 101), (WT_ENABLED, 1)]).keeps(&before),
            Ok(())
        );
        let error = Err(Code::H3_SETTINGS_ERROR);
        assert_eq!(of(&[(WT_INITIAL_MAX_DATA, 99)]).keeps(&before), error, "reduced");
        assert_eq!(of(&[]).keeps(&before), error, "omitted");
        let unlimited = of(&[]);
        let limited = of(&[(MAX_FIELD_SECTION_SIZE, 1 << 20)]);
        assert_eq!(limited.keeps(&unlimited), error);
        assert_eq!(unlimited.keeps(&limited), error);
        // RFC 9204 section 3.2.3.
        let [none, table, larger] = [0, 4096, 8192].map(|capacity| of(&[(QPACK_MAX_TABLE_CAPACITY, capacity)]));
        assert_eq!(table.keeps(&table), Ok(()));
        assert_eq!(table.keeps(&none), Ok(()));
        assert_eq!(table.keeps(&of(&[])), Ok(()));
        for other in [none, larger, of(&[])] {
            assert_eq!(other.keeps(&table), Err(Code::QPACK_DECODER_STREAM_ERROR), "{other:?}");
        }
    }
}
