//! UDP and TCP on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Another process may hold the TCP port that the system chose for UDP: then try another.
const PORT_ATTEMPTS: usize = 16;

/// What is served on one address.
pub(super) struct Sockets {
    pub(super) udp: Option<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
}

impl Sockets {
    pub(super) fn port(&self) -> Option<u16> {
        Some(self.udp.as_ref()?.local_addr().ok()?.port())
    }
}

/// Binds `address` for both. Port 0 finds one that is free for both; `[::]` takes IPv4 too.
pub(super) fn bind(address: SocketAddr) -> io::Result<Sockets> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let udp = UdpSocket::from(socket(address, Type::DGRAM, Protocol::UDP)?);
        let tcp = socket(udp.local_addr()?, Type::STREAM, Protocol::TCP);
        match tcp {
            Ok(tcp) => {
                tcp.listen(1024)?;
                return Ok(Sockets {
                    udp: Some(udp),
                    tcp: Some(tcp.into()),
                });
            }
            Err(_) if address.port() == 0 && attempts < PORT_ATTEMPTS => {}
            Err(e) => return Err(e),
        }
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // The wildcard means every address, whatever the system's default.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if kind == Type::STREAM {
        // A restarted server need not wait for its old connections to be forgotten.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
