//! One of several identities, by the name that the client asks for.

use std::collections::HashMap;

use super::{Identity, IdentityError};

#[derive(Debug)]
pub(super) struct ByName {
    default: Identity,
    exact: HashMap<String, Identity>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Identity>,
}

impl ByName {
    pub(super) fn new<N: Into<String>>(
        default: Identity,
        named: impl IntoIterator<Item = (N, Identity)>,
    ) -> Result<Self, IdentityError> {
        let mut by_name = Self {
            default,
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        for (name, identity) in named {
            let name = name.into();
            let normal = normalise(&name);
            let (map, host) = match normal.strip_prefix("*.") {
                Some(parent) => (&mut by_name.wildcard, parent),
                None => (&mut by_name.exact, normal.as_str()),
            };
            if rustls::pki_types::DnsName::try_from(host).is_err() {
                return Err(IdentityError::InvalidName(name));
            }
            map.insert(host.to_owned(), identity);
        }
        Ok(by_name)
    }

    pub(super) fn default(&self) -> &Identity {
        &self.default
    }

    /// An exact name wins over a wildcard; a wildcard stands for exactly one label (RFC 6125, section 6.4.3).
    pub(super) fn select(&self, server_name: Option<&str>) -> &Identity {
        server_name
            .map(normalise)
            .and_then(|name| {
                self.exact
                    .get(&name)
                    .or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))
            })
            .unwrap_or(&self.default)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.default)
            .chain(self.exact.values())
            .chain(self.wildcard.values())
    }
}

fn normalise(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
