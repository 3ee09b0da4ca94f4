//! What a server says first.

/// The protocol's major version.
pub(crate) const MAJOR: u8 = 2;

/// The server's first message: versions, limits and the sub-protocol (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AcceptConf<'a> {
    /// Of the protocol; 2 in all that this crate speaks.
    pub major: u8,
    /// Of the protocol; 0. Others are not to be refused for it.
    pub minor: u8,
    /// After this many milliseconds without a message the server drops the connection.
    pub read_timeout_ms: u32,
    /// The largest message that either side may send, header included, in bytes.
    pub message_buffer_size: u32,
    /// The name of what is spoken on top; empty means plain WebWire.
    pub sub_protocol: &'a [u8],
}

impl<'a> AcceptConf<'a> {
    /// Version 2.0 without a sub-protocol.
    pub const fn new(read_timeout_ms: u32, message_buffer_size: u32) -> Self {
        Self {
            major: MAJOR,
            minor: 0,
            read_timeout_ms,
            message_buffer_size,
            sub_protocol: &[],
        }
    }

    /// Names what is spoken on top.
    #[must_use]
    pub const fn with_sub_protocol(mut self, name: &'a [u8]) -> Self {
        self.sub_protocol = name;
        self
    }
}
