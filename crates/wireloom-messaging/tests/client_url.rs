//! A client that dials a URL: WebTransport first, WebSocket as the fallback.
#![cfg(all(feature = "axum", feature = "webtransport"))]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use axum::Router;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use wireloom::{Identity, ServerTrust};
use wireloom_messaging::client::{Backoff, Client, ClientBuilder, ConnectError, RequestError, Status};
use wireloom_messaging::codec::{AcceptConf, Message, Name, Payload};
use wireloom_messaging::server::{Admission, Connection, ConnectionOptions, Context, Handlers, Refusal, Server};
use wireloom_messaging::transport::TransportKind;
use wireloom_messaging::transport::webtransport::Profile;
use wireloom_messaging::{Data, engine::CloseCode};

const PATIENCE: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error + Send + Sync>;

fn identity() -> Identity {
    Identity::self_signed(["localhost", "127.0.0.1"]).expect("an identity")
}

fn router(server: &Server) -> Router {
    Router::new().route_service("/messages", server.service())
}

/// HTTPS without QUIC, as where UDP is blocked.
async fn serve_tcp(server: &Server, identity: &Identity) -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (router, identity) = (router(server), identity.clone());
    tokio::spawn(async move {
        let options = wireloom::tcp::Options::new();
        wireloom::tcp::serve(listener, Some(&identity), router, options, std::future::pending()).await
    });
    Ok(address)
}

/// Both, on one port.
async fn serve_all(server: &Server, identity: &Identity) -> Result<SocketAddr, Error> {
    let builder = wireloom::Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity.clone());
    let listening = builder.listen().await?;
    let address = listening.local_addrs()[0];
    let router = router(server);
    tokio::spawn(async move { listening.serve(router).await });
    Ok(address)
}

fn client(address: SocketAddr, identity: &Identity) -> ClientBuilder {
    Client::builder(format!("https://{address}/messages"))
        .trust(ServerTrust::Hashes(vec![identity.certificate_hashes().current]))
        .backoff(Backoff::new(Duration::from_millis(5), Duration::from_millis(50)))
}

fn echo() -> Handlers {
    Handlers::new().on_request("echo", async |data: Data| data)
}

#[tokio::test]
async fn webtransport_comes_first() -> Result<(), Error> {
    let (server, identity) = (Server::builder().build(echo()), identity());
    let address = serve_all(&server, &identity).await?;
    for (profile, kind) in [
        (Profile::Multi, TransportKind::WebTransportMulti),
        (Profile::Single, TransportKind::WebTransport),
    ] {
        let client = client(address, &identity).profile(profile).connect().await?;
        assert_eq!(client.connected().await?, kind);
        assert_eq!(client.request("echo", "hello").await?, Data::from("hello"));
        client.close().await;
    }
    Ok(())
}

/// As one does that a request took too long to reach.
#[tokio::test]
async fn a_server_that_drops_a_requests_stream_fails_only_that() -> Result<(), Error> {
    let identity = identity();
    let listening = wireloom::Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity.clone())
        .listen()
        .await?;
    let address = listening.local_addrs()[0];
    let serving = tokio::spawn(async move {
        let request = listening.accept().await.ok_or("no session")?;
        let session = request.protocols(["webwire.v2m"]).accept().await?;
        let (mut control, _from) = session.accept_bi().await?;
        let conf = Message::AcceptConf(AcceptConf::new(60_000, 8192)).to_vec()?;
        control.write_all(&[&[conf.len() as u8], &conf[..]].concat()).await?;
        for answers in [false, true] {
            let (mut send, mut recv) = session.accept_bi().await?;
            let request = recv.read_to_end(8192).await?;
            // What is dropped is reset.
            if answers {
                let Ok(Message::Request { id, payload, .. }) = Message::decode(&request[1..]) else {
                    return Err("no request".into());
                };
                let reply = Message::Reply { id, payload }.to_vec()?;
                send.write_all(&[&[reply.len() as u8], &reply[..]].concat()).await?;
                send.finish()?;
                session.closed().await;
            }
        }
        Ok::<_, Error>(())
    });
    let client = client(address, &identity).connect().await?;
    let failed = timeout(PATIENCE / 2, client.request("echo", "first").into_future()).await?;
    assert!(matches!(failed, Err(RequestError::Disconnected(_))), "{failed:?}");
    let reply = timeout(PATIENCE / 2, client.request("echo", "second").into_future()).await?;
    assert_eq!(reply?, Data::from("second"));
    client.close().await;
    serving.await?
}

