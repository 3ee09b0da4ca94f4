//! Names to addresses, and the order in which addresses are tried.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

/// What [`Resolve::lookup`] returns.
pub type LookupFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Turns a host name into addresses. Implement it to use another resolver than the operating system's.
///
/// ```
/// # use wireloom::{LookupFuture, Resolve};
/// /// Every name is this machine.
/// struct Local;
///
/// impl Resolve for Local {
///     fn lookup<'a>(&'a self, _host: &'a str, port: u16) -> LookupFuture<'a> {
///         Box::pin(async move { Ok(vec![([127, 0, 0, 1], port).into()]) })
///     }
/// }
/// ```
pub trait Resolve: Send + Sync + 'static {
    /// Finds the addresses of `host`, best first. An empty list means that the name has none.
    ///
    /// `host` is a DNS name in ASCII; addresses in a URL are never looked up. The future may be dropped at any time, for
    /// example by a deadline of the caller.
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> LookupFuture<'a>;
}

/// The operating system's resolver, on the runtime's blocking threads. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn lookup<'a>(&'a self, host: &'a str, port: u16) -> LookupFuture<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// The addresses of a URL's host in the order to try them: an address as it is, a name through `resolver`.
///
/// # Errors
/// What the resolver says; an error of kind `NotFound` when the name has no address.
pub(crate) async fn resolve(resolver: &dyn Resolve, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = unbracketed.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let addresses = interleave(resolver.lookup(host, port).await?);
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// RFC 8305, section 4: alternates the address families, beginning with the one that the resolver put first, so that a
/// broken IPv6 or IPv4 costs one attempt and not many. Repeated addresses are tried once.
pub(crate) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv6() == first_is_v6 {
            &mut first
        } else {
            &mut second
        };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        order.extend(first.next());
        order.extend(second.next());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace()
            .map(|a| a.parse().expect("an address"))
            .collect()
    }

    #[test]
    fn families_alternate_from_the_resolvers_first() {
        assert_eq!(
            interleave(addresses("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 2.2.2.2:1")),
            addresses("[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1 [::3]:1"),
        );
        assert_eq!(
            interleave(addresses("1.1.1.1:1 1.1.1.1:1 2.2.2.2:1 [::1]:1")),
            addresses("1.1.1.1:1 [::1]:1 2.2.2.2:1"),
        );
        assert!(interleave(Vec::new()).is_empty());
    }

    struct Fixed(Vec<SocketAddr>);

    impl Resolve for Fixed {
        fn lookup<'a>(&'a self, _host: &'a str, _port: u16) -> LookupFuture<'a> {
            Box::pin(async { Ok(self.0.clone()) })
        }
    }

    #[tokio::test]
    async fn addresses_are_not_looked_up_and_empty_answers_are_errors() {
        let empty = Fixed(Vec::new());
        for host in ["::1", "[::1]"] {
            assert_eq!(resolve(&empty, host, 7).await.expect("no lookup"), addresses("[::1]:7"));
        }
        assert_eq!(
            resolve(&empty, "localhost", 7).await.expect_err("empty").kind(),
            io::ErrorKind::NotFound
        );
        let both = Fixed(addresses("[::1]:7 1.1.1.1:7"));
        assert_eq!(resolve(&both, "x", 7).await.expect("two").len(), 2);
        assert!(
            !resolve(&SystemResolver, "localhost", 7)
                .await
                .expect("every machine has it")
                .is_empty()
        );
    }
}
