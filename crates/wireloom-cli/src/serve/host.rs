//! Under which names the plain port answers where only this machine reaches it: a site that has its own name resolve to this machine
//! (DNS rebinding) is of one origin with what it reads here then, and only Host tells.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{StatusCode, Uri, header};

/// Refuses requests under other names than this machine's and those of `origins`.
pub(super) fn checked(router: Router, origins: &[String]) -> Router {
    if origins.iter().any(|origin| origin == "*") {
        return router;
    }
    let host_of = |origin: &String| origin.parse::<Uri>().ok()?.host().map(str::to_ascii_lowercase);
    let hosts: Vec<String> = origins.iter().filter_map(host_of).collect();
    router.layer(from_fn(move |request: Request, next: Next| {
        let is_ours = named(&request).is_none_or(|host| is_local(&host) || hosts.contains(&host));
        async move { if is_ours { next.run(request).await } else { refusal() } }
    }))
}

/// The host that the request is for, in lower case. Browsers always name it.
fn named(request: &Request) -> Option<String> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.host().to_owned(),
        None => {
            let host = request.headers().get(header::HOST)?;
            let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
            // No name of anybody's.
            authority.map_or_else(String::new, |authority| authority.host().to_owned())
        }
    };
    Some(authority.trim_end_matches('.').to_ascii_lowercase())
}

/// A site cannot have an address that is not its own: those are all let through, as of forwarded ports.
fn is_local(host: &str) -> bool {
    let is_v6 = || {
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inside.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
    };
    host == "localhost" || host.ends_with(".localhost") || host.parse::<Ipv4Addr>().is_ok() || is_v6()
}

fn refusal() -> Response {
    let why = "This address is for this machine alone. `wireloom serve --allow-origin` lets another name in.\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}
