//! The static table (RFC 9204 appendix A) and the way back from a field to its index.

/// Name and value by index.
pub(super) const TABLE: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    (
        "strict-transport-security",
        "max-age=31536000; includesubdomains; preload",
    ),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    (
        "content-security-policy",
        "script-src 'none'; object-src 'none'; base-uri 'none'",
    ),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// How much of a field the table knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// Name and value.
    Exact(usize),
    /// The name.
    Name(usize),
    /// Nothing.
    None,
}

const NONE: u8 = u8::MAX;
const SLOTS: usize = 256;

/// Open addressing over the first index of each name; `NEXT` chains the further entries of the same name.
const INDEX: ([u8; SLOTS], [u8; TABLE.len()]) = build();

/// Spreads the names of the table well; length and three bytes are enough to tell nearly all of them apart.
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let mixed = (len as u32)
        .wrapping_mul(0x9e37)
        .wrapping_add((name[0] as u32).wrapping_mul(0x85eb))
        .wrapping_add((name[len - 1] as u32).wrapping_mul(0xc2b3))
        .wrapping_add((name[len / 2] as u32).wrapping_mul(0x27d5));
    (mixed >> 7) as usize % SLOTS
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

const fn build() -> ([u8; SLOTS], [u8; TABLE.len()]) {
    let mut heads = [NONE; SLOTS];
    let mut next = [NONE; TABLE.len()];
    // Backwards, so that each chain ends up in ascending order with the smallest index as its head.
    let mut i = TABLE.len();
    while i > 0 {
        i -= 1;
        let name = TABLE[i].0.as_bytes();
        let mut at = slot(name);
        while heads[at] != NONE && !same(TABLE[heads[at] as usize].0.as_bytes(), name) {
            at = (at + 1) % SLOTS;
        }
        next[i] = heads[at];
        heads[at] = i as u8;
    }
    (heads, next)
}

/// The best match for a field.
pub(super) fn find(name: &[u8], value: &[u8]) -> Match {
    static HEADS: [u8; SLOTS] = INDEX.0;
    static NEXT: [u8; TABLE.len()] = INDEX.1;
    let mut at = slot(name);
    // Ends: a third of the slots is in use.
    while HEADS[at] != NONE {
        let head = usize::from(HEADS[at]);
        if TABLE[head].0.as_bytes() == name {
            let mut entry = head;
            loop {
                if TABLE[entry].1.as_bytes() == value {
                    return Match::Exact(entry);
                }
                if NEXT[entry] == NONE {
                    return Match::Name(head);
                }
                entry = usize::from(NEXT[entry]);
            }
        }
        at = (at + 1) % SLOTS;
    }
    Match::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found() {
        for (i, (name, value)) in TABLE.iter().enumerate() {
            assert_eq!(find(name.as_bytes(), value.as_bytes()), Match::Exact(i));
            let Match::Name(head) = find(name.as_bytes(), b"?") else {
                panic!("{name}")
            };
            assert_eq!(TABLE[head].0, *name);
            assert!(head <= i);
        }
        assert_eq!(find(b"x-unknown", b""), Match::None);
        assert_eq!(find(b"", b""), Match::None);
    }
}
