//! Where a client's sockets come from: one of each address family, and those that replace them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

type Make = dyn Fn(SocketAddr) -> io::Result<UdpSocket> + Send + Sync;

/// How to bind.
#[derive(Clone)]
pub(super) struct LocalSockets {
    /// Of IPv4 and IPv6.
    addresses: [SocketAddr; 2],
    make: Arc<Make>,
}

impl Default for LocalSockets {
    fn default() -> Self {
        let unspecified = |ip: IpAddr| SocketAddr::new(ip, 0);
        Self {
            addresses: [
                unspecified(Ipv4Addr::UNSPECIFIED.into()),
                unspecified(Ipv6Addr::UNSPECIFIED.into()),
            ],
            make: Arc::new(make),
        }
    }
}

impl LocalSockets {
    /// For the family of `address`.
    pub(super) fn set_address(&mut self, address: SocketAddr) {
        self.addresses[usize::from(address.is_ipv6())] = address;
    }

    pub(super) fn set_make(&mut self, make: impl Fn(SocketAddr) -> io::Result<UdpSocket> + Send + Sync + 'static) {
        self.make = Arc::new(make);
    }

    pub(super) fn bind(&self, family: usize) -> io::Result<UdpSocket> {
        (self.make)(self.addresses[family])
    }

    /// One beside that, which does not need its port.
    pub(super) fn bind_another(&self, family: usize) -> io::Result<UdpSocket> {
        (self.make)(SocketAddr::new(self.addresses[family].ip(), 0))
    }
}

fn make(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // The same port may be that of the other family's, too.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
