//! What keeps sessions.

use std::future::Future;
use std::pin::Pin;

use super::{Session, SessionKey};

/// Why a store could not do it: its own error, which is logged and never sent to a client.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps sessions beyond their connections.
///
/// # What an implementation promises
/// - **What is acknowledged is kept.** Once [`create`](Self::create) has answered `Ok`, the session is found by whoever looks it up in
///   this store, by other processes too if the store is shared, until it is removed or expires. How much of that survives a crash or
///   a loss of power is the store's to say.
/// - **Nothing half.** A session that could not be created whole is not found. A failed `create` may be followed by `remove`.
/// - **Removed is gone.** Once [`remove`](Self::remove) has answered `Ok`, no look-up finds the session again, not even one that was
///   under way.
/// - **Look-ups count.** A look-up answers the session with the time of the look-up before, and stores the time of this one.
///   Sessions may expire by it.
/// - **Keys are opaque** and their number is not the caller's to limit: clients may ask for keys at the rate at which they can send.
///
/// The futures may be dropped at any point: then the operation happened or did not, whole.
///
/// A server tells the client nothing before the store has answered: an error becomes an internal-error reply.
pub trait SessionStore: Send + Sync + 'static {
    /// Stores a new session.
    fn create(&self, session: &Session) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Finds a session, with the time of its last look-up before this one. `Ok(None)`: there is none, or it has expired.
    fn look_up(&self, key: &SessionKey) -> impl Future<Output = Result<Option<Session>, StoreError>> + Send;

    /// As [`look_up`](Self::look_up), of a session that connections of the caller have: it has not expired, however long ago it was
    /// looked up.
    ///
    /// By default the same as a look-up, for stores in which nothing expires.
    fn look_up_in_use(&self, key: &SessionKey) -> impl Future<Output = Result<Option<Session>, StoreError>> + Send {
        self.look_up(key)
    }

    /// Destroys a session. It is no error if there is none.
    fn remove(&self, key: &SessionKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes what has expired, and answers how many sessions that were. Those that `in_use` knows count as looked up now. A
    /// [server](crate::server::Server::sweep) calls it once an hour.
    ///
    /// By default nothing expires, or the store sees to it by itself.
    fn sweep(
        &self,
        in_use: &(dyn Fn(&SessionKey) -> bool + Send + Sync),
    ) -> impl Future<Output = Result<usize, StoreError>> + Send {
        let _ = in_use;
        std::future::ready(Ok(0))
    }
}

pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// [`SessionStore`] behind a pointer, so that a server's type does not name its store.
pub(super) trait DynStore: Send + Sync {
    fn create<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, ()>;
    fn look_up<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Option<Session>>;
    fn look_up_in_use<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Option<Session>>;
    fn remove<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, ()>;
    fn sweep<'a>(&'a self, in_use: &'a (dyn Fn(&SessionKey) -> bool + Send + Sync)) -> BoxFuture<'a, usize>;
}

impl<S: SessionStore> DynStore for S {
    fn create<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, ()> {
        Box::pin(SessionStore::create(self, session))
    }

    fn look_up<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Option<Session>> {
        Box::pin(SessionStore::look_up(self, key))
    }

    fn look_up_in_use<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Option<Session>> {
        Box::pin(SessionStore::look_up_in_use(self, key))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, ()> {
        Box::pin(SessionStore::remove(self, key))
    }

    fn sweep<'a>(&'a self, in_use: &'a (dyn Fn(&SessionKey) -> bool + Send + Sync)) -> BoxFuture<'a, usize> {
        Box::pin(SessionStore::sweep(self, in_use))
    }
}
