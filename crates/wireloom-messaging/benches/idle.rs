//! What an idle WebSocket connection without TLS costs the server in memory: `cargo bench --bench idle [CONNECTIONS]`.
//!
//! The server is a process of its own, this program again; its resident memory is read before and after.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use tokio::net::TcpListener;
use wireloom_messaging::Data;
use wireloom_messaging::server::{Handlers, Server};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("serve") => serve(),
        count => measure(count.and_then(|count| count.parse().ok()).unwrap_or(5_000)),
    }
}

fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let handlers = Handlers::new().on_request("echo", async |data: Data| data);
        let server = Server::builder().max_connections(100_000, 100_000).build(handlers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        server.listen(listener).await.unwrap();
    });
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A connection that has read the server's first message.
fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    // A frame of two bytes of header and eleven of AcceptConf.
    stream.read_exact(&mut [0; 13]).unwrap();
    stream
}

fn measure(count: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    let address = address.trim();
    // What the first connections allocate once is not counted.
    drop((0..50).map(|_| connect(address)).collect::<Vec<_>>());
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = resident_kib(child.id());
    let connections: Vec<_> = (0..count).map(|_| connect(address)).collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let after = resident_kib(child.id());
    let each = (after - before) as f64 / count as f64;
    println!("{count} idle connections: {before} -> {after} KiB, {each:.2} KiB each");
    drop(connections);
    child.kill().unwrap();
    child.wait().unwrap();
}
