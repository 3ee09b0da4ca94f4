//! The client's side of each workload.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use wireloom::proto::connection::SessionRequest;
use wireloom::{Client, RecvStream, Session};

use super::server::{HELLO, HELLO_PATH, write_without_end};
use super::workload::Workload;

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

const PAYLOAD: &[u8] = &[0x5a; 1150];
const SMALL: usize = 64;
const ECHO_TASKS: usize = 64;
pub(super) const SESSION_TASKS: usize = 16;
const REQUEST_TASKS: usize = 32;

/// What the client counts, and why its load stopped if it did.
#[derive(Default)]
pub(super) struct Tally {
    count: AtomicU64,
    /// Round trips in nanoseconds, up to a minute, to three digits.
    latency: Mutex<Option<Histogram<u64>>>,
    failure: Mutex<Option<Error>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    fn add(&self, count: u64) {
        self.count.fetch_add(count, Relaxed);
    }

    /// Takes the round trips so far, and begins anew.
    pub(super) fn take_latency(&self) -> Option<Histogram<u64>> {
        lock(&self.latency).replace(Histogram::new_with_bounds(1, 60_000_000_000, 3).ok()?)
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = Result<(), Error>> + Send + 'static) {
        let tally = self.clone();
        tokio::spawn(async move {
            if let Err(error) = task.await {
                // The first failure is the cause of the others.
                lock(&tally.failure).get_or_insert(error);
            }
        });
    }
}

/// Starts a load that runs until its session ends.
pub(super) async fn start(workload: Workload, session: &Session, tally: &Arc<Tally>) -> Result<(), Error> {
    let (session, counted) = (session.clone(), tally.clone());
    match workload {
        Workload::Upload1 | Workload::Upload16 => {
            for _ in 0..workload.streams() {
                let send = session.open_uni().await?;
                tally.spawn(async { Ok(write_without_end(send).await?) });
            }
        }
        Workload::Download1 | Workload::Download16 => {
            for _ in 0..workload.streams() {
                let (mut send, recv) = session.open_bi().await?;
                send.finish()?;
                tally.spawn(download(recv, tally.clone()));
            }
        }
        Workload::EchoLatency => tally.spawn(echo_latency(session, counted)),
        Workload::EchoStreams => {
            for _ in 0..ECHO_TASKS {
                tally.spawn(echo_streams(session.clone(), counted.clone()));
            }
        }
        Workload::UniStreams => tally.spawn(async move {
            loop {
                let mut send = session.open_uni().await?;
                send.write_all(&PAYLOAD[..SMALL]).await?;
                send.finish()?;
            }
        }),
        Workload::Datagrams64 | Workload::Datagrams1150 => {
            let size = if workload == Workload::Datagrams64 {
                SMALL
            } else {
                PAYLOAD.len()
            };
            tally.spawn(async move {
                loop {
                    session.send_datagram_wait(&PAYLOAD[..size]).await?;
                    counted.add(1);
                }
            });
        }
        // They have no load session.
        Workload::Sessions | Workload::IdleMemory | Workload::Http3Requests => {}
    }
    Ok(())
}

/// Opens sessions on a connection each, and closes them at once.
pub(super) fn start_sessions(client: &Client, authority: &str, tally: &Arc<Tally>) {
    for _ in 0..SESSION_TASKS {
        let (client, counted, authority) = (client.clone(), tally.clone(), authority.to_owned());
        tally.spawn(async move {
            let url = format!("https://{authority}/bench");
            loop {
                let connection = client.dial(&url).await?;
                let session = connection.open(SessionRequest::new(&*authority, "/bench")).await?;
                session.close(0, "");
                // Its unused connection would stay for a while.
                connection.close();
                counted.add(1);
            }
        });
    }
}

/// Asks for a short page over and over, on one connection.
pub(super) async fn start_requests(client: &Client, authority: &str, tally: &Arc<Tally>) -> Result<(), Error> {
    let connection = Arc::new(client.dial(&format!("https://{authority}/")).await?);
    for _ in 0..REQUEST_TASKS {
        let (connection, counted) = (connection.clone(), tally.clone());
        let uri: http::Uri = format!("https://{authority}{HELLO_PATH}").parse()?;
        tally.spawn(async move {
            loop {
                let mut request = http::Request::new(bytes::Bytes::new());
                *request.uri_mut() = uri.clone();
                let response = connection.request_whole(request, 2 * HELLO.len()).await?;
                if response.body() != HELLO {
                    return Err(format!("{} instead of a greeting", response.status()).into());
                }
                counted.add(1);
            }
        });
    }
    Ok(())
}

async fn download(mut recv: RecvStream, tally: Arc<Tally>) -> Result<(), Error> {
    while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
        tally.add(chunk.len() as u64);
    }
    Err("the server has ended its stream".into())
}

async fn echo_latency(session: Session, tally: Arc<Tally>) -> Result<(), Error> {
    let (mut send, mut recv) = session.open_bi().await?;
    loop {
        let started = Instant::now();
        send.write_all(&PAYLOAD[..SMALL]).await?;
        let mut missing = SMALL;
        while missing > 0 {
            let chunk = recv
                .read_chunk(missing)
                .await?
                .ok_or("the server has ended its stream")?;
            missing -= chunk.len();
        }
        let elapsed = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(latency) = &mut *lock(&tally.latency) {
            latency.saturating_record(elapsed);
        }
        tally.add(1);
    }
}

async fn echo_streams(session: Session, tally: Arc<Tally>) -> Result<(), Error> {
    loop {
        let (mut send, mut recv) = session.open_bi().await?;
        send.write_all(&PAYLOAD[..SMALL]).await?;
        send.finish()?;
        let mut received = 0;
        while let Some(chunk) = recv.read_chunk(usize::MAX).await? {
            received += chunk.len();
        }
        if received != SMALL {
            return Err(format!("{SMALL} bytes came back as {received}").into());
        }
        tally.add(1);
    }
}
