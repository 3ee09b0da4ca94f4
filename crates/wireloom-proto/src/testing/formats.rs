//! Fuzz targets of the small formats that are parsed inside other modules: QPACK's integers, stream headers, subprotocols,
//! priorities.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue};

use super::pieces;
use crate::h3::priority::{PRIORITY, Priority};
use crate::stream_id::{Dir, SessionId, StreamId};
use crate::varint;
use crate::webtransport::protocols as subprotocols;
use crate::webtransport::stream_header::{Header, Partial, Prefixes, parse};

/// Integers of QPACK (RFC 9204 section 4.1.1), the first byte choosing the prefix: what is decoded is within the range, is
/// encoded in no more bytes, and is decoded again.
pub fn prefix_integer(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else {
        return;
    };
    let prefix = u32::from(first % 6) + 3;
    let before = rest.len();
    if let Ok(value) = crate::qpack::integer_decode(&mut rest, prefix) {
        let mut again = Vec::new();
        crate::qpack::integer_encode(0, prefix, value, &mut again);
        assert!(value <= varint::MAX && again.len() <= before - rest.len());
        let mut whole = &again[..];
        assert_eq!(crate::qpack::integer_decode(&mut whole, prefix), Ok(value));
        assert!(whole.is_empty());
    }
}

/// Headers of WebTransport's streams: pieces give what the whole gives and leave the same payload; a header that we would send
/// is read as such.
pub fn stream_header(data: &[u8]) {
    let dir = if data.first().is_some_and(|first| first & 0x80 != 0) {
        Dir::Bi
    } else {
        Dir::Uni
    };
    let whole = data.get(1..).unwrap_or_default();
    let expected = parse(dir, whole);
    let mut partial = Partial::default();
    let (mut found, mut payload) = (Header::Incomplete, Vec::new());
    for mut piece in pieces(data) {
        if found == Header::Incomplete {
            found = partial.push(dir, &mut piece);
        }
        payload.extend_from_slice(&piece);
    }
    assert_eq!(found, expected);
    let (Header::WebTransport { len, .. } | Header::Other { len, .. }) = expected else {
        return assert!(payload.is_empty() && whole.len() < 16);
    };
    assert_eq!(payload, whole[len..]);
    if let Header::WebTransport { session, .. } = expected
        && let Some(session) = SessionId::new(StreamId::from_u64(session))
    {
        let ours = Prefixes::new(session);
        let prefix = if dir == Dir::Bi { ours.bi } else { ours.uni };
        assert!(prefix.len() <= len);
        let (session, len) = (session.into_u64(), prefix.len());
        assert_eq!(parse(dir, prefix.chunk()), Header::WebTransport { session, len });
    }
}

/// Subprotocols, the lines of the field separated by line feeds: what a peer offers or chooses can be offered or chosen again.
pub fn protocols(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(line)) {
            headers.append(subprotocols::AVAILABLE, value.clone());
            headers.append(subprotocols::CHOSEN, value);
        }
    }
    let offered = subprotocols::offered(&headers);
    if !offered.is_empty() {
        let mut again = HeaderMap::new();
        subprotocols::offer(&mut again, &offered).expect("a peer offered it");
        assert_eq!(subprotocols::offered(&again), offered);
    }
    if let Some(chosen) = subprotocols::chosen(&headers) {
        let mut again = HeaderMap::new();
        subprotocols::choose(&mut again, Some(&chosen)).expect("a peer chose it");
        assert_eq!(subprotocols::chosen(&again), Some(chosen));
    }
}

/// Priorities, the lines of the field separated by line feeds: what is read is in range, and what we would send says the same.
pub fn priority(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(line)) {
            headers.append(PRIORITY, value);
        }
    }
    let priority = Priority::of_request(&headers);
    assert!(priority.urgency <= 7);
    let mut again = HeaderMap::new();
    again.append(PRIORITY, priority.to_value());
    assert_eq!(Priority::of_request(&again), priority);
}
