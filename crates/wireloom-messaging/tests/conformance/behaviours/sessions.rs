//! Sessions (section 9).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use wireloom_messaging::codec::{Message, Payload, RequestId};
use wireloom_messaging::server::{Connection, ConnectionSessionError, Handlers, ReplyError, Server};
use wireloom_messaging::session::{FileStore, MemoryStore, Session, SessionKey, SessionStore, StoreError};

use super::echo;
use crate::peer::{Peer, start, within};
use crate::rig::Rig;

/// `login`, `logout` and `whoami`.
fn service() -> Handlers {
    echo()
        .on_request(
            "login",
            async |connection: Connection, user: String| -> Result<_, ReplyError> {
                connection
                    .create_session([("user".to_owned(), user.into())].into())
                    .await?;
                Ok("welcome")
            },
        )
        .on_request("logout", async |connection: Connection| -> Result<_, ReplyError> {
            Ok(connection.close_session().await?)
        })
        .on_request("whoami", async |connection: Connection| {
            let user = connection.session().map(|session| session.info["user"].clone());
            user.map_or_else(|| "nobody".to_owned(), |user| user.as_str().unwrap().to_owned())
        })
}

impl Peer {
    /// The session comes before the reply, also where the reply has a stream of its own.
    async fn login(&mut self, user: &str) -> Session {
        self.text(90, "login", user).await;
        let bytes = self.recv().await;
        let Ok(Message::SessionCreated { session }) = Message::decode(&bytes) else {
            panic!("{:?}", Message::decode(&bytes));
        };
        self.expect_text(90, "welcome").await;
        Session::from_json(session).unwrap()
    }

    async fn restore(&mut self, key: &SessionKey) -> Session {
        let id = RequestId::from_u64(91);
        let key = key.as_str().as_bytes();
        self.send(&Message::RestoreSession { id, key }).await;
        let bytes = self.recv().await;
        let Ok(Message::Reply { id: replied, payload }) = Message::decode(&bytes) else {
            panic!("{:?}", Message::decode(&bytes));
        };
        // Type 192, as JSON (section 9.4).
        assert_eq!((replied, bytes[0]), (id, 192));
        Session::from_json(payload.bytes).unwrap()
    }

    async fn restore_fails(&mut self, key: &[u8], expected: fn(RequestId) -> Message<'static>) {
        let id = RequestId::from_u64(92);
        self.send(&Message::RestoreSession { id, key }).await;
        self.expect(expected(id)).await;
    }

    async fn close_session(&mut self) {
        let id = RequestId::from_u64(93);
        self.send(&Message::CloseSession { id }).await;
        self.expect(Message::Reply {
            id,
            payload: Payload::EMPTY,
        })
        .await;
    }

    async fn is(&mut self, user: &str) {
        self.text(94, "whoami", "?").await;
        self.expect_text(94, user).await;
    }
}

async fn until_connections(server: &Server, count: usize) {
    while server.connection_count() != count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn not_found(id: RequestId) -> Message<'static> {
    Message::ReplySessionNotFound { id }
}

pub async fn login_and_logout<R: Rig>() {
    let server = Server::builder().build(service());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.is("nobody").await;
    let session = peer.login("Ann").await;
    peer.is("Ann").await;
    assert_eq!(
        (server.active_sessions(), server.session_connections(&session.key).len()),
        (1, 1)
    );
    // A second login while there is a session fails.
    peer.text(1, "login", "Bob").await;
    let id = RequestId::from_u64(1);
    peer.expect(Message::ReplyInternalError { id }).await;
    // The server's way: 22 before the reply.
    peer.text(2, "logout", "x").await;
    peer.expect(Message::SessionClosed).await;
    peer.expect_reply(2, Payload::EMPTY).await;
    peer.is("nobody").await;
    // The client's way: no 22, and an answer also without a session.
    let second = peer.login("Bob").await;
    peer.close_session().await;
    peer.close_session().await;
    peer.is("nobody").await;
    assert_eq!(server.active_sessions(), 0);
    for key in [&session.key, &second.key] {
        peer.restore_fails(key.as_str().as_bytes(), not_found).await;
    }
}

