//! The `scope` of a connection, made from a template with what is the same for all.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::request::Parts;
use http::{HeaderMap, HeaderName, Version, header};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use rustc_hash::FxHashMap;
use wireloom::TlsInfo;

use super::settings::Settings;

/// What the scope is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Http {
        /// Whether early hints can be sent.
        has_hints: bool,
    },
    WebSocket,
    WebTransport,
}

/// One template for each kind of scope.
pub(crate) struct Templates {
    http: Py<PyDict>,
    /// The same with early hints.
    http_hints: Py<PyDict>,
    websocket: Py<PyDict>,
    webtransport: Py<PyDict>,
    state: Option<Py<PyDict>>,
    /// What `tls` says of clients without a certificate, by what they have in common: there are few.
    anonymous: Mutex<FxHashMap<TlsKey, Py<PyDict>>>,
    addresses: Addresses,
    /// Names of fields that most requests have.
    names: FxHashMap<HeaderName, Py<PyBytes>>,
}

/// Version and cipher suite.
type TlsKey = (u16, Option<u16>);

/// Names that are made once.
const NAMES: [HeaderName; 26] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::ORIGIN,
    header::RANGE,
    header::REFERER,
    header::TRANSFER_ENCODING,
    header::UPGRADE_INSECURE_REQUESTS,
    header::USER_AGENT,
    HeaderName::from_static("priority"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-requested-with"),
];

/// Addresses as tuples of a host and a port: a client asks more than once.
#[derive(Default)]
struct Addresses(Mutex<FxHashMap<SocketAddr, Py<PyTuple>>>);

impl Addresses {
    /// More are not kept.
    const MOST: usize = 1024;

    fn tuple<'py>(&self, py: Python<'py>, address: SocketAddr) -> PyResult<Bound<'py, PyTuple>> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address) {
            return Ok(known.bind(py).clone());
        }
        let host = address.ip().to_canonical().to_string();
        let made = (host, address.port()).into_pyobject(py)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped after the lock is released.
        let forgotten = (known.len() >= Self::MOST).then(|| std::mem::take(&mut *known));
        known.insert(address, made.clone().unbind());
        drop(known);
        drop(forgotten);
        Ok(made)
    }
}

impl Templates {
    pub(crate) fn new(py: Python<'_>, settings: &Settings, state: Option<Py<PyDict>>) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", "2.4")?;
        let template = |kind: &str, extensions: &[&str]| -> PyResult<Py<PyDict>> {
            let scope = PyDict::new(py);
            scope.set_item(intern!(py, "type"), PyString::intern(py, kind))?;
            scope.set_item(intern!(py, "asgi"), &asgi)?;
            scope.set_item(intern!(py, "root_path"), &settings.root_path)?;
            // There already, so that a copy has room for them.
            for name in [
                intern!(py, "path"),
                intern!(py, "raw_path"),
                intern!(py, "query_string"),
                intern!(py, "headers"),
                intern!(py, "http_version"),
                intern!(py, "scheme"),
                intern!(py, "client"),
                intern!(py, "server"),
            ] {
                scope.set_item(name, py.None())?;
            }
            if kind != "websocket" {
                scope.set_item(intern!(py, "method"), py.None())?;
            }
            if state.is_some() {
                scope.set_item(intern!(py, "state"), py.None())?;
            }
            let offered = PyDict::new(py);
            for name in extensions {
                offered.set_item(*name, PyDict::new(py))?;
            }
            scope.set_item(intern!(py, "extensions"), offered)?;
            Ok(scope.unbind())
        };
        Ok(Self {
            http: template("http", &["http.response.trailers", "http.response.pathsend"])?,
            http_hints: template(
                "http",
                &[
                    "http.response.trailers",
                    "http.response.pathsend",
                    "http.response.early_hint",
                ],
            )?,
            websocket: template("websocket", &["websocket.http.response"])?,
            webtransport: template("webtransport", &[])?,
            state,
            anonymous: Mutex::default(),
            addresses: Addresses::default(),
            names: NAMES
                .into_iter()
                .map(|name| {
                    let bytes = PyBytes::new(py, name.as_str().as_bytes()).unbind();
                    (name, bytes)
                })
                .collect(),
        })
    }

