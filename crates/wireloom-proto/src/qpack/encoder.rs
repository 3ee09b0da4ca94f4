//! The sending half: field sections, insertions on the encoder stream, and the peer's decoder stream (RFC 9204 section 2.1).

use std::hash::{Hash, Hasher};

use bytes::{BufMut, Bytes, BytesMut};
use rustc_hash::FxHasher;

use super::decoder_stream::{DecoderStreamError, Instruction};
use super::encoder_stream::{self, Name};
use super::prefix::{self, Prefix};
use super::sections::{Sections, Sent};
use super::static_table::{self, Match};
use super::table::{Entry, Table};
use super::{FieldRef, integer, string};
use crate::stream_id::StreamId;

/// The sending half of QPACK on a connection.
///
/// Its owner tells what the peer announced ([`Encoder::set_peer_limits`]), reads the peer's decoder stream into
/// [`Encoder::recv_decoder_stream`], and after [`Encoder::encode`] writes what [`Encoder::take_instructions`] gives on the
/// encoder stream before it writes the section.
///
/// # What goes into the table
///
/// A field that is neither in the static table nor sensitive is inserted when it is sent for the second time, so that a
/// connection with one request pays for nothing. Credentials (`authorization`, `proxy-authorization`, `cookie`, `set-cookie`)
/// never are: whoever can make this end send fields of his choice on the same connection could guess them by the length of
/// what is sent (RFC 9204 section 7.1). An entry leaves only when its insertion is acknowledged and no section that the peer has
/// not acknowledged refers to it.
///
/// # Blocking
///
/// Unless allowed otherwise, only acknowledged entries are referred to: no section ever waits for the encoder stream.
///
/// # Memory
///
/// At most about twice the capacity in use for the table, 6 KiB for unacknowledged sections, and 1 KiB; nothing before the
/// peer allowed a table and a field was sent.
#[derive(Debug, Default)]
pub struct Encoder {
    table: Table,
    /// What the table may take, in bytes; what is used is the smaller of it and the peer's limit.
    own_capacity: usize,
    /// As above, streams.
    own_blocked: usize,
    /// The capacity that will be set before the first insertion; 0 as long as there can be none.
    capacity: usize,
    max_blocked: usize,
    /// MaxEntries by the peer's announcement, which the prefix is encoded with.
    max_entries: u64,
    sections: Sections,
    /// Known Received Count: the insertions that the peer has acknowledged (section 2.1.4).
    known: u64,
    /// Fields that were sent lately as literals, by their hashes.
    seen: Vec<u32>,
    /// The beginning of an instruction on the decoder stream.
    partial: Vec<u8>,
    out: BytesMut,
}

/// How many fields are remembered as sent once.
const SEEN: usize = 64;

/// What the table has for a field.
#[derive(Default)]
struct Found {
    /// The newest entry with this name and value that may be referred to.
    exact: Option<u64>,
    /// Whether that will leave soon.
    is_leaving: bool,
    /// Whether there is an entry with this name and value that may not be referred to yet.
    is_pending: bool,
    /// The newest entry with this name that may be referred to.
    name: Option<u64>,
    /// The newest entry with this name, whether or not.
    any_name: Option<u64>,
}

/// A section in the making.
struct Draft {
    /// Insertions from before it, from which its indices count.
    base: u64,
    /// Entries below this may be referred to.
    usable: u64,
    may_block: bool,
    required: u64,
    oldest: u64,
}

impl Draft {
    /// Notes a reference.
    fn refer(&mut self, index: u64) {
        self.required = self.required.max(index + 1);
        self.oldest = self.oldest.min(index);
    }
}

