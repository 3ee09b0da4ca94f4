//! What a session is asked for with.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use wireloom_proto::connection::SessionRequest;
use wireloom_proto::h3::priority::{PRIORITY, Priority};

use super::dial::{Target, dial};
use super::{Client, ConnectError, Connection, EarlySession, until};
use crate::error::ConnectionError;
use crate::session::Session;

/// A session to be opened: subprotocols, fields and an origin.
#[must_use]
pub struct SessionBuilder {
    way: Way,
    protocols: Vec<String>,
    requires_protocol: bool,
    headers: HeaderMap,
    origin: Option<String>,
}

/// How to get there.
enum Way {
    Dial { client: Client, url: String },
    On { connection: Connection, path: String },
}

impl SessionBuilder {
    pub(super) fn new(client: Client, url: &str) -> Self {
        let url = url.to_owned();
        Self::by(Way::Dial { client, url })
    }

    pub(super) fn on(connection: Connection, path: &str) -> Self {
        let path = path.to_owned();
        Self::by(Way::On { connection, path })
    }

    fn by(way: Way) -> Self {
        Self {
            way,
            protocols: Vec::new(),
            requires_protocol: false,
            headers: HeaderMap::new(),
            origin: None,
        }
    }

    /// Offers subprotocols, most preferred first (WT-Available-Protocols). They must be visible ASCII.
    pub fn protocols<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.protocols.extend(protocols.into_iter().map(Into::into));
        self
    }

    /// Fails, and closes the session with WT_ALPN_ERROR, if the server chooses none of the subprotocols. Without it
    /// [`Session::protocol`] is then `None`.
    pub fn require_protocol(mut self) -> Self {
        self.requires_protocol = true;
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
        // The default's value is an empty dictionary, which no field may have (RFC 9651 section 4.1).
        if priority == Priority::default() {
            self.headers.remove(PRIORITY);
        } else {
            self.headers.insert(PRIORITY, priority.to_value());
        }
        self
    }

    /// Sends an origin, as a browser would. Without it none is sent.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Dials, unless it is for a [`Connection`], and opens the session.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(self) -> Result<Session, ConnectError> {
        self.connect_early().await?.ready().await
    }

    /// Dials, unless it is for a [`Connection`], asks for the session, and hands it out before the server has answered: what is
    /// sent now arrives with the question, one round trip earlier. It is lost if the server rejects the session, and a server
    /// keeps only so much of it until it has decided.
    ///
    /// ```no_run
    /// # async fn f(client: wireloom::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let early = client.session("https://example.com:4433/live").connect_early().await?;
    /// let (mut send, mut recv) = early.open_bi().await?;
    /// send.write_all(b"hello").await?;
    /// let session = early.ready().await?; // accepted
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`ConnectError`]; a rejection is told by [`EarlySession::ready`]. The client's `connect_timeout` bounds both.
    pub async fn connect_early(self) -> Result<EarlySession, ConnectError> {
        // The client stays until the session is asked for: with the last of its handles a connection that nobody uses is closed.
        let (connection, path, deadline, _client) = match self.way {
            Way::Dial { client, url } => {
                let target = Target::parse(&url)?;
                let deadline = client.deadline();
                let connection = dial(&client, &target, deadline).await?;
                (connection, target.path, deadline, Some(client))
            }
            Way::On { connection, path } => {
                if !path.starts_with('/') || PathAndQuery::try_from(&*path).is_err() {
                    return Err(ConnectError::InvalidUrl(
                        "a path begins with a slash and has no fragment",
                    ));
                }
                let deadline = connection.deadline();
                (connection, path, deadline, None)
            }
        };
        let mut request = SessionRequest::new(connection.authority(), path);
        request.protocols = self.protocols;
        request.requires_protocol = self.requires_protocol;
        request.headers = self.headers;
        request.origin = self.origin;
        let early = until(deadline, connection.open_early(request)).await;
        let early = early.unwrap_or(Err(ConnectError::Connection(ConnectionError::HandshakeTimedOut)))?;
        Ok(early.until(deadline))
    }
}