pub async fn restored_after_the_connection_is_lost<R: Rig>() {
    let folder = tempfile::tempdir().unwrap();
    let open = || FileStore::open(folder.path()).unwrap();
    let server = Server::builder().sessions(open(), 0).build(service());
    let (rig, mut peer) = start::<R>(&server).await;
    let session = peer.login("Ann").await;
    drop(peer);
    until_connections(&server, 0).await;
    assert_eq!(server.active_sessions(), 0);
    let mut peer = Peer::connect(&rig).await;
    let restored = peer.restore(&session.key).await;
    assert_eq!(
        (restored.key.clone(), restored.info),
        (session.key.clone(), session.info)
    );
    peer.is("Ann").await;
    // Also after the server has restarted, and by two connections at once.
    let server = Server::builder().sessions(open(), 0).build(service());
    let (rig, mut first) = start::<R>(&server).await;
    let mut second = Peer::connect(&rig).await;
    first.restore(&session.key).await;
    second.restore(&session.key).await;
    assert_eq!(server.session_connections(&session.key).len(), 2);
    // The session lives until its last connection logs out.
    first.close_session().await;
    second.is("Ann").await;
    second.close_session().await;
    first.restore_fails(session.key.as_str().as_bytes(), not_found).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

pub async fn keys_that_are_none<R: Rig>() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("sessions");
    let outside = folder.path().join("evil.wwrsess");
    let content = r#"{"c":"2019-01-15T11:29:22Z","l":"2019-01-15T11:29:22Z","i":null}"#;
    std::fs::write(&outside, content).unwrap();
    let server = Server::builder()
        .sessions(FileStore::open(store).unwrap(), 0)
        .build(service());
    let (_rig, mut peer) = start::<R>(&server).await;
    let long = [b'k'; 300];
    for key in [
        &b"../evil"[..],
        b"/etc/passwd",
        b"\0",
        b"\xff\xfe",
        &long,
        b".",
        b"unknown",
    ] {
        peer.restore_fails(key, not_found).await;
    }
    peer.close_session().await;
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), content);
}

pub async fn limit_of_connections<R: Rig>() {
    let store = MemoryStore::new();
    let server = Server::builder().sessions(store, 2).build(service());
    let (rig, mut first) = start::<R>(&server).await;
    let key = first.login("Ann").await.key;
    let mut second = Peer::connect(&rig).await;
    second.restore(&key).await;
    // The same again on one connection counts once.
    second.restore(&key).await;
    let mut third = Peer::connect(&rig).await;
    let full = |id| Message::ReplyMaxSessionConnections { id };
    third.restore_fails(key.as_str().as_bytes(), full).await;
    second.close().await;
    until_connections(&server, 2).await;
    third.restore(&key).await;
    third.is("Ann").await;
}

pub async fn disabled<R: Rig>() {
    let server = Server::builder().without_sessions().build(service());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.restore_fails(b"key", |id| Message::ReplySessionsDisabled { id })
        .await;
    let id = RequestId::from_u64(1);
    peer.send(&Message::CloseSession { id }).await;
    peer.expect(Message::ReplySessionsDisabled { id }).await;
    let error = server.connections()[0].create_session(Default::default()).await;
    assert!(matches!(error, Err(ConnectionSessionError::Disabled)));
}

pub async fn restoring_replaces<R: Rig>() {
    let server = Server::builder().build(service());
    let (rig, mut first) = start::<R>(&server).await;
    let ann = first.login("Ann").await;
    let mut second = Peer::connect(&rig).await;
    let bob = second.login("Bob").await;
    second.restore(&ann.key).await;
    second.is("Ann").await;
    assert_eq!(server.session_connections(&bob.key), []);
    assert_eq!(server.session_connections(&ann.key).len(), 2);
    // Left, not closed.
    first.restore(&bob.key).await;
    first.is("Bob").await;
}