impl Encoder {
    /// An encoder that uses no dynamic table, whatever the peer would allow.
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder whose table takes at most `capacity` bytes, and which risks that at most `blocked` streams wait for the
    /// encoder stream at once, both within the peer's limits. With `blocked` above 0 the peer's flow control may hold sections
    /// up for as long as it holds up the encoder stream.
    pub fn with_table(capacity: u32, blocked: u16) -> Self {
        Self {
            own_capacity: capacity as usize,
            own_blocked: usize::from(blocked),
            ..Self::default()
        }
    }

    /// The peer's SETTINGS_QPACK_MAX_TABLE_CAPACITY (bytes) and SETTINGS_QPACK_BLOCKED_STREAMS. To be called once; before
    /// that both are 0 (RFC 9204 section 5).
    pub fn set_peer_limits(&mut self, max_capacity: u64, max_blocked: u64) {
        let within = |own: usize, limit: u64| usize::try_from(limit).map_or(own, |limit| own.min(limit));
        self.capacity = within(self.own_capacity, max_capacity);
        self.max_blocked = within(self.own_blocked, max_blocked);
        self.max_entries = prefix::max_entries(max_capacity);
        if self.max_entries == 0 {
            self.capacity = 0;
        }
    }

    /// Appends the field section of `fields`, to be sent on `stream`. What [`Encoder::take_instructions`] gives then is to be
    /// written before it. A section that is not sent after all leaves its entries in the table for good.
    ///
    /// Names must be in lower case and values legal; that is the caller's duty (`h3::headers` does it). Takes time in
    /// proportion to the fields times the entries of the table.
    pub fn encode<'a>(&mut self, stream: StreamId, fields: impl IntoIterator<Item = FieldRef<'a>>, out: &mut BytesMut) {
        // Most sections need no more than this prefix: Required Insert Count 0, Base 0.
        let start = out.len();
        out.put_u16(0);
        if self.capacity == 0 || !self.sections.may_refer(stream) {
            return fields.into_iter().for_each(|field| plain(field, None, out));
        }
        let may_block = self.sections.may_block(stream, self.known, self.max_blocked);
        let mut draft = Draft {
            base: self.table.inserted(),
            usable: if may_block { u64::MAX } else { self.known },
            may_block,
            required: 0,
            oldest: u64::MAX,
        };
        for field in fields {
            self.line(field, &mut draft, out);
        }
        if draft.required == 0 {
            return;
        }
        self.sections.push(Sent {
            stream,
            required: draft.required,
            oldest: draft.oldest,
        });
        let mut prefix = BytesMut::with_capacity(8);
        let Draft { base, required, .. } = draft;
        Prefix { required, base }.encode(self.max_entries, &mut prefix);
        if prefix.len() == 2 {
            out[start..start + 2].copy_from_slice(&prefix);
        } else {
            let lines = out.split_off(start + 2);
            out.truncate(start);
            out.extend_from_slice(&prefix);
            out.extend_from_slice(&lines);
        }
    }

    /// Reads the peer's decoder stream, cut anywhere; takes all of `input`.
    ///
    /// After an error the encoder must not be used again.
    pub fn recv_decoder_stream(&mut self, input: &mut Bytes) -> Result<(), DecoderStreamError> {
        let input = std::mem::take(input);
        let mut partial = std::mem::take(&mut self.partial);
        if partial.is_empty() {
            self.partial = self.instructions(&input)?.to_vec();
        } else {
            partial.extend_from_slice(&input);
            self.partial = self.instructions(&partial)?.to_vec();
        }
        Ok(())
    }

    /// Carries out all whole instructions; what is left is shorter than one, at most 10 bytes.
    fn instructions<'a>(&mut self, mut input: &'a [u8]) -> Result<&'a [u8], DecoderStreamError> {
        while let Some(instruction) = Instruction::take(&mut input)? {
            match instruction {
                // "If an encoder receives a Section Acknowledgment instruction referring to a stream on which every encoded
                // field section with a non-zero Required Insert Count has already been acknowledged, this MUST be treated as
                // a connection error of type QPACK_DECODER_STREAM_ERROR" (section 4.4.1).
                Instruction::SectionAcknowledgment(stream) => {
                    let sent = self
                        .sections
                        .acknowledge(stream)
                        .ok_or(DecoderStreamError("acknowledgement of a section that needs none"))?;
                    self.known = self.known.max(sent.required);
                }
                // Without a table nothing can be referred to.
                Instruction::StreamCancellation(_) if self.capacity == 0 => {}
                Instruction::StreamCancellation(stream) => self.sections.cancel(stream),
                // "An encoder that receives an Increment field equal to zero, or one that increases the Known Received Count
                // beyond what the encoder has sent, MUST treat this as a connection error of type
                // QPACK_DECODER_STREAM_ERROR" (section 4.4.3).
                Instruction::InsertCountIncrement(count) => {
                    if count == 0 || count > self.table.inserted() - self.known {
                        return Err(DecoderStreamError("increment beyond what was inserted, or of 0"));
                    }
                    self.known += count;
                }
            }
        }
        Ok(input)
    }

    /// What is to be written on the encoder stream, empty if nothing is. Never more than the table's capacity and a little is
    /// under way, since what the peer has not acknowledged cannot leave the table.
    pub fn take_instructions(&mut self) -> Bytes {
        std::mem::take(&mut self.out).freeze()
    }

    /// Sections that the peer has not acknowledged.
    #[cfg(feature = "__testing")]
    pub(crate) fn unacknowledged(&self) -> usize {
        self.sections.len()
    }

    /// Nothing that was inserted is unacknowledged.
    #[cfg(feature = "__testing")]
    pub(crate) fn assert_acknowledged(&self) {
        assert_eq!(self.known, self.table.inserted());
    }

    fn line(&mut self, field: FieldRef<'_>, draft: &mut Draft, out: &mut BytesMut) {
        let is_static = matches!(static_table::find(field.name, field.value), Match::Exact(_));
        if is_static || field.sensitive {
            return plain(field, None, out);
        }
        let found = self.find(field, draft.usable);
        if let Some(index) = found.exact {
            draft.refer(index);
            if found.is_leaving && !found.is_pending {
                self.duplicate(index, draft);
            }
            return indexed(index, draft.base, out);
        }
        let size = field.size() as usize;
        let is_wanted = !found.is_pending && self.is_worth_inserting(field);
        if is_wanted && draft.may_block && self.may_insert(size, draft) {
            let index = self.insert(field, found.any_name);
            draft.refer(index);
            return indexed(index, draft.base, out);
        }
        // The line first: it may refer to the name of an entry, which then has to stay.
        self.literal(field, &found, draft, out);
        if is_wanted && !draft.may_block && self.may_insert(size, draft) {
            self.insert(field, found.any_name);
        }
    }

    fn find(&self, field: FieldRef<'_>, usable: u64) -> Found {
        let mut found = Found::default();
        let mut newer = 0;
        for (index, entry) in self.table.iter() {
            newer += entry.size();
            if entry.name() != field.name {
                continue;
            }
            found.any_name = found.any_name.or(Some(index));
            let is_usable = index < usable;
            if is_usable {
                found.name = found.name.or(Some(index));
            }
            if entry.value() == field.value {
                if is_usable {
                    found.exact = Some(index);
                    found.is_leaving = newer > self.table.capacity() / 4 * 3;
                    break;
                }
                found.is_pending = true;
            }
        }
        found
    }

    /// Whether the field was sent before and may be kept.
    fn is_worth_inserting(&mut self, field: FieldRef<'_>) -> bool {
        if matches!(
            field.name,
            b"authorization" | b"proxy-authorization" | b"cookie" | b"set-cookie"
        ) {
            return false;
        }
        // More than half of the table would drive out too much.
        if field.size() > self.capacity as u64 / 2 {
            return false;
        }
        let mut hasher = FxHasher::default();
        (field.name, field.value).hash(&mut hasher);
        let hash = (hasher.finish() >> 32) as u32;
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN];
        }
        let slot = &mut self.seen[hash as usize % SEEN];
        std::mem::replace(slot, hash) == hash
    }

    /// Whether an entry of `size` bytes can be made room for by entries that may leave.
    fn may_insert(&mut self, size: usize, draft: &Draft) -> bool {
        if self.table.capacity() == 0 {
            self.table.set_capacity(self.capacity);
            encoder_stream::write_capacity(self.capacity, &mut self.out);
        }
        // "A dynamic table entry cannot be evicted immediately after insertion, even if it has never been referenced. Once the
        // insertion of a dynamic table entry has been acknowledged and there are no outstanding references to the entry in
        // unacknowledged representations, the entry becomes evictable" (section 2.1.1).
        let limit = self.known.min(self.sections.oldest()).min(draft.oldest);
        self.table.fits(size, limit)
    }

    fn insert(&mut self, field: FieldRef<'_>, same_name: Option<u64>) -> u64 {
        let index = self.table.inserted();
        let name = match (static_table::find(field.name, field.value), same_name) {
            (Match::Exact(entry) | Match::Name(entry), _) => Name::Static(entry as u64),
            (Match::None, Some(entry)) => Name::Dynamic(index - entry - 1),
            (Match::None, None) => Name::Literal(field.name),
        };
        encoder_stream::write_insert(name, field.value, &mut self.out);
        let fitted = self.table.insert(Entry::new(field.name, field.value));
        debug_assert!(fitted, "may_insert said so");
        index
    }

    /// Keeps an entry that is used by a younger copy (section 2.1.1.1), which later sections will refer to.
    fn duplicate(&mut self, index: u64, draft: &Draft) {
        let Some(entry) = self.table.get(index) else { return };
        let copy = entry.clone();
        if self.may_insert(copy.size(), draft) {
            encoder_stream::write_duplicate(self.table.inserted() - index - 1, &mut self.out);
            self.table.insert(copy);
        }
    }

    fn literal(&self, field: FieldRef<'_>, found: &Found, draft: &mut Draft, out: &mut BytesMut) {
        let in_static = !matches!(static_table::find(field.name, field.value), Match::None);
        let name = found.name.filter(|_| !in_static);
        if let Some(index) = name {
            draft.refer(index);
        }
        plain(field, name.map(|index| (index, draft.base)), out);
    }
}

