//! Session stores and the registry of connections (section 9).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::poll_immediate;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use wireloom_messaging::session::{
    FileStore, MemoryStore, RestoreError, Session, SessionInfo, SessionKey, SessionStore, Sessions, StoreError,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn info() -> SessionInfo {
    [("user".to_owned(), json!("ann")), ("html".to_owned(), json!("<&>"))]
        .into_iter()
        .collect()
}

fn new_session(age: Duration) -> Session {
    let key = SessionKey::generate().expect("randomness");
    Session::new(key, info(), SystemTime::now() - age)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// What every store promises.
async fn keeps_its_promises(store: impl SessionStore) -> Result<(), StoreError> {
    let session = new_session(DAY);
    assert_eq!(store.look_up(&session.key).await?, None);
    store.create(&session).await?;
    assert_eq!(
        store.look_up(&session.key).await?,
        Some(session.clone()),
        "as it was created"
    );
    let again = store.look_up(&session.key).await?.expect("still there");
    assert!(again.last_lookup > session.last_lookup, "the look-up before was stored");
    assert_eq!((again.created, &again.info), (session.created, &session.info));
    let other = new_session(Duration::ZERO);
    store.create(&other).await?;
    store.remove(&session.key).await?;
    assert_eq!(store.look_up(&session.key).await?, None);
    store.remove(&session.key).await?;
    assert!(store.look_up(&other.key).await?.is_some(), "the other one stays");
    Ok(())
}

/// Sessions in memory, found and removed when the test lets them be; a removal fails then.
struct Stuck {
    store: MemoryStore,
    gate: Arc<Semaphore>,
    asked: tokio::sync::mpsc::UnboundedSender<()>,
}

impl SessionStore for Stuck {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        self.store.create(session).await
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        self.asked.send(())?;
        self.gate.acquire().await?.forget();
        self.store.look_up(key).await
    }

    async fn remove(&self, _: &SessionKey) -> Result<(), StoreError> {
        self.gate.acquire().await?.forget();
        Err("the disk is gone".into())
    }
}

#[tokio::test]
async fn who_destroys_a_session_that_is_being_closed_hears_whether_it_goes() -> Result<(), StoreError> {
    let gate = Arc::new(Semaphore::new(0));
    let store = Stuck {
        store: MemoryStore::new(),
        gate: gate.clone(),
        asked: tokio::sync::mpsc::unbounded_channel().0,
    };
    let sessions = Sessions::new(store, 0);
    let session = sessions.create(1, info(), SystemTime::now()).await?;
    let mut close = std::pin::pin!(sessions.close(1, &session.key));
    let mut destroy = std::pin::pin!(sessions.destroy(&session.key));
    assert!(poll_immediate(close.as_mut()).await.is_none());
    assert!(poll_immediate(destroy.as_mut()).await.is_none(), "it is not known yet");
    gate.add_permits(2);
    assert!(close.await.is_err());
    assert!(destroy.await.is_err());
    Ok(())
}

#[cfg(feature = "server")]
#[tokio::test]
async fn who_only_asks_for_a_session_does_not_have_it() -> Result<(), StoreError> {
    use wireloom_messaging::codec::{Message, RequestId};
    use wireloom_messaging::server::{Handlers, Server};
    use wireloom_messaging::transport::{self, Incoming};

    let (asked, mut told) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let store = MemoryStore::new();
    let session = new_session(Duration::ZERO);
    store.create(&session).await?;
    let store = Stuck {
        store,
        gate: gate.clone(),
        asked,
    };
    let server = Server::builder().sessions(store, 0).build(Handlers::new());
    let mut link = server.connect_memory();
    let restore = Message::RestoreSession {
        id: RequestId::from_u64(1),
        key: session.key.as_str().as_bytes(),
    };
    transport::send(&mut link, restore.to_vec()?.into()).await?;
    told.recv().await.ok_or("nobody asks")?;
    assert_eq!(server.session_connections(&session.key).len(), 0, "it only asks");
    gate.add_permits(1);
    loop {
        if let Incoming::Message { bytes, .. } = transport::recv(&mut link).await?
            && matches!(Message::decode(&bytes), Ok(Message::Reply { .. }))
        {
            break;
        }
    }
    assert_eq!(server.session_connections(&session.key).len(), 1);
    Ok(())
}