    /// The extension `tls`.
    fn tls<'py>(&self, py: Python<'py>, tls: &TlsInfo) -> PyResult<Bound<'py, PyDict>> {
        let key = (tls.version(), tls.cipher_suite());
        let is_anonymous = tls.peer_certificates().is_empty();
        if is_anonymous {
            let known = self.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.get(&key) {
                return known.bind(py).copy();
            }
        }
        let chain = PyList::empty(py);
        for certificate in tls.peer_certificates() {
            let der = PyBytes::new(py, certificate);
            chain.append(py.import("ssl")?.call_method1("DER_cert_to_PEM_cert", (der,))?)?;
        }
        let told = PyDict::new(py);
        // Which of the server's certificates was chosen is between rustls and the client.
        told.set_item("server_cert", py.None())?;
        told.set_item("client_cert_chain", chain.to_tuple())?;
        told.set_item("client_cert_name", tls.peer_subject())?;
        // With an error there would be no connection.
        told.set_item("client_cert_error", py.None())?;
        told.set_item("tls_version", tls.version())?;
        told.set_item("cipher_suite", tls.cipher_suite())?;
        if is_anonymous {
            let mut known = self.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(key, told.copy()?.unbind());
        }
        Ok(told)
    }

    /// The scope of one request.
    pub(crate) fn scope<'py>(
        &self,
        py: Python<'py>,
        kind: Kind,
        request: &Parts,
        settings: &Settings,
        ends: &Ends,
    ) -> PyResult<Bound<'py, PyDict>> {
        let template = match kind {
            Kind::Http { has_hints: true } => &self.http_hints,
            Kind::Http { has_hints: false } => &self.http,
            Kind::WebSocket => &self.websocket,
            Kind::WebTransport => &self.webtransport,
        };
        let template = template.bind(py);
        let scope = template.copy()?;
        // Middleware writes into them, so each request has its own.
        for name in [intern!(py, "asgi"), intern!(py, "extensions")] {
            let shared = template.as_any().get_item(name)?;
            scope.set_item(name, shared.cast::<PyDict>()?.copy()?)?;
        }
        if let Some(tls) = request.extensions.get::<TlsInfo>() {
            let extensions = scope.as_any().get_item(intern!(py, "extensions"))?;
            extensions.set_item(intern!(py, "tls"), self.tls(py, tls)?)?;
        }
        let raw = request.uri.path();
        // The asterisk of OPTIONS, and the empty path of CONNECT, are kept as they came.
        if settings.root_path.is_empty() && !raw.contains('%') {
            scope.set_item(intern!(py, "path"), raw)?;
        } else {
            scope.set_item(intern!(py, "path"), decoded(&settings.root_path, raw))?;
        }
        scope.set_item(intern!(py, "raw_path"), raw_path(py, &settings.root_path, raw))?;
        let query = request.uri.query().unwrap_or_default();
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query.as_bytes()))?;
        scope.set_item(intern!(py, "headers"), self.headers(py, request)?)?;
        let version = match request.version {
            Version::HTTP_09 | Version::HTTP_10 => intern!(py, "1.0"),
            Version::HTTP_2 => intern!(py, "2"),
            Version::HTTP_3 => intern!(py, "3"),
            _ => intern!(py, "1.1"),
        };
        scope.set_item(intern!(py, "http_version"), version)?;
        let scheme = match (kind, ends.is_secure) {
            (Kind::WebSocket, true) => intern!(py, "wss"),
            (Kind::WebSocket, false) => intern!(py, "ws"),
            (_, true) => intern!(py, "https"),
            (_, false) => intern!(py, "http"),
        };
        scope.set_item(intern!(py, "scheme"), scheme)?;
        if kind != Kind::WebSocket {
            match request.method.as_str() {
                "GET" => scope.set_item(intern!(py, "method"), intern!(py, "GET"))?,
                "POST" => scope.set_item(intern!(py, "method"), intern!(py, "POST"))?,
                other => scope.set_item(intern!(py, "method"), other)?,
            }
        }
        match &ends.client {
            Client::Unknown => {}
            Client::Peer(address) => scope.set_item(intern!(py, "client"), self.addresses.tuple(py, *address)?)?,
            Client::Forwarded(host) => scope.set_item(intern!(py, "client"), (host, 0))?,
        }
        if let Some(address) = ends.server {
            scope.set_item(intern!(py, "server"), self.addresses.tuple(py, address)?)?;
        }
        if let Some(state) = &self.state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok(scope)
    }

    fn headers<'py>(&self, py: Python<'py>, request: &Parts) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let fields = &request.headers;
        // As ASGI has it, `:authority` comes first as `host`, in the place of any that there is.
        let authority = request.uri.authority().filter(|_| request.version >= Version::HTTP_2);
        if let Some(authority) = authority {
            let host = PyBytes::new(py, authority.as_str().as_bytes());
            list.append((self.name(py, &header::HOST), host))?;
        }
        for (name, value) in fields {
            if authority.is_some() && name == header::HOST {
                continue;
            }
            list.append((self.name(py, name), PyBytes::new(py, value.as_bytes())))?;
        }
        Ok(list)
    }

    fn name<'py>(&self, py: Python<'py>, name: &HeaderName) -> Bound<'py, PyBytes> {
        match self.names.get(name) {
            Some(known) => known.bind(py).clone(),
            None => PyBytes::new(py, name.as_str().as_bytes()),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Unknown,
    Peer(SocketAddr),
    /// As a proxy says, which knows no port.
    Forwarded(String),
}

