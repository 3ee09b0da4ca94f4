//! The running server.

use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tower_service::Service;

use super::builder::{ServeError, ServerBuilder};
use super::dispatch::dispatch;
use super::{OriginPolicy, Server, TcpSide};
use crate::body::Body;
use crate::driver::IncomingQueue;
use crate::service::{BoxError, HttpService};
use crate::tcp;

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server about to run: await it. It ends with an error if it cannot start or go on, or well after a graceful shutdown.
#[must_use = "a server runs only while it is awaited"]
pub struct Serve<S> {
    server: Result<Server, Box<ServerBuilder>>,
    service: S,
    shutdown: Option<Shutdown>,
}

impl<S> Serve<S> {
    pub(super) fn new(server: Server, service: S) -> Self {
        Self {
            server: Ok(server),
            service,
            shutdown: None,
        }
    }

    pub(super) fn from_builder(builder: ServerBuilder, service: S) -> Self {
        Self {
            server: Err(Box::new(builder)),
            service,
            shutdown: None,
        }
    }

    /// Shuts down in good order when `signal` resolves: newcomers are refused, GOAWAY and WT_DRAIN_SESSION are sent, requests
    /// and sessions may end until the builder's `shutdown_deadline`; what is left is closed with code 0 and a reason.
    pub fn with_graceful_shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(signal));
        self
    }
}

impl<S, B> IntoFuture for Serve<S>
where
    S: Service<Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let server = match self.server {
                Ok(server) => server,
                Err(builder) => builder.listen().await?,
            };
            let shutdown = self.shutdown.unwrap_or_else(|| Box::pin(std::future::pending()));
            run(server, self.service, shutdown).await
        })
    }
}

async fn run<S>(mut server: Server, service: S, shutdown: Shutdown) -> Result<(), ServeError>
where
    S: HttpService,
{
    let (stop, stopped) = watch::channel(false);
    // Dropped with this future: no task outlives the server.
    let mut tcp_tasks = JoinSet::new();
    let tcp = std::mem::take(server.tcp.get_mut().unwrap_or_else(PoisonError::into_inner));
    for TcpSide { listener, http3 } in tcp {
        let options = server
            .tcp_options
            .clone()
            .limits(server.limits.clone())
            .origins(server.origins.clone())
            .handshake_timeout(server.handshake_timeout)
            .shutdown_deadline(server.shutdown_deadline)
            .announce_http3(server.alt_svc, http3);
        let (identity, service) = (server.identity.clone(), service.clone());
        let mut stopped = stopped.clone();
        let stop = async move {
            let _ = stopped.wait_for(|s| *s).await;
        };
        tcp_tasks.spawn(async move { tcp::serve(listener, Some(&identity), service, options, stop).await });
    }
    let mut answering = JoinSet::new();
    let (phase, phases) = watch::channel(Phase::Serving);
    for (home, queue) in &server.queues {
        let answers = answer(queue.clone(), service.clone(), server.origins.clone(), phases.clone());
        answering.spawn_on(answers, &home.handle);
    }
    let mut failed = tokio::select! {
        () = shutdown => None,
        () = server.endpoint_lost() => Some(ServeError::EndpointLost),
        // Until they are told to, these end only because something failed.
        Some(ended) = tcp_tasks.join_next() => failure(ended),
        Some(ended) = answering.join_next() => failure(ended.map(Ok)),
    };
    let _ = stop.send(true);
    server.start_draining();
    let _ = tokio::time::timeout(server.shutdown_deadline, async {
        // What still comes in before this is answered, whichever queue it is in.
        server.connections.wait_idle().await;
        let _ = phase.send(Phase::Finishing);
        while answering.join_next().await.is_some() {}
    })
    .await;
    server.finish(0, "the server is shutting down").await;
    let _ = phase.send(Phase::Ended);
    while answering.join_next().await.is_some() {}
    while let Some(ended) = tcp_tasks.join_next().await {
        failed = failed.or_else(|| failure(ended));
    }
    failed.map_or(Ok(()), Err)
}

fn failure(ended: Result<io::Result<()>, JoinError>) -> Option<ServeError> {
    let result = ended.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    result.err().map(ServeError::Io)
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Serving,
    /// Nothing more comes; what runs may end.
    Finishing,
    /// What runs is cut off.
    Ended,
}

/// Answers what comes in through one queue, where this runs.
async fn answer<S>(
    queue: Arc<IncomingQueue>,
    service: S,
    origins: Arc<OriginPolicy>,
    mut phases: watch::Receiver<Phase>,
) where
    S: HttpService,
{
    // Dropped with this future.
    let mut requests = JoinSet::new();
    let mut phase = Phase::Serving;
    while phase == Phase::Serving || !requests.is_empty() || !queue.is_empty() {
        tokio::select! {
            incoming = queue.pop() => {
                requests.spawn(dispatch(incoming, service.clone(), origins.clone()));
            }
            Some(ended) = requests.join_next() => match ended {
                Ok(None) => {}
                Ok(Some(handler)) => {
                    requests.spawn(async {
                        handler.await;
                        None
                    });
                }
                // The task's handles are dropped: its stream or session was reset.
                Err(error) if error.is_panic() => tracing::error!("a request handler panicked"),
                Err(_) => {}
            },
            changed = phases.changed() => {
                phase = *phases.borrow_and_update();
                // An error means that nobody is left who waits for this.
                if changed.is_err() || phase == Phase::Ended {
                    break;
                }
            }
        }
    }
    requests.shutdown().await;
}
