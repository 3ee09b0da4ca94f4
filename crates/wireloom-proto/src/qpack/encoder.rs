//! Field sections to be sent (RFC 9204 section 4.5) and the peer's decoder stream (section 4.4).

use bytes::{BufMut, Bytes, BytesMut};

use super::static_table::{self, Match};
use super::{FieldRef, huffman, integer};
use crate::codes::Code;
use crate::stream_id::StreamId;

/// The peer's decoder stream breaks the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decoder stream: {0}")]
pub struct DecoderStreamError(&'static str);

impl DecoderStreamError {
    /// The connection error.
    pub const fn code(self) -> Code {
        Code::QPACK_DECODER_STREAM_ERROR
    }
}

/// The sending half of QPACK on a connection.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Continuation bytes of the Stream Cancellation that is being read, 0 outside.
    cancellation_bytes: u8,
}

impl Encoder {
    /// An encoder that uses no dynamic table, whatever the peer would allow.
    pub const fn new() -> Self {
        Self { cancellation_bytes: 0 }
    }

    /// Appends the field section of `fields`, to be sent on `stream`.
    ///
    /// Names must be in lower case and values legal; that is the caller's duty (`h3::headers` does it).
    pub fn encode<'a>(
        &mut self,
        _stream: StreamId,
        fields: impl IntoIterator<Item = FieldRef<'a>>,
        out: &mut BytesMut,
    ) {
        // Required Insert Count 0, Base 0.
        out.put_u16(0);
        for field in fields {
            line(field, out);
        }
    }

    /// Reads the peer's decoder stream, cut anywhere; takes all of `input`.
    ///
    /// Without a dynamic table no section is ever acknowledged and no insertion counted: both are
    /// QPACK_DECODER_STREAM_ERROR (RFC 9204 sections 4.4.1 and 4.4.3). Stream Cancellation is legal and means nothing.
    pub fn recv_decoder_stream(&mut self, input: &mut Bytes) -> Result<(), DecoderStreamError> {
        for &byte in &std::mem::take(input) {
            if self.cancellation_bytes > 0 {
                // Nine bytes hold every 62-bit stream id.
                if self.cancellation_bytes > 9 {
                    return Err(DecoderStreamError("stream id too large"));
                }
                self.cancellation_bytes = if byte & 0x80 == 0 {
                    0
                } else {
                    self.cancellation_bytes + 1
                };
                continue;
            }
            match byte {
                0x7f => self.cancellation_bytes = 1,
                0x40..=0x7e => {}
                0x80.. => return Err(DecoderStreamError("acknowledgement of a section that needs none")),
                _ => return Err(DecoderStreamError("increment beyond what was inserted")),
            }
        }
        Ok(())
    }
}

fn line(field: FieldRef<'_>, out: &mut BytesMut) {
    // A sensitive field stays a literal so that the N bit goes with it (section 7.1.3).
    let sensitive = u8::from(field.sensitive);
    match static_table::find(field.name, field.value) {
        Match::Exact(index) if !field.sensitive => integer::encode(0xc0, 6, index as u64, out),
        Match::Exact(index) | Match::Name(index) => {
            integer::encode(0x50 | sensitive << 5, 4, index as u64, out);
            string(0, 7, field.value, out);
        }
        Match::None => {
            string(0x20 | sensitive << 4, 3, field.name, out);
            string(0, 7, field.value, out);
        }
    }
}

/// A string literal, Huffman-coded where that is shorter. The H bit lies above the `prefix` bits of the length.
fn string(flags: u8, prefix: u32, text: &[u8], out: &mut BytesMut) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        integer::encode(flags | 1 << prefix, prefix, coded as u64, out);
        huffman::encode(text, coded, out);
    } else {
        integer::encode(flags, prefix, text.len() as u64, out);
        out.put_slice(text);
    }
}
