//! Every error as one of `std::io`, for functions that return `io::Result`, as proxies and codecs do. The error itself is inside:
//! `io::Error::get_ref` and `downcast`.

use std::io::{self, ErrorKind};

use crate::body::BodyError;
use crate::client::ConnectError;
use crate::driver::RequestError;
use crate::error::{ConnectionError, DatagramError, ReadError, ReadToEndError, SessionError, WriteError};
use crate::identity::IdentityError;
use crate::server::ServeError;

impl ConnectionError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::ClosedByPeer { .. } | Self::AbortedByPeer { .. } => ErrorKind::ConnectionAborted,
            Self::Transport { .. } | Self::Protocol { .. } => ErrorKind::InvalidData,
            Self::Reset => ErrorKind::ConnectionReset,
            Self::TimedOut | Self::HandshakeTimedOut => ErrorKind::TimedOut,
            Self::VersionMismatch => ErrorKind::Unsupported,
            Self::LocallyClosed | Self::EndpointGone => ErrorKind::NotConnected,
        }
    }
}

impl SessionError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Closed { .. } => ErrorKind::ConnectionAborted,
            Self::LocallyClosed { .. } => ErrorKind::NotConnected,
            Self::Reset { .. } | Self::Stopped { .. } => ErrorKind::ConnectionReset,
            Self::Rejected { .. } => ErrorKind::ConnectionRefused,
            Self::PeerMisbehaved { .. } => ErrorKind::InvalidData,
            Self::Connection(lost) => lost.io_kind(),
        }
    }
}

impl ReadError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Reset(_) => ErrorKind::ConnectionReset,
            Self::Stopped => ErrorKind::InvalidInput,
            Self::Session(ended) => ended.io_kind(),
        }
    }
}

impl WriteError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Stopped(_) => ErrorKind::BrokenPipe,
            Self::Finished => ErrorKind::InvalidInput,
            Self::Session(ended) => ended.io_kind(),
        }
    }
}

impl ReadToEndError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::TooLong => ErrorKind::FileTooLarge,
            Self::Read(error) => error.io_kind(),
        }
    }
}

impl DatagramError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::Session(ended) => ended.io_kind(),
        }
    }
}

impl RequestError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled(_) => ErrorKind::ConnectionReset,
            Self::Malformed(_) => ErrorKind::InvalidData,
            Self::Connection(lost) => lost.io_kind(),
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Body => ErrorKind::Other,
        }
    }
}

impl BodyError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Incomplete(_) => ErrorKind::UnexpectedEof,
            Self::Malformed(_) => ErrorKind::InvalidData,
        }
    }
}

impl ConnectError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::InvalidUrl(_) | Self::InvalidRequest(_) => ErrorKind::InvalidInput,
            Self::Resolve { source, .. } | Self::Socket(source) => source.kind(),
            Self::Tls(_) => ErrorKind::Other,
            Self::Unreachable => ErrorKind::HostUnreachable,
            Self::Certificate(_) => ErrorKind::InvalidData,
            Self::Connection(lost) => lost.io_kind(),
            Self::NotWebTransport => ErrorKind::Unsupported,
            Self::Rejected(_) => ErrorKind::ConnectionRefused,
            Self::Session(ended) => ended.io_kind(),
            Self::NoMoreSessions => ErrorKind::ResourceBusy,
        }
    }
}

impl ServeError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) | Self::NoIdentity => ErrorKind::InvalidInput,
            Self::Bind { source, .. } | Self::Io(source) => source.kind(),
            Self::Tls(_) => ErrorKind::Other,
            Self::EndpointLost => ErrorKind::NotConnected,
        }
    }
}

impl IdentityError {
    fn io_kind(&self) -> ErrorKind {
        match self {
            Self::File { source, .. } => source.kind(),
            Self::Pem(_)
            | Self::NoCertificate
            | Self::NoPrivateKey
            | Self::MalformedCertificate(_)
            | Self::UnusableKey(_)
            | Self::KeyMismatch => ErrorKind::InvalidData,
            Self::InvalidName(_) | Self::NoName | Self::InvalidValidity(_) => ErrorKind::InvalidInput,
            Self::Generate(_) => ErrorKind::Other,
        }
    }
}

macro_rules! into_io {
    ($($type:ty),*) => {$(
        impl From<$type> for io::Error {
            fn from(error: $type) -> Self {
                Self::new(error.io_kind(), error)
            }
        }
    )*};
}

into_io!(
    ConnectionError,
    SessionError,
    ReadError,
    WriteError,
    ReadToEndError,
    DatagramError
);
into_io!(RequestError, BodyError, ConnectError, ServeError, IdentityError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_that_of_what_happened_and_the_error_is_inside() {
        let read = || -> io::Result<()> {
            Err(ReadToEndError::Read(ReadError::Session(
                ConnectionError::TimedOut.into(),
            )))?
        };
        let error = read().expect_err("it timed out");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.downcast::<ReadToEndError>().is_ok());
        let resolve = ConnectError::Resolve {
            host: "a".to_owned(),
            source: ErrorKind::NotFound.into(),
        };
        assert_eq!(io::Error::from(resolve).kind(), ErrorKind::NotFound);
    }

    #[test]
    fn codes_of_the_application() {
        let closed = SessionError::Closed {
            code: 7,
            reason: "done".to_owned(),
        };
        assert_eq!((closed.code(), closed.reason()), (Some(7), Some("done")));
        let lost = SessionError::from(ConnectionError::Reset);
        assert_eq!((lost.code(), lost.reason()), (None, None));
        assert_eq!(ReadError::Reset(Some(8)).code(), Some(8));
        assert_eq!(
            (ReadError::Stopped.code(), ReadError::Session(closed.clone()).code()),
            (None, None)
        );
        assert_eq!(WriteError::Stopped(Some(9)).code(), Some(9));
        assert_eq!(
            (WriteError::Finished.code(), WriteError::Session(closed).code()),
            (None, None)
        );
    }
}
