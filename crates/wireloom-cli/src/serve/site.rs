//! What is at which path: the echo, the demo page, the certificate's hashes, files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as Segment, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use http::{HeaderName, StatusCode, header};
use serde_json::json;
use tower_http::services::ServeDir;
use wireloom::Identity;
use wireloom_messaging::server::Server;

use super::echo;
use super::identity::Served;

/// The demo page's files beside index.html: name, type, content.
const ASSETS: [(&str, &str, &str); 6] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("../../demo/style.css"),
    ),
    (
        "app.js",
        "text/javascript; charset=utf-8",
        include_str!("../../demo/app.js"),
    ),
    (
        "messages.js",
        "text/javascript; charset=utf-8",
        include_str!("../../demo/messages.js"),
    ),
    (
        "measure.js",
        "text/javascript; charset=utf-8",
        include_str!("../../demo/measure.js"),
    ),
    (
        "plot.js",
        "text/javascript; charset=utf-8",
        include_str!("../../demo/plot.js"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("../../demo/icon.svg")),
];
const INDEX: &str = include_str!("../../demo/index.html");

/// The page needs its own files and sessions to the server that the user names.
const PAGE_HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' https:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-cache"),
];

/// The same on the TLS port and on the plain one.
#[derive(Clone)]
pub(super) struct Site(Arc<Inner>);

struct Inner {
    page: String,
    identity: Identity,
    root: Option<PathBuf>,
    messages: Server,
}

impl Site {
    pub(super) fn new(webtransport: &str, served: &Served, root: Option<&Path>, messages: Server) -> Self {
        let page = INDEX
            .replace("{{url}}", &format!("{webtransport}/echo"))
            .replace("{{pin}}", if served.is_pinnable { "true" } else { "false" });
        Self(Arc::new(Inner {
            page,
            identity: served.identity.clone(),
            root: root.map(Path::to_owned),
            messages,
        }))
    }

    pub(super) fn router(&self) -> Router {
        let router = Router::new()
            .route("/echo", any(echo::handler))
            .route_service("/messages", self.0.messages.service())
            .route("/certificate-hashes", get(certificate_hashes))
            .route("/demo", get(|| async { Redirect::permanent("/demo/") }))
            .route("/demo/", get(page))
            .route("/demo/{file}", get(asset));
        let router = match &self.0.root {
            Some(root) if root.join("index.html").is_file() => router.fallback_service(ServeDir::new(root)),
            Some(root) => router.route("/", get(page)).fallback_service(ServeDir::new(root)),
            None => router.route("/", get(page)),
        };
        router.with_state(self.clone())
    }
}

async fn page(State(site): State<Site>) -> Response {
    (PAGE_HEADERS, site.0.page.clone()).into_response()
}

async fn asset(Segment(file): Segment<String>) -> Response {
    match ASSETS.into_iter().find(|(name, ..)| *name == file) {
        Some((_, kind, content)) => {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Public by nature: whoever connects sees the certificate. Any page may read them, to dial this server.
async fn certificate_hashes(State(site): State<Site>) -> Response {
    let hashes = site.0.identity.certificate_hashes();
    let body = json!({
        "current": hashes.current.to_string(),
        "next": hashes.next.map(|hash| hash.to_string()),
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, body.to_string()).into_response()
}
