//! When a UDP socket can be read, and when one that was full can be written.

#[cfg(not(unix))]
pub(super) use elsewhere::Readiness;
#[cfg(unix)]
pub(super) use unix::Readiness;

#[cfg(unix)]
mod unix {
    use std::io;
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::task::{Context, Poll, ready};

    use quinn_udp::UdpSockRef;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Asks the kernel about reading only. Every packet that leaves a socket makes it writable anew, so whoever asks about
    /// that, too, as tokio's own `UdpSocket` does, has its thread woken by the packets that it has sent.
    pub(in super::super) struct Readiness {
        socket: AsyncFd<UdpSocket>,
        /// Once a send found the socket full, until it is not: a descriptor of its own, which is asked about writing.
        full: Option<AsyncFd<OwnedFd>>,
    }

    impl Readiness {
        pub(in super::super) fn new(socket: UdpSocket) -> io::Result<Self> {
            let socket = asked(socket, Interest::READABLE)?;
            Ok(Self { socket, full: None })
        }

        pub(in super::super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.socket.poll_read_ready(cx).map_ok(drop)
        }

        /// `WouldBlock` means that there is nothing more to read.
        pub(in super::super) fn try_read(&self, read: impl FnOnce(UdpSockRef<'_>) -> io::Result<()>) -> io::Result<()> {
            self.socket.try_io(Interest::READABLE, |socket| read(socket.into()))
        }

        /// After `WouldBlock`, [`Self::poll_writable`] says when to try again.
        pub(in super::super) fn try_write(
            &mut self,
            write: impl FnOnce(UdpSockRef<'_>) -> io::Result<()>,
        ) -> io::Result<()> {
            if self.full.is_some() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let socket = self.socket.get_ref();
            let written = write(socket.into());
            if matches!(&written, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                let descriptor = OwnedFd::from(socket.try_clone()?);
                self.full = Some(asked(descriptor, Interest::WRITABLE)?);
            }
            written
        }

        pub(in super::super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(cx)).map(drop)?;
                self.full = None;
            }
            Poll::Ready(Ok(()))
        }
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe, for what changes its descriptor; a socket keeps its own"
    )]
    fn asked<T: AsFd + AsRawFd>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
        AsyncFd::with_interest(descriptor, interest)
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::io;
    use std::task::{Context, Poll};

    use quinn_udp::UdpSockRef;
    use tokio::io::Interest;
    use tokio::net::UdpSocket;

    pub(in super::super) struct Readiness {
        socket: UdpSocket,
    }

    impl Readiness {
        pub(in super::super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
            let socket = UdpSocket::from_std(socket)?;
            Ok(Self { socket })
        }

        pub(in super::super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.socket.poll_recv_ready(cx)
        }

        /// `WouldBlock` means that there is nothing more to read.
        pub(in super::super) fn try_read(&self, read: impl FnOnce(UdpSockRef<'_>) -> io::Result<()>) -> io::Result<()> {
            self.socket.try_io(Interest::READABLE, || read((&self.socket).into()))
        }

        /// After `WouldBlock`, [`Self::poll_writable`] says when to try again.
        pub(in super::super) fn try_write(
            &mut self,
            write: impl FnOnce(UdpSockRef<'_>) -> io::Result<()>,
        ) -> io::Result<()> {
            self.socket.try_io(Interest::WRITABLE, || write((&self.socket).into()))
        }

        pub(in super::super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.socket.poll_send_ready(cx)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::task::{Context, Waker};

    use super::Readiness;

    /// A loopback interface never fills a socket, so what was full here has room at once; the kernel has to say so.
    #[tokio::test]
    async fn after_a_full_socket_it_is_known_when_there_is_room() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        socket.set_nonblocking(true).expect("a socket");
        let mut readiness = Readiness::new(socket).expect("registered");
        for _ in 0..2 {
            let full = readiness.try_write(|_| Err(ErrorKind::WouldBlock.into()));
            assert_eq!(full.expect_err("it is full").kind(), ErrorKind::WouldBlock);
            let full = readiness.try_write(|_| unreachable!("nothing is tried before there is room"));
            assert_eq!(full.expect_err("it is full").kind(), ErrorKind::WouldBlock);
            assert!(
                readiness
                    .poll_writable(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            poll_fn(|cx| readiness.poll_writable(cx)).await.expect("writable");
            readiness.try_write(|_| Ok(())).expect("written");
        }
    }
}
