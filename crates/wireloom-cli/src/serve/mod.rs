//! `wireloom serve`: the echo, the demo page and files, on one port over UDP and TCP, and the page on plain HTTP too.

mod address;
mod browser;
mod echo;
mod failure;
mod host;
mod identity;
mod messages;
mod sessions;
mod site;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use http::uri::PathAndQuery;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use wireloom::{ConnectionLimits, Server, Threads};

use self::address::Addresses;
use self::identity::Served;
use self::messages::SessionArgs;
use self::site::Site;
use crate::failure::Failure;
use crate::output::{self, Paint};
use crate::signals::{StopSignals, end_of_input};
use crate::transport::TransportArgs;
use crate::trust::dialable;

const DEFAULT_BIND: &str = "localhost:4433";
const DEFAULT_PAGE_BIND: &str = "localhost:8080";

/// How long sessions may go on after the first ctrl-c. Browsers do not act on WT_DRAIN_SESSION: longer would be waiting.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Args)]
#[command(after_help = "\
What is served:
  /echo                WebTransport: bidirectional streams and datagrams come back, a
                       unidirectional stream is answered with one; subprotocols echo.v1, echo.v2
  /messages            WebWire 2.0 over WebSocket and WebTransport: the requests echo, upper,
                       sleep, fail, login, logout, whoami; signals come back (`wireloom call`);
                       every topic, which whoever may connect may read and publish to
  /                    the demo page, or the index.html of --root
  /demo/               the demo page
  /certificate-hashes  {\"current\": SHA-256, \"next\": SHA-256 or null}

The first ctrl-c lets the requests of /messages be answered, however long they take, and then sessions \
end for three seconds; the second ends the program at once.")]
pub(crate) struct ServeArgs {
    /// UDP and TCP address for WebTransport and HTTPS; may be repeated; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = DEFAULT_BIND)]
    bind: Vec<Addresses>,
    /// TCP address of the demo page on plain HTTP, where localhost needs no certificate; port 0 takes a free one
    #[arg(long, value_name = "ADDR", value_parser = address::parse, default_value = DEFAULT_PAGE_BIND)]
    page_bind: Addresses,
    /// Certificate chain; read again when it changes. Without it, self-signed ones that rotate within 13 days
    #[arg(long, value_name = "PEM", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
    /// Let pages of this origin open sessions too (https://host[:port], or * for all), and the page's port on this machine be
    /// reached by that host's name; may be repeated
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin)]
    allow_origin: Vec<String>,
    /// Serve the files of this directory, over HTTP/1.1, 2 and 3
    #[arg(long, value_name = "DIR", value_parser = parse_directory)]
    root: Option<PathBuf>,
    #[command(flatten)]
    sessions: SessionArgs,
    /// Connections that one address may have at once; of /messages, over each of its transports
    #[arg(long, value_name = "N", default_value = "1000", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_per_address: usize,
    /// Threads that drive connections [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Start a browser on the demo page
    #[arg(long)]
    open: bool,
    /// End at once with standard input, which whoever started this holds open
    #[arg(long, hide = true)]
    until_input_ends: bool,
    #[command(flatten)]
    transport: TransportArgs,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_origin(text: &str) -> Result<String, String> {
    let wrong = || "write an origin as browsers do: https://host[:port], null, or * for all".to_owned();
    if matches!(text, "*" | "null") {
        return Ok(text.to_owned());
    }
    // Not only those of the web: extensions have origins, too.
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.filter(|scheme| !scheme.is_empty()).ok_or_else(wrong)?;
    let uri = dialable(text, &[&scheme.to_ascii_lowercase()], "").map_err(|_| wrong())?;
    match (
        uri.scheme_str(),
        uri.authority(),
        uri.path_and_query().map(PathAndQuery::as_str),
    ) {
        (Some(scheme), Some(authority), None | Some("" | "/")) => Ok(format!("{scheme}://{authority}")),
        _ => Err(wrong()),
    }
}

