//! A real nats-server, and a network between it and each node that a test can cut.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use wireloom_messaging::server::Server;
use wireloom_messaging::topics::{NatsBroker, Topics};
use wireloom_messaging::transport::Link;

use crate::peer::DEADLINE;
use crate::rig::Rig;

/// nats-server with JetStream in a folder of its own. Killed when it is dropped, or its test ends otherwise.
pub struct NatsServer {
    store: TempDir,
    child: Option<Child>,
    pub address: SocketAddr,
}

impl NatsServer {
    pub fn start() -> Self {
        let store = tempfile::tempdir().unwrap();
        let mut this = Self {
            store,
            child: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        this.start_again();
        this
    }

    /// As a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// With what it had, at another address.
    pub fn start_again(&mut self) {
        let child = self.child.insert(spawn(self.store.path()));
        self.address = address(self.store.path(), child.id());
    }

    /// With nothing.
    pub fn start_empty(&mut self) {
        self.store = tempfile::tempdir().unwrap();
        self.start_again();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(store: &Path) -> Child {
    Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "nats-server",
            "--addr",
            "127.0.0.1",
            "--port",
            "-1",
            "--jetstream",
        ])
        .arg("--store_dir")
        .arg(store.join("jetstream"))
        .arg("--ports_file_dir")
        .arg(store)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server (cargo xtask setup installs it)")
}

/// Where it says that it listens.
fn address(store: &Path, pid: u32) -> SocketAddr {
    let file = store.join(format!("nats-server_{pid}.ports"));
    let since = Instant::now();
    loop {
        let ports = std::fs::read(&file)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        if let Some(ports) = ports {
            let ports: serde_json::Value = ports;
            let url = ports["nats"][0].as_str().unwrap();
            return url.strip_prefix("nats://").unwrap().parse().unwrap();
        }
        assert!(since.elapsed() < DEADLINE, "nats-server does not say where it listens");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Whole,
    /// Connections end, new ones too.
    Cut,
    /// Connections stay, and carry nothing.
    Stalled,
}

/// What is between a node and NATS.
pub struct Proxy {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    network: watch::Sender<Network>,
    /// Of everything, each way, in milliseconds.
    delay: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn to(nats: &NatsServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(nats.address));
        let (network, seen) = watch::channel(Network::Whole);
        let delay = Arc::new(AtomicU64::new(0));
        let (to, by) = (target.clone(), delay.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = *to.lock().unwrap();
                tokio::spawn(carry(client, to, seen.clone(), by.clone()));
            }
        });
        Self {
            address,
            target,
            network,
            delay,
        }
    }

    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    pub fn stall(&self) {
        self.network.send_replace(Network::Stalled);
    }

    pub fn slow_down(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap();
        self.delay.store(delay, Ordering::Relaxed);
    }

    pub fn heal(&self) {
        self.network.send_replace(Network::Whole);
    }

    /// NATS is at another address.
    pub fn now_to(&self, nats: &NatsServer) {
        *self.target.lock().unwrap() = nats.address;
    }

    pub async fn broker(&self) -> NatsBroker {
        NatsBroker::connect(self.address.to_string()).await.unwrap()
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut network: watch::Receiver<Network>, delay: Arc<AtomicU64>) {
    if *network.borrow() == Network::Cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    let wait = || tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let state = *network.borrow_and_update();
        if state == Network::Cut {
            return;
        }
        tokio::select! {
            changed = network.changed() => if changed.is_err() { return },
            read = tokio::io::AsyncReadExt::read(&mut client, &mut from_client), if state == Network::Whole => match read {
                Ok(len @ 1..) if { wait().await; server.write_all(&from_client[..len]).await.is_ok() } => {}
                _ => return,
            },
            read = tokio::io::AsyncReadExt::read(&mut server, &mut from_server), if state == Network::Whole => match read {
                Ok(len @ 1..) if { wait().await; client.write_all(&from_server[..len]).await.is_ok() } => {}
                _ => return,
            },
        }
    }
}

/// Memory links to a server whose topics are on NATS.
pub struct OnNats {
    server: Server,
    _nats: Arc<NatsServer>,
}

tokio::task_local! {
    /// Of the test that runs.
    pub static NATS: Arc<NatsServer>;
}

impl Rig for OnNats {
    async fn start(server: &Server) -> Self {
        Self {
            server: server.clone(),
            _nats: NATS.get(),
        }
    }

    async fn connect(&self) -> Option<Box<dyn Link>> {
        Some(Box::new(self.server.connect_memory()))
    }

    async fn topics(topics: Topics) -> Topics {
        let broker = NatsBroker::connect(NATS.get().address.to_string()).await.unwrap();
        topics.broker(broker)
    }
}