/// A reference to an entry of the dynamic table (sections 4.5.2 and 4.5.3).
fn indexed(index: u64, base: u64, out: &mut BytesMut) {
    match index.checked_sub(base) {
        Some(post_base) => integer::encode(0x10, 4, post_base, out),
        None => integer::encode(0x80, 6, base - index - 1, out),
    }
}

/// A static reference or a literal, whose name may be that of a dynamic entry, given with the Base.
fn plain(field: FieldRef<'_>, dynamic: Option<(u64, u64)>, out: &mut BytesMut) {
    // A sensitive field stays a literal so that the N bit goes with it (section 7.1.3).
    let sensitive = u8::from(field.sensitive);
    match (static_table::find(field.name, field.value), dynamic) {
        (Match::Exact(index), _) if !field.sensitive => return integer::encode(0xc0, 6, index as u64, out),
        (Match::Exact(index) | Match::Name(index), _) => {
            integer::encode(0x50 | sensitive << 5, 4, index as u64, out);
        }
        (Match::None, Some((index, base))) => match index.checked_sub(base) {
            Some(post_base) => integer::encode(sensitive << 3, 3, post_base, out),
            None => integer::encode(0x40 | sensitive << 5, 4, base - index - 1, out),
        },
        (Match::None, None) => string::encode(0x20 | sensitive << 4, 3, field.name, out),
    }
    string::encode(0, 7, field.value, out);
}

#[cfg(test)]
mod tests;
