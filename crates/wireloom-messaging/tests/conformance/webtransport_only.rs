//! What only WebTransport has: cancellation, and signals that are unordered or unreliable (appendix A).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use wireloom::Identity;
use wireloom_messaging::client::{Client, ConnectError, Dial, DialFuture};
use wireloom_messaging::codec::{AcceptConf, Message, Name, Payload, RequestId};
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::server::{Connection, Context, ReplyError, Server};
use wireloom_messaging::session::MemoryStore;
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::webtransport::{self, PROTOCOL_M, Profile};
use wireloom_messaging::transport::{self, Delivery, Incoming, Link, Route};
use wireloom_messaging::{Data, IncomingMessage};

use crate::behaviours::echo;
use crate::peer::{start, within};
use crate::rig::{Multi, Rig as _, Single};

#[tokio::test]
async fn a_request_given_up_cancels_its_handler() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("wait", move |context: Context| {
        let tell = tell.clone();
        async move {
            tell.send("begun").unwrap();
            context.cancelled().await;
            tell.send("cancelled").unwrap();
        }
    });
    let server = Server::builder().concurrency(2).build(handlers);
    let (_rig, mut peer) = start::<Multi>(&server).await;
    peer.text(1, "wait", "x").await;
    assert_eq!(within(told.recv()).await, Some("begun"));
    peer.link.cancel(RequestId::from_u64(1));
    // Nobody gets a reply, and the connection works.
    peer.ping().await;
    assert_eq!(within(told.recv()).await, Some("cancelled"));
    peer.ping().await;
}

/// Appendix A.3: with the same code whether it was written whole or not.
#[tokio::test]
async fn a_request_given_up_in_the_middle() {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let http = wireloom::Server::builder().bind("127.0.0.1:0").identity(identity);
    let http = http.receive_windows(16 << 10, 1 << 20).listen().await.unwrap();
    let url = format!("https://{}/", http.local_addrs()[0]);
    let client = wireloom::Client::builder()
        .server_certificate_hash(hash)
        .build()
        .unwrap();
    let serving = async {
        let session = http.accept().await.unwrap().protocols([PROTOCOL_M]).accept().await;
        let session = session.unwrap();
        let control = session.accept_bi().await.unwrap();
        (session, control)
    };
    let connecting = async {
        let session = client.session(&url).protocols([PROTOCOL_M]).connect().await.unwrap();
        webtransport::connect(session, Profile::Multi, 1 << 20).await.unwrap()
    };
    let ((session, _control), mut link) = within(async { tokio::join!(serving, connecting) }).await;
    // The second is more than the client's QUIC takes from it, 8 MiB.
    for size in [1, 10 << 20] {
        let (id, name) = (RequestId::from_u64(size), Name::new("x").unwrap());
        let payload = vec![0; size as usize];
        let payload = Payload::binary(&payload);
        let request = Message::Request { id, name, payload }.to_vec().unwrap();
        link.send(Route::CONTROL, request.into()).unwrap();
        let accepted = async {
            let (send, mut recv) = session.accept_bi().await.unwrap();
            // All of the small one, with its end.
            let mut read = vec![0; 4];
            recv.read_exact(&mut read).await.unwrap();
            if size == 1 {
                AsyncReadExt::read_to_end(&mut recv, &mut read).await.unwrap();
            }
            (send, recv)
        };
        let (mut send, mut recv) = within(async {
            tokio::select! {
                accepted = accepted => accepted,
                heard = transport::recv(&mut link) => panic!("{heard:?}"),
            }
        })
        .await;
        link.cancel(id);
        let given_up = async {
            assert_eq!(send.stopped().await.unwrap(), Some(webtransport::CANCELLED));
            if size > 1 {
                let reset = AsyncReadExt::read_to_end(&mut recv, &mut Vec::new()).await.unwrap_err();
                assert!(reset.to_string().ends_with("with code 16"), "{reset}");
            }
        };
        within(async {
            tokio::select! {
                () = given_up => {}
                heard = transport::recv(&mut link) => panic!("{heard:?}"),
            }
        })
        .await;
    }
}

