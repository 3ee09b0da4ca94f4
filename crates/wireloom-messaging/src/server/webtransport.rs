//! WebTransport without a router.

use wireloom::{Session, SessionRequest};

use super::{Admission, Place, Refusal, Server};
use crate::transport::TransportKind;
use crate::transport::webtransport::{self, PROTOCOL_M, PROTOCOL_S, Profile};

/// What a client has asked for.
pub(super) fn profile_of(selected: Option<&str>, query: Option<&str>) -> (Profile, TransportKind) {
    let profile = Profile::of(selected, query);
    let kind = match profile {
        Profile::Single => TransportKind::WebTransport,
        Profile::Multi => TransportKind::WebTransportMulti,
    };
    (profile, kind)
}

impl Server {
    /// Answers the request for a session that [`wireloom::Server::accept`] gave, and runs the connection to its end. Spawn
    /// it; dropping the future cuts the connection off.
    ///
    /// ```no_run
    /// # async fn f(http: wireloom::Server, server: wireloom_messaging::server::Server) {
    /// while let Some(request) = http.accept().await {
    ///     let server = server.clone();
    ///     tokio::spawn(async move { server.run_webtransport(request).await });
    /// }
    /// # }
    /// ```
    pub async fn run_webtransport(&self, request: SessionRequest) {
        let offered = request.offered_protocols();
        let selected = offered
            .iter()
            .find(|offer| [PROTOCOL_M, PROTOCOL_S].contains(&offer.as_str()));
        let (profile, transport) = profile_of(selected.map(String::as_str), request.uri().query());
        let remote = request.remote_address();
        let place = self.place_or_refusal(Admission {
            transport,
            remote: Some(remote),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            extensions: http::Extensions::new(),
        });
        let place = match place.await {
            Ok(place) => place,
            Err(Refusal { status, reason }) => {
                tracing::debug!(%remote, reason, "a session was refused");
                return request.reject(status);
            }
        };
        match request.protocols([PROTOCOL_M, PROTOCOL_S]).accept().await {
            Ok(session) => self.run_session(session, profile, place).await,
            Err(error) => tracing::debug!(%error, %remote, "a session was given up"),
        }
    }

    pub(super) async fn run_session(&self, session: Session, profile: Profile, place: Place) {
        match webtransport::accept(session, profile, self.0.message_buffer_size()).await {
            Ok(link) => self.run_in(Box::new(link), place).await,
            Err(error) => tracing::debug!(%error, "a session without a control stream"),
        }
    }
}
