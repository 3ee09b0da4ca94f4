//! Handlers that nobody waits for, that hang, that panic.

use std::future::pending;
use std::time::Duration;

use tokio::sync::mpsc;
use wireloom_messaging::codec::{Message, RequestId};
use wireloom_messaging::server::{Connection, Context, Server};

use super::{TellDrop, echo};
use crate::peer::{Peer, start, within};
use crate::rig::Rig;

pub async fn a_lost_client_cancels_its_handlers<R: Rig>() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("wait", move |context: Context| {
        let tell = tell.clone();
        async move {
            tell.send("begun").unwrap();
            assert!(!context.is_cancelled());
            context.cancelled().await;
            tell.send("cancelled").unwrap();
        }
    });
    let server = Server::builder().build(handlers);
    let (rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "wait", "x").await;
    assert_eq!(within(told.recv()).await, Some("begun"));
    drop(peer);
    assert_eq!(within(told.recv()).await, Some("cancelled"));
    Peer::connect(&rig).await.ping().await;
}

pub async fn a_hanging_handler_is_dropped<R: Rig>() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("hang", move || {
        let tell = TellDrop(tell.clone());
        async move {
            tell.0.send("begun").unwrap();
            pending::<()>().await;
        }
    });
    let server = Server::builder()
        .cancel_grace(Duration::from_millis(50))
        .build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "hang", "x").await;
    assert_eq!(within(told.recv()).await, Some("begun"));
    peer.close().await;
    assert_eq!(within(told.recv()).await, Some("dropped"));
    within(server.shut_down()).await;
}

pub async fn a_handler_that_takes_too_long<R: Rig>() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handlers = echo().on_request("hang", move |context: Context| {
        let tell = tell.clone();
        async move {
            tell.send(context.clone()).unwrap();
            pending::<()>().await;
        }
    });
    let server = Server::builder()
        .handler_timeout(Duration::from_millis(50))
        .build(handlers);
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "hang", "x").await;
    let context = within(told.recv()).await.unwrap();
    assert!(context.deadline().is_some());
    assert_eq!(peer.expect_error(1).await.0, "DEADLINE_EXCEEDED");
    within(context.cancelled()).await;
    peer.ping().await;
}

pub async fn panics_harm_nobody_else<R: Rig>() {
    let handlers = echo()
        .on_request("later", async || -> () {
            tokio::task::yield_now().await;
            panic!("on purpose")
        })
        .on_signal("at once", || -> std::future::Ready<()> { panic!("on purpose") })
        .on_disconnected(async |_: Connection, _| panic!("on purpose"));
    let server = Server::builder().build(handlers);
    let (rig, mut peer) = start::<R>(&server).await;
    peer.text(1, "later", "x").await;
    let id = RequestId::from_u64(1);
    peer.expect(Message::ReplyInternalError { id }).await;
    peer.signal("at once", wireloom_messaging::codec::Payload::EMPTY).await;
    peer.ping().await;
    peer.close().await;
    Peer::connect(&rig).await.ping().await;
    drop(peer);
    within(server.shut_down()).await;
    let angry = Server::builder().build(echo().on_connected(async |_: Connection| panic!("on purpose")));
    let rig = R::start(&angry).await;
    let mut peer = Peer::silent(&rig).await;
    peer.expect_end(wireloom_messaging::engine::CloseCode::Internal).await;
}

pub async fn a_timeout_beyond_the_clock<R: Rig>() {
    let server = Server::builder().handler_timeout(Duration::MAX).build(echo());
    let (_rig, mut peer) = start::<R>(&server).await;
    peer.ping().await;
}
