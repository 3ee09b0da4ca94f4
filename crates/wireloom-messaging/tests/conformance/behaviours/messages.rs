//! Requests, replies and signals.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use wireloom_messaging::codec::{AcceptConf, Encoding, Message, Name, Payload, RequestId};
use wireloom_messaging::server::{Connection, Context, Handlers, Json, ReplyError, Server, SignalError};
use wireloom_messaging::{Data, IncomingMessage};

use super::{TellDrop, echo};
use crate::peer::{Peer, start, within};
use crate::rig::Rig;

pub async fn the_first_message_is_accept_conf<R: Rig>() {
    let server = Server::builder().build(echo());
    let rig = R::start(&server).await;
    let peer = Peer::silent(&rig).await;
    // V01 of vectors/webwire.json.
    assert_eq!(&peer.accepted[..], [0x17, 2, 0, 0x60, 0xea, 0, 0, 0, 0x20, 0, 0]);

    let server = Server::builder()
        .read_timeout(std::time::Duration::from_secs(3))
        .message_buffer_size(1024)
        .sub_protocol("chat/1")
        .build(echo());
    let rig = R::start(&server).await;
    let peer = Peer::silent(&rig).await;
    let expected = AcceptConf::new(3000, 1024).with_sub_protocol(b"chat/1");
    assert_eq!(Message::decode(&peer.accepted), Ok(Message::AcceptConf(expected)));
}

pub async fn requests_in_every_encoding<R: Rig>() {
    let server = Server::builder().build(echo().on_request("odd", async |data: Data| data));
    let (_rig, mut peer) = start::<R>(&server).await;
    let utf16 = Data::utf16("a😀жü");
    let payloads = [
        Payload::binary(&[0, 255, 10]),
        Payload::utf8("жü😀"),
        utf16.payload(),
        Payload::EMPTY,
        Payload::utf16(b""),
    ];
    for (id, payload) in (1..).zip(payloads) {
        for name in ["echo", "odd"] {
            peer.request(id, name, payload).await;
            peer.expect_reply(id, payload).await;
        }
    }
}

pub async fn every_kind_of_reply<R: Rig>() {
    let handlers = echo()
        .on_request("nothing", async || ())
        .on_request("error", async || {
            Err::<(), _>(ReplyError::new("SAMPLE_ERROR", "Sample é"))
        })
        .on_request("foreign", async || "x".parse::<u8>().map(|_| ()))
        .on_request("panic", async || -> () { panic!("on purpose") })
        .on_request("", async |data: Data| data);
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "nothing", "x").await;
    peer.expect_reply(1, Payload::EMPTY).await;
    peer.text(2, "error", "x").await;
    assert_eq!(peer.expect_error(2).await, ("SAMPLE_ERROR".into(), "Sample é".into()));
    for (id, name) in [(3, "foreign"), (4, "panic")] {
        peer.text(id, name, "x").await;
        let id = RequestId::from_u64(id);
        peer.expect(Message::ReplyInternalError { id }).await;
    }
    peer.text(5, "Echo", "names are case-sensitive").await;
    assert_eq!(peer.expect_error(5).await.0, "UNKNOWN_REQUEST");
    peer.text(6, "", "no name").await;
    peer.expect_text(6, "no name").await;
    peer.ping().await;
}

