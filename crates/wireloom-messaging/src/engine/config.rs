//! What a server grants each connection.

use std::time::Duration;

use crate::codec::AcceptConf;

/// Of a concurrency limit: none.
pub const UNLIMITED: usize = usize::MAX;

/// The default of [`ConnectionConfig::read_timeout`].
pub const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The default of [`ConnectionConfig::message_buffer_size`].
pub const DEFAULT_MESSAGE_BUFFER: u32 = 8192;

/// The least [`ConnectionConfig::message_buffer_size`].
pub const MIN_MESSAGE_BUFFER: u32 = 32;

/// What a server grants a connection, and tells its client in the first message (section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// A connection without a message for this long is dropped; a message may take as long again to arrive. Default: 60 s,
    /// which also stands for anything below one second. At most 2^32-1 ms.
    pub read_timeout: Duration,
    /// The largest message that either end may send, header included, in bytes. Clients of the original need exactly the
    /// size that they are configured for. Default: 8192. At least 32.
    pub message_buffer_size: u32,
    /// The name of what is spoken on top; clients of the original need exactly theirs. Default: none.
    pub sub_protocol: String,
    /// How many handlers of requests and signals run at once; beyond, messages wait in the transport. 0 and 1 keep them in
    /// order, one after the other. Default: 1. [`UNLIMITED`]: as many as the client sends.
    pub concurrency: usize,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            read_timeout: DEFAULT_READ_TIMEOUT,
            message_buffer_size: DEFAULT_MESSAGE_BUFFER,
            sub_protocol: String::new(),
            concurrency: 1,
        }
    }
}

impl ConnectionConfig {
    /// With every value within its bounds.
    #[cfg(feature = "server")]
    #[must_use]
    pub(crate) fn normalised(mut self) -> Self {
        if self.read_timeout < Duration::from_secs(1) {
            self.read_timeout = DEFAULT_READ_TIMEOUT;
        }
        self.read_timeout = self.read_timeout.min(Duration::from_millis(u64::from(u32::MAX)));
        self.message_buffer_size = self.message_buffer_size.max(MIN_MESSAGE_BUFFER);
        self.concurrency = self.concurrency.max(1);
        self
    }

    /// The first message of every connection.
    pub fn accept_conf(&self) -> AcceptConf<'_> {
        let timeout = u32::try_from(self.read_timeout.as_millis()).unwrap_or(u32::MAX);
        AcceptConf::new(timeout, self.message_buffer_size).with_sub_protocol(self.sub_protocol.as_bytes())
    }
}
