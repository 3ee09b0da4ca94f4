//! Addresses to bind, as people write them.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// What one argument stands for: `localhost:4433` is two addresses. Never empty.
#[derive(Debug, Clone)]
pub(super) struct Addresses(Vec<SocketAddr>);

impl Addresses {
    pub(super) fn iter(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().copied()
    }
}

pub(super) fn parse(text: &str) -> Result<Addresses, String> {
    let wrong = |why: &str| format!("{why}; write ADDRESS:PORT, such as 127.0.0.1:4433, [::]:4433 or localhost:0");
    if let Ok(address) = text.parse() {
        return Ok(Addresses(vec![address]));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| wrong("the port is no number from 0 to 65535"))?;
    if host == "localhost" {
        // Both families: Chromium tries ::1 for localhost, and does not always fall back.
        let mut list = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            list.push((Ipv6Addr::LOCALHOST, port).into());
        }
        return Ok(Addresses(list));
    }
    let list: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|_| wrong(&format!("{host:?} is no address")))?
        .collect();
    if list.is_empty() {
        Err(wrong("the name has no address"))
    } else {
        Ok(Addresses(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_taken() {
        let list = |text| {
            parse(text)
                .expect("valid")
                .iter()
                .map(|a| a.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(list("127.0.0.1:1"), ["127.0.0.1:1"]);
        assert_eq!(list("[::]:0"), ["[::]:0"]);
        assert_eq!(list("localhost:7")[0], "127.0.0.1:7");
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for text in ["4433", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "", "::1"] {
            let message = parse(text).expect_err(text);
            assert!(message.contains("ADDRESS:PORT"), "{text}: {message}");
        }
    }
}