#[tokio::test]
async fn the_memory_store_keeps_its_promises() {
    keeps_its_promises(MemoryStore::new()).await.expect("no failure");
}

#[tokio::test]
async fn the_file_store_keeps_its_promises() {
    let folder = TempDir::new().expect("a folder");
    let store = FileStore::open(folder.path()).expect("it opens");
    keeps_its_promises(store).await.expect("no failure");
    assert_eq!(files(folder.path()).len(), 1, "no temporary file is left over");
}

async fn expires(store: impl SessionStore) -> Result<(), StoreError> {
    let (old, used, fresh) = (new_session(3 * DAY), new_session(3 * DAY), new_session(DAY));
    for session in [&old, &used, &fresh] {
        store.create(session).await?;
    }
    let key = used.key.clone();
    assert_eq!(
        store.sweep(&move |swept| *swept == key).await?,
        1,
        "only the one that nobody uses"
    );
    assert_eq!(store.look_up(&old.key).await?, None);
    assert!(store.look_up(&used.key).await?.is_some(), "in use counts as looked up");
    assert!(store.look_up(&fresh.key).await?.is_some());
    let late = new_session(3 * DAY);
    store.create(&late).await?;
    assert_eq!(store.look_up(&late.key).await?, None, "expired without a sweep");
    Ok(())
}

#[tokio::test]
async fn sessions_expire() {
    expires(MemoryStore::new().expire_after(2 * DAY))
        .await
        .expect("no failure");
    let folder = TempDir::new().expect("a folder");
    let store = FileStore::open(folder.path()).expect("it opens");
    expires(store.expire_after(2 * DAY)).await.expect("no failure");
    assert_eq!(files(folder.path()).len(), 2);
}

/// However long ago it was looked up, whoever has it uses it.
async fn does_not_expire_in_use(store: impl SessionStore) {
    let sessions = Sessions::new(store, 0);
    let long_ago = SystemTime::now() - 3 * DAY;
    let used = sessions.create(1, info(), long_ago).await.expect("created");
    let key = used.key.as_str().as_bytes();
    let restored = sessions.restore(2, key).await.expect("in use");
    assert_eq!(restored, used, "with the time of the look-up before");
    sessions.detach(1, &used.key);
    sessions.detach(2, &used.key);
    sessions
        .restore(3, key)
        .await
        .expect("the restoration has looked it up");

    let idle = sessions.create(4, info(), long_ago).await.expect("created");
    sessions.detach(4, &idle.key);
    let key = idle.key.as_str().as_bytes();
    // Those who ask for it at the same time do not use it for each other.
    let answers = tokio::join!(sessions.restore(5, key), sessions.restore(6, key));
    for answer in [answers.0, answers.1] {
        assert!(matches!(answer, Err(RestoreError::NotFound)), "{answer:?}");
    }
}

#[tokio::test]
async fn sessions_in_use_do_not_expire() {
    does_not_expire_in_use(MemoryStore::new().expire_after(2 * DAY)).await;
    let folder = TempDir::new().expect("a folder");
    let store = FileStore::open(folder.path()).expect("it opens");
    does_not_expire_in_use(store.expire_after(2 * DAY)).await;
}

#[tokio::test]
async fn a_session_survives_a_restart_in_the_format_of_the_original() {
    let folder = TempDir::new().expect("a folder");
    let session = new_session(DAY);
    let path = folder.path().join(format!("{}.wwrsess", session.key.as_str()));
    FileStore::open(folder.path())
        .expect("it opens")
        .create(&session)
        .await
        .expect("created");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    assert_eq!(json["i"], json!({"user": "ann", "html": "<&>"}));
    let again = FileStore::open(folder.path()).expect("it opens again");
    assert_eq!(again.look_up(&session.key).await.expect("no failure"), Some(session));

    // Written by webwire-go for a session without info.
    let json = r#"{"c":"2019-01-15T11:29:22.5+01:00","l":"2019-01-15T11:29:22.5Z","i":null}"#;
    std::fs::write(folder.path().join("legacy.wwrsess"), json).expect("written");
    let key = SessionKey::parse(b"legacy").expect("a key");
    let found = again.look_up(&key).await.expect("no failure").expect("found");
    assert_eq!(found.info, SessionInfo::new());
    assert_eq!(
        found.last_lookup.duration_since(found.created).ok(),
        Some(Duration::from_secs(3600))
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_sessions() {
    use std::os::unix::fs::PermissionsExt;
    let parent = TempDir::new().expect("a folder");
    let folder = parent.path().join("deep/sessions");
    let store = FileStore::open(&folder).expect("it opens");
    store.create(&new_session(DAY)).await.expect("created");
    let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&files(&folder)[0]), 0o600);
}