/// A request that waits for its turn when it is given up is not handled at all.
#[tokio::test]
async fn a_request_given_up_early_is_not_handled() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("wait", move |context: Context, text: String| {
        let tell = tell.clone();
        async move {
            tell.send(text).unwrap();
            context.cancelled().await;
        }
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<Multi>(&server).await;
    peer.text(1, "wait", "first").await;
    assert_eq!(within(told.recv()).await.as_deref(), Some("first"));
    peer.text(2, "wait", "second").await;
    peer.link.cancel(RequestId::from_u64(2));
    // This needs no handler's place, but waits behind the second: its answer tells that the second is gone.
    let id = RequestId::from_u64(3);
    peer.send(&Message::CloseSession { id }).await;
    peer.expect_reply(3, Payload::EMPTY).await;
    peer.link.cancel(RequestId::from_u64(1));
    peer.ping().await;
    assert!(told.try_recv().is_err(), "the second was given up");
}

#[tokio::test]
async fn unordered_and_unreliable_signals() {
    let handlers = echo().on_other_signals(async |connection: Connection, message: IncomingMessage| {
        let delivery = match message.name() {
            Some("unreliable") => Delivery::Unreliable,
            _ => Delivery::Unordered,
        };
        let name = message.name().unwrap().to_owned();
        connection.signal_with(&name, message.into_data(), delivery)
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<Multi>(&server).await;
    let large = vec![7; 5000];
    // What does not fit into a datagram goes on a stream.
    for (delivery, name, payload) in [
        (Delivery::Unordered, "unordered", Payload::utf8("x")),
        (Delivery::Unreliable, "unreliable", Payload::utf8("x")),
        (Delivery::Unreliable, "unreliable", Payload::binary(&large)),
    ] {
        let name = Name::new(name).unwrap();
        let signal = Message::Signal { name, payload };
        peer.link
            .send_signal(signal.to_vec().unwrap().into(), delivery)
            .unwrap();
        peer.expect(signal).await;
    }
}

/// Who was let in, and said nothing until it was over.
#[tokio::test]
async fn nobody_appears_after_a_shutdown() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_connected(move |_| {
        tell.send(()).unwrap();
        async {}
    });
    let server = Server::builder().build(handlers);
    let rig = Single::start(&server).await;
    let session = rig.session().await;
    within(server.shut_down()).await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&[1, 0x21]).await.unwrap();
    send.finish().unwrap();
    let closed = within(session.closed()).await;
    assert!(
        matches!(closed, wireloom::SessionError::Closed { code: 1, .. }),
        "{closed}"
    );
    assert!(told.try_recv().is_err());
}

/// With one stream, everything is as on WebSocket.
#[tokio::test]
async fn profile_s_degrades() {
    let server = Server::builder().build(echo());
    let (_rig, mut peer) = start::<Single>(&server).await;
    peer.ping().await;
    let connection = server.connections().pop().unwrap();
    for delivery in [Delivery::Ordered, Delivery::Unordered, Delivery::Unreliable] {
        connection.signal_with("event", "x", delivery).unwrap();
        let name = Name::new("event").unwrap();
        peer.expect(Message::Signal {
            name,
            payload: Payload::utf8("x"),
        })
        .await;
    }
    peer.link.cancel(RequestId::from_u64(1));
    peer.ping().await;
}

/// WT_DRAIN_SESSION reaches the client while its last request is still at work (section 10).
#[tokio::test]
async fn a_shutdown_drains_first() {
    let gate = Arc::new(Semaphore::new(0));
    let door = gate.clone();
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("wait", move || {
        let (door, tell) = (door.clone(), tell.clone());
        async move {
            tell.send(()).unwrap();
            door.acquire().await.unwrap().forget();
        }
    });
    let server = Server::builder().build(handlers);
    let (_rig, mut peer) = start::<Single>(&server).await;
    peer.text(1, "wait", "x").await;
    within(told.recv()).await.unwrap();
    let shutdown = tokio::spawn({
        let server = server.clone();
        async move { server.shut_down().await }
    });
    let incoming = within(transport::recv(&mut *peer.link)).await;
    assert_eq!(incoming, Ok(Incoming::Draining));
    gate.add_permits(1);
    peer.expect_reply(1, Payload::EMPTY).await;
    peer.expect_end(CloseCode::Shutdown).await;
    within(shutdown).await.unwrap();
}

/// A client that does not answer the closing hears why all the same.
#[tokio::test]
async fn a_deaf_client_hears_the_code() {
    let server = Server::builder().linger(Duration::from_millis(100)).build(echo());
    let rig = Single::start(&server).await;
    let session = rig.session().await;
    let (mut send, mut recv) = session.open_bi().await.unwrap();
    send.write_all(&[1, 0x21]).await.unwrap();
    let mut first = [0; 12];
    within(AsyncReadExt::read_exact(&mut recv, &mut first)).await.unwrap();
    // The framed AcceptConf of appendix A.2.
    assert_eq!(first, [0x0b, 0x17, 2, 0, 0x60, 0xea, 0, 0, 0, 0x20, 0, 0]);
    within(server.shut_down()).await;
    let closed = within(session.closed()).await;
    assert!(
        matches!(closed, wireloom::SessionError::Closed { code: 1, .. }),
        "{closed}"
    );
}

/// What is no message on the control stream, or on a stream of its own, closes with the codes of appendix A.5.
#[tokio::test]
async fn close_codes() {
    let server = Server::builder().message_buffer_size(1024).build(echo());
    let rig = Multi::start(&server).await;
    for (control, bytes, code) in [
        (true, &[0][..], 2),
        (true, &[1, 0xff], 2),
        (true, &[0x44, 1], 5),
        (false, &[1, 0x21], 3),
        (false, &[0], 2),
        (false, &[0x44, 1], 5),
        (false, &[2, 0x21, 0x21, 1, 0x21], 3),
    ] {
        let session = rig.session().await;
        let (mut send, mut recv) = session.open_bi().await.unwrap();
        send.write_all(&[1, 0x21]).await.unwrap();
        within(AsyncReadExt::read_exact(&mut recv, &mut [0; 12])).await.unwrap();
        if control {
            send.write_all(bytes).await.unwrap();
        } else {
            let (mut own, _) = session.open_bi().await.unwrap();
            own.write_all(bytes).await.unwrap();
            own.finish().unwrap();
            let _ = within(own.stopped()).await;
        }
        let closed = within(session.closed()).await;
        let wireloom::SessionError::Closed { code: closed, .. } = closed else {
            panic!("{closed}");
        };
        assert_eq!(closed, code, "{bytes:?}");
    }
    // Who says anything but the preface is not connected at all.
    let session = rig.session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&[2, 0x21, 0x21]).await.unwrap();
    let closed = within(session.closed()).await;
    assert!(
        matches!(closed, wireloom::SessionError::Closed { code: 2, .. }),
        "{closed}"
    );
}

