//! WebSocket handshakes and frames (RFC 6455), over TLS as the server speaks it, byte by byte.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite;

use crate::common::raw::tls_config_for;
use crate::common::within;
use crate::support::{Hostile, hostile, hostile_with};
use crate::table::case;

/// The largest message that the tests' application takes, and what it lets wait to be sent.
const LIMIT: usize = 100_000;

/// What every application has to say: by default tungstenite takes messages of 64 MiB, and keeps pongs for a peer that does
/// not read without limit.
pub fn limits(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(LIMIT)
        .max_frame_size(LIMIT)
        .write_buffer_size(16 << 10)
        .max_write_buffer_size(LIMIT)
}

/// Echoes, and tells the peer what it did wrong.
pub async fn echo(mut socket: WebSocket) {
    while let Some(message) = socket.recv().await {
        let answer = match message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => message,
            Ok(_) => continue,
            Err(error) => {
                let Some(code) = close_code(error) else { return };
                let reason = "".into();
                let _ = socket.send(Message::Close(Some(CloseFrame { code, reason }))).await;
                return;
            }
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}

/// Section 7.4.1.
fn close_code(error: axum::Error) -> Option<u16> {
    match *error.into_inner().downcast::<tungstenite::Error>().ok()? {
        tungstenite::Error::Protocol(_) => Some(1002),
        tungstenite::Error::Utf8(_) => Some(1007),
        tungstenite::Error::Capacity(_) => Some(1009),
        _ => None,
    }
}

async fn connect(f: &Hostile) -> TlsStream<TcpStream> {
    let tcp = within(TcpStream::connect(f.server)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(tls_config_for(b"http/1.1"));
    within(connector.connect(name, tcp)).await.unwrap()
}

const KEY: (&str, &str) = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
const VERSION: (&str, &str) = ("Sec-WebSocket-Version", "13");

fn request(host: &str, fields: &[(&str, &str)]) -> String {
    let mut request = format!("GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    request + "\r\n"
}

/// Sends a handshake with these fields and reads the head of the answer.
async fn handshake(f: &Hostile, fields: &[(&str, &str)]) -> (TlsStream<TcpStream>, String) {
    let mut tls = connect(f).await;
    tls.write_all(request(&f.server.to_string(), fields).as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(tls.read_u8()).await.unwrap());
    }
    (tls, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

/// A WebSocket that is open.
async fn open(f: &Hostile) -> TlsStream<TcpStream> {
    // Compression is offered, and never agreed on: there is nothing to blow up.
    let deflate = ("Sec-WebSocket-Extensions", "permessage-deflate");
    let (tls, head) = handshake(f, &[KEY, VERSION, deflate]).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    tls
}

/// A frame with its first byte and length as told, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => frame.extend([&[0xfe][..], &(len as u16).to_be_bytes()].concat()),
        len => frame.extend([&[0xff][..], &(len as u64).to_be_bytes()].concat()),
    }
    [frame, vec![0; 4], payload.to_vec()].concat()
}

/// Reads a frame of the server: its first byte and its payload.
async fn read_frame(tls: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let first = tls.read_u8().await?;
    let len = match tls.read_u8().await? {
        126 => usize::from(tls.read_u16().await?),
        127 => usize::try_from(tls.read_u64().await?).unwrap(),
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    tls.read_exact(&mut payload).await?;
    Ok((first, payload))
}

/// The code with which the server closes, after which the connection ends.
async fn closed(mut tls: TlsStream<TcpStream>) -> u16 {
    let (first, payload) = within(read_frame(&mut tls)).await.unwrap();
    assert_eq!(first, 0x88, "a Close frame");
    let mut rest = Vec::new();
    // A reset is a way to close, too.
    let _ = within(tls.read_to_end(&mut rest)).await;
    u16::from_be_bytes([payload[0], payload[1]])
}

#[tokio::test]
async fn handshakes() {
    let cases = [
        (case(92), vec![VERSION]),
        (case(92), vec![VERSION, (KEY.0, "")]),
        (case(92), vec![VERSION, (KEY.0, "c2hvcnQ=")]),
        (case(92), vec![VERSION, (KEY.0, "!!!!!!!!!!!!!!!!!!!!!!==")]),
        (case(93), vec![KEY, (VERSION.0, "8")]),
        (case(93), vec![KEY]),
        (case(94), vec![KEY, VERSION, ("Origin", "https://evil.test")]),
        (case(94), vec![KEY, VERSION, ("Origin", "null")]),
    ];
    hostile(async |f| {
        for (case, fields) in &cases {
            let (_tls, head) = handshake(f, fields).await;
            assert!(
                head.starts_with(&format!("http/1.1 {}", case.status())),
                "{}: {head}",
                case.what
            );
            assert_eq!(head.contains("sec-websocket-version: 13"), case.number == 93, "{head}");
        }
        let same = format!("https://{}", f.server);
        let (_tls, head) = handshake(f, &[KEY, VERSION, ("Origin", &same)]).await;
        assert!(head.starts_with("http/1.1 101"), "{head}");
    })
    .await;
    // What is allowed for sessions is for WebSockets.
    hostile_with(
        |b| b.allow_origin("https://friend.test"),
        async |f| {
            let (_tls, head) = handshake(f, &[KEY, VERSION, ("Origin", "https://friend.test")]).await;
            assert!(head.starts_with("http/1.1 101"), "{head}");
        },
    )
    .await;
}

#[tokio::test]
async fn frames() {
    let close = |code: u16| frame(0x88, &code.to_be_bytes());
    let mut huge = vec![0x82, 0xff];
    huge.extend((1_u64 << 62).to_be_bytes());
    huge.extend([0; 100]);
    let cases = [
        (case(95), vec![0x81, 1, b'x']),
        (case(95), vec![0x89, 0]),
        (case(96), frame(0xc1, b"x")),
        (case(96), frame(0xa1, b"x")),
        (case(96), frame(0x91, b"x")),
        (case(96), frame(0x83, b"x")),
        (case(96), frame(0x8b, b"x")),
        (case(96), frame(0x80, b"a continuation of nothing")),
        (case(96), [frame(0x01, b"x"), frame(0x81, b"another inside")].concat()),
        (case(97), frame(0x09, b"x")),
        (case(97), frame(0x89, &[0; 126])),
        (case(97), frame(0x88, &[7])),
        (case(98), close(0)),
        (case(98), close(999)),
        (case(98), close(1005)),
        (case(98), close(1006)),
        (case(98), close(1015)),
        (case(99), frame(0x81, &[0xff])),
        (case(99), frame(0x81, "\u{1f980}".as_bytes().split_last().unwrap().1)),
        (case(99), [frame(0x01, &[0xf0, 0x9f]), frame(0x80, b"x")].concat()),
        (case(100), frame(0x82, &vec![0; LIMIT + 1])),
        (case(100), huge),
        (
            case(100),
            [frame(0x02, &vec![0; 60_000]), frame(0x80, &vec![0; 60_000])].concat(),
        ),
    ];
    hostile(async |f| {
        for (case, bytes) in &cases {
            let mut tls = open(f).await;
            tls.write_all(bytes).await.unwrap();
            assert_eq!(
                closed(tls).await,
                case.web_socket(),
                "{}: {:x?}",
                case.what,
                &bytes[..2]
            );
        }
        // And one that breaks nothing.
        let mut tls = open(f).await;
        tls.write_all(&[frame(0x81, b"well"), close(1000)].concat())
            .await
            .unwrap();
        assert_eq!(within(read_frame(&mut tls)).await.unwrap(), (0x81, b"well".to_vec()));
        assert_eq!(closed(tls).await, 1000);
    })
    .await;
}

/// Waits until the server has closed the connection.
async fn ended(io: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let _ = within(io.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn stalled_handshakes() {
    case(101).harmless();
    let deadline = Duration::from_millis(300);
    hostile_with(
        |b| b.handshake_timeout(deadline),
        async |f| {
            let mut silent = within(TcpStream::connect(f.server)).await.unwrap();
            let mut half = within(TcpStream::connect(f.server)).await.unwrap();
            half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
            ended(&mut silent).await;
            ended(&mut half).await;
        },
    )
    .await;
    // The header has a deadline of its own.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = wireloom::tcp::Options::new().header_timeout(deadline);
    let server = wireloom::tcp::serve(listener, None, axum::Router::new(), options, std::future::pending());
    let client = async {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(&request("a", &[VERSION]).as_bytes()[..80])
            .await
            .unwrap();
        ended(&mut half).await;
    };
    tokio::select! {
        _ = server => unreachable!("nobody stops it"),
        () = within(client) => {}
    }
}

#[tokio::test]
async fn ping_flood() {
    case(102).harmless();
    hostile(async |f| {
        let tls = open(f).await;
        let (mut read, mut write) = tokio::io::split(tls);
        // Nothing of what comes back is read, for 40 MB of pings.
        let pings = frame(0x89, &[b'p'; 125]).repeat(100);
        let flood = async {
            for _ in 0..3000 {
                write.write_all(&pings).await.unwrap();
            }
        };
        let flooded = tokio::time::timeout(Duration::from_secs(20), flood).await;
        let kept = f.memory();
        assert!(kept < 4 << 20, "{kept} bytes");
        f.assert_undisturbed().await;
        // Pongs are there, up to that limit. An echo finds the buffer full and ends the WebSocket, or is behind them.
        if flooded.is_ok() {
            let _ = write.write_all(&frame(0x81, b"still there?")).await;
            let mut pongs = 0;
            while let Ok((first, payload)) = within(read_frame(&mut read)).await {
                match first {
                    0x8a => pongs += 1,
                    _ => {
                        assert_eq!(payload, b"still there?");
                        break;
                    }
                }
            }
            assert!(pongs > 0);
        }
    })
    .await;
}
