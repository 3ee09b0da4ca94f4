//! What NATS between two servers adds: the time from a publication on one to its delivery by the other, beside delivery by the same
//! server, and beside the broker in memory. Starts a nats-server of its own.
#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wireloom_messaging::client::{Client, ConnectError, Subscription};
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::topics::{MemoryBroker, NatsBroker, TopicOptions, Topics};

const MESSAGES: usize = 2000;

struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nats(folder: &std::path::Path) -> (Nats, String) {
    let child = Nats(spawn(folder));
    let file = folder.join(format!("nats-server_{}.ports", child.0.id()));
    loop {
        let ports = std::fs::read(&file)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        if let Some(ports) = ports {
            let ports: serde_json::Value = ports;
            return (child, ports["nats"][0].as_str().unwrap().to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn spawn(folder: &std::path::Path) -> Child {
    Command::new("nats-server")
        .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
        .arg(folder.join("jetstream"))
        .arg("--ports_file_dir")
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server")
}

async fn subscriber(server: &Server) -> Subscription {
    let server = server.clone();
    let dial = move || {
        let link = server.connect_memory();
        async move { Ok::<_, ConnectError>(link) }
    };
    let client = Client::over(dial).build();
    client.topic("bench").unwrap().subscribe().await.unwrap()
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{what:<34} p50 {:>8.0} us   p99 {:>8.0} us", at(0.5), at(0.99));
}

/// One after the other, so that nothing waits for anything else: acknowledgement, and delivery on the same and the other server.
async fn measure(name: &str, here: &Server, there: &Server) {
    let (mut near, mut far) = (subscriber(here).await, subscriber(there).await);
    let (mut acknowledged, mut delivered, mut across) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..MESSAGES {
        let begun = Instant::now();
        let publish = async {
            here.publish("bench", vec![0x5a; 64]).await.unwrap();
            begun.elapsed()
        };
        let near = async {
            near.next_message().await.unwrap();
            begun.elapsed()
        };
        let far = async {
            far.next_message().await.unwrap();
            begun.elapsed()
        };
        let (publish, near, far) = tokio::join!(publish, near, far);
        acknowledged.push(publish);
        delivered.push(near);
        across.push(far);
    }
    print(&format!("{name}: acknowledged"), acknowledged);
    print(&format!("{name}: delivered, same server"), delivered);
    print(&format!("{name}: delivered, other server"), across);
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (_nats, url) = nats(folder.path());
        let open = || Topics::open(TopicOptions::new());
        let server = |topics: Topics| Server::builder().topics(topics).build(Handlers::new());
        let memory = MemoryBroker::new();
        let (a, b) = (server(open().broker(memory.clone())), server(open().broker(memory)));
        measure("memory", &a, &b).await;
        let a = server(open().broker(NatsBroker::connect(&url).await.unwrap()));
        let b = server(open().broker(NatsBroker::connect(&url).await.unwrap()));
        measure("NATS", &a, &b).await;
    });
}
