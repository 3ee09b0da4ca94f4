//! The bytes of a client's WebSocket (RFC 6455), as the generators write and read them.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The handshake of section 4.1; what was read behind it.
pub(super) async fn upgrade<T>(io: &mut T, authority: &str, path: &str) -> Result<BytesMut, Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2lyZWxvb20gYmVuY2ghIQ==\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    // TLS may keep the last record to itself.
    io.flush().await?;
    let mut received = BytesMut::with_capacity(4096);
    let end = loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() > 16 * 1024 || io.read_buf(&mut received).await? == 0 {
            return Err("the server's answer to the upgrade is incomplete".into());
        }
    };
    let head = received.split_to(end);
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let line = head[..].split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("no WebSocket: {}", String::from_utf8_lossy(line)).into());
    }
    Ok(received)
}

/// Appends a masked frame (section 5.3). The key is zero, which changes nothing: what a proxy could be tricked by is not sent here.
pub(super) fn push_frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Where the payload is of the server's frame that `bytes` begin with; `None` if not all of it is there.
pub(super) fn payload(bytes: &[u8]) -> Result<Option<std::ops::Range<usize>>, Error> {
    let Some(second) = bytes.get(1) else {
        return Ok(None);
    };
    let (header, length) = match second {
        0..=125 => (2, u64::from(*second)),
        126 => match bytes.get(2..4) {
            Some(length) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (10, u64::from_be_bytes(length)),
            None => return Ok(None),
        },
        _ => return Err("the server masks its frames".into()),
    };
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(header));
    let end = end
        .filter(|end| *end <= 1 << 30)
        .ok_or("a frame of the server is too large")?;
    Ok((bytes.len() >= end).then_some(header..end))
}