/// What the link of profile M is for: the handler learns that nobody waits.
#[tokio::test]
async fn dropping_a_request_reaches_the_handler() -> Result<(), Error> {
    let (events, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("hang", move |context: Context| {
        let events = events.clone();
        async move {
            let _ = events.send("began");
            context.cancelled().await;
            let _ = events.send("cancelled");
        }
    });
    let (server, identity) = (Server::builder().concurrency(4).build(handlers), identity());
    let client = client(serve_all(&server, &identity).await?, &identity)
        .connect()
        .await?;
    for round in 0..2 {
        let hanging = {
            let client = client.clone();
            tokio::spawn(async move { client.request("hang", "").await })
        };
        assert_eq!(timeout(PATIENCE, told.recv()).await?, Some("began"), "{round}");
        hanging.abort();
        assert_eq!(timeout(PATIENCE, told.recv()).await?, Some("cancelled"), "{round}");
    }
    assert_eq!(client.request("echo", "still here").await?, Data::from("still here"));
    Ok(())
}

/// A port that swallows what comes, and counts it.
fn black_hole(port: u16) -> Result<UdpSocket, Error> {
    let socket = UdpSocket::bind(("127.0.0.1", port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn drain(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv_from(&mut buffer).ok()).count()
}

#[tokio::test]
async fn websocket_is_the_fallback_and_is_remembered() -> Result<(), Error> {
    let (server, identity) = (Server::builder().build(echo()), identity());
    let address = serve_tcp(&server, &identity).await?;
    let Ok(hole) = black_hole(address.port()) else {
        eprintln!("not run: another program has the UDP port of the same number");
        return Ok(());
    };
    let (lost, mut told) = mpsc::unbounded_channel();
    let client = client(address, &identity)
        .fallback_after(Duration::from_millis(300))
        .on_disconnected(move |_| lost.send(()).expect("the test listens"))
        .connect()
        .await?;
    assert_eq!(client.connected().await?, TransportKind::WebSocket);
    assert_eq!(client.request("echo", "hello").await?, Data::from("hello"));
    assert!(drain(&hole) > 0, "WebTransport was tried");
    // The attempt that was given up may have sent its last word only now.
    for round in 0..3 {
        for connection in server.connections() {
            connection.abort(CloseCode::Internal, "");
        }
        timeout(PATIENCE, told.recv()).await?;
        assert_eq!(client.request("echo", "again").await?, Data::from("again"));
        if round > 0 {
            assert_eq!(drain(&hole), 0, "round {round}: straight to what worked");
        }
        drain(&hole);
    }
    Ok(())
}

/// Messages are as large as the server says that they may be, not as its first.
#[tokio::test]
async fn large_messages_over_websocket() -> Result<(), Error> {
    let handlers = echo().on_request("large", async |size: String| {
        Data::binary(vec![7; size.parse().unwrap_or(0)])
    });
    let server = Server::builder().message_buffer_size(1 << 20).build(handlers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    tokio::spawn(async move { server.listen(listener).await });
    let client = Client::builder(url).connect().await?;
    for size in [60_000, 70_000, (1 << 20) - 9] {
        let reply = client.request("large", size.to_string()).await?;
        assert_eq!(reply, Data::binary(vec![7; size]));
    }
    Ok(())
}

/// A message larger than the server has said is refused, and not waited for.
#[tokio::test]
async fn no_larger_messages_over_websocket() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let (lost, mut told) = mpsc::unbounded_channel();
    let _client = Client::builder(url)
        .backoff(Backoff::new(Duration::from_millis(5), Duration::from_millis(50)))
        .on_disconnected(move |ended| drop(lost.send(ended.clone())))
        .build();
    for case in ["whole", "announced", "announced at once"] {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await??;
        let mut socket = tokio_tungstenite::accept_async(stream).await?;
        let conf = Message::AcceptConf(AcceptConf::new(60_000, 1024)).to_vec()?;
        // The beginning of a frame of 3 GiB, for which nobody should make room.
        let huge = [0x82, 127, 0, 0, 0, 0, 0xc0, 0, 0, 0];
        if case == "announced at once" {
            let bytes = [&[0x82, u8::try_from(conf.len())?], &conf[..], &huge].concat();
            socket.get_mut().write_all(&bytes).await?;
        } else {
            socket.send(Frame::Binary(conf.into())).await?;
        }
        match case {
            // A signal but for its size.
            "whole" => socket.send(Frame::Binary(vec![0x3f; 1025].into())).await?,
            "announced" => socket.get_mut().write_all(&huge).await?,
            _ => {}
        }
        let ended = timeout(PATIENCE, told.recv()).await?.ok_or("the client is gone")?;
        assert_eq!((ended.code, ended.violation), (CloseCode::TooBig, true), "{ended}");
    }
    Ok(())
}

/// What a server's first message allows holds for what comes with it in one packet.
#[tokio::test]
async fn a_large_message_right_behind_the_first() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let (heard, mut told) = mpsc::unbounded_channel();
    let _client = Client::builder(url)
        .on_signal(move |signal| heard.send(signal.data().bytes.len()).unwrap_or_default())
        .build();
    let (stream, _) = timeout(PATIENCE, listener.accept()).await??;
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let conf = Message::AcceptConf(AcceptConf::new(60_000, 1 << 20)).to_vec()?;
    let large = vec![7; 200_000];
    let (name, payload) = (Name::new("event")?, Payload::binary(&large));
    let signal = Message::Signal { name, payload }.to_vec()?;
    let mut bytes = vec![0x82, u8::try_from(conf.len())?];
    bytes.extend(conf);
    bytes.extend([0x82, 127]);
    bytes.extend((signal.len() as u64).to_be_bytes());
    bytes.extend(signal);
    socket.get_mut().write_all(&bytes).await?;
    assert_eq!(timeout(PATIENCE, told.recv()).await?, Some(200_000));
    Ok(())
}

/// Passes packets of one client on while it is open.
fn relay_udp(udp: tokio::net::UdpSocket, behind: SocketAddr, open: tokio::sync::watch::Receiver<bool>) {
    tokio::spawn(async move {
        let out = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        let (mut there, mut back, mut client) = ([0; 1 << 16], [0; 1 << 16], None);
        loop {
            tokio::select! {
                received = udp.recv_from(&mut there) => {
                    let (length, from) = received?;
                    client = Some(from);
                    if *open.borrow() {
                        out.send_to(&there[..length], behind).await?;
                    }
                }
                received = out.recv_from(&mut back) => {
                    let (length, _) = received?;
                    if let Some(client) = client {
                        udp.send_to(&back[..length], client).await?;
                    }
                }
            }
        }
        #[allow(unreachable_code)]
        Ok::<_, std::io::Error>(())
    });
}

/// As behind a proxy that speaks HTTP/3 and not WebTransport, and whose back end is started again.
#[tokio::test]
async fn a_passing_failure_of_websocket_is_not_final_where_webtransport_is_refused() -> Result<(), Error> {
    let (server, identity) = (Server::builder().build(echo()), identity());
    let behind = serve_tcp(&server, &identity).await?;
    let listening = wireloom::Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity.clone())
        .listen()
        .await?;
    let without = listening.local_addrs()[0];
    tokio::spawn(async move { listening.serve(Router::new()).await });
    let front = TcpListener::bind("127.0.0.1:0").await?;
    let address = front.local_addr()?;
    let Ok(udp) = tokio::net::UdpSocket::bind(address).await else {
        eprintln!("not run: another program has the UDP port of the same number");
        return Ok(());
    };
    let (_open, open) = tokio::sync::watch::channel(true);
    relay_udp(udp, without, open);
    let (away, is_away) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = front.accept().await {
            if !*is_away.borrow() {
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        }
    });
    let client = client(address, &identity).build();
    assert_eq!(timeout(PATIENCE, client.connected()).await??, TransportKind::WebSocket);
    away.send_replace(true);
    for connection in server.connections() {
        connection.abort(CloseCode::Internal, "");
    }
    let tried = async {
        loop {
            match client.status() {
                Status::Connecting { failures: 2.., .. } | Status::Closed(_) => return client.status(),
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let tried = timeout(PATIENCE, tried).await?;
    assert!(matches!(tried, Status::Connecting { .. }), "{tried:?}");
    away.send_replace(false);
    let reply = client.request("echo", "hello").into_future();
    assert_eq!(timeout(PATIENCE, reply).await??, Data::from("hello"));
    Ok(())
}

/// Where WebSocket was the way before, and now nothing answers there, WebTransport has its turn again.
#[tokio::test]
async fn websocket_that_is_swallowed_is_not_the_only_way() -> Result<(), Error> {
    let (server, identity) = (Server::builder().build(echo()), identity());
    let behind = serve_all(&server, &identity).await?;
    let front = TcpListener::bind("127.0.0.1:0").await?;
    let address = front.local_addr()?;
    let Ok(udp) = tokio::net::UdpSocket::bind(address).await else {
        eprintln!("not run: another program has the UDP port of the same number");
        return Ok(());
    };
    // First TCP passes and UDP does not, then it is the other way round.
    let (change, changed) = tokio::sync::watch::channel(false);
    let swallowed = changed.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut client, _)) = front.accept().await {
            if *swallowed.borrow() {
                held.push(client);
                continue;
            }
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    relay_udp(udp, behind, changed);
    let client = client(address, &identity)
        .fallback_after(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(5))
        .build();
    assert_eq!(client.connected().await?, TransportKind::WebSocket);
    change.send_replace(true);
    for connection in server.connections() {
        connection.abort(CloseCode::Internal, "");
    }
    let reply = client.request("echo", "hello").idempotent().into_future();
    assert_eq!(timeout(PATIENCE, reply).await??, Data::from("hello"));
    assert_eq!(client.connected().await?, TransportKind::WebTransportMulti);
    Ok(())
}

/// Where both say no for good there is nothing to wait for.
#[tokio::test]
async fn what_cannot_be_dialled_is_final() {
    for url in [
        "nonsense",
        "http://127.0.0.1/",
        "ws://127.0.0.1:99999/",
        "wss://127.0.0.1:abc/",
        "https://[::1]:abc/",
        "ws://ann@127.0.0.1/",
    ] {
        let error = Client::builder(url).connect().await.expect_err(url);
        assert!(matches!(error, ConnectError::Unusable(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn what_both_transports_refuse_is_final() -> Result<(), Error> {
    let (server, identity) = (Server::builder().build(echo()), identity());
    let address = serve_all(&server, &identity).await?;
    let wrong = Client::builder(format!("https://{address}/nowhere"))
        .trust(ServerTrust::Hashes(vec![identity.certificate_hashes().current]));
    let error = wrong.connect().await.expect_err("404");
    assert!(error.is_final() && error.to_string().contains("404"), "{error}");
    let stranger = Identity::self_signed(["localhost"])?;
    let distrusting = client(address, &stranger);
    let error = distrusting.connect().await.expect_err("another certificate");
    assert!(
        matches!(&error, ConnectError::Both(first, second)
            if matches!(**first, ConnectError::Certificate(_)) && matches!(**second, ConnectError::Certificate(_))),
        "{error:?}"
    );
    assert!(error.is_final());
    for url in ["http://127.0.0.1/", "127.0.0.1", "ws://"] {
        let error = Client::builder(url).connect().await.expect_err("no URL of ours");
        assert!(error.is_final(), "{url}: {error}");
    }
    Ok(())
}

/// As behind a router that forgot the connection: no end comes, and nothing else.
#[tokio::test]
async fn a_server_that_gives_no_sign_of_life_is_left() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let (fell_silent, mut silent) = mpsc::unbounded_channel();
    let (lost, mut told) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let accepted = async || -> Result<_, Error> {
            let (stream, _) = listener.accept().await?;
            let mut socket = tokio_tungstenite::accept_async(stream).await?;
            let conf = AcceptConf::new(600_000, 1024);
            socket
                .send(Frame::Binary(Message::AcceptConf(conf).to_vec()?.into()))
                .await?;
            Ok(socket)
        };
        // Answers one Ping, and reads nothing more.
        let silent = loop {
            let mut socket = accepted().await?;
            let mut has_answered = false;
            while let Some(Ok(frame)) = socket.next().await {
                if matches!(frame, Frame::Ping(_)) {
                    socket.flush().await?;
                    has_answered = true;
                    break;
                }
            }
            if has_answered {
                fell_silent.send(())?;
                break socket;
            }
        };
        let mut alive = accepted().await?;
        while let Some(Ok(frame)) = alive.next().await {
            if let Frame::Binary(bytes) = frame
                && let Ok(Message::Request { id, payload, .. }) = Message::decode(&bytes)
            {
                let reply = Message::Reply { id, payload }.to_vec()?;
                alive.send(Frame::Binary(reply.into())).await?;
            }
        }
        drop(silent);
        Ok::<_, Error>(())
    });
    let client = Client::builder(url)
        .backoff(Backoff::new(Duration::from_millis(5), Duration::from_millis(50)))
        .liveness(Duration::from_secs(1))
        .on_disconnected(move |ended| drop(lost.send(ended.clone())))
        .connect()
        .await?;
    timeout(PATIENCE, silent.recv()).await?;
    let reply = timeout(PATIENCE, client.request("echo", "anybody?").idempotent().into_future()).await?;
    assert_eq!(reply?, Data::from("anybody?"));
    let ended = timeout(PATIENCE, told.recv())
        .await?
        .ok_or("the client was never told")?;
    assert_eq!(ended.code, CloseCode::Lost, "{ended}");
    client.close().await;
    serving.await?
}

#[tokio::test]
async fn nobody_there_is_tried_again() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(50));
    drop(listener);
    let client = Client::builder(format!("ws://{address}/")).backoff(backoff).build();
    let mut failures = 0;
    timeout(PATIENCE, async {
        while failures < 3 {
            if let Status::Connecting { failures: now, .. } = client.status() {
                failures = now;
            }
            tokio::task::yield_now().await;
        }
    })
    .await?;
    client.close().await;
    assert!(matches!(client.status(), Status::Closed(ConnectError::Closed)));
    Ok(())
}

/// A server that says which tokens it was shown, and lets everybody in who has one.
fn asks_for_tokens() -> (Server, mpsc::UnboundedReceiver<String>) {
    let (shown, tokens) = mpsc::unbounded_channel();
    let handlers = echo().admit(move |admission: Admission| {
        let field = |name| {
            admission
                .headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let seen = format!(
            "{:?} {:?} {:?}",
            field("authorization"),
            field("origin"),
            admission.query()
        );
        let token = field("authorization").ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "no token"));
        let admitted = token.map(|_| ConnectionOptions::default());
        let _ = shown.send(seen);
        std::future::ready(admitted)
    });
    (Server::builder().build(handlers), tokens)
}

#[tokio::test]
async fn fields_are_sent_over_both_transports() -> Result<(), Error> {
    let ((server, mut tokens), identity) = (asks_for_tokens(), identity());
    let address = serve_all(&server, &identity).await?;
    let refused = client(address, &identity).connect().await.expect_err("no token");
    assert!(refused.is_final(), "{refused}");
    while tokens.try_recv().is_ok() {}
    for scheme in ["https", "wss"] {
        let client = Client::builder(format!("{scheme}://{address}/messages?x=1"))
            .trust(ServerTrust::Hashes(vec![identity.certificate_hashes().current]))
            .header("authorization", "Bearer first")
            .header("Authorization", "Bearer last")
            .header(http::header::ORIGIN, format!("https://{address}"));
        let client = client.connect().await?;
        let is_quic = matches!(client.connected().await?, TransportKind::WebTransportMulti);
        assert_eq!(is_quic, scheme == "https");
        let expected = format!("Some(\"Bearer last\") Some(\"https://{address}\") Some(\"x=1\")");
        assert_eq!(timeout(PATIENCE, tokens.recv()).await?, Some(expected));
        client.close().await;
    }
    let foreign = client(address, &identity).header("origin", "https://example.com");
    let foreign = foreign
        .header("authorization", "x")
        .connect()
        .await
        .expect_err("refused");
    assert!(foreign.to_string().contains("403"), "{foreign}");
    Ok(())
}

#[tokio::test]
async fn each_attempt_has_a_fresh_token() -> Result<(), Error> {
    let ((server, mut tokens), identity) = (asks_for_tokens(), identity());
    let address = serve_all(&server, &identity).await?;
    let count = std::sync::atomic::AtomicU32::new(0);
    let client = client(address, &identity).each_attempt(move |attempt| {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move {
            tokio::task::yield_now().await;
            if count == 1 {
                return Err(ConnectError::Unreachable("no token now".to_owned()));
            }
            let url = format!("{}?attempt={count}", attempt.url);
            Ok(attempt.url(url).header("authorization", count.to_string()))
        }
    });
    let client = client.connect().await?;
    let expected = |count: u32| Some(format!("Some(\"{count}\") None Some(\"attempt={count}\")"));
    assert_eq!(timeout(PATIENCE, tokens.recv()).await?, expected(0));
    while server.connection_count() == 0 {
        tokio::task::yield_now().await;
    }
    server.connections()[0].abort(CloseCode::Internal, "");
    assert_eq!(
        timeout(PATIENCE, tokens.recv()).await?,
        expected(2),
        "one attempt failed"
    );
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn fields_that_are_none_are_told() {
    let builder = || Client::builder("ws://127.0.0.1:9/messages");
    for builder in [
        builder().header("no name", "x"),
        builder().header("x", "no\nvalue"),
        builder().header("Host", "example.com"),
        builder().header("sec-websocket-key", "x"),
        builder().each_attempt(async |attempt| Ok(attempt.header("connection", "close"))),
        builder().each_attempt(async |attempt| Ok(attempt.url("http://127.0.0.1:9/"))),
    ] {
        let error = builder.connect().await.expect_err("unusable");
        assert!(matches!(error, ConnectError::Unusable(_)), "{error:?}");
    }
}

/// Nor does it over the other transport.
#[tokio::test]
async fn a_dismissal_is_final_over_every_transport() -> Result<(), Error> {
    let connected = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = connected.clone();
    let handlers = echo().on_connected(move |connection: Connection| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        connection.dismiss("your version is too old");
        std::future::ready(())
    });
    let (server, identity) = (Server::builder().build(handlers), identity());
    let address = serve_all(&server, &identity).await?;
    for scheme in ["https", "wss"] {
        let client = Client::builder(format!("{scheme}://{address}/messages"))
            .trust(ServerTrust::Hashes(vec![identity.certificate_hashes().current]))
            .backoff(Backoff::new(Duration::from_millis(1), Duration::from_millis(1)))
            .build();
        let why = timeout(PATIENCE, client.closed()).await?;
        assert!(
            matches!(&why, ConnectError::Dismissed { reason } if reason == "your version is too old"),
            "{scheme}: {why}"
        );
    }
    assert_eq!(connected.load(std::sync::atomic::Ordering::Relaxed), 2, "once each");
    Ok(())
}
