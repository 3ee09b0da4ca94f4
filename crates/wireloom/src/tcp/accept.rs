//! Accepting connections through every kind of failure.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::connection::KEEP_ALIVE;

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// How long the peer's TCP may leave what was sent unacknowledged, or take no more: whoever has vanished in the middle of an answer
/// would be retransmitted to for 15 minutes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNDELIVERED: Duration = Duration::from_secs(60);

/// How long to wait after a failure to accept.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// The last delay; zero while accepting works.
    delay: Duration,
}

impl Backoff {
    /// `None`: the failure concerned one connection, which is gone, so that the next can be tried at once. Otherwise the
    /// process or the machine lacks something (EMFILE, ENFILE, ENOBUFS, ENOMEM): trying again at once would spin, because
    /// the listener stays readable.
    fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut};
        if matches!(
            error.kind(),
            ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut
        ) {
            return None;
        }
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
        Some(self.delay)
    }

    fn succeeded(&mut self) {
        self.delay = Duration::ZERO;
    }
}

/// What accepts connections.
pub(super) trait Listen {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A connection that no runtime has.
    type Moving: Send + 'static;

    /// The next connection, and its peer's address if that is an IP address. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>> + Send;

    /// Settings of a new connection.
    fn prepare(stream: &Self::Stream);

    /// Takes a connection away from its runtime.
    fn leave(stream: Self::Stream) -> io::Result<Self::Moving>;

    /// Gives a connection to the runtime that this is called on.
    fn arrive(stream: Self::Moving) -> io::Result<Self::Stream>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;
    type Moving = std::net::TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, peer) = Self::accept(self).await?;
        Ok((stream, Some(peer)))
    }

    fn prepare(stream: &TcpStream) {
        // These fail only on a socket that is broken already, which the next read tells.
        let _ = stream.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
        let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNDELIVERED));
    }

    fn leave(stream: TcpStream) -> io::Result<std::net::TcpStream> {
        stream.into_std()
    }

    fn arrive(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        TcpStream::from_std(stream)
    }
}

#[cfg(unix)]
impl Listen for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;
    type Moving = std::os::unix::net::UnixStream;

    async fn accept(&self) -> io::Result<(tokio::net::UnixStream, Option<SocketAddr>)> {
        Ok((Self::accept(self).await?.0, None))
    }

    fn prepare(_: &tokio::net::UnixStream) {}

    fn leave(stream: tokio::net::UnixStream) -> io::Result<Self::Moving> {
        stream.into_std()
    }

    fn arrive(stream: Self::Moving) -> io::Result<tokio::net::UnixStream> {
        tokio::net::UnixStream::from_std(stream)
    }
}

/// The next connection. Cancel safe: no accepted connection is lost.
pub(super) async fn accept<L: Listen>(listener: &L, backoff: &mut Backoff) -> (L::Stream, Option<SocketAddr>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                backoff.succeeded();
                return accepted;
            }
            Err(error) => {
                let first = backoff.delay.is_zero();
                if let Some(delay) = backoff.failed(&error) {
                    // Once per trouble, not once per attempt.
                    if first {
                        tracing::warn!(%error, "cannot accept connections, will keep trying");
                    }
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux: out of file descriptors in the process.
    const EMFILE: i32 = 24;
    /// Linux: out of file descriptors in the machine.
    const ENFILE: i32 = 23;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn what_nobody_acknowledges_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut backoff = Backoff::default();
        let ((stream, _), _peer) = tokio::join!(accept(&listener, &mut backoff), TcpStream::connect(address));
        <TcpListener as Listen>::prepare(&stream);
        let timeout = SockRef::from(&stream).tcp_user_timeout();
        assert_eq!(timeout.expect("a socket"), Some(UNDELIVERED));
    }

    #[test]
    fn a_lack_of_descriptors_backs_off_and_recovers() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..10)
            .map(|_| backoff.failed(&io::Error::from_raw_os_error(EMFILE)))
            .collect();
        assert_eq!(delays[..3], [5, 10, 20].map(|ms| Some(Duration::from_millis(ms))));
        assert_eq!(delays[9], Some(LONGEST_DELAY));
        backoff.succeeded();
        assert_eq!(backoff.failed(&io::Error::from_raw_os_error(ENFILE)), Some(FIRST_DELAY));
    }

    #[test]
    fn a_connection_that_is_gone_costs_no_wait() {
        let mut backoff = Backoff::default();
        for kind in [
            ErrorKind::ConnectionAborted,
            ErrorKind::ConnectionReset,
            ErrorKind::Interrupted,
        ] {
            assert_eq!(backoff.failed(&kind.into()), None);
        }
        assert!(backoff.delay.is_zero());
    }
}