pub async fn replies_that_cannot_be_sent<R: Rig>() {
    async fn failing(code: String) -> Result<(), ReplyError> {
        Err(ReplyError::new(code, ""))
    }
    let handlers = echo().on_request("fail", failing).on_request("odd", async || Data {
        encoding: Encoding::Utf16,
        bytes: b"odd".as_slice().into(),
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    let long = "C".repeat(256);
    for (id, name, code) in [(1, "fail", ""), (2, "fail", "é"), (3, "fail", &long), (4, "odd", "")] {
        peer.text(id, name, code).await;
        let id = RequestId::from_u64(id);
        peer.expect(Message::ReplyInternalError { id }).await;
    }
    peer.ping().await;
}

pub async fn identifiers_are_opaque<R: Rig>() {
    let server = Server::builder().build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    let name = Name::new("echo").unwrap();
    for id in [[0; 8], [255; 8], [0, 0, 0, 0, 1, 0, 0, 0]].map(RequestId) {
        let payload = Payload::utf8("x");
        peer.send(&Message::Request { id, name, payload }).await;
        peer.expect(Message::Reply { id, payload }).await;
    }
    // The same twice gets two replies.
    peer.text(7, "echo", "first").await;
    peer.text(7, "echo", "second").await;
    let mut replies = [peer.recv().await, peer.recv().await].map(|bytes| bytes[9..].to_vec());
    replies.sort();
    assert_eq!(replies, [b"first".to_vec(), b"second".to_vec()]);
}

pub async fn signals_both_ways<R: Rig>() {
    // Comes back as it went.
    let handlers = echo().on_other_signals(async |connection: Connection, message: IncomingMessage| {
        let name = message.name().unwrap_or_default().to_owned();
        connection.signal(&name, message.into_data())
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    let utf16 = Data::utf16("random😀");
    let payloads = [Payload::binary(&[0, 255]), Payload::utf8("something"), utf16.payload()];
    for name in ["eventA", "odd", ""].map(|name| Name::new(name).unwrap()) {
        for payload in payloads {
            let signal = Message::Signal { name, payload };
            peer.send(&signal).await;
            peer.expect(signal).await;
        }
    }
    let name = Name::new("only a name").unwrap();
    let payload = Payload::EMPTY;
    peer.send(&Message::Signal { name, payload }).await;
    peer.expect(Message::Signal { name, payload }).await;

    let connection = server.connections().pop().unwrap();
    let long = "n".repeat(256);
    assert!(matches!(connection.signal("", ""), Err(SignalError::Encode(_))));
    assert!(matches!(connection.signal(&long, "x"), Err(SignalError::Encode(_))));
    // An empty UTF-16 signal would be refused by every parser.
    connection.signal("empty", Data::utf16("")).unwrap();
    let name = Name::new("empty").unwrap();
    peer.expect(Message::Signal {
        name,
        payload: Payload::utf8(""),
    })
    .await;
    peer.close().await;
    while connection.is_active() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(connection.signal("late", "x"), Err(SignalError::Disconnected));
}

pub async fn a_signal_of_a_handler_precedes_its_reply<R: Rig>() {
    let handlers = echo().on_request("work", async |connection: Connection| {
        connection.signal("first", "1").unwrap();
        tokio::task::yield_now().await;
        connection.signal("second", "2").unwrap();
        "done"
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "work", "x").await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let bytes = peer.recv().await;
        seen.push(match Message::decode(&bytes) {
            Ok(Message::Signal { name, .. }) => name.to_string(),
            Ok(Message::Reply { .. }) => "reply".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    if !R::HAS_ORDER {
        // The reply has a stream of its own.
        seen.sort_by_key(|name| *name == "reply");
    }
    assert_eq!(seen, ["first", "second", "reply"]);
}

pub async fn early_signals_wait_for_the_client<R: Rig>() {
    let handlers = echo().on_connected(async |connection: Connection| {
        connection.signal("early", "x").unwrap();
    });
    let server = Server::builder().build(handlers);
    let rig = R::start(&server).await;
    let early = Message::Signal {
        name: Name::new("early").unwrap(),
        payload: Payload::utf8("x"),
    };
    // It comes once the client speaks, and by itself some time later.
    let mut peer = Peer::silent(&rig).await;
    peer.send(&Message::Heartbeat).await;
    peer.expect(early).await;
    let mut silent = Peer::silent(&rig).await;
    silent.expect(early).await;
}

pub async fn what_only_servers_send_is_ignored<R: Rig>() {
    let server = Server::builder().build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    let id = RequestId::from_u64(1);
    for message in [
        Message::ReplyError {
            id,
            code: b"E",
            message: b"",
        },
        Message::ReplyShutdown { id },
        Message::ReplySessionsDisabled { id },
        Message::SessionCreated { session: b"{}" },
        Message::SessionClosed,
        Message::AcceptConf(AcceptConf::new(0, 0)),
        Message::Reply {
            id,
            payload: Payload::utf8("x"),
        },
    ] {
        peer.send(&message).await;
    }
    peer.ping().await;
}

pub async fn the_largest_message_passes<R: Rig>() {
    let server = Server::builder().message_buffer_size(1024).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    let payload = vec![b'x'; 1024 - 10 - 4];
    peer.request(1, "echo", Payload::binary(&payload)).await;
    peer.expect_reply(1, Payload::binary(&payload)).await;
}

pub async fn replies_and_signals_fit_the_buffer<R: Rig>() {
    let handlers = echo().on_request("size", async |size: String| -> Result<_, ReplyError> {
        Ok(vec![b'x'; size.parse::<usize>()?])
    });
    let server = Server::builder().message_buffer_size(1024).build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "size", "1015").await;
    peer.expect_reply(1, Payload::binary(&[b'x'; 1015])).await;
    peer.text(2, "size", "1016").await;
    assert_eq!(peer.expect_error(2).await.0, "REPLY_TOO_LARGE");
    let connection = server.connections().pop().unwrap();
    let too_large = SignalError::TooLarge {
        size: 1025,
        limit: 1024,
    };
    assert_eq!(connection.signal("n", vec![0; 1022]), Err(too_large));
    peer.ping().await;
}

pub async fn typed_handlers<R: Rig>() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Point {
        x: i32,
        y: i32,
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo()
        .on_request("swap", async |Json(Point { x, y }): Json<Point>| {
            Json(Point { x: y, y: x })
        })
        .on_request("upper", async |text: String| text.to_uppercase())
        .on_request(
            "all",
            async |context: Context, connection: Connection, bytes: bytes::Bytes, data: Data| {
                assert_eq!(context.connection(), &connection);
                assert_eq!(bytes, data.bytes);
                bytes
            },
        )
        .on_signal("event", move |text: String| {
            let tell = tell.clone();
            async move { tell.send(text).map_err(ReplyError::from) }
        });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "swap", r#"{"x":1,"y":2}"#).await;
    peer.expect_text(1, r#"{"x":2,"y":1}"#).await;
    let utf16 = Data::utf16(r#"{"x":3,"y":4}"#);
    peer.request(2, "swap", utf16.payload()).await;
    peer.expect_text(2, r#"{"x":4,"y":3}"#).await;
    peer.text(3, "swap", "no JSON").await;
    assert_eq!(peer.expect_error(3).await.0, "INVALID_PAYLOAD");
    peer.request(4, "upper", Data::utf16("straße").payload()).await;
    peer.expect_text(4, "STRASSE").await;
    peer.request(
        5,
        "upper",
        Payload {
            bytes: &[0xff],
            ..Payload::utf8("")
        },
    )
    .await;
    assert_eq!(peer.expect_error(5).await.0, "INVALID_PAYLOAD");
    peer.request(6, "all", Payload::binary(&[1, 2])).await;
    peer.expect_reply(6, Payload::binary(&[1, 2])).await;
    peer.signal("event", Data::utf16("something").payload()).await;
    assert_eq!(within(told.recv()).await.as_deref(), Some("something"));
}

pub async fn broadcast_and_user_data<R: Rig>() {
    struct Nickname(String);
    let handlers = Handlers::new()
        .on_request("name", async |connection: Connection, name: String| {
            connection.insert(Nickname(name))
        })
        .on_request("whoami", async |connection: Connection| {
            let name: Option<Arc<Nickname>> = connection.get();
            name.map_or_else(String::new, |name| name.0.clone())
        });
    let server = Server::builder().build(handlers);
    let (rig, mut first) = start::<R>(&server).await;
    let mut second = Peer::connect(&rig).await;
    for (peer, name) in [(&mut first, "Ann"), (&mut second, "Bob")] {
        peer.text(1, "name", "x").await;
        peer.expect_reply(1, Payload::EMPTY).await;
        peer.text(2, "name", name).await;
        peer.expect_reply(2, Payload::EMPTY).await;
    }
    assert_eq!(server.broadcast("news", "extra"), Ok(2));
    assert_eq!(server.connection_count(), 2);
    let news = Message::Signal {
        name: Name::new("news").unwrap(),
        payload: Payload::utf8("extra"),
    };
    for (peer, name) in [(&mut first, "Ann"), (&mut second, "Bob")] {
        peer.expect(news).await;
        peer.text(3, "whoami", "?").await;
        peer.expect_text(3, name).await;
    }
    // To others, and to these.
    let is_ann = |connection: &Connection| connection.get::<Nickname>().is_some_and(|name| name.0 == "Ann");
    assert_eq!(server.broadcast_if("news", "extra", |other| !is_ann(other)), Ok(1));
    second.expect(news).await;
    let everybody = server.connections();
    let ann = everybody.iter().filter(|connection| is_ann(connection));
    assert_eq!(server.broadcast_to(ann, "news", Data::utf16("")), Ok(1));
    let (name, payload) = (Name::new("news").unwrap(), Payload::utf8(""));
    first.expect(Message::Signal { name, payload }).await;
    let other = Server::builder().build(echo());
    assert_eq!(other.broadcast_to(&everybody, "news", "x"), Ok(0), "of another server");
    for peer in [&mut first, &mut second] {
        peer.text(4, "name", "nobody else heard anything").await;
        peer.expect_reply(4, Payload::EMPTY).await;
    }
}

/// And keeps it no longer than anybody needs it.
pub async fn a_handler_reaches_its_server<R: Rig>() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let held = TellDrop(tell);
    let handlers = Handlers::new()
        .on_connected(async |connection: Connection| connection.insert(connection.server()))
        .on_request("news", move |server: Server, connection: Connection, text: String| {
            let _held = &held;
            async move {
                let ours = connection.get::<Server>().unwrap();
                assert_eq!(ours.connection_count(), server.connection_count());
                server.broadcast("news", text)
            }
            .map(|sent| sent.map(|count| count.to_string()))
        });
    let server = Server::builder().build(handlers);
    let (rig, mut first) = start::<R>(&server).await;
    let mut second = Peer::connect(&rig).await;
    second.text(1, "news", "extra").await;
    let news = Message::Signal {
        name: Name::new("news").unwrap(),
        payload: Payload::utf8("extra"),
    };
    first.expect(news).await;
    if R::HAS_ORDER {
        second.expect(news).await;
        second.expect_text(1, "2").await;
    }
    drop((first, second));
    within(server.shut_down()).await;
    drop((server, rig));
    if std::any::type_name::<R>().ends_with("Memory") {
        // Others' listeners live as long as the test.
        assert_eq!(within(told.recv()).await, Some("dropped"));
    }
}
