//! The instructions of the encoder stream (RFC 9204 section 4.3): insertions into the table.

use bytes::BytesMut;

use super::integer::{self, IntegerError};
use super::static_table::TABLE;
use super::string::{self, Text};
use super::table::{ENTRY_OVERHEAD, Entry, Table};
use crate::codes::Code;

/// The peer's encoder stream breaks the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encoder stream: {0}")]
pub struct EncoderStreamError(&'static str);

impl EncoderStreamError {
    pub(super) const EVICTED: Self = Self("an entry was evicted that a section refers to");

    /// The connection error.
    pub const fn code(self) -> Code {
        Code::QPACK_ENCODER_STREAM_ERROR
    }
}

/// The name of a new entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    /// An index of the static table.
    Static(u64),
    /// A relative index of the dynamic table.
    Dynamic(u64),
    /// The name itself.
    Literal(&'a [u8]),
}

const TOO_LARGE: EncoderStreamError = EncoderStreamError("an entry larger than the capacity");

/// Carries out the instruction at the front of `input`. `Ok(false)`: it is incomplete, and `input` unchanged.
///
/// An entry that cannot fit is an error as soon as a length tells so; an incomplete instruction is therefore shorter than four
/// times the capacity.
pub(super) fn apply(input: &mut &[u8], table: &mut Table, max_capacity: usize) -> Result<bool, EncoderStreamError> {
    let mut rest = *input;
    match instruction(&mut rest, table, max_capacity) {
        Ok(()) => {
            *input = rest;
            Ok(true)
        }
        Err(Failure::Incomplete) => Ok(false),
        Err(Failure::Illegal(error)) => Err(error),
    }
}

enum Failure {
    Incomplete,
    Illegal(EncoderStreamError),
}

impl From<EncoderStreamError> for Failure {
    fn from(error: EncoderStreamError) -> Self {
        Self::Illegal(error)
    }
}

impl From<IntegerError> for Failure {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::Incomplete => Self::Incomplete,
            IntegerError::TooLarge => EncoderStreamError("integer too large").into(),
        }
    }
}

fn instruction(input: &mut &[u8], table: &mut Table, max_capacity: usize) -> Result<(), Failure> {
    let first = *input.first().ok_or(Failure::Incomplete)?;
    if first & 0xe0 == 0x20 {
        // Set Dynamic Table Capacity. "The decoder MUST treat a new dynamic table capacity value that exceeds this limit as a
        // connection error of type QPACK_ENCODER_STREAM_ERROR" (section 4.3.1).
        let capacity = usize::try_from(integer::decode(input, 5)?)
            .ok()
            .filter(|&capacity| capacity <= max_capacity)
            .ok_or(EncoderStreamError("capacity above the announced limit"))?;
        table.set_capacity(capacity);
        return Ok(());
    }
    if first & 0xe0 == 0 {
        // Duplicate (section 4.3.4).
        let index = integer::decode(input, 5)?;
        let old = table
            .newest(index)
            .ok_or(EncoderStreamError("duplicate of an entry that is not there"))?;
        let copy = old.clone();
        return insert(table, copy);
    }
    let most = table.capacity().checked_sub(ENTRY_OVERHEAD).ok_or(TOO_LARGE)?;
    let (mut name_room, mut value_room) = (BytesMut::new(), BytesMut::new());
    if first & 0x80 != 0 {
        // Insert with Name Reference (section 4.3.2). "If the decoder encounters a reference in an encoder instruction to a
        // dynamic table entry that has already been evicted, it MUST treat this as a connection error of type
        // QPACK_ENCODER_STREAM_ERROR" (section 2.2.3), and an invalid static index likewise (section 3.1).
        let is_static = first & 0x40 != 0;
        let index = integer::decode(input, 6)?;
        let name = if is_static {
            let entry = usize::try_from(index).ok().and_then(|index| TABLE.get(index));
            entry.map(|(name, _)| name.as_bytes())
        } else {
            table.newest(index).map(Entry::name)
        };
        let name = name.ok_or(EncoderStreamError("name of an entry that is not there"))?;
        let most = most.checked_sub(name.len()).ok_or(TOO_LARGE)?;
        let value = take(input, 7, most)?;
        let entry = Entry::new(name, decoded(value, &mut value_room)?);
        return insert(table, entry);
    }
    // Insert with Literal Name (section 4.3.3).
    let name = take(input, 5, most)?;
    let value = take(input, 7, most - name.least())?;
    let entry = Entry::new(decoded(name, &mut name_room)?, decoded(value, &mut value_room)?);
    insert(table, entry)
}

fn take<'a>(input: &mut &'a [u8], prefix: u32, most: usize) -> Result<Text<'a>, Failure> {
    Text::take(input, prefix, most).map_err(|error| match error {
        IntegerError::Incomplete => Failure::Incomplete,
        IntegerError::TooLarge => TOO_LARGE.into(),
    })
}

/// What `text` stands for, in `room` if it is not itself that: what is short on the wire and long in the table is copied once.
fn decoded<'a>(text: Text<'a>, room: &'a mut BytesMut) -> Result<&'a [u8], Failure> {
    if !text.coded {
        return Ok(text.bytes);
    }
    text.decode(room)
        .map_err(|_| EncoderStreamError("invalid Huffman code"))?;
    Ok(room)
}

/// "It is an error if the encoder attempts to add an entry that is larger than the dynamic table capacity; the decoder MUST
/// treat this as a connection error of type QPACK_ENCODER_STREAM_ERROR" (section 3.2.2).
fn insert(table: &mut Table, entry: Entry) -> Result<(), Failure> {
    if table.insert(entry) {
        Ok(())
    } else {
        Err(TOO_LARGE.into())
    }
}

/// Set Dynamic Table Capacity.
pub(super) fn write_capacity(capacity: usize, out: &mut BytesMut) {
    integer::encode(0x20, 5, capacity as u64, out);
}

/// Insert with Name Reference or with Literal Name.
pub(super) fn write_insert(name: Name<'_>, value: &[u8], out: &mut BytesMut) {
    match name {
        Name::Static(index) => integer::encode(0xc0, 6, index, out),
        Name::Dynamic(index) => integer::encode(0x80, 6, index, out),
        Name::Literal(name) => string::encode(0x40, 5, name, out),
    }
    string::encode(0, 7, value, out);
}

/// Duplicate of the entry with this relative index.
pub(super) fn write_duplicate(index: u64, out: &mut BytesMut) {
    integer::encode(0, 5, index, out);
}