pub async fn closed_by_the_server<R: Rig>() {
    let server = Server::builder().build(service());
    let (rig, mut first) = start::<R>(&server).await;
    let key = first.login("Ann").await.key;
    let mut second = Peer::connect(&rig).await;
    second.restore(&key).await;
    let closed = server.close_session(&key).await.unwrap();
    assert_eq!(closed.len(), 2);
    for peer in [&mut first, &mut second] {
        peer.expect(Message::SessionClosed).await;
        peer.is("nobody").await;
        peer.restore_fails(key.as_str().as_bytes(), not_found).await;
    }
    // Also one that nobody uses.
    let key = first.login("Ann").await.key;
    first.close().await;
    until_connections(&server, 1).await;
    assert_eq!(server.close_session(&key).await.unwrap(), []);
    second.restore_fails(key.as_str().as_bytes(), not_found).await;
    assert_eq!(server.active_sessions(), 0);
}

/// A store whose creations say that they have begun, and wait to be let through.
struct SlowToCreate {
    store: MemoryStore,
    begun: mpsc::UnboundedSender<()>,
    turns: Arc<Semaphore>,
}

impl SessionStore for SlowToCreate {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        self.begun.send(())?;
        self.turns.acquire().await?.forget();
        self.store.create(session).await
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        self.store.look_up(key).await
    }

    async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.store.remove(key).await
    }
}

/// The last one counts, and the other has one connection less.
pub async fn restored_during_a_login<R: Rig>() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let turns = Arc::new(Semaphore::new(1));
    let store = SlowToCreate {
        store: MemoryStore::new(),
        begun,
        turns: turns.clone(),
    };
    let server = Server::builder().sessions(store, 1).build(service());
    let (rig, mut first) = start::<R>(&server).await;
    let ann = first.login("Ann").await;
    within(begins.recv()).await.unwrap();
    drop(first);
    until_connections(&server, 0).await;
    let mut second = Peer::connect(&rig).await;
    second.text(90, "login", "Bob").await;
    within(begins.recv()).await.unwrap();
    second.restore(&ann.key).await;
    turns.add_permits(1);
    let bytes = second.recv().await;
    assert!(matches!(Message::decode(&bytes), Ok(Message::SessionCreated { .. })));
    second.expect_text(90, "welcome").await;
    second.is("Bob").await;
    assert_eq!(server.session_connections(&ann.key), []);
    assert_eq!(server.active_sessions(), 1);
    let mut third = Peer::connect(&rig).await;
    third.restore(&ann.key).await;
    drop((second, third));
    until_connections(&server, 0).await;
    assert_eq!(server.active_sessions(), 0);
}

/// A store that answers nothing about sessions that it has.
struct Hanging;

impl SessionStore for Hanging {
    async fn create(&self, _: &Session) -> Result<(), StoreError> {
        Ok(())
    }

    async fn look_up(&self, _: &SessionKey) -> Result<Option<Session>, StoreError> {
        std::future::pending().await
    }

    async fn remove(&self, _: &SessionKey) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

/// What was asked of it is answered, and the connection goes on.
pub async fn a_store_that_hangs<R: Rig>() {
    let server = Server::builder()
        .sessions(Hanging, 0)
        .connect_timeout(Duration::from_millis(50))
        .build(service());
    let (_rig, mut peer) = start::<R>(&server).await;
    let internal_error = |id| Message::ReplyInternalError { id };
    peer.restore_fails(b"key", internal_error).await;
    peer.login("Ann").await;
    let id = RequestId::from_u64(1);
    peer.send(&Message::CloseSession { id }).await;
    peer.expect(internal_error(id)).await;
    peer.is("nobody").await;
    assert_eq!(server.active_sessions(), 0);
}
