//! One TCP connection from accept to close.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::header_timer::HeaderTimer;
use super::interim::Interim;
use super::service::{Activity, Added, Idle, answer_http1, answer_http2};
use super::stream::{Owned, Owner};
use super::tasks::Spawner;
use super::{HttpVersions, Options};
use crate::limits::ConnectionPermit;
use crate::metrics::{self, Carrier};
use crate::service::HttpService;
use crate::tls::{ALPN_H2, TlsInfo};

/// Bytes of each answer that wait for a client's windows, in HTTP/2: hyper would keep 400 KiB, of 200 at once.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a silent peer is asked whether it is still there, and how long its answer may take.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long a connection that never had a request may take to react to the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long an HTTP/2 connection may take for it whose last answer was written, and for the rest of that to reach the socket.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all connections of a listener have in common.
pub(super) struct Shared {
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) spawner: Spawner,
    pub(super) options: Options,
    /// Becomes true when the shutdown begins.
    pub(super) drain: watch::Receiver<bool>,
}

/// Serves one connection, which `arrive` takes to the runtime that the future runs on. `permit` counts it until its socket
/// is closed, upgraded or not.
pub(super) fn run<S, T>(
    shared: Arc<Shared>,
    service: S,
    arrive: impl FnOnce() -> io::Result<T> + Send + 'static,
    peer: Option<SocketAddr>,
    permit: ConnectionPermit,
) -> impl Future<Output = ()> + Send + 'static
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    // On the heap and gone with all of hyper's buffers when HTTP has ended: the task stays as long as an upgraded
    // connection, and as large as its largest moment.
    let http = Box::pin(async move {
        match arrive() {
            Ok(tcp) => handshake_and_serve(&shared, service, tcp, peer).await,
            // Fails for want of memory only.
            Err(error) => {
                tracing::warn!(%error, "connection dropped");
                None
            }
        }
    });
    async move {
        let owner = http.await;
        // An upgraded connection goes on in the application; it stays counted, and this task stays there to cut it off.
        if let Some(owner) = owner {
            owner.closed().await;
        }
        drop(permit);
    }
}

/// The life of a connection as one of HTTP. `None`: it ended before that began.
async fn handshake_and_serve<S, T>(shared: &Shared, service: S, tcp: T, peer: Option<SocketAddr>) -> Option<Owner>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let Some(tls) = &shared.tls else {
        return Some(serve(shared, service, tcp, false, (peer, None)).await);
    };
    let mut drain = shared.drain.clone();
    // On the heap, so that it takes no room beside what follows.
    let accepting = Box::pin(timeout(shared.options.handshake_timeout, tls.accept(tcp)));
    let handshake = tokio::select! {
        handshake = accepting => handshake,
        // Nothing was asked yet that would deserve an answer.
        () = draining(&mut drain) => return None,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let is_h2 = session.alpn_protocol() == Some(ALPN_H2);
            if !is_h2 && shared.options.versions == HttpVersions::Http2 {
                tracing::debug!("a client without ALPN is refused: HTTP/1.1 is off");
                return None;
            }
            let tls = TlsInfo::of_tcp(session);
            return Some(serve(shared, service, stream, is_h2, (peer, Some(tls))).await);
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("TLS handshake timed out"),
    }
    metrics::handshake_failed(Carrier::Tcp);
    None
}

async fn draining(drain: &mut watch::Receiver<bool>) {
    // The sender is dropped together with every connection's task: an error is as good as the signal.
    let _ = drain.wait_for(|&draining| draining).await;
}

