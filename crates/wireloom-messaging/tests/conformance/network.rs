//! A network between clients and a server that cuts connections after a random number of bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::chaos::Random;

/// A connection that is cut carries so many bytes, in both directions together.
const BYTES: Range<u64> = 0..2_000;
/// And so many datagrams. A handshake takes a dozen.
const DATAGRAMS: Range<u64> = 20..50;
/// For how long a connection that nobody hears of any more is held.
const SILENCE: Duration = Duration::from_secs(600);
/// For how long nothing passes from a client's address after a cut: longer than the idle timeout, so that nothing survives it.
const HOLE: Duration = Duration::from_secs(4);
/// More than any datagram that is forwarded.
const DATAGRAM: usize = 1 << 16;

/// One port, TCP and UDP, in front of a server's. Everything ends when this is dropped.
pub struct Network {
    pub address: SocketAddr,
    cuts: Arc<Cuts>,
    _tasks: JoinSet<()>,
}

/// Who decides how long a connection lives.
struct Cuts {
    left: AtomicU64,
    made: AtomicU64,
    seed: AtomicU64,
}

impl Cuts {
    /// After how much the next connection is cut; not at all when there were enough.
    fn next(&self, lifetime: Range<u64>) -> u64 {
        let one_less = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match one_less {
            Ok(_) => {
                let random = Random(self.seed.fetch_add(1, Ordering::Relaxed)).below(lifetime.end - lifetime.start);
                lifetime.start + random
            }
            Err(_) => u64::MAX,
        }
    }

    fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a connection may still carry, in both directions together.
struct Budget {
    left: AtomicU64,
    spent: Notify,
}

impl Budget {
    fn new(left: u64) -> Self {
        Self {
            left: left.into(),
            spent: Notify::new(),
        }
    }

    /// How much of `wanted` still passes.
    fn take(&self, wanted: u64) -> u64 {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(wanted))
            })
            .unwrap_or_default();
        left.min(wanted)
    }
}

impl Network {
    /// Before `server`, for as many cuts.
    pub async fn before(server: SocketAddr, cuts: u64) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The port may be somebody's in UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let cuts = Arc::new(Cuts {
            left: cuts.into(),
            made: 0.into(),
            seed: 1.into(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(forward_tcp(tcp, server, cuts.clone()));
        tasks.spawn(forward_udp(udp, server, cuts.clone()));
        Self {
            address,
            cuts,
            _tasks: tasks,
        }
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.made.load(Ordering::Relaxed)
    }
}

async fn forward_tcp(listener: TcpListener, server: SocketAddr, cuts: Arc<Cuts>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let cuts = cuts.clone();
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let budget = Budget::new(cuts.next(BYTES));
            let silently = budget.left.load(Ordering::Relaxed).is_multiple_of(4);
            let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
            tokio::select! {
                () = budget.spent.notified() => {
                    cuts.made();
                    if silently {
                        // As behind a router that forgot it: nobody is told.
                        tokio::time::sleep(SILENCE).await;
                    }
                    // With the halves, both ends learn at once, in the middle of a message or not.
                }
                ((), ()) = async {
                    tokio::join!(pump(client_in, server_out, &budget), pump(server_in, client_out, &budget))
                } => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Until the end or the last byte that passes.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, budget: &Budget) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let passes = budget.take(read as u64) as usize;
        if to.write_all(&buffer[..passes]).await.is_err() {
            break;
        }
        if passes < read {
            budget.spent.notify_one();
        }
    }
}

/// A client's address, and what it may still send and receive.
struct Flow {
    socket: Arc<UdpSocket>,
    budget: Arc<Budget>,
    backwards: AbortHandle,
    cut: Option<Instant>,
}

async fn forward_udp(socket: UdpSocket, server: SocketAddr, cuts: Arc<Cuts>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // Some systems tell here that a client is gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if flows
            .get(&client)
            .is_none_or(|flow| flow.cut.is_some_and(|at| at.elapsed() > HOLE))
        {
            let out = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            out.connect(server).await.unwrap();
            let budget = Arc::new(Budget::new(cuts.next(DATAGRAMS)));
            let backwards = backwards(out.clone(), socket.clone(), client, budget.clone());
            let flow = Flow {
                socket: out,
                budget,
                backwards: tasks.spawn(backwards),
                cut: None,
            };
            flows.insert(client, flow);
        }
        let Some(flow) = flows.get_mut(&client) else { continue };
        if flow.budget.take(1) == 1 {
            // A lost datagram is nothing new to QUIC.
            let _ = flow.socket.send(&buffer[..length]).await;
        } else if flow.cut.is_none() {
            flow.cut = Some(Instant::now());
            flow.backwards.abort();
            cuts.made();
        }
        while tasks.try_join_next().is_some() {}
    }
}

async fn backwards(from: Arc<UdpSocket>, to: Arc<UdpSocket>, client: SocketAddr, budget: Arc<Budget>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok(length) = from.recv(&mut buffer).await else {
            continue;
        };
        if budget.take(1) == 1 {
            let _ = to.send_to(&buffer[..length], client).await;
        }
    }
}