/// Who talks to whom.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) client: Client,
    pub(crate) server: Option<SocketAddr>,
    pub(crate) is_secure: bool,
}

impl Ends {
    /// As the connection has it, or as a trusted proxy says (`X-Forwarded-For`, `X-Forwarded-Proto`).
    pub(crate) fn new(
        settings: &Settings,
        peer: Option<SocketAddr>,
        server: Option<SocketAddr>,
        is_secure: bool,
        fields: &HeaderMap,
    ) -> Self {
        let mut ends = Self {
            client: peer.map_or(Client::Unknown, Client::Peer),
            server,
            is_secure,
        };
        let Some(trusted) = &settings.trusted_proxies else {
            return ends;
        };
        let is_trusted = peer.map_or_else(|| trusted.trusts_any(), |peer| trusted.trusts(peer.ip()));
        if !is_trusted {
            return ends;
        }
        if let Some(proto) = fields.get("x-forwarded-proto").and_then(|value| value.to_str().ok()) {
            match proto.trim() {
                "https" | "wss" => ends.is_secure = true,
                "http" | "ws" => ends.is_secure = false,
                _ => {}
            }
        }
        let forwarded: Vec<&str> = fields
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|host| !host.is_empty())
            .collect();
        // From the right: each proxy appended the address that it saw, so the first that no trusted one added is the client.
        let client = forwarded
            .iter()
            .rev()
            .find(|host| !trusted.trusts_text(host))
            .or_else(|| forwarded.first());
        if let Some(client) = client {
            ends.client = Client::Forwarded((*client).to_owned());
        }
        ends
    }
}

fn raw_path<'py>(py: Python<'py>, root: &str, raw: &str) -> Bound<'py, PyBytes> {
    if root.is_empty() {
        return PyBytes::new(py, raw.as_bytes());
    }
    PyBytes::new(py, [root, raw].concat().as_bytes())
}

/// The path with its percent-encoding undone; what is then no UTF-8 is replaced.
fn decoded(root: &str, raw: &str) -> String {
    let mut out = String::with_capacity(root.len() + raw.len());
    out.push_str(root);
    if !raw.contains('%') {
        out.push_str(raw);
        return out;
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let digit = |index: usize| after.get(index).and_then(|byte| char::from(*byte).to_digit(16));
        if first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            // Two hexadecimal digits are a byte.
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            rest = &after[2..];
        } else {
            bytes.push(first);
        }
    }
    out.push_str(&String::from_utf8_lossy(&bytes));
    out
}
