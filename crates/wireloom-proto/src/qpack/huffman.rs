//! The Huffman code of RFC 7541 appendix B, which QPACK shares (RFC 9204 section 4.1.2).
//!
//! The code is canonical: the lengths of its codes determine it, so they are the only table that is written down here.

use bytes::{BufMut, BytesMut};

const EOS: usize = 256;
/// The longest code, in bits.
const MAX_BITS: usize = 30;

/// The length of each symbol's code in bits, EOS last.
#[rustfmt::skip]
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

struct Code {
    /// By symbol, in the low bits.
    codes: [u32; 257],
    /// Symbols in the order of their codes.
    order: [u16; 257],
    /// By length: the first code, and its place in `order`.
    first: [u32; MAX_BITS + 1],
    place: [u16; MAX_BITS + 2],
}

const fn derive() -> Code {
    let mut code = Code {
        codes: [0; 257],
        order: [0; 257],
        first: [0; MAX_BITS + 1],
        place: [0; MAX_BITS + 2],
    };
    let (mut next, mut at, mut bits) = (0u32, 0usize, 1usize);
    while bits <= MAX_BITS {
        next <<= 1;
        code.first[bits] = next;
        code.place[bits] = at as u16;
        let mut symbol = 0;
        while symbol <= EOS {
            if BITS[symbol] as usize == bits {
                code.codes[symbol] = next;
                code.order[at] = symbol as u16;
                next += 1;
                at += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    code.place[MAX_BITS + 1] = at as u16;
    code
}

static CODE: Code = derive();

/// What the next `WINDOW` bits begin with: one or two whole symbols, or none where the first code is longer.
#[derive(Clone, Copy)]
struct Entry {
    symbols: [u8; 2],
    count: u8,
    bits: u8,
}

const WINDOW: usize = 12;
static WINDOWS: [Entry; 1 << WINDOW] = windows();

const fn windows() -> [Entry; 1 << WINDOW] {
    let code = derive();
    // First the windows with one symbol, then a second one where the rest of the window holds it whole.
    let mut one = [Entry {
        symbols: [0; 2],
        count: 0,
        bits: 0,
    }; 1 << WINDOW];
    let mut symbol = 0;
    while symbol < EOS {
        let bits = BITS[symbol] as usize;
        if bits <= WINDOW {
            let low = (code.codes[symbol] as usize) << (WINDOW - bits);
            let mut at = low;
            while at < low + (1 << (WINDOW - bits)) {
                one[at] = Entry {
                    symbols: [symbol as u8, 0],
                    count: 1,
                    bits: bits as u8,
                };
                at += 1;
            }
        }
        symbol += 1;
    }
    let mut both = one;
    let mut at = 0;
    while at < 1 << WINDOW {
        let bits = one[at].bits as usize;
        if bits > 0 {
            let second = one[(at << bits) & ((1 << WINDOW) - 1)];
            if second.count > 0 && bits + second.bits as usize <= WINDOW {
                both[at].symbols[1] = second.symbols[0];
                both[at].count = 2;
                both[at].bits += second.bits;
            }
        }
        at += 1;
    }
    both
}

/// The string is not Huffman-coded: it contains EOS, or its padding is longer than 7 bits or not all ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidHuffman;

/// The length of [`encode`]'s result, in bytes.
#[inline]
pub(crate) fn encoded_len(text: &[u8]) -> usize {
    text.iter()
        .map(|&byte| usize::from(BITS[usize::from(byte)]))
        .sum::<usize>()
        .div_ceil(8)
}

/// Appends the code of `text`, whose length [`encoded_len`] gave.
pub(crate) fn encode(text: &[u8], len: usize, out: &mut BytesMut) {
    let start = out.len();
    out.resize(start + len, 0);
    let mut out = &mut out[start..];
    // `held` bits in the low end of `bits`, never more than 31 + 30.
    let (mut bits, mut held) = (0u64, 0u32);
    for &byte in text {
        let len = u32::from(BITS[usize::from(byte)]);
        bits = bits << len | u64::from(CODE.codes[usize::from(byte)]);
        held += len;
        if held >= 32 {
            held -= 32;
            out.put_u32((bits >> held) as u32);
        }
    }
    if held > 0 {
        // Padding is the beginning of EOS, which is all ones.
        let last = (bits << (32 - held)) as u32 | u32::MAX >> held;
        out.put_slice(&last.to_be_bytes()[..held.div_ceil(8) as usize]);
    }
}

/// The room that [`decode`] takes for `len` bytes: 8/5 of them, and two more since each step writes two symbols and counts
/// those that are.
pub(crate) const fn decoded_room(len: usize) -> usize {
    len * 8 / 5 + 2
}

/// Appends the text that `input` encodes; at most 8/5 of its length. On an error `out` is left with a useless tail.
pub(crate) fn decode(input: &[u8], out: &mut BytesMut) -> Result<(), InvalidHuffman> {
    let start = out.len();
    out.resize(start + decoded_room(input.len()), 0);
    let written = decode_into(input, &mut out[start..])?;
    out.truncate(start + written);
    Ok(())
}

fn decode_into(input: &[u8], out: &mut [u8]) -> Result<usize, InvalidHuffman> {
    let mut written = 0;
    let mut input = input;
    // The next `held` bits of the input at the high end of `bits`, zeros below.
    let (mut bits, mut held) = (0u64, 0usize);
    loop {
        if let Some(chunk) = input.first_chunk::<8>() {
            // Whole bytes only, so that nothing has to be put back; what is read twice is the same.
            bits |= u64::from_be_bytes(*chunk) >> held;
            let taken = (64 - held) / 8;
            input = &input[taken..];
            held += taken * 8;
            bits &= u64::MAX << (64 - held);
        } else {
            while held <= 56
                && let Some((&byte, rest)) = input.split_first()
            {
                bits |= u64::from(byte) << (56 - held);
                held += 8;
                input = rest;
            }
        }
        if held < MAX_BITS {
            return finish(bits, held, out, written);
        }
        // While a whole code is certainly there, none has to be checked for the end.
        while held >= MAX_BITS {
            let entry = WINDOWS[(bits >> (64 - WINDOW)) as usize];
            let len = if entry.count > 0 {
                out[written] = entry.symbols[0];
                out[written + 1] = entry.symbols[1];
                written += usize::from(entry.count);
                usize::from(entry.bits)
            } else {
                let (symbol, len) = long(bits, WINDOW + 1, MAX_BITS).ok_or(InvalidHuffman)?;
                out[written] = symbol;
                written += 1;
                len
            };
            bits <<= len;
            held -= len;
        }
    }
}

/// The last `held` bits, fewer than the longest code has: whole codes, then padding.
fn finish(mut bits: u64, mut held: usize, out: &mut [u8], mut written: usize) -> Result<usize, InvalidHuffman> {
    while let Some((symbol, len)) = long(bits, 5, held) {
        out[written] = symbol;
        written += 1;
        bits <<= len;
        held -= len;
    }
    // Padding longer than 7 bits, or other than the beginning of EOS, is an error (RFC 7541 section 5.2).
    let ones = bits.leading_ones() as usize;
    if held <= 7 && ones == held {
        Ok(written)
    } else {
        Err(InvalidHuffman)
    }
}

/// The symbol at the high end of `bits` whose code has between `min` and `max` bits, and the length of its code. EOS, which
/// must not occur (RFC 7541 section 5.2), is none.
fn long(bits: u64, min: usize, max: usize) -> Option<(u8, usize)> {
    for len in min..=max.min(MAX_BITS) {
        let code = (bits >> (64 - len)) as u32;
        let count = u32::from(CODE.place[len + 1] - CODE.place[len]);
        let offset = code.checked_sub(CODE.first[len])?;
        if offset < count {
            let symbol = CODE.order[usize::from(CODE.place[len]) + offset as usize];
            return u8::try_from(symbol).ok().map(|symbol| (symbol, len));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        encode(text, encoded_len(text), &mut out);
        out
    }

    fn decoded(input: &[u8]) -> Result<Vec<u8>, InvalidHuffman> {
        let mut out = BytesMut::from(&b"before"[..]);
        decode(input, &mut out).map(|()| out[6..].to_vec())
    }

    #[test]
    fn the_code_is_the_one_of_the_rfc() {
        // RFC 7541 appendix B, samples of each region and both ends.
        for (symbol, code, bits) in [
            (0usize, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (32, 0x14, 6),
            (48, 0x0, 5),
            (92, 0x7fff0, 19),
            (97, 0x3, 5),
            (122, 0x7b, 7),
            (128, 0xfffe6, 20),
            (255, 0x3ff_ffee, 26),
            (256, 0x3fff_ffff, 30),
        ] {
            assert_eq!((CODE.codes[symbol], BITS[symbol]), (code, bits), "{symbol}");
        }
    }

    #[test]
    fn every_byte_and_every_pair_survive() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&all)), Ok(all));
        for a in 0..=255 {
            assert_eq!(decoded(&encoded(&[a])), Ok(vec![a]));
            for b in 0..=255 {
                assert_eq!(decoded(&encoded(&[a, b])), Ok(vec![a, b]));
                let text = [b'0', a, b, b'e', a];
                assert_eq!(decoded(&encoded(&text)), Ok(text.to_vec()));
            }
        }
    }

    #[test]
    fn padding() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        // '0' is 00000; the rest must be ones.
        assert_eq!(decoded(&[0b0000_0111]), Ok(vec![b'0']));
        assert_eq!(decoded(&[0b0000_0110]), Err(InvalidHuffman));
        assert_eq!(decoded(&[0b0000_0000]), Err(InvalidHuffman));
        // A whole byte of ones is 8 bits of padding.
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(InvalidHuffman));
        assert_eq!(decoded(&[0xff]), Err(InvalidHuffman));
    }

    #[test]
    fn eos_is_an_error_wherever_it_stands() {
        for before in 0..12 {
            for after in 0..12 {
                let mut bits: Vec<bool> = vec![false; 5 * before];
                bits.extend([true; 30]);
                bits.extend(vec![false; 5 * after]);
                while !bits.len().is_multiple_of(8) {
                    bits.push(true);
                }
                let bytes: Vec<u8> = bits
                    .chunks(8)
                    .map(|byte| byte.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
                    .collect();
                assert_eq!(decoded(&bytes), Err(InvalidHuffman), "{before} {after}");
            }
        }
    }
}
