//! What is dialled: a URL, and fields of one's own.

use std::pin::Pin;

#[cfg(doc)]
use super::ClientBuilder;
use super::ConnectError;
use http::{HeaderMap, HeaderName, HeaderValue};

/// One attempt to connect, as [`ClientBuilder::each_attempt`] sees it before it begins.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// `ws://`, `wss://` or `https://`.
    pub url: String,
    /// Fields of the request beside those of the handshake.
    pub headers: HeaderMap,
    wrong: Option<String>,
}

pub(super) type Prepared = Pin<Box<dyn Future<Output = Result<Attempt, ConnectError>> + Send>>;

impl Attempt {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            headers: HeaderMap::new(),
            wrong: None,
        }
    }

    /// Another URL, of another transport if that is to be.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// A field of the request, in the place of what it had. If it cannot be one, the attempt fails with
    /// [`ConnectError::Unusable`].
    #[must_use]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        HeaderName: TryFrom<N>,
        HeaderValue: TryFrom<V>,
    {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => drop(self.headers.insert(name, value)),
            (Ok(name), Err(_)) => self.wrong = Some(format!("the value of the field {name} is none")),
            (Err(_), _) => self.wrong = Some("the name of a field is none".to_owned()),
        }
        self
    }

    /// Fields that the handshake has itself, of either transport, are not the application's.
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        const OF_THE_HANDSHAKE: [&str; 9] = [
            "connection",
            "content-length",
            "host",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        if let Some(wrong) = &self.wrong {
            return Err(ConnectError::Unusable(wrong.clone()));
        }
        let names = self.headers.keys().map(HeaderName::as_str);
        let taken = |name: &&str| {
            OF_THE_HANDSHAKE.contains(name) || name.starts_with("sec-websocket-") || name.starts_with("wt-")
        };
        match names.into_iter().find(taken) {
            Some(name) => Err(ConnectError::Unusable(format!(
                "the field {name} is the handshake's own"
            ))),
            None => Ok(()),
        }
    }
}