fn parse_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        Ok(path)
    } else {
        Err("there is no such directory".to_owned())
    }
}

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let served = Served::load(args.cert.as_deref(), args.key.as_deref())?;
    // Before anything else: a taken port is told without a half-started server.
    let pages = bind_pages(&args.page_bind).await?;
    let page_address = pages[0]
        .local_addr()
        .map_err(|e| Failure::new("system", e.to_string()))?;

    let cores = args.threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = Threads::start(cores.map_or(1, NonZeroUsize::get))
        .map_err(|e| Failure::new("system", format!("cannot start threads: {e}")))?;
    let builder = Server::builder()
        .threads(threads.clone())
        .identity(served.identity.clone())
        .max_connections(ConnectionLimits::DEFAULT_TOTAL, args.max_per_address)
        .shutdown_deadline(SHUTDOWN_DEADLINE);
    let mut builder = args.transport.server(builder)?;
    for address in args.bind.iter().flat_map(Addresses::iter) {
        builder = builder.bind(address);
    }
    let pages_of_ours =
        ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}:{}", page_address.port()));
    let origins: Vec<String> = pages_of_ours
        .into_iter()
        .chain(args.allow_origin.iter().cloned())
        .collect();
    for origin in &origins {
        builder = builder.allow_origin(origin);
    }
    let messages = messages::server(&args.sessions, args.max_per_address)?;
    messages.keep_sweeping();
    let server = builder.listen().await.map_err(failure::of_server)?;

    let addresses = server.local_addrs();
    let webtransport = format!("https://{}", served.authority(addresses[0]));
    let page = page_url(page_address);
    let site = Site::new(&webtransport, &served, args.root.as_deref(), messages.clone());
    let mut signals = StopSignals::new();
    announce(&args, &webtransport, &page, &addresses, &served);
    if output::loss().is_some() {
        return Ok(());
    }

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let stopped = || {
        let mut stopped = stopped.clone();
        async move {
            // An error means that nobody is left to say stop.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    // Dropped when the server is done: no page is served longer.
    let mut plain = JoinSet::new();
    for listener in pages {
        let limits = ConnectionLimits::new(ConnectionLimits::DEFAULT_TOTAL, args.max_per_address);
        let options = wireloom::tcp::Options::new()
            .threads(threads.clone())
            .limits(limits)
            .shutdown_deadline(SHUTDOWN_DEADLINE);
        let options = origins
            .iter()
            .fold(options, |options, origin| options.allow_origin(origin));
        let router = match listener.local_addr() {
            Ok(address) if !address.ip().is_loopback() => site.router(),
            _ => host::checked(site.router(), &origins),
        };
        let stop = stopped();
        plain.spawn(async move { wireloom::tcp::serve(listener, None, router, options, stop).await });
    }
    if args.open {
        // Also where --root has a page of its own at /.
        browser::open(format!("{page}demo/"));
    }
    let quiet = args.json;
    tokio::spawn(async move {
        signals.next().await;
        if !quiet {
            output::note("shutting down; ctrl-c again ends it at once");
        }
        // Every request that was accepted is answered before anything is closed.
        let answered = async {
            messages.shut_down().await;
            let _ = stop.send(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = answered => {}
            () = signals.next() => {}
        }
        std::process::exit(1);
    });
    let orphaned = async {
        if !args.until_input_ends {
            std::future::pending().await
        }
        end_of_input().await;
    };
    tokio::select! {
        served = server.serve(site.router()).with_graceful_shutdown(stopped()) => served.map_err(failure::of_server),
        () = orphaned => Ok(()),
    }
}

/// Where the demo page is served without TLS.
async fn bind_pages(addresses: &Addresses) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for mut address in addresses.iter() {
        // Both addresses of localhost are one URL.
        if let (0, Some(first)) = (address.port(), listeners.first().and_then(|l| l.local_addr().ok())) {
            address.set_port(first.port());
        }
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| failure::of_page(address, &e))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The page's URL. Browsers take `localhost` for secure without a certificate, and nothing else that is plain HTTP.
fn page_url(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip.is_loopback() || ip.is_unspecified() {
        format!("http://localhost:{}/", address.port())
    } else {
        format!("http://{address}/")
    }
}

fn announce(args: &ServeArgs, webtransport: &str, page: &str, addresses: &[SocketAddr], served: &Served) {
    let hash = served.identity.certificate_hashes().current;
    if args.json {
        output::json(&json!({
            "event": "listening", "webtransport": webtransport, "page": page, "certificate_sha256": hash.to_string(),
        }));
        return;
    }
    let paint = Paint::stdout();
    let row = |name: &str, value: &str| output::line(&format!("  {}  {value}", paint.dim(&format!("{name:<13}"))));
    output::line(&format!("{} serves", paint.bold("wireloom")));
    row("page", &paint.cyan(page));
    row("WebTransport", &paint.cyan(&format!("{webtransport}/echo")));
    row("certificate", &format!("SHA-256 {hash}"));
    let list: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    row("listening on", &format!("{} (UDP and TCP)", list.join(", ")));
    if let Some(root) = &args.root {
        row("files", &root.display().to_string());
    }
    let trust = match &args.cert {
        _ if served.is_pinnable => format!(" --cert-hash {hash}"),
        Some(file) if served.is_self_signed => format!(" --ca {}", quoted(&file.display().to_string())),
        _ => String::new(),
    };
    output::line(&format!(
        "\nTry {}",
        paint.bold(&format!("wireloom connect {webtransport}/echo{trust}"))
    ));
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_origin, quoted};

    #[test]
    fn what_is_printed_can_be_typed() {
        assert_eq!(quoted("a/b-c_1.pem"), "a/b-c_1.pem");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        for (text, origin) in [
            ("*", "*"),
            ("null", "null"),
            ("https://a.b", "https://a.b"),
            ("https://a.b/", "https://a.b"),
            ("HTTP://[::1]:80", "http://[::1]:80"),
            ("moz-extension://0-1", "moz-extension://0-1"),
        ] {
            assert_eq!(parse_origin(text).as_deref(), Ok(origin));
        }
        for text in [
            "",
            "a.b",
            "https://",
            "https:///",
            "https://a b",
            "https://a/b",
            "https://a?b",
            "https://a@b",
            "https://a:b",
            "://a",
        ] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }
}
