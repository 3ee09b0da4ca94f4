//! What a session is asked for with.

use http::{HeaderMap, HeaderName, HeaderValue};
use wireloom_proto::connection::SessionRequest;
use wireloom_proto::h3::priority::{PRIORITY, Priority};

use super::dial::{Target, dial};
use super::{Client, ConnectError};
use crate::session::Session;

/// A session to be opened: subprotocols, fields and an origin.
#[must_use]
pub struct SessionBuilder {
    client: Client,
    url: String,
    protocols: Vec<String>,
    headers: HeaderMap,
    origin: Option<String>,
}

impl SessionBuilder {
    pub(super) fn new(client: Client, url: &str) -> Self {
        Self {
            client,
            url: url.to_owned(),
            protocols: Vec::new(),
            headers: HeaderMap::new(),
            origin: None,
        }
    }

    /// Offers subprotocols, most preferred first (WT-Available-Protocols). They must be visible ASCII.
    pub fn protocols<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.protocols.extend(protocols.into_iter().map(Into::into));
        self
    }

    /// Adds a field to the request.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Sets the session's first priority (the field `priority`, RFC 9218 section 5);
    /// [`Session::set_priority`] changes it.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.headers.insert(PRIORITY, priority.to_value());
        self
    }

    /// Sends an origin, as a browser would. Without it none is sent.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Dials, and opens the session.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(self) -> Result<Session, ConnectError> {
        let target = Target::parse(&self.url)?;
        let mut request = SessionRequest::new(&*target.authority, &*target.path);
        request.protocols = self.protocols;
        request.headers = self.headers;
        request.origin = self.origin;
        let timeout = self.client.0.connect_timeout;
        let connect = async {
            let connection = dial(&self.client, &target).await?;
            connection.open(request).await
        };
        tokio::time::timeout(timeout, connect)
            .await
            .unwrap_or(Err(ConnectError::Connection(crate::ConnectionError::HandshakeTimedOut)))
    }
}
