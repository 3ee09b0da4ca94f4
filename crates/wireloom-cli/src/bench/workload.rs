//! The workloads by name.

use clap::ValueEnum;

/// What is measured. Payloads that are not said otherwise have 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Bulk from the client on one stream
    #[value(name = "upload-1")]
    Upload1,
    /// Bulk from the client on 16 streams
    #[value(name = "upload-16")]
    Upload16,
    /// Bulk from the server on one stream
    #[value(name = "download-1")]
    Download1,
    /// Bulk from the server on 16 streams
    #[value(name = "download-16")]
    Download16,
    /// Round trips on one stream, one at a time
    EchoLatency,
    /// Echoes on a bidirectional stream each, 64 at a time
    EchoStreams,
    /// Unidirectional streams one after the other
    UniStreams,
    /// Datagrams of 64 bytes
    #[value(name = "datagrams-64")]
    Datagrams64,
    /// Datagrams of 1150 bytes
    #[value(name = "datagrams-1150")]
    Datagrams1150,
    /// Handshakes and sessions, 16 at a time
    Sessions,
    /// The server's memory for idle sessions
    IdleMemory,
    /// HTTP/3 requests on one connection, 32 at a time
    #[value(name = "http3-requests")]
    Http3Requests,
}

/// Which side's count is the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountedBy {
    Client,
    ServerBytes,
    ServerStreams,
    ServerDatagrams,
}

impl Workload {
    pub(super) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    pub(super) const fn counted_by(self) -> CountedBy {
        match self {
            Self::Upload1 | Self::Upload16 => CountedBy::ServerBytes,
            Self::UniStreams => CountedBy::ServerStreams,
            Self::Datagrams64 | Self::Datagrams1150 => CountedBy::ServerDatagrams,
            _ => CountedBy::Client,
        }
    }

    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Upload1 | Self::Upload16 | Self::Download1 | Self::Download16 => "Gbit/s",
            Self::EchoLatency => "us",
            Self::EchoStreams | Self::UniStreams => "streams/s",
            Self::Datagrams64 | Self::Datagrams1150 => "datagrams/s",
            Self::Sessions => "connections/s",
            Self::IdleMemory => "KiB/connection",
            Self::Http3Requests => "requests/s",
        }
    }

    pub(super) const fn better(self) -> &'static str {
        match self {
            Self::EchoLatency | Self::IdleMemory => "lower",
            _ => "higher",
        }
    }

    /// Bulk streams at once.
    pub(super) const fn streams(self) -> usize {
        match self {
            Self::Upload16 | Self::Download16 => 16,
            _ => 1,
        }
    }

    /// Stream slots of the server: they cost memory and time at the handshake.
    pub(super) const fn max_streams(self) -> u32 {
        match self {
            Self::Sessions | Self::IdleMemory => 100,
            _ => 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_format() {
        let names: Vec<String> = Workload::all().iter().map(|w| w.name()).collect();
        assert_eq!(
            names.join(" "),
            "upload-1 upload-16 download-1 download-16 echo-latency echo-streams uni-streams datagrams-64 datagrams-1150 \
             sessions idle-memory http3-requests"
        );
        for workload in Workload::all() {
            assert_eq!(Workload::parse(&workload.name()), Some(*workload));
        }
    }
}
