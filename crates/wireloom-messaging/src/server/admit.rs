//! Whether a client is connected: room for it, and the application's word.

use std::sync::{Arc, PoisonError};

use http::StatusCode;
use http::header::USER_AGENT;

use super::connection::Request;
use super::handler::Panicked;
use super::limits::Permit;
use super::{Admission, Asked, Place, Refusal, Server, Shared};

impl Server {
    /// Finds room for a client, and asks the application about it.
    #[cfg(any(feature = "axum", feature = "webtransport"))]
    pub(super) async fn place_or_refusal(&self, admission: Admission) -> Result<Place, Refusal> {
        match self.place(admission.remote.map(|remote| remote.ip())) {
            Some(permit) => self.admit(admission, permit).await,
            None if self.0.is_shutting_down() => Err(Refusal::unavailable("server shutting down")),
            None => Err(Refusal::unavailable("too many connections")),
        }
    }

    /// Asks the application about a client for which there is room.
    pub(super) async fn admit(&self, admission: Admission, permit: Permit) -> Result<Place, Refusal> {
        if !self.0.origins.allows(&admission.uri, &admission.headers) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "not from this origin"));
        }
        let asked = Some(self.0.asked(&admission));
        let admitted = self.0.handler.clone().admit(admission);
        let admitted = tokio::select! {
            biased;
            () = self.shutting_down() => return Err(Refusal::unavailable("server shutting down")),
            admitted = tokio::time::timeout(self.0.connect_timeout, admitted) => admitted,
        };
        let options = match admitted {
            Ok(Ok(decided)) => decided?,
            Ok(Err(Panicked)) => {
                tracing::error!("admit panicked");
                return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"));
            }
            Err(_) => {
                tracing::error!("admit took too long, and was dropped");
                return Err(Refusal::unavailable("try again later"));
            }
        };
        Ok(Place {
            permit,
            concurrency: options.concurrency,
            request: Request {
                asked,
                values: options.values,
            },
        })
    }
}

impl Shared {
    fn asked(&self, admission: &Admission) -> Arc<Asked> {
        let user_agent = admission.headers.get(USER_AGENT);
        let asked = Asked {
            path: admission.path().into(),
            query: admission.query().map(Into::into),
            user_agent: user_agent.and_then(|value| value.to_str().ok()).map(Into::into),
        };
        let mut last = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(last) if **last == asked => last.clone(),
            _ => last.insert(Arc::new(asked)).clone(),
        }
    }
}
