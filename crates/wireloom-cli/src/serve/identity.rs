//! Who the server is, and how pages are to trust it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use wireloom::{Identity, IdentityError};

use crate::cert::facts::Facts;
use crate::failure::{Failure, chain};

/// An identity, and what the demo page needs to know of it.
pub(super) struct Served {
    pub(super) identity: Identity,
    /// Whether browsers accept the certificate by its hash. Others must be trusted through a root: a hash would fail.
    pub(super) is_pinnable: bool,
    /// Whether its issuer is itself: it is then the root that clients are to trust.
    pub(super) is_self_signed: bool,
    /// The certificate's own host name, where only that is trusted.
    name: Option<String>,
}

impl Served {
    pub(super) fn load(certificate: Option<&Path>, key: Option<&Path>) -> Result<Self, Failure> {
        let (Some(certificate), Some(key)) = (certificate, key) else {
            let identity =
                Identity::rotating(["localhost", "127.0.0.1", "::1"]).map_err(|e| Failure::new("tls", chain(&e)))?;
            return Ok(Self {
                identity,
                is_pinnable: true,
                is_self_signed: true,
                name: None,
            });
        };
        let identity = Identity::pem_files(certificate, key).map_err(|e| {
            let file = match &e {
                // It names the file.
                IdentityError::File { .. } => None,
                IdentityError::NoPrivateKey | IdentityError::UnusableKey(_) => Some(key),
                IdentityError::NoCertificate | IdentityError::MalformedCertificate(_) => Some(certificate),
                _ => None,
            };
            let why = chain(&e);
            let why = file.map_or_else(|| why.clone(), |file| format!("{}: {why}", file.display()));
            Failure::new("tls", why).hint("`wireloom cert generate` makes a certificate and a key that fit")
        })?;
        // The identity could be loaded, so the file is there and holds a certificate.
        let facts = Facts::of_file(certificate)?;
        let is_pinnable = facts.unpinnable().is_none();
        let name = facts
            .names
            .into_iter()
            .find(|name| name.parse::<IpAddr>().is_err() && !name.starts_with("*."));
        Ok(Self {
            identity,
            is_pinnable,
            is_self_signed: facts.subject == facts.issuer,
            name: name.filter(|_| !is_pinnable),
        })
    }

    /// Host and port under which clients reach `address`.
    pub(super) fn authority(&self, mut address: SocketAddr) -> String {
        if let Some(name) = &self.name {
            return format!("{name}:{}", address.port());
        }
        if address.ip().is_unspecified() {
            // `[::]` takes IPv4 too.
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        address.to_string()
    }
}
