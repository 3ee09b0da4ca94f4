//! Messages to bytes (section 4).

use super::{EncodeError, Encoding, MAX_NAME, Message, Name, Payload, RequestId, is_printable};

impl Message<'_> {
    /// How many bytes [`encode`](Self::encode) appends.
    pub const fn encoded_len(&self) -> usize {
        match self {
            Self::Heartbeat | Self::SessionClosed => 1,
            Self::ReplyShutdown { .. }
            | Self::ReplyInternalError { .. }
            | Self::ReplySessionNotFound { .. }
            | Self::ReplyMaxSessionConnections { .. }
            | Self::ReplySessionsDisabled { .. }
            | Self::CloseSession { .. } => 9,
            Self::ReplyError { code, message, .. } => 10 + code.len() + message.len(),
            Self::SessionCreated { session } => 1 + session.len(),
            Self::AcceptConf(conf) => 11 + conf.sub_protocol.len(),
            Self::RestoreSession { key, .. } => 9 + key.len(),
            Self::Signal { name, payload } => 2 + name.len() + padding(name, payload) + payload.len(),
            Self::Request { name, payload, .. } => 10 + name.len() + padding(name, payload) + payload.len(),
            Self::Reply { payload, .. } => 9 + matches!(payload.encoding, Encoding::Utf16) as usize + payload.len(),
        }
    }

    /// Appends the message.
    ///
    /// # Errors
    /// The message may not be sent: a peer would refuse or misread it. Nothing was appended then.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match *self {
            Self::Request { id, name, payload } => {
                check_content(name, payload)?;
                let pad = padding(&name, &payload);
                out.reserve(10 + name.len() + pad + payload.len());
                let mut header = [0; 10];
                header[0] = self.kind();
                header[1..9].copy_from_slice(&id.0);
                header[9] = name.len() as u8;
                out.extend_from_slice(&header);
                put_content(out, name, pad, payload);
            }
            Self::Reply { id, payload } => {
                check_payload(payload)?;
                let pad = usize::from(payload.encoding == Encoding::Utf16);
                out.reserve(9 + pad + payload.len());
                put_head(out, self.kind(), id);
                if pad == 1 {
                    out.push(0);
                }
                out.extend_from_slice(payload.bytes);
            }
            Self::Signal { name, payload } => {
                check_content(name, payload)?;
                if payload.encoding == Encoding::Utf16 && payload.is_empty() {
                    return Err(EncodeError::EmptyUtf16Signal);
                }
                let pad = padding(&name, &payload);
                out.reserve(2 + name.len() + pad + payload.len());
                out.extend_from_slice(&[self.kind(), name.len() as u8]);
                put_content(out, name, pad, payload);
            }
            Self::ReplyError { id, code, message } => {
                if code.is_empty() || code.len() > MAX_NAME || !is_printable(code) {
                    return Err(EncodeError::ErrorCode);
                }
                out.reserve(10 + code.len() + message.len());
                put_head(out, self.kind(), id);
                out.push(code.len() as u8);
                out.extend_from_slice(code);
                out.extend_from_slice(message);
            }
            Self::ReplyShutdown { id }
            | Self::ReplyInternalError { id }
            | Self::ReplySessionNotFound { id }
            | Self::ReplyMaxSessionConnections { id }
            | Self::ReplySessionsDisabled { id }
            | Self::CloseSession { id } => put_head(out, self.kind(), id),
            Self::RestoreSession { id, key } => {
                if key.is_empty() {
                    return Err(EncodeError::Empty);
                }
                put_head(out, self.kind(), id);
                out.extend_from_slice(key);
            }
            Self::SessionCreated { session } => {
                if session.is_empty() {
                    return Err(EncodeError::Empty);
                }
                out.push(self.kind());
                out.extend_from_slice(session);
            }
            Self::AcceptConf(conf) => {
                out.extend_from_slice(&[self.kind(), conf.major, conf.minor]);
                out.extend_from_slice(&conf.read_timeout_ms.to_le_bytes());
                out.extend_from_slice(&conf.message_buffer_size.to_le_bytes());
                out.extend_from_slice(conf.sub_protocol);
            }
            Self::Heartbeat | Self::SessionClosed => out.push(self.kind()),
        }
        Ok(())
    }

    /// The message in a buffer of its own.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn to_vec(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode(&mut out)?;
        Ok(out)
    }
}

/// One byte between a name of odd length and a UTF-16 payload, there even if the payload is empty (section 3.4).
const fn padding(name: &Name<'_>, payload: &Payload<'_>) -> usize {
    match payload.encoding {
        Encoding::Utf16 => name.len() % 2,
        Encoding::Binary | Encoding::Utf8 => 0,
    }
}

#[inline]
fn check_content(name: Name<'_>, payload: Payload<'_>) -> Result<(), EncodeError> {
    if name.is_empty() && payload.is_empty() {
        return Err(EncodeError::Empty);
    }
    name.check()?;
    check_payload(payload)
}

#[inline]
fn check_payload(payload: Payload<'_>) -> Result<(), EncodeError> {
    if payload.encoding == Encoding::Utf16 && !payload.len().is_multiple_of(2) {
        return Err(EncodeError::OddUtf16);
    }
    Ok(())
}

#[inline]
fn put_head(out: &mut Vec<u8>, kind: u8, id: RequestId) {
    let mut head = [0; 9];
    head[0] = kind;
    head[1..].copy_from_slice(&id.0);
    out.extend_from_slice(&head);
}

#[inline]
fn put_content(out: &mut Vec<u8>, name: Name<'_>, pad: usize, payload: Payload<'_>) {
    out.extend_from_slice(name.as_bytes());
    if pad == 1 {
        out.push(0);
    }
    out.extend_from_slice(payload.bytes);
}