/// Serves HTTP until it ends, be it by an upgrade; who gets the stream then uses it as long as the result lives.
async fn serve<S, T>(
    shared: &Shared,
    service: S,
    io: T,
    is_h2: bool,
    (peer, tls): (Option<SocketAddr>, Option<TlsInfo>),
) -> Owner
where
    S: HttpService,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = &shared.options;
    let (io, owner) = Owned::new(io);
    let activity = Arc::<Activity>::default();
    let mut added = Added {
        peer,
        tls,
        alt_svc: options.alt_svc.clone(),
        origins: options.origins.clone(),
        activity: Arc::clone(&activity),
        interim: None,
    };
    let mut drain = shared.drain.clone();
    let besides = Besides::new();
    besides.push(Box::pin(async move {
        draining(&mut drain).await;
        Beside::End
    }));
    // ALPN has said which version it is. Guessing from the first bytes, as hyper-util does, would wait for them without
    // a deadline.
    let driving: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + '_>> = if is_h2 {
        let added = Arc::new(added);
        let serving = service_fn(move |request| answer_http2(service.clone(), request, added.clone()));
        let connection = http2::Builder::new(shared.spawner.clone())
            .timer(TokioTimer::new())
            .max_header_list_size(options.max_header_size)
            .max_concurrent_streams(options.max_concurrent_streams)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(io), serving);
        let idle = idle(Arc::clone(&activity), options.header_timeout);
        besides.push(Box::pin(async move {
            idle.await;
            Beside::End
        }));
        let end = http2::Connection::graceful_shutdown;
        // hyper waits for the client to acknowledge the goodbye, which one that is gone, or does not want to, never does.
        let is_over = || match activity.idle() {
            Idle::Busy => false,
            Idle::For(duration) => duration >= FAREWELL,
            Idle::Unused => true,
        };
        Box::pin(drive(connection, besides, end, is_over))
    } else {
        let (io, interim) = Interim::new(io);
        // It is the longest idle time, too.
        let timer = HeaderTimer::default();
        added.interim = Some(interim);
        let added = Arc::new(added);
        let serving = service_fn(move |request| answer_http1(service.clone(), request, added.clone()));
        let connection = http1::Builder::new()
            .timer(timer.clone())
            .header_read_timeout(options.header_timeout)
            .max_header_size(options.max_header_size as usize)
            .serve_connection(TokioIo::new(io), serving)
            .with_upgrades();
        let end = http1::UpgradeableConnection::graceful_shutdown;
        besides.push(due(timer, options.header_timeout));
        Box::pin(drive(connection, besides, end, || activity.idle() == Idle::Unused))
    };
    if let Err(error) = driving.await {
        tracing::debug!(error = &error as &dyn StdError, "connection failed");
    }
    owner
}

/// What happens beside a connection.
enum Beside {
    /// It is to end: the server drains, or it has been idle for too long.
    End,
    /// A deadline of its own has passed, and this waits for the next: hyper looks for a header first, which may have come at that
    /// very moment.
    Due(NextBeside),
}

type NextBeside = Pin<Box<dyn Future<Output = Beside> + Send>>;

/// Those that can. Each is polled only when it was woken, so that they cost a connection that is busy nothing.
type Besides = FuturesUnordered<NextBeside>;

fn due(timer: HeaderTimer, limit: Duration) -> NextBeside {
    Box::pin(async move {
        timer.due(limit).await;
        Beside::Due(due(timer, limit))
    })
}

/// Polls the connection until it ends, winding it down when it is to. Then it is given up when it `is_over`.
async fn drive<C>(
    connection: C,
    mut besides: Besides,
    graceful_shutdown: impl Fn(Pin<&mut C>),
    is_over: impl Fn() -> bool,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            match Pin::new(&mut besides).poll_next(cx) {
                Poll::Ready(Some(Beside::End)) => return Poll::Ready(None),
                Poll::Ready(Some(Beside::Due(next))) => besides.push(next),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    });
    if let Some(result) = ended.await {
        return result;
    }
    graceful_shutdown(connection.as_mut());
    // A connection without any request may not even have sent the preface of HTTP/2, and then there is nobody yet who
    // could take the goodbye: hyper would wait for it.
    loop {
        match timeout(GOODBYE, connection.as_mut()).await {
            Ok(result) => return result,
            Err(_elapsed) if is_over() => return Ok(()),
            Err(_elapsed) => {}
        }
    }
}

/// Completes when no request has been there for `limit`, up to as long again later.
async fn idle(activity: Arc<Activity>, limit: Duration) {
    let mut wait = limit;
    loop {
        tokio::time::sleep(wait).await;
        wait = match activity.idle() {
            Idle::Busy => limit,
            Idle::For(duration) if duration < limit => limit - duration,
            Idle::For(_) | Idle::Unused => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer as _;

    use super::*;

    /// The header of one request comes at the very moment of its deadline, that of the next one never.
    #[tokio::test]
    async fn a_deadline_that_was_met_in_the_end_is_not_the_last() {
        const LIMIT: Duration = Duration::from_millis(10);
        let timer = HeaderTimer::default();
        let besides = Besides::new();
        besides.push(due(timer.clone(), LIMIT));
        let (mut passed, mut deadline) = (0, timer.sleep(LIMIT));
        let connection = poll_fn(|cx| {
            if deadline.as_mut().poll(cx).is_ready() {
                passed += 1;
                timer.reset(&mut deadline, std::time::Instant::now() + LIMIT);
            }
            if passed == 2 {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        });
        let driven = drive(connection, besides, |_| {}, || false);
        let driven = timeout(Duration::from_secs(60), driven).await;
        driven.expect("the second deadline").expect("no error");
    }
}
