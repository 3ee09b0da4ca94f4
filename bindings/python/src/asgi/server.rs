//! The server as Python has it.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wireloom::tcp::HttpVersions;
use wireloom::{ClientAuth, ConnectionLimits, RootCertificates};

use super::access::{AccessLog, Line};
use super::beside::Role;
use super::metrics::Board;
use super::scope::Templates;
use super::settings::{Settings, TrustedProxies};
use super::site::Site;
use super::starting::Prepared;
use super::static_files::StaticFiles;
use crate::awaitable::Await;
use crate::descriptor::adopt;
use crate::errors::{IdentityError, ServeError};
use crate::event_loop::hub_of;
use crate::hub::Hub;
use crate::identity::Identity;

/// Options of the server; python/wireloom/config.py documents them and has the defaults.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    root_path: String,
    limit_concurrency: Option<usize>,
    limit_max_requests: Option<u64>,
    limit_body_size: Option<u64>,
    limit_header_size: u32,
    limit_connections: usize,
    limit_connections_per_address: usize,
    ws_max_size: usize,
    ws_ping_interval: f64,
    ws_ping_timeout: f64,
    session_grace: f64,
    shutdown_deadline: f64,
    keep_alive: f64,
    forwarded_allow_ips: Option<Vec<String>>,
    headers: Vec<(String, String)>,
    origins: Vec<String>,
    /// The format, and the file's descriptor unless Python takes the lines.
    access_log: Option<(String, Option<i32>)>,
    access_log_exclude: Vec<String>,
    static_files: Vec<(String, PathBuf)>,
    static_expires: Option<u32>,
    metrics: Option<String>,
    has_metrics_port: bool,
    redirect_to: u16,
    health_check: Option<String>,
    worker: u8,
    workers: u8,
    alt_svc: bool,
    alt_svc_port: Option<u16>,
    http1: bool,
    http2: bool,
    client_ca: Option<PathBuf>,
    client_certs: String,
    board: Option<i32>,
}

impl Options {
    fn client_auth(&self) -> PyResult<ClientAuth> {
        let Some(path) = &self.client_ca else {
            return Ok(ClientAuth::None);
        };
        let failed = |error: &dyn std::error::Error| IdentityError::new_err(format!("{}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| failed(&error))?;
        let roots = RootCertificates::from_pem(pem).map_err(|error| failed(&error))?;
        Ok(match self.client_certs.as_str() {
            "none" => ClientAuth::None,
            "optional" => ClientAuth::Optional(roots),
            _ => ClientAuth::Required(roots),
        })
    }

    fn versions(&self) -> HttpVersions {
        match (self.http1, self.http2) {
            (true, false) => HttpVersions::Http1,
            (false, true) => HttpVersions::Http2,
            _ => HttpVersions::Both,
        }
    }
}

/// Sockets of one address, as descriptors that are given away.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Sockets {
    udp: Option<i32>,
    tcp: Option<i32>,
    unix: Option<i32>,
    role: String,
}

/// An application on sockets.
#[pyclass(module = "wireloom._wireloom", frozen)]
pub(crate) struct AsgiServer {
    site: Arc<Site>,
    options: Options,
    identity: Option<wireloom::Identity>,
    clients: ClientAuth,
    stop: watch::Sender<bool>,
    running: Arc<Mutex<JoinSet<Result<(), String>>>>,
}

#[pymethods]
impl AsgiServer {
    /// For the event loop that runs now. `report(message, exception)` writes to the log.
    #[new]
    fn new(
        py: Python<'_>,
        app: Py<PyAny>,
        report: Py<PyAny>,
        options: Options,
        identity: Option<PyRef<'_, Identity>>,
        state: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        let hub: Arc<Hub> = hub_of(py)?;
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err("a time is a number of seconds"))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let name = HeaderName::try_from(name).map_err(|error| PyValueError::new_err(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
            headers.append(name, value);
        }
        if options.keep_alive == 0.0 {
            // Each connection has one request, of HTTP/1.1: later versions do not know this field.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let settings = Settings {
            root_path: options.root_path.trim_end_matches('/').to_owned(),
            concurrency: options.limit_concurrency,
            max_requests: options.limit_max_requests,
            max_body: options.limit_body_size,
            max_message: options.ws_max_size,
            // Zero is never.
            ping_interval: Some(seconds(options.ws_ping_interval)?).filter(|interval| !interval.is_zero()),
            ping_timeout: Some(seconds(options.ws_ping_timeout)?).filter(|timeout| !timeout.is_zero()),
            session_grace: seconds(options.session_grace)?,
            trusted_proxies: options.forwarded_allow_ips.as_deref().map(TrustedProxies::parse),
            headers,
        };
        seconds(options.shutdown_deadline)?;
        seconds(options.keep_alive)?;
        let access = match &options.access_log {
            Some((format, descriptor)) => {
                let file = descriptor.map(adopt).transpose()?.map(Into::into);
                Some(AccessLog::new(format, file, &options.access_log_exclude).map_err(PyValueError::new_err)?)
            }
            None => None,
        };
        let templates = Templates::new(py, &settings, state)?;
        let mut site = Site::new(py, hub, app, report, settings, templates, access)?;
        if let Some(descriptor) = options.board {
            let file = adopt(descriptor)?.into();
            site.board = Some(Board::new(file, options.worker, options.workers)?);
        }
        let site = Arc::new(site);
        Ok(Self {
            site,
            clients: options.client_auth()?,
            options,
            identity: identity.map(|identity| identity.0.clone()),
            stop: watch::channel(false).0,
            running: Arc::default(),
        })
    }