/// What still comes once the server has said its last word is thrown away, up to a limit.
#[tokio::test]
async fn a_client_that_does_not_stop_is_cut_off() {
    let handlers = echo().on_request("bye", async |connection: Connection| connection.close());
    // Longer than the test takes.
    let server = Server::builder().linger(Duration::from_secs(600)).build(handlers);
    let rig = Single::start(&server).await;
    let session = rig.session().await;
    let (mut send, mut recv) = session.open_bi().await.unwrap();
    send.write_all(&[1, 0x21]).await.unwrap();
    let message = Message::Request {
        id: RequestId::from_u64(1),
        name: Name::new("bye").unwrap(),
        payload: Payload::EMPTY,
    };
    let message = message.to_vec().unwrap();
    send.write_all(&[message.len() as u8]).await.unwrap();
    send.write_all(&message).await.unwrap();
    let mut said = Vec::new();
    within(AsyncReadExt::read_to_end(&mut recv, &mut said)).await.unwrap();
    // A message of 2^40 bytes.
    let _ = send.write_all(&[0xc0, 0, 1, 0, 0, 0, 0, 0]).await;
    let (chunk, mut sent) = (vec![b'x'; 1 << 16], 0);
    while within(send.write_all(&chunk)).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 128 << 20, "it is read for ever");
    }
    let closed = within(session.closed()).await;
    assert!(
        matches!(closed, wireloom::SessionError::Closed { code: 0, .. }),
        "{closed}"
    );
}

/// The first connection is a test's, the others lead to the server.
struct Again {
    first: Mutex<Option<MemoryLink>>,
    rig: Multi,
}

