//! What only WebSocket has: frames, pings, close codes, handshakes (section 5).

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data as DataCode, OpCode};
use wireloom_messaging::Data;
use wireloom_messaging::codec::{Message, Name, Payload, RequestId};
use wireloom_messaging::server::{Admission, ConnectionOptions, Refusal, Server};
use wireloom_messaging::transport::websocket::WebSocketLink;

use crate::behaviours::echo;
use crate::peer::within;
use crate::rig::{Rig as _, WebSocket};

async fn connect(rig: &WebSocket) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let url = format!("ws://{}/", rig.address);
    let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    assert!(!response.headers().contains_key("sec-websocket-protocol"));
    assert!(matches!(within(socket.next()).await, Some(Ok(Frame::Binary(_)))));
    socket
}

fn request(text: &str) -> Vec<u8> {
    let message = Message::Request {
        id: RequestId::from_u64(1),
        name: Name::new("echo").unwrap(),
        payload: Payload::utf8(text),
    };
    message.to_vec().unwrap()
}

async fn close_code(mut socket: WebSocketStream<TcpStream>) -> u16 {
    loop {
        match within(socket.next()).await {
            Some(Ok(Frame::Close(frame))) => return frame.expect("a code").code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn pings_are_answered_and_count() {
    let server = Server::builder().read_timeout(Duration::from_secs(2)).build(echo());
    let rig = WebSocket::start(&server).await;
    let mut socket = connect(&rig).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        socket
            .send(Frame::Ping(b"still there".as_slice().into()))
            .await
            .unwrap();
        let answer = within(socket.next()).await;
        assert!(
            matches!(&answer, Some(Ok(Frame::Pong(data))) if data[..] == *b"still there"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn fragments_are_one_message() {
    let server = Server::builder().build(echo());
    let rig = WebSocket::start(&server).await;
    let mut socket = connect(&rig).await;
    let bytes = request("in three parts");
    let parts: Vec<_> = bytes.chunks(bytes.len().div_ceil(3)).collect();
    for (index, part) in parts.iter().enumerate() {
        let opcode = if index == 0 {
            DataCode::Binary
        } else {
            DataCode::Continue
        };
        let frame = RawFrame::message(part.to_vec(), OpCode::Data(opcode), index + 1 == parts.len());
        socket.send(Frame::Frame(frame)).await.unwrap();
    }
    let Some(Ok(Frame::Binary(reply))) = within(socket.next()).await else {
        panic!("no reply");
    };
    assert_eq!(&reply[9..], b"in three parts");
}

#[tokio::test]
async fn close_codes() {
    let server = Server::builder().message_buffer_size(1024).build(echo());
    let rig = WebSocket::start(&server).await;
    for (frame, code) in [
        (Frame::text("text"), 1003),
        (Frame::binary(Vec::new()), 1002),
        (Frame::binary(vec![0xff]), 1002),
        (Frame::binary(vec![0x80; 1025]), 1009),
        (Frame::binary(vec![0x80; 100_000]), 1009),
    ] {
        let mut socket = connect(&rig).await;
        socket.send(frame).await.unwrap();
        assert_eq!(close_code(socket).await, code);
    }
    let mut socket = connect(&rig).await;
    socket.close(None).await.unwrap();
    // Answered, as every browser's close() without arguments wants it.
    assert!(matches!(within(socket.next()).await, Some(Ok(Frame::Close(_)))));
    let socket = connect(&rig).await;
    let (code, ()) = within(async { tokio::join!(close_code(socket), server.shut_down()) }).await;
    assert_eq!(code, 1001);
}

/// A message that trickles in is not waited for longer than the read timeout (section 7.4).
#[tokio::test]
async fn a_trickled_message_closes() {
    let server = Server::builder().read_timeout(Duration::from_secs(1)).build(echo());
    let rig = WebSocket::start(&server).await;
    let mut socket = connect(&rig).await;
    let (stream, mut end) = (socket.get_mut(), None);
    // A masked binary frame of 100 bytes, of which one comes every 100 ms.
    stream.write_all(&[0x82, 0x80 | 100, 0, 0, 0, 0]).await.unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = stream.write_all(b"x").await;
        let mut byte = [0];
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await {
            end = read.ok().map(|_| byte[0]);
            break;
        }
    }
    // The first byte of a Close frame.
    assert_eq!(end, Some(0x88));
}

/// However long one message takes, who takes it bit by bit is not cut off (section 7.4).
#[tokio::test]
async fn a_large_message_is_read_bit_by_bit() {
    const LARGE: usize = 3_000_000;
    let handlers = echo().on_request("large", async || Data::binary(vec![7; LARGE]));
    let server = Server::builder()
        .message_buffer_size(1 << 22)
        .read_timeout(Duration::from_secs(2))
        // Or all of it would come behind the end.
        .linger(Duration::from_millis(50))
        .build(handlers);
    let (mut client, io) = tokio::io::duplex(1 << 16);
    let link = WebSocketLink::upgraded(io, 1 << 16).await;
    tokio::spawn(async move { server.run(link).await });
    let request = Message::Request {
        id: RequestId::from_u64(1),
        name: Name::new("large").unwrap(),
        payload: Payload::EMPTY,
    };
    let request = request.to_vec().unwrap();
    // Masked with zeros.
    let head = [0x82, 0x80 | request.len() as u8, 0, 0, 0, 0];
    client.write_all(&[&head[..], &request].concat()).await.unwrap();
    // An AcceptConf, and the reply behind the ten bytes of its frame's head.
    let (mut left, mut piece) = (2 + 11 + 10 + 9 + LARGE, vec![0; 1 << 16]);
    while left > 0 {
        let read = within(client.read(&mut piece)).await.unwrap();
        assert_ne!(read, 0, "cut off with {left} bytes to come");
        left = left.checked_sub(read).expect("no more than that");
        let alive = client.write_all(&[0x82, 0x81, 0, 0, 0, 0, 0x21]).await;
        alive.expect("not cut off");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn handshakes_can_be_refused() {
    let handlers = echo().admit(async |admission: Admission| {
        if admission.path() != "/chat" || admission.query() != Some("room=1") {
            return Err(Refusal::new(http::StatusCode::NOT_FOUND, "no such room"));
        }
        assert_eq!(admission.headers["user-agent"], "tester");
        Ok(ConnectionOptions::default().concurrency(4))
    });
    let server = Server::builder().build(handlers);
    let rig = WebSocket::start(&server).await;
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: tester\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        for part in head.as_bytes().chunks(7) {
            stream.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.unwrap();
        (String::from_utf8_lossy(&answer).into_owned(), stream)
    };
    let (answer, mut stream) = get("/elsewhere").await;
    assert_eq!(answer, "HTTP/1.1 404");
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.ends_with("no such room"), "{rest}");
    let (answer, _open) = get("/chat?room=1").await;
    assert_eq!(answer, "HTTP/1.1 101");
    while server.connection_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(server.connections()[0].user_agent(), Some("tester"));
    drop(_open);
    within(server.shut_down()).await;
}

/// Pings of a client that does not read are not answered into memory: at some point it is not read from either.
#[tokio::test]
async fn a_flood_of_pings_that_nobody_reads_the_answers_of_is_bounded() {
    let server = Server::builder().build(echo());
    let (mut client, io) = tokio::io::duplex(4096);
    let link = WebSocketLink::upgraded(io, 1 << 16).await;
    let running = tokio::spawn({
        let server = server.clone();
        async move { server.run(link).await }
    });
    // Masked with zeros, 125 bytes each.
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
    let mut sent = 0;
    // All is in memory and on one thread: what does not happen within so many turns does not happen.
    let turns = || async {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    };
    loop {
        tokio::select! {
            written = client.write_all(&ping) => written.unwrap(),
            () = turns() => break,
        }
        sent += ping.len();
        assert!(sent < 1 << 20, "it is read for ever");
    }
    assert!(sent > 4096, "{sent}");
    // Once the answers are read, the server goes on.
    let mut answers = vec![0; sent / ping.len() * 127];
    within(client.read_exact(&mut answers)).await.unwrap();
    drop(client);
    within(running).await.unwrap();
}

/// Pings between the parts of a message count as signs of life, but give it no more time.
#[tokio::test]
async fn a_message_in_parts_has_the_read_timeout() {
    let server = Server::builder().read_timeout(Duration::from_secs(2)).build(echo());
    let rig = WebSocket::start(&server).await;
    // A Ping in two parts begins no message, and after it Pings go on to count.
    let mut patient = connect(&rig).await;
    for part in [&[0x89, 0x80][..], &[0; 4]] {
        patient.get_mut().write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut trickling = connect(&rig).await;
    let part = |code, payload: u8, fin| Frame::Frame(RawFrame::message(vec![payload], OpCode::Data(code), fin));
    trickling.send(part(DataCode::Binary, 0x3f, false)).await.unwrap();
    within(async {
        // Until it is closed.
        while trickling.send(Frame::Ping(Bytes::new())).await.is_ok()
            && trickling.send(part(DataCode::Continue, b'x', false)).await.is_ok()
        {
            patient.send(Frame::Ping(Bytes::new())).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    patient
        .send(Frame::Binary(request("still there").into()))
        .await
        .unwrap();
    loop {
        match within(patient.next()).await {
            Some(Ok(Frame::Pong(_))) => {}
            Some(Ok(Frame::Binary(reply))) => break assert!(reply.ends_with(b"still there")),
            other => panic!("{other:?}"),
        }
    }
}