    /// Starts serving, and answers with the addresses.
    fn start(&self, sockets: Vec<Sockets>) -> PyResult<Await> {
        let mut plain = Vec::new();
        let mut secure = Vec::new();
        let mut unix = Vec::new();
        for set in sockets {
            let udp = set.udp.map(adopt).transpose()?.map(UdpSocket::from);
            let tcp = set.tcp.map(adopt).transpose()?.map(TcpListener::from);
            if let Some(socket) = set.unix {
                unix.push(std::os::unix::net::UnixListener::from(adopt(socket)?));
            }
            let role = Role::parse(&set.role, self.options.redirect_to)
                .ok_or_else(|| PyValueError::new_err(format!("there is no role {}", set.role)))?;
            if role != Role::Site {
                plain.extend(tcp.map(|tcp| (tcp, role)));
                continue;
            }
            match (self.identity.is_some(), udp, tcp) {
                (_, None, None) => {}
                (true, udp, tcp) => secure.push((udp, tcp)),
                (false, None, Some(tcp)) => plain.push((tcp, role)),
                (false, Some(_), _) => return Err(PyValueError::new_err("HTTP/3 needs a certificate")),
            }
        }
        let prepared = Prepared {
            plain,
            secure,
            unix,
            site: self.site.clone(),
            identity: self.identity.clone(),
            stop: self.stop.clone(),
            limits: self.connection_limits(),
            origins: self.options.origins.clone(),
            static_files: self
                .options
                .static_files
                .iter()
                .map(|(prefix, folder)| StaticFiles::new(prefix, folder.clone(), self.options.static_expires))
                .collect(),
            metrics: self.options.metrics.as_deref().map(Arc::from),
            has_metrics_port: self.options.has_metrics_port,
            health_check: self.options.health_check.as_deref().map(Arc::from),
            header_size: self.options.limit_header_size,
            keep_alive: Duration::from_secs_f64(self.options.keep_alive),
            shutdown_deadline: Duration::from_secs_f64(self.options.shutdown_deadline),
            route: (self.options.worker, self.options.workers),
            alt_svc: self.options.alt_svc,
            alt_svc_port: self.options.alt_svc_port,
            versions: self.options.versions(),
            clients: self.clients.clone(),
        };
        let running = self.running.clone();
        Ok(Await::future(&self.site.hub, async move {
            let (tasks, addresses) = prepared.start().await.map_err(ServeError::new_err)?;
            *running.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
            Ok(addresses)
        }))
    }

    /// Begins to shut down: newcomers are refused, clients are told to go elsewhere, and so are applications with sessions.
    fn stop(&self) {
        self.site.drain();
        self.stop.send_replace(true);
    }

    /// Waits until the connections are over, which after `stop` is at its deadline at the latest.
    fn wait(&self) -> Await {
        let mut running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        Await::future(&self.site.hub, async move {
            let mut failed = None;
            while let Some(ended) = running.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed = Some(error),
                    Err(error) => failed = Some(error.to_string()),
                }
            }
            failed.map_or(Ok(()), |error| Err(PyRuntimeError::new_err(error)))
        })
    }

    /// The tasks of the application that have not ended.
    fn tasks(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.site.running(py)
    }

    /// Writes what waits of the access log, and counters for other workers.
    fn flush(&self) {
        self.site.flush();
    }

    /// The lines of the access log that wait for Python's logging.
    fn access_lines(&self) -> Vec<Line> {
        let lines = self.site.access.as_ref().map(AccessLog::take);
        lines.unwrap_or_default().into()
    }

    /// `limit_max_requests` is reached.
    #[getter]
    fn is_exhausted(&self) -> bool {
        self.site.counts.is_exhausted.load(Ordering::Acquire)
    }

    /// Calls of the application that are counted as active, and tasks that wait.
    fn counts(&self) -> (usize, usize) {
        (
            self.site.counts.active.load(Ordering::Relaxed),
            self.site.running_count(),
        )
    }

    /// The counters of all workers, in the text format of Prometheus.
    fn metrics(&self) -> String {
        super::metrics::text(&self.site)
    }
}

impl AsgiServer {
    /// Behind a proxy all clients share its address.
    fn connection_limits(&self) -> ConnectionLimits {
        let limits = ConnectionLimits::new(
            self.options.limit_connections,
            self.options.limit_connections_per_address,
        );
        let proxies = self.options.forwarded_allow_ips.as_deref().map(TrustedProxies::parse);
        match proxies {
            Some(proxies) => limits.exempt(move |address| proxies.trusts(address)),
            None => limits,
        }
    }
}
