//! How a client gets its connections.

use std::future::Future;
use std::pin::Pin;

use super::ConnectError;
use crate::transport::Link;

/// A link, or why there is none.
pub type DialFuture<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Link>, ConnectError>> + Send + 'a>>;

/// Opens a connection, each time that a client needs one.
///
/// The future may be dropped at any point, and is when the client is closed or the attempt takes too long.
pub trait Dial: Send + Sync + 'static {
    /// One attempt. What is dialled, and in which order, is the implementation's affair; the client waits for the server's first
    /// message itself.
    fn dial(&self) -> DialFuture<'_>;
}

impl<F, Fut, L> Dial for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<L, ConnectError>> + Send + 'static,
    L: Link + 'static,
{
    fn dial(&self) -> DialFuture<'_> {
        let dialling = self();
        Box::pin(async move { Ok(Box::new(dialling.await?) as Box<dyn Link>) })
    }
}
