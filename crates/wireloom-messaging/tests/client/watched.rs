//! A link that is watched.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use wireloom_messaging::client::Client;
use wireloom_messaging::codec::RequestId;
use wireloom_messaging::engine::CloseCode;
use wireloom_messaging::transport::memory::{self, MemoryLink};
use wireloom_messaging::transport::{Delivery, Ended, Incoming, Link, Route, TransportKind};

use crate::served::{Connections, Served};

/// A link that tells what it was asked to cancel, and can be made to say that the server wants us to go.
pub(crate) struct Watched {
    pub(crate) link: MemoryLink,
    pub(crate) cancelled: mpsc::UnboundedSender<RequestId>,
    pub(crate) draining: Arc<Mutex<bool>>,
}

impl Link for Watched {
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        let received = self.link.poll_recv(cx, want);
        let mut draining = self.draining.lock().expect("no panic");
        // After the next message.
        if received.is_ready() && std::mem::take(&mut *draining) {
            return Poll::Ready(Ok(Incoming::Draining));
        }
        received
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.link.poll_ready(cx)
    }

    fn send(&mut self, route: Route, message: Bytes) -> Result<(), Ended> {
        self.link.send(route, message)
    }

    fn send_signal(&mut self, message: Bytes, delivery: Delivery) -> Result<(), Ended> {
        self.link.send_signal(message, delivery)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.link.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
        self.link.poll_close(cx, code, reason)
    }

    fn cancel(&mut self, id: RequestId) {
        let _ = self.cancelled.send(id);
    }

    fn set_message_limit(&mut self, limit: usize) {
        self.link.set_message_limit(limit);
    }

    fn kind(&self) -> TransportKind {
        TransportKind::WebTransportMulti
    }
}

pub(crate) fn watched() -> (
    Client,
    Connections,
    mpsc::UnboundedReceiver<RequestId>,
    Arc<Mutex<bool>>,
) {
    let (connections, served) = mpsc::unbounded_channel();
    let (cancelled, cancels) = mpsc::unbounded_channel();
    let draining = Arc::<Mutex<bool>>::default();
    let flag = draining.clone();
    let client = Client::over(move || {
        let (link, theirs) = memory::pair();
        let _ = connections.send(Served(theirs));
        let watched = Watched {
            link,
            cancelled: cancelled.clone(),
            draining: flag.clone(),
        };
        async { Ok(watched) }
    });
    (client.build(), served, cancels, draining)
}
