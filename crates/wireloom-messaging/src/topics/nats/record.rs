//! What stands in a message of the stream: the publications that were accepted together.

use bytes::{Buf, BufMut as _, Bytes};

use crate::codec::Encoding;
use crate::data::Data;
use crate::topics::Epoch;

/// Of the layout.
const VERSION: u8 = 1;

/// Publications with offsets that follow each other. None at all begins an epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) epoch: Epoch,
    /// Of the first publication.
    pub(super) first: u64,
    /// Key and message.
    pub(super) entries: Vec<(String, Data)>,
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_u8(VERSION);
        put_short(&mut out, self.epoch.as_str());
        out.put_u64(self.first);
        for (key, data) in &self.entries {
            put_short(&mut out, key);
            put_data(&mut out, data);
        }
        out.into()
    }

    /// `None` if somebody else has written it.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let epoch = Epoch::new(&short(&mut bytes)?).ok()?;
        let first = bytes.try_get_u64().ok()?;
        let mut entries = Vec::new();
        while bytes.has_remaining() {
            entries.push((short(&mut bytes)?, data(&mut bytes)?));
        }
        first.checked_add(entries.len() as u64)?;
        (first > 0).then_some(Self { epoch, first, entries })
    }
}

/// An ephemeral message.
pub(super) fn encode_ephemeral(data: &Data) -> Bytes {
    let mut out = Vec::with_capacity(5 + data.bytes.len());
    put_data(&mut out, data);
    out.into()
}

pub(super) fn decode_ephemeral(mut bytes: Bytes) -> Option<Data> {
    data(&mut bytes)
}

fn put_short(out: &mut Vec<u8>, text: &str) {
    // Keys and epochs are at most 64 bytes.
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

fn short(bytes: &mut Bytes) -> Option<String> {
    let len = usize::from(bytes.try_get_u8().ok()?);
    if bytes.len() < len {
        return None;
    }
    String::from_utf8(bytes.split_to(len).to_vec()).ok()
}

fn put_data(out: &mut Vec<u8>, data: &Data) {
    out.put_u8(data.encoding.offset());
    // A message buffer is at most 4 GiB.
    out.put_u32(data.bytes.len() as u32);
    out.put_slice(&data.bytes);
}

fn data(bytes: &mut Bytes) -> Option<Data> {
    let encoding = match bytes.try_get_u8().ok()? {
        0 => Encoding::Binary,
        1 => Encoding::Utf8,
        2 => Encoding::Utf16,
        _ => return None,
    };
    let len = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    if bytes.len() < len {
        return None;
    }
    // A copy: a slice would keep the whole record for as long as one of its messages is kept.
    let bytes = Bytes::copy_from_slice(&bytes.split_to(len));
    Some(Data { encoding, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            epoch: Epoch::new("e1").expect("an epoch"),
            first: 7,
            entries: vec![
                (String::new(), Data::from("text")),
                ("key".to_owned(), Data::utf16("ä")),
                ("k".repeat(64), Data::EMPTY),
            ],
        }
    }

    #[test]
    fn records_come_back() {
        let bytes = record().encode();
        assert_eq!(Record::decode(bytes), Some(record()));
        assert_eq!(
            decode_ephemeral(encode_ephemeral(&Data::from("x"))),
            Some(Data::from("x"))
        );
    }

    #[test]
    fn what_others_have_written_is_none() {
        let bytes = record().encode();
        let empty = Record {
            entries: Vec::new(),
            ..record()
        };
        let without = empty.encode().len();
        for len in 0..bytes.len() {
            let whole = len == without || Record::decode(bytes.slice(..len)).is_some_and(|it| it.entries.len() < 3);
            assert!(whole || Record::decode(bytes.slice(..len)).is_none(), "{len}");
        }
        assert_eq!(Record::decode(Bytes::from_static(b"anything else")), None);
        assert_eq!(decode_ephemeral(Bytes::from_static(b"\x09\0\0\0\0")), None);
    }
}
