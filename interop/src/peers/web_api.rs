//! What Wireloom's server does for the tests of the browsers' API, beside the table of the [module above](super).
//!
//! | path | what it does |
//! |---|---|
//! | `/request` | answers with the header field `x-answer: yes`, and tells the request's fields as JSON on a uni stream |
//! | `/drain` | asks the page to end the session soon, then echoes |
//! | `/streams` | opens `code` uni streams, each with its number, then echoes |
//! | `/unread` | takes streams and reads none |
//! | `/close-when-told` | closes with `code` and `reason` when a bidi stream has brought something |
//! | `/abort` | ends the session as failed when a bidi stream has brought something |

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use wireloom::{Session, SessionError, WebTransportUpgrade};

use super::Route;
use super::behaviour::behave;
use crate::Result;
use crate::journal::{Event, Journal};

/// The paths.
pub fn router() -> Router<Arc<Journal>> {
    ["request", "drain", "streams", "unread", "close-when-told", "abort"]
        .into_iter()
        .fold(Router::new(), |router, path| {
            router.route(&format!("/{path}"), any(answer))
        })
}

async fn answer(
    State(journal): State<Arc<Journal>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: WebTransportUpgrade,
) -> Response {
    // What the query says means the same everywhere.
    let Some(route) = Route::parse(&format!("/echo?{}", uri.query().unwrap_or_default())) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let path = uri.path().to_owned();
    upgrade
        .response_header(HeaderName::from_static("x-answer"), HeaderValue::from_static("yes"))
        .on_upgrade(move |session| async move {
            // An error is the session's end, which the journal is told.
            let _ = act(&path, &session, &route, &headers).await;
            if matches!(path.as_str(), "/drain" | "/streams") {
                return behave(session, route, journal).await;
            }
            let _alive = journal.alive(&route.id);
            let end = match session.closed().await {
                SessionError::Closed { code, reason } => Event::Closed(code, reason),
                error => Event::Lost(error.to_string()),
            };
            journal.note(&route.id, end);
        })
        .into_response()
}

async fn act(path: &str, session: &Session, route: &Route, headers: &HeaderMap) -> Result {
    match path {
        "/request" => {
            let fields: BTreeMap<&str, &str> = headers
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
                .collect();
            let mut send = session.open_uni().await?;
            send.write_all(&serde_json::to_vec(&fields)?).await?;
            send.finish()?;
        }
        "/drain" => session.drain(),
        "/streams" => {
            for number in 0..route.code {
                let mut send = session.open_uni().await?;
                send.write_all(number.to_string().as_bytes()).await?;
                send.finish()?;
            }
        }
        "/close-when-told" => {
            let (_send, mut recv) = session.accept_bi().await?;
            recv.read_chunk(100).await?;
            session.close(route.code, &route.reason);
        }
        "/abort" => {
            let (_send, mut recv) = session.accept_bi().await?;
            recv.read_chunk(100).await?;
            session.abort();
        }
        _ => {
            let _unread = session.accept_uni().await?;
            session.closed().await;
        }
    }
    Ok(())
}
