//! `wireloom probe`: what a server speaks, and what would keep a browser from using it.

mod advice;
mod http;
mod parameters;
mod print;
mod quic;
mod report;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use self::report::{Address, Report};
use crate::explain;
use crate::failure::Failure;
use crate::output;
use crate::trust::{TrustArgs, parse_url};

#[derive(Args)]
#[command(after_help = "\
Everything is looked at even where the certificate is not trusted; nothing is sent but a session
request and a GET of /. The exit code is 0 if a session can be opened under the given trust.")]
pub(crate) struct ProbeArgs {
    /// https://HOST[:PORT]/PATH
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// Ask for the session as a page of this origin would
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// Print one JSON line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the URL leads.
struct Target {
    url: String,
    host: String,
    authority: String,
    path: String,
    addresses: Vec<SocketAddr>,
}

impl Target {
    async fn resolve(url: &str, timeout: Duration) -> Result<Self, Failure> {
        // The argument's parser has been here: scheme and host are there.
        let uri: ::http::Uri = url.parse().map_err(|_| Failure::usage(format!("{url} is no URL")))?;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let found = tokio::net::lookup_host((host.as_str(), uri.port_u16().unwrap_or(443)));
        let found = tokio::time::timeout(timeout, found).await;
        let found = found.unwrap_or_else(|late| Err(late.into()));
        let error = |source| {
            explain::connect_error(
                url,
                &wireloom::ConnectError::Resolve {
                    host: host.clone(),
                    source,
                },
            )
        };
        let mut addresses = Vec::new();
        for address in found.map_err(error)? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Self {
            url: url.to_owned(),
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            host,
            addresses,
        })
    }
}

pub(crate) async fn run(args: ProbeArgs) -> Result<(), Failure> {
    let timeout = args.trust.timeout;
    let target = Target::resolve(&args.url, timeout).await?;
    let (mut quic, reachable, http1, http2) = tokio::join!(
        quic::examine(&target, &args.trust, args.origin.as_deref()),
        quic::reachable(&target, timeout),
        http::get(&target, http::Version::Http1, timeout),
        http::get(&target, http::Version::Http2, timeout),
    );
    if let Ok(seen) = &mut quic {
        seen.ask_again(&target, &args.trust).await?;
    }
    let mut report = Report::new(&args.url);
    report.addresses = target
        .addresses
        .iter()
        .zip(reachable)
        .map(|(a, error)| Address::new(*a, error))
        .collect();
    report.http1 = Some(http1);
    report.http2 = Some(http2);
    let outcome = quic::fill(&mut report, quic, &args.url);
    report.advice = advice::give(&report, &args);
    if args.json {
        output::json(&serde_json::to_value(&report).map_err(|e| Failure::new("system", e.to_string()))?);
    } else {
        print::report(&report);
    }
    outcome
}
