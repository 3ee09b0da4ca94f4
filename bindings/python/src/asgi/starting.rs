//! The listeners of a server: from sockets to tasks that serve.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use wireloom::tcp::HttpVersions;
use wireloom::{ClientAuth, ConnectionLimits, Server, tcp};

use super::beside::Role;
use super::service::{AsgiService, Listener, Service};
use super::site::Site;
use super::static_files::StaticFiles;

/// Connections to the port of the metrics.
const OBSERVERS: usize = 100;

/// Everything that the servers of one start need.
pub(super) struct Prepared {
    pub(super) plain: Vec<(TcpListener, Role)>,
    pub(super) secure: Vec<(Option<UdpSocket>, Option<TcpListener>)>,
    pub(super) unix: Vec<std::os::unix::net::UnixListener>,
    pub(super) site: Arc<Site>,
    pub(super) identity: Option<wireloom::Identity>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) limits: ConnectionLimits,
    pub(super) origins: Vec<String>,
    pub(super) static_files: Arc<[StaticFiles]>,
    pub(super) metrics: Option<Arc<str>>,
    pub(super) has_metrics_port: bool,
    pub(super) health_check: Option<Arc<str>>,
    pub(super) header_size: u32,
    pub(super) keep_alive: Duration,
    pub(super) shutdown_deadline: Duration,
    pub(super) route: (u8, u8),
    pub(super) alt_svc: bool,
    pub(super) alt_svc_port: Option<u16>,
    pub(super) versions: HttpVersions,
    pub(super) clients: ClientAuth,
}

/// What serves, each until it is told to stop, and the addresses of the site.
pub(super) type Started = (JoinSet<Result<(), String>>, Vec<String>);

impl Prepared {
    fn service(&self, listener: Listener) -> AsgiService {
        AsgiService(Arc::new(Service {
            site: self.site.clone(),
            listener,
            static_files: self.static_files.clone(),
            metrics: self.metrics.clone(),
            has_metrics_port: self.has_metrics_port,
            health_check: self.health_check.clone(),
        }))
    }

    fn options(&self) -> tcp::Options {
        let options = self
            .origins
            .iter()
            .fold(tcp::Options::new(), tcp::Options::allow_origin)
            .limits(self.limits.clone())
            .versions(self.versions)
            .max_header_size(self.header_size)
            .shutdown_deadline(self.shutdown_deadline);
        // It is the time that a first request may take, too.
        if self.keep_alive.is_zero() {
            options
        } else {
            options.header_timeout(self.keep_alive)
        }
    }

    pub(super) async fn start(mut self) -> Result<Started, String> {
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for (listener, role) in std::mem::take(&mut self.plain) {
            listener.set_nonblocking(true).map_err(|error| error.to_string())?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            if role == Role::Site {
                addresses.push(address.to_string());
            }
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
            let service = self.service(Listener {
                address: Some(address),
                is_secure: false,
                role,
            });
            // A site that is full can still be measured.
            let options = match role {
                Role::Metrics => self.options().limits(ConnectionLimits::new(OBSERVERS, OBSERVERS)),
                _ => self.options(),
            };
            let stop = stopped(&self.stop);
            tasks.spawn(async move {
                let served = tcp::serve(listener, None, service, options, stop).await;
                served.map_err(|error| error.to_string())
            });
        }
        for listener in std::mem::take(&mut self.unix) {
            listener.set_nonblocking(true).map_err(|error| error.to_string())?;
            let listener = tokio::net::UnixListener::from_std(listener).map_err(|error| error.to_string())?;
            let service = self.service(Listener {
                address: None,
                is_secure: false,
                role: Role::Site,
            });
            let (options, stop) = (self.options(), stopped(&self.stop));
            tasks.spawn(async move {
                tcp::serve_unix(listener, service, options, stop).await;
                Ok(())
            });
        }
        for (udp, tcp) in std::mem::take(&mut self.secure) {
            let Some(identity) = self.identity.clone() else {
                continue;
            };
            let options = match self.alt_svc_port {
                Some(port) => self.options().http3_port(port),
                None => self.options(),
            };
            let mut builder = Server::builder()
                .alt_svc(self.alt_svc && udp.is_some())
                .sockets(udp, tcp)
                .identity(identity)
                .client_auth(self.clients.clone())
                .connection_id_route(self.route.0, self.route.1)
                .connection_limits(self.limits.clone())
                .max_header_size(self.header_size)
                .tcp_options(options)
                .shutdown_deadline(self.shutdown_deadline);
            for origin in &self.origins {
                builder = builder.allow_origin(origin);
            }
            let server = builder.listen().await.map_err(|error| error.to_string())?;
            let local = server.local_addrs();
            addresses.extend(local.iter().map(ToString::to_string));
            let service = self.service(Listener {
                address: local.first().copied(),
                is_secure: true,
                role: Role::Site,
            });
            let stop = stopped(&self.stop);
            tasks.spawn(async move {
                let served = server.serve(service).with_graceful_shutdown(stop).await;
                served.map_err(|error| error.to_string())
            });
        }
        if self.site.access.is_some() || self.site.board.is_some() {
            let site = Arc::downgrade(&self.site);
            tokio::spawn(async move {
                while let Some(site) = site.upgrade() {
                    site.flush();
                    // A log is read along; counters are asked for now and then.
                    let pause = if site.access.is_some() { 100 } else { 500 };
                    drop(site);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            });
        }
        Ok((tasks, addresses))
    }
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.subscribe();
    async move {
        // The sender is gone only with the server itself.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }
}
