//! Memory for subscribers that do not read, and for small questions about much. In a process of its own, where nothing else allocates.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Mutex;
use wireloom_messaging::codec::{Message, Name, Payload, RequestId};
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::topics::{TopicOptions, Topics};
use wireloom_messaging::transport::memory::MemoryLink;
use wireloom_messaging::transport::{self, Incoming};

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// Nothing else allocates while a test has this.
static ALONE: Mutex<()> = Mutex::const_new(());

const CLIENTS: usize = 50;
/// 64 KiB in the link and a piece of 32 KiB, which has room for another while it is made; a piece that it takes next; and the rest.
const MAY_TAKE: usize = 256 << 10;

/// A client over WebSocket that reads nothing by itself.
async fn connect(server: &Server) -> DuplexStream {
    let (mut ours, theirs) = tokio::io::duplex(1024);
    let server = server.clone();
    tokio::spawn(async move { server.accept_websocket(theirs, None).await });
    ours.write_all(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(ours.read_u8().await.unwrap());
    }
    // The first message, with its header.
    ours.read_exact(&mut [0; 2 + 11]).await.unwrap();
    ours
}

async fn send(client: &mut DuplexStream, message: &Message<'_>) {
    let message = message.to_vec().unwrap();
    let length = u16::try_from(message.len()).unwrap();
    let mut frame = vec![0x82];
    match length {
        ..126 => frame.push(0x80 | length as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    // Masked, with a mask that changes nothing.
    frame.extend([0; 4]);
    frame.extend(message);
    client.write_all(&frame).await.unwrap();
}

#[tokio::test]
async fn history_waits_as_what_it_is_not_as_what_a_link_makes_of_it() {
    let _alone = ALONE.lock().await;
    let server = Server::builder()
        .topics(Topics::open(TopicOptions::new()))
        .build(Handlers::new());
    for _ in 0..100 {
        server.publish("t", vec![3; 8000]).await.unwrap();
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(&server).await);
    }
    let before = ALLOCATOR.allocated();
    let subscribe = Message::Request {
        id: RequestId::from_u64(1),
        name: Name::new("$subscribe/t").unwrap(),
        payload: Payload::utf8(r#"{"history": {}}"#),
    };
    for client in &mut clients {
        send(client, &subscribe).await;
    }
    for client in &mut clients {
        // What comes first is there when the link has taken all that it takes.
        let first = tokio::time::timeout(Duration::from_secs(60), client.read_u8()).await;
        first.expect("hung").unwrap();
    }
    let taken = ALLOCATOR.allocated().saturating_sub(before) / CLIENTS;
    assert!(taken < MAY_TAKE, "{taken} bytes for each");
    drop(clients);
}

#[tokio::test]
async fn what_is_kept_does_not_keep_what_it_came_in() {
    const MANY: usize = 1000;
    let _alone = ALONE.lock().await;
    let options = TopicOptions::new().history(MANY, Duration::from_secs(3600));
    let server = Server::builder().topics(Topics::open(options)).build(Handlers::new());
    let mut client = connect(&server).await;
    let large = vec![0; 8000];
    let (id, name) = (RequestId::from_u64(1), Name::new("$publish//t").unwrap());
    let publish = Message::Request {
        id,
        name,
        payload: Payload::utf8("0123456789"),
    };
    let signal = Message::Signal {
        name: Name::new("ignored").unwrap(),
        payload: Payload::binary(&large),
    };
    let before = ALLOCATOR.allocated();
    for _ in 0..MANY {
        send(&mut client, &publish).await;
        send(&mut client, &signal).await;
        // The reply, in a short frame.
        let head: [u8; 2] = [client.read_u8().await.unwrap(), client.read_u8().await.unwrap()];
        client.read_exact(&mut vec![0; usize::from(head[1])]).await.unwrap();
    }
    let taken = ALLOCATOR.allocated().saturating_sub(before);
    assert!(taken < 1 << 20, "{taken} bytes");
}

async fn next(link: &mut MemoryLink) -> Bytes {
    loop {
        let incoming = tokio::time::timeout(Duration::from_secs(60), transport::recv(link)).await;
        if let Incoming::Message { bytes, .. } = incoming.expect("hung").unwrap() {
            return bytes;
        }
    }
}

async fn ask(link: &mut MemoryLink, name: &str, json: &str) -> Bytes {
    let request = Message::Request {
        id: RequestId::from_u64(1),
        name: Name::new(name).unwrap(),
        payload: Payload::utf8(json),
    };
    transport::send(link, request.to_vec().unwrap().into()).await.unwrap();
    next(link).await
}

#[tokio::test]
async fn who_asks_for_a_few_of_those_present_is_not_given_all() {
    let _alone = ALONE.lock().await;
    let server = Server::builder()
        .topics(Topics::open(TopicOptions::new()))
        .build(Handlers::new());
    let join = format!(r#"{{"join": "{}"}}"#, "i".repeat(1000));
    let mut members = Vec::new();
    for _ in 0..2000 {
        let mut link = server.connect_memory();
        next(&mut link).await;
        ask(&mut link, "$presence/t", &join).await;
        members.push(link);
    }
    let before = ALLOCATOR.total_allocated();
    let reply = ask(&mut members[0], "$presence/t", "{}").await;
    let took = ALLOCATOR.total_allocated() - before;
    let Ok(Message::Reply { payload, .. }) = Message::decode(&reply) else {
        panic!("{reply:?}");
    };
    let said: serde_json::Value = serde_json::from_slice(payload.bytes).unwrap();
    assert_eq!(said["count"], 2000);
    assert!(took < 200_000, "{took} bytes");
}