/// Section 9.7: the original reads, rewrites and deletes what `../evil` names.
#[tokio::test]
async fn hostile_keys_are_not_found_and_touch_nothing() {
    let parent = TempDir::new().expect("a folder");
    let folder = parent.path().join("sessions");
    let content = r#"{"c":"2019-01-15T11:29:22Z","l":"2019-01-15T11:29:22Z","i":{}}"#;
    let outside = parent.path().join("evil.wwrsess");
    std::fs::write(&outside, content).expect("written");
    let sessions = Sessions::new(FileStore::open(&folder).expect("it opens"), 0);
    let long = vec![b'a'; 1 << 20];
    let absolute = outside.with_extension("").display().to_string();
    for key in [
        &b"../evil"[..],
        b"..",
        b"x/../../evil",
        b"..\\evil",
        b"ev\0il",
        "évil".as_bytes(),
        b"\xff\xfe",
        b"",
        &long,
        &long[..255],
        absolute.as_bytes(),
    ] {
        let answer = sessions.restore(1, key).await;
        assert!(matches!(answer, Err(RestoreError::NotFound)), "{key:.20?}: {answer:?}");
    }
    assert_eq!(std::fs::read_to_string(&outside).expect("still there"), content);
    assert_eq!(files(&folder), Vec::<PathBuf>::new());
    assert_eq!(sessions.active(), 0);
}

/// A file that is not a session's is an error, and stays as it is for somebody to look at.
#[tokio::test]
async fn a_broken_file_is_an_error() {
    let folder = TempDir::new().expect("a folder");
    let store = FileStore::open(folder.path()).expect("it opens");
    for content in [
        Vec::new(),
        b"{".to_vec(),
        b"{\"c\":1}".to_vec(),
        vec![b' '; FileStore::MAX_FILE + 1],
    ] {
        let path = folder.path().join("broken.wwrsess");
        std::fs::write(&path, &content).expect("written");
        let sessions = Sessions::new(store.clone(), 0);
        let answer = sessions.restore(1, b"broken").await;
        assert!(matches!(answer, Err(RestoreError::Store(_))), "{answer:?}");
        assert_eq!(sessions.active(), 0, "the connection has no session");
        assert_eq!(std::fs::read(&path).expect("still there"), content);
    }
    let huge = [("x".to_owned(), json!("x".repeat(FileStore::MAX_FILE)))];
    let session = Session::new(new_session(DAY).key, huge.into_iter().collect(), SystemTime::now());
    assert!(store.create(&session).await.is_err());
}

#[tokio::test]
async fn a_store_that_fails_acknowledges_nothing() {
    let parent = TempDir::new().expect("a folder");
    let folder = parent.path().join("sessions");
    let sessions = Sessions::new(FileStore::open(&folder).expect("it opens"), 0);
    let kept = sessions.create(1, info(), SystemTime::now()).await.expect("created");
    let away = parent.path().join("away");
    std::fs::rename(&folder, &away).expect("moved");
    assert!(sessions.create(2, info(), SystemTime::now()).await.is_err());
    assert_eq!(sessions.active(), 1, "the failed one is not in use");
    std::fs::rename(&away, &folder).expect("moved back");
    assert_eq!(files(&folder).len(), 1, "nor stored");
    assert!(sessions.restore(2, kept.key.as_str().as_bytes()).await.is_ok());
}

/// Root may write everywhere: then there is nothing to see.
#[cfg(unix)]
#[tokio::test]
async fn a_read_only_folder_acknowledges_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().expect("a folder");
    let sessions = Sessions::new(FileStore::open(folder.path()).expect("it opens"), 0);
    let kept = sessions.create(1, info(), SystemTime::now()).await.expect("created");
    let set =
        |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("permissions");
    set(0o500);
    if std::fs::write(folder.path().join("probe"), "x").is_ok() {
        eprintln!("not run: this user may write everywhere");
        return;
    }
    assert!(sessions.create(2, info(), SystemTime::now()).await.is_err());
    let answer = sessions.restore(2, kept.key.as_str().as_bytes()).await;
    assert!(matches!(answer, Err(RestoreError::Store(_))), "{answer:?}");
    set(0o700);
    assert_eq!(files(folder.path()).len(), 1);
}

