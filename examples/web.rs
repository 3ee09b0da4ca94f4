//! What the examples with a page share: the page over plain HTTP on localhost, where browsers ask for no certificate; WebTransport
//! with a certificate of its own making; and `/messages` on both.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use wireloom::{Identity, Server};
use wireloom_messaging::server::Server as Messages;

/// A file of the page: where it is, what it is, and its content.
pub(crate) type File = (&'static str, &'static str, &'static str);

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const CSS: &str = "text/css";
pub(crate) const JAVASCRIPT: &str = "text/javascript";
pub(crate) const SVG: &str = "image/svg+xml";

/// The client for browsers, bindings/typescript: committed as it is built, so that no Node is needed here.
const CLIENT: File = (
    "/wireloom.min.js",
    JAVASCRIPT,
    include_str!("../bindings/typescript/wireloom.min.js"),
);

/// Why an example ends: in words, as `main` prints it.
pub(crate) struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Serves until ctrl-c, then lets what has begun be answered. Where it listens: `--page ADDRESS` for the page, `--webtransport
/// ADDRESS` (UDP and TCP; by default 0.0.0.0:4433, which other machines can reach).
pub(crate) async fn serve(name: &str, files: &'static [File], messages: Messages) -> Result<(), Failure> {
    let page = argument("--page").unwrap_or_else(|| "localhost:8080".to_owned());
    let page = TcpListener::bind(&page)
        .await
        .map_err(|error| Failure(format!("{page}: {error} (--page names another address)")))?;
    let page_address = page.local_addr()?;
    let bind = argument("--webtransport").unwrap_or_else(|| "0.0.0.0:4433".to_owned());
    let identity = Identity::rotating(["localhost", "127.0.0.1"])?;
    let mut server = Server::builder().bind(bind).identity(identity.clone());
    // Both refuse pages of other origins, which could otherwise use `/messages` as whoever opens them.
    let mut page_options = wireloom::tcp::Options::new();
    for host in ["localhost", "127.0.0.1"] {
        let origin = format!("http://{host}:{}", page_address.port());
        server = server.allow_origin(&origin);
        page_options = page_options.allow_origin(&origin);
    }
    let server = server.listen().await.map_err(|error| {
        let Failure(why) = error.into();
        Failure(format!("{why} (--webtransport names another address)"))
    })?;
    let port = server.local_addrs()[0].port();

    // What the page has to know to dial: asked for before each attempt, because the certificate changes with each start.
    let connect = move || {
        let hashes = identity.certificate_hashes();
        let next = hashes.next.map(|hash| format!(",\"{hash}\"")).unwrap_or_default();
        let body = format!("{{\"port\":{port},\"certificates\":[\"{}\"{next}]}}", hashes.current);
        async move { ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body) }
    };
    let mut router = Router::new()
        .route("/connect", get(connect))
        .route_service("/messages", messages.service());
    for &(path, kind, content) in files.iter().chain([&CLIENT]) {
        let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")];
        router = router.route(path, get(move || async move { (headers, content) }));
    }
    // Only this machine reaches it: a site whose name resolves to this machine shows in Host alone, and must not have what is here.
    let pages = match page_address.ip().is_loopback() {
        true => router.clone().layer(from_fn(by_own_name)),
        false => router.clone(),
    };

    println!(
        "{name}: http://localhost:{}/ (WebTransport on port {port})",
        page_address.port()
    );
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let stopped = || {
        let mut stopped = stopped.clone();
        async move {
            // An error means that nobody is left to say stop.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let pages = wireloom::tcp::serve(page, None, pages, page_options, stopped());
    let sessions = server.serve(router).with_graceful_shutdown(stopped());
    let ctrl_c = async {
        if tokio::signal::ctrl_c().await.is_ok() {
            messages.shut_down().await;
            // Nobody may listen any more.
            let _ = stop.send(true);
        }
        Ok::<_, Failure>(())
    };
    tokio::try_join!(async { Ok(pages.await?) }, async { Ok(sessions.await?) }, ctrl_c)?;
    Ok(())
}

/// A name that is no address, and not this machine's, is a stranger's.
async fn by_own_name(request: Request, next: Next) -> Response {
    let field = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().cloned().or_else(|| field?.parse().ok());
    let host = authority.map(|authority| authority.host().to_ascii_lowercase());
    let is_own = |host: &str| {
        host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || host.ends_with(".localhost")
    };
    if host.as_deref().is_some_and(is_own) {
        next.run(request).await
    } else {
        StatusCode::MISDIRECTED_REQUEST.into_response()
    }
}

/// The value of an argument.
pub(crate) fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}
