//! Bytes to messages: the verdicts of section 6.2.

use super::{AcceptConf, DecodeError, Encoding, Message, Name, Payload, RequestId, kind};

const MALFORMED: Result<Message<'static>, DecodeError> = Err(DecodeError::Malformed);

impl<'a> Message<'a> {
    /// Reads the message that `data` is, all of it. Of either direction: who may send it is
    /// [`direction`](Message::direction)'s to say.
    ///
    /// # Errors
    /// The type is not of version 2.0, or a length or a field cannot be.
    #[inline]
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let Some(&first) = data.first() else {
            return Err(DecodeError::Unknown);
        };
        match first {
            127 => request(data, Encoding::Binary),
            128 => request(data, Encoding::Utf8),
            129 => request_utf16(data),
            191 => reply(data, Encoding::Binary),
            192 => reply(data, Encoding::Utf8),
            193 => reply_utf16(data),
            63 => signal(data, Encoding::Binary),
            64 => signal(data, Encoding::Utf8),
            65 => signal_utf16(data),
            kind::HEARTBEAT if data.len() == 1 => Ok(Self::Heartbeat),
            kind::SESSION_CLOSED if data.len() == 1 => Ok(Self::SessionClosed),
            kind::SESSION_CREATED if data.len() >= 2 => Ok(Self::SessionCreated { session: &data[1..] }),
            kind::HEARTBEAT | kind::SESSION_CLOSED | kind::SESSION_CREATED => MALFORMED,
            kind::ACCEPT_CONF => accept_conf(data),
            kind::REPLY_ERROR => reply_error(data),
            kind::REPLY_SHUTDOWN..=kind::REPLY_SESSIONS_DISABLED => special_reply(data, first),
            kind::CLOSE_SESSION => match id_and_rest(data) {
                Some((id, [])) => Ok(Self::CloseSession { id }),
                _ => MALFORMED,
            },
            kind::RESTORE_SESSION => match id_and_rest(data) {
                Some((id, key @ [_, ..])) => Ok(Self::RestoreSession { id, key }),
                _ => MALFORMED,
            },
            _ => Err(DecodeError::Unknown),
        }
    }
}

#[inline]
fn id_and_rest(data: &[u8]) -> Option<(RequestId, &[u8])> {
    let (id, rest) = data.get(1..)?.split_first_chunk()?;
    Some((RequestId(*id), rest))
}

/// A name behind its length byte, and what follows.
#[inline]
fn name_and_rest(data: &[u8]) -> Option<(Name<'_>, &[u8])> {
    let (&len, rest) = data.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(len))?;
    Some((Name::received(name), rest))
}

/// Without the byte that brings a UTF-16 payload to an even offset: there if the name's length is odd (section 3.4). Its
/// value does not matter.
#[inline]
fn without_padding<'a>(name: Name<'_>, rest: &'a [u8]) -> Option<&'a [u8]> {
    rest.get(name.len() % 2..)
}

#[inline]
fn request(data: &[u8], encoding: Encoding) -> Result<Message<'_>, DecodeError> {
    let Some((id, rest)) = id_and_rest(data) else {
        return MALFORMED;
    };
    match name_and_rest(rest) {
        // Name or payload, or both.
        Some((name, bytes)) if rest.len() > 1 => Ok(Message::Request {
            id,
            name,
            payload: Payload { encoding, bytes },
        }),
        _ => MALFORMED,
    }
}

fn request_utf16(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    // The header is padded to an even length and the payload is even.
    if data.len() < 12 || !data.len().is_multiple_of(2) {
        return MALFORMED;
    }
    let Message::Request { id, name, payload } = request(data, Encoding::Utf16)? else {
        return MALFORMED;
    };
    let Some(bytes) = without_padding(name, payload.bytes) else {
        return MALFORMED;
    };
    Ok(Message::Request {
        id,
        name,
        payload: Payload::utf16(bytes),
    })
}

#[inline]
fn signal(data: &[u8], encoding: Encoding) -> Result<Message<'_>, DecodeError> {
    match name_and_rest(&data[1..]) {
        Some((name, bytes)) if data.len() >= 3 => Ok(Message::Signal {
            name,
            payload: Payload { encoding, bytes },
        }),
        _ => MALFORMED,
    }
}

fn signal_utf16(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    if !data.len().is_multiple_of(2) {
        return MALFORMED;
    }
    let Message::Signal { name, payload } = signal(data, Encoding::Utf16)? else {
        return MALFORMED;
    };
    match without_padding(name, payload.bytes) {
        // Other than a request, it needs a payload.
        Some(bytes) if bytes.len() >= 2 => Ok(Message::Signal {
            name,
            payload: Payload::utf16(bytes),
        }),
        _ => MALFORMED,
    }
}

#[inline]
fn reply(data: &[u8], encoding: Encoding) -> Result<Message<'_>, DecodeError> {
    let Some((id, bytes)) = id_and_rest(data) else {
        return MALFORMED;
    };
    Ok(Message::Reply {
        id,
        payload: Payload { encoding, bytes },
    })
}

fn reply_utf16(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    match id_and_rest(data) {
        // The padding byte is always there.
        Some((id, [_, bytes @ ..])) if bytes.len().is_multiple_of(2) => Ok(Message::Reply {
            id,
            payload: Payload::utf16(bytes),
        }),
        _ => MALFORMED,
    }
}

fn reply_error(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    let Some((id, rest)) = id_and_rest(data) else {
        return MALFORMED;
    };
    match name_and_rest(rest) {
        Some((code, message)) if !code.is_empty() => Ok(Message::ReplyError {
            id,
            code: code.as_bytes(),
            message,
        }),
        _ => MALFORMED,
    }
}

fn special_reply(data: &[u8], first: u8) -> Result<Message<'_>, DecodeError> {
    // What follows the identifier is ignored (section 4.7).
    let Some((id, _)) = id_and_rest(data) else {
        return MALFORMED;
    };
    Ok(match first {
        kind::REPLY_SHUTDOWN => Message::ReplyShutdown { id },
        kind::REPLY_INTERNAL_ERROR => Message::ReplyInternalError { id },
        kind::REPLY_SESSION_NOT_FOUND => Message::ReplySessionNotFound { id },
        kind::REPLY_MAX_SESSION_CONNECTIONS => Message::ReplyMaxSessionConnections { id },
        _ => Message::ReplySessionsDisabled { id },
    })
}

fn accept_conf(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    let Some(([_, major, minor, fields @ ..], sub_protocol)) = data.split_first_chunk::<11>() else {
        return MALFORMED;
    };
    let [t0, t1, t2, t3, b0, b1, b2, b3] = *fields;
    Ok(Message::AcceptConf(AcceptConf {
        major: *major,
        minor: *minor,
        read_timeout_ms: u32::from_le_bytes([t0, t1, t2, t3]),
        message_buffer_size: u32::from_le_bytes([b0, b1, b2, b3]),
        sub_protocol,
    }))
}