/// A limit on the size of files is what of a full disk a test can have everywhere.
#[cfg(unix)]
#[test]
fn a_full_disk_acknowledges_nothing() {
    let test = std::env::current_exe().expect("this program");
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" --exact child_with_a_full_disk --ignored --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(&test)
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[ignore = "run by a_full_disk_acknowledges_nothing"]
#[tokio::test]
async fn child_with_a_full_disk() {
    let folder = TempDir::new().expect("a folder");
    let sessions = Sessions::new(FileStore::open(folder.path()).expect("it opens"), 0);
    let answer = sessions.create(1, info(), SystemTime::now()).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(sessions.active(), 0);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_session_has_as_many_connections_as_allowed() {
    let sessions = Sessions::new(MemoryStore::new(), 2);
    let session = sessions.create(1, info(), SystemTime::now()).await.expect("created");
    let key = session.key.as_str().as_bytes();
    assert!(sessions.restore(2, key).await.is_ok());
    assert!(
        sessions.restore(2, key).await.is_ok(),
        "again on the same connection counts once"
    );
    assert!(matches!(
        sessions.restore(3, key).await,
        Err(RestoreError::LimitReached)
    ));
    sessions.detach(1, &session.key);
    assert!(sessions.restore(3, key).await.is_ok());
    assert_eq!(sessions.connections(&session.key), [2, 3]);
    assert!(matches!(
        sessions.restore(4, b"nobody").await,
        Err(RestoreError::NotFound)
    ));
    assert_eq!(sessions.active(), 1);
}

/// Section 9.5: the last connection that logs out destroys it; a lost one does not.
#[tokio::test]
async fn the_last_connection_that_closes_it_destroys_it() {
    let sessions = Sessions::new(MemoryStore::new(), 0);
    let session = sessions.create(1, info(), SystemTime::now()).await.expect("created");
    let key = session.key.as_str().as_bytes();
    sessions.restore(2, key).await.expect("restored");
    assert!(
        !sessions.close(1, &session.key).await.expect("no failure"),
        "another connection keeps it"
    );
    assert!(
        !sessions.close(1, &session.key).await.expect("no failure"),
        "closed already"
    );
    sessions.detach(2, &session.key);
    assert_eq!(sessions.active(), 0);
    sessions
        .restore(3, key)
        .await
        .expect("a lost connection destroys nothing");
    assert!(sessions.close(3, &session.key).await.expect("no failure"));
    assert!(matches!(sessions.restore(4, key).await, Err(RestoreError::NotFound)));
    assert_eq!(sessions.active(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_holds_for_restorations_at_once() {
    let folder = TempDir::new().expect("a folder");
    let sessions = Arc::new(Sessions::new(FileStore::open(folder.path()).expect("it opens"), 5));
    let session = sessions.create(0, info(), SystemTime::now()).await.expect("created");
    let tasks: Vec<_> = (1..=50_u64)
        .map(|connection| {
            let (sessions, key) = (sessions.clone(), session.key.clone());
            tokio::spawn(async move { sessions.restore(connection, key.as_str().as_bytes()).await.is_ok() })
        })
        .collect();
    let mut restored = 0;
    for task in tasks {
        restored += u32::from(task.await.expect("no panic"));
    }
    assert_eq!(restored, 4);
    assert_eq!(sessions.connections(&session.key).len(), 5);
}

/// A store whose removals wait to be let through, and the answers to its look-ups.
struct Slow {
    store: MemoryStore,
    answers: Arc<Semaphore>,
    removals: Arc<Semaphore>,
}

impl SessionStore for Slow {
    async fn create(&self, session: &Session) -> Result<(), StoreError> {
        self.store.create(session).await
    }

    async fn look_up(&self, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let found = self.store.look_up(key).await;
        let _turn = self.answers.acquire().await?;
        found
    }

    async fn remove(&self, key: &SessionKey) -> Result<(), StoreError> {
        let _turn = self.removals.acquire().await?;
        self.store.remove(key).await
    }
}

/// The store still has it, and yet it is no longer to be had.
#[tokio::test]
async fn nobody_restores_what_is_being_destroyed() {
    let removals = Arc::new(Semaphore::new(0));
    let store = MemoryStore::new();
    let sessions = Sessions::new(
        Slow {
            store: store.clone(),
            answers: Arc::new(Semaphore::new(1)),
            removals: removals.clone(),
        },
        0,
    );
    let session = sessions.create(1, info(), SystemTime::now()).await.expect("created");
    let mut closing = std::pin::pin!(sessions.close(1, &session.key));
    assert!(poll_immediate(&mut closing).await.is_none());
    let answer = sessions.restore(2, session.key.as_str().as_bytes()).await;
    assert!(matches!(answer, Err(RestoreError::NotFound)), "{answer:?}");
    assert!(store.look_up(&session.key).await.expect("no failure").is_some());
    removals.add_permits(1);
    assert!(closing.await.expect("no failure"));
    assert_eq!(sessions.active(), 0);
}

/// The store found it, and was told to destroy it before anybody took up what it found.
#[tokio::test]
async fn nobody_restores_what_was_destroyed_meanwhile() {
    let answers = Arc::new(Semaphore::new(0));
    let store = Slow {
        store: MemoryStore::new(),
        answers: answers.clone(),
        removals: Arc::new(Semaphore::new(1)),
    };
    let sessions = Sessions::new(store, 0);
    let session = sessions.create(1, info(), SystemTime::now()).await.expect("created");
    let key = session.key.as_str().as_bytes();
    // Also not the connection that had it.
    let mut again = std::pin::pin!(sessions.restore(1, key));
    let mut other = std::pin::pin!(sessions.restore(2, key));
    assert!(poll_immediate(&mut again).await.is_none());
    assert!(poll_immediate(&mut other).await.is_none());
    sessions.destroy(&session.key).await.expect("destroyed");
    answers.add_permits(1);
    for answer in [again.await, other.await] {
        assert!(matches!(answer, Err(RestoreError::NotFound)), "{answer:?}");
    }
    assert_eq!(sessions.active(), 0);
}

/// Whoever restores while the last connection closes gets a session that is stored, or none.
#[tokio::test(flavor = "multi_thread")]
async fn closing_and_restoring_at_once_agree() {
    let folder = TempDir::new().expect("a folder");
    let sessions = Arc::new(Sessions::new(FileStore::open(folder.path()).expect("it opens"), 0));
    for _ in 0..200 {
        let session = sessions.create(1, info(), SystemTime::now()).await.expect("created");
        let (other, key) = (sessions.clone(), session.key.clone());
        let restoring = tokio::spawn(async move { other.restore(2, key.as_str().as_bytes()).await.is_ok() });
        let destroyed = sessions.close(1, &session.key).await.expect("no failure");
        let restored = restoring.await.expect("no panic");
        let stored = folder.path().join(format!("{}.wwrsess", session.key.as_str())).exists();
        assert_eq!((restored, stored), (!destroyed, !destroyed), "destroyed: {destroyed}");
        if restored {
            assert!(sessions.close(2, &session.key).await.expect("no failure"));
        }
    }
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "nothing came back");
    assert_eq!(sessions.active(), 0);
}

/// A look-up under way does not write back what a removal deletes. Stores that were opened one by one know no more of each other than
/// processes do.
#[tokio::test(flavor = "multi_thread")]
async fn removed_is_gone() {
    let folder = TempDir::new().expect("a folder");
    let store = FileStore::open(folder.path()).expect("it opens");
    for other in [store.clone(), FileStore::open(folder.path()).expect("it opens")] {
        for _ in 0..200 {
            let session = new_session(Duration::ZERO);
            store.create(&session).await.expect("created");
            let look_ups: Vec<_> = (0..4)
                .map(|_| {
                    let (store, key) = (other.clone(), session.key.clone());
                    tokio::spawn(async move { store.look_up(&key).await.expect("no failure").is_some() })
                })
                .collect();
            store.remove(&session.key).await.expect("removed");
            assert!(store.look_up(&session.key).await.expect("no failure").is_none());
            for look_up in look_ups {
                look_up.await.expect("no panic");
            }
            assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
        }
    }
}
