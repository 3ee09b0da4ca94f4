//! UDP and TCP on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Another process may hold the TCP port that the system chose for UDP: then try another.
const PORT_ATTEMPTS: usize = 16;

/// What is served on one address.
pub(super) struct Sockets {
    /// Several share the port, each for the clients that the kernel chooses for it.
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
}

impl Sockets {
    pub(super) fn port(&self) -> Option<u16> {
        Some(self.udp.first()?.local_addr().ok()?.port())
    }
}

/// Whether the kernel distributes what arrives among several sockets of one UDP port.
const DISTRIBUTES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Binds `address` for both, `shards` times for UDP where that is possible. Port 0 finds one that is free for both; `[::]` takes
/// IPv4 too.
pub(super) fn bind(address: SocketAddr, shards: usize) -> io::Result<Sockets> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let udp = UdpSocket::from(socket(address, Type::DGRAM, Protocol::UDP, false)?);
        let bound = udp.local_addr()?;
        let tcp = socket(bound, Type::STREAM, Protocol::TCP, false);
        match tcp {
            Ok(tcp) => {
                tcp.listen(1024)?;
                let mut udp = vec![udp];
                if DISTRIBUTES && shards > 1 {
                    // Only now: the first one must not share the port of another server.
                    share(&udp[0])?;
                    for _ in 1..shards {
                        udp.push(socket(bound, Type::DGRAM, Protocol::UDP, true)?.into());
                    }
                }
                return Ok(Sockets {
                    udp,
                    tcp: Some(tcp.into()),
                });
            }
            Err(_) if address.port() == 0 && attempts < PORT_ATTEMPTS => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(unix)]
fn share(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    socket2::SockRef::from(socket).set_reuse_port(true)
}

#[cfg(not(unix))]
fn share<T>(_: &T) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // The wildcard means every address, whatever the system's default.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if kind == Type::STREAM {
        // A restarted server need not wait for its old connections to be forgotten.
        socket.set_reuse_address(true)?;
    }
    if shared {
        share(&socket)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_port_is_one_servers() {
        for shards in [1, 4] {
            let sockets = bind(LOOPBACK, shards).expect("bound");
            let address = sockets.udp[0].local_addr().expect("an address");
            assert_eq!(sockets.udp.len(), if DISTRIBUTES { shards } else { 1 });
            assert!(
                sockets
                    .udp
                    .iter()
                    .all(|udp| udp.local_addr().expect("an address") == address)
            );
            let error = bind(address, 4).err().expect("taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn the_kernel_distributes_clients() {
        if !DISTRIBUTES {
            return;
        }
        let sockets = bind(LOOPBACK, 4).expect("bound");
        let address = sockets.udp[0].local_addr().expect("an address");
        let clients: Vec<UdpSocket> = (0..64).map(|_| UdpSocket::bind(LOOPBACK).expect("bound")).collect();
        for client in &clients {
            client.send_to(b"x", address).expect("sent");
        }
        let received = sockets.udp.iter().map(|udp| {
            let mut buffer = [0; 1];
            std::iter::from_fn(|| udp.recv_from(&mut buffer).ok()).count()
        });
        let received: Vec<usize> = received.collect();
        assert_eq!(
            received.iter().sum::<usize>(),
            clients.len(),
            "loopback delivers at once: {received:?}"
        );
        assert!(received.iter().all(|&count| count > 0), "{received:?}");
    }
}