impl Dial for Again {
    fn dial(&self) -> DialFuture<'_> {
        Box::pin(async {
            if let Some(link) = self.first.lock().unwrap().take() {
                return Ok(Box::new(link) as Box<dyn Link>);
            }
            let refused = || ConnectError::Unreachable("refused".to_owned());
            self.rig.connect().await.ok_or_else(refused)
        })
    }
}

/// Replies come while requests are still being sent again, each on a stream of its own.
#[tokio::test]
async fn many_requests_are_sent_again() {
    const MANY: usize = 1000;
    let server = Server::builder().build(echo());
    let (first, mut theirs) = memory::pair();
    let dial = Again {
        first: Mutex::new(Some(first)),
        rig: Multi::start(&server).await,
    };
    let client = Client::over(dial).build();
    let conf = Message::AcceptConf(AcceptConf::new(60_000, 8192)).to_vec().unwrap();
    transport::send(&mut theirs, conf.into()).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..MANY {
        let client = client.clone();
        waiting.spawn(async move { client.request("echo", "again").idempotent().await });
    }
    for _ in 0..MANY {
        within(transport::recv(&mut theirs)).await.unwrap();
    }
    drop(theirs);
    while let Some(reply) = within(waiting.join_next()).await {
        assert_eq!(reply.unwrap().unwrap(), Data::from("again"));
    }
}

/// While the connection is being closed, an answer is written to its end, whichever others the client gives up.
#[tokio::test]
async fn a_request_given_up_while_closing_takes_no_other_with_it() {
    // What is told first fills a stream, so that what follows has to wait.
    const LARGE: usize = 1 << 19;
    async fn log_in(connection: &Connection) -> Result<(), ReplyError> {
        let info = [("large".to_owned(), "x".repeat(LARGE).into())];
        connection.create_session(info.into()).await?;
        Ok(())
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo()
        .on_request("visit", async |connection: Connection| -> Result<(), ReplyError> {
            log_in(&connection).await?;
            connection.close_session().await?;
            // Behind both of what tells that.
            connection.signal_with("told", "x", Delivery::Unreliable)?;
            std::future::pending().await
        })
        .on_request("login", async |connection: Connection| -> Result<_, ReplyError> {
            log_in(&connection).await?;
            Ok("welcome")
        })
        .on_disconnected(move |_, _| {
            tell.send(()).unwrap();
            async {}
        });
    let server = Server::builder()
        .message_buffer_size(1 << 20)
        .concurrency(3)
        .linger(Duration::from_secs(600))
        .sessions(MemoryStore::new(), 0)
        .build(handlers);
    let rig = Multi::start_with(&server, 1 << 16).await;
    let session = rig.session().await;
    let (mut control, mut accepted) = session.open_bi().await.unwrap();
    control.write_all(&[1, 0x21]).await.unwrap();
    within(AsyncReadExt::read_exact(&mut accepted, &mut [0; 12]))
        .await
        .unwrap();
    let ask = async |id, name| {
        let message = Message::Request {
            id: RequestId::from_u64(id),
            name: Name::new(name).unwrap(),
            payload: Payload::utf8("x"),
        };
        let message = message.to_vec().unwrap();
        let (mut send, recv) = session.open_bi().await.unwrap();
        send.write_all(&[message.len() as u8]).await.unwrap();
        send.write_all(&message).await.unwrap();
        send.finish().unwrap();
        recv
    };
    let read_all = async |mut stream: wireloom::RecvStream| {
        let mut all = Vec::new();
        within(AsyncReadExt::read_to_end(&mut stream, &mut all)).await.unwrap();
        all
    };
    let mut visit = ask(1, "visit").await;
    within(session.recv_datagram()).await.unwrap();
    let login = ask(2, "login").await;
    // The reply to this is behind that of the login.
    assert!(read_all(ask(3, "echo").await).await.ends_with(b"x"));
    server.connections()[0].abort(CloseCode::Shutdown, "");
    within(told.recv()).await.unwrap();
    visit.stop(0x10);
    let answer = read_all(login).await;
    assert!(answer.len() > LARGE && answer.ends_with(b"welcome"));
    control.finish().unwrap();
    let closed = within(session.closed()).await;
    assert!(
        matches!(closed, wireloom::SessionError::Closed { code: 1, .. }),
        "{closed}"
    );
}
