//! What a server does on each path, on any implementation; the table is in the [module above](super).

use std::sync::Arc;

use bytes::Bytes;

use super::session::{ReadEnd, RecvHalf, SendHalf, Session};
use super::{Behaviour, Route};
use crate::Result;
use crate::journal::{Event, Journal};

/// Runs an accepted session to its end.
pub async fn behave<S: Session>(session: S, route: Route, journal: Arc<Journal>) {
    let _alive = journal.alive(&route.id);
    journal.note(&route.id, Event::Accepted);
    let end = tokio::select! {
        end = session.closed() => end,
        Err(error) = run(&session, &route, &journal) => {
            // Streams and datagrams fail first when a session ends; how it ended is what the journal wants.
            drop(error);
            session.closed().await
        }
    };
    journal.note(&route.id, end);
}

async fn run<S: Session>(session: &S, route: &Route, journal: &Arc<Journal>) -> Result {
    match route.behaviour {
        Behaviour::Echo => {}
        Behaviour::Close => {
            session.close(route.code, &route.reason);
            return std::future::pending().await;
        }
        Behaviour::ServerOpens => {
            let mut uni = session.open_uni().await?;
            uni.write("uni of the server".into()).await?;
            uni.finish().await?;
            let (mut send, mut recv) = session.open_bi().await?;
            send.write("bidi of the server".into()).await?;
            send.finish().await?;
            let answer = recv.read_to_end().await?;
            journal.note(
                &route.id,
                Event::Finished(String::from_utf8_lossy(&answer).into_owned()),
            );
        }
        Behaviour::Resets => {
            let mut uni = session.open_uni().await?;
            uni.write("x".into()).await?;
            let (mut send, mut recv) = session.accept_bi().await?;
            recv.read_to_end().await?;
            uni.reset(route.code)?;
            send.reset(route.code)?;
            let mut stopped = session.accept_uni().await?;
            // Once its bytes are here its sender is past writing them, and learns the code from the stop itself.
            stopped.read().await?;
            stopped.stop(route.code)?;
            return std::future::pending().await;
        }
        Behaviour::Observe => loop {
            let (send, recv) = session.accept_bi().await?;
            let (id, journal) = (route.id.clone(), journal.clone());
            tokio::spawn(async move { observe(send, recv, &id, &journal).await });
        },
    }
    echo(session, &route.id, journal).await
}

async fn echo<S: Session>(session: &S, id: &str, journal: &Arc<Journal>) -> Result {
    let bidi = async {
        loop {
            let (send, recv) = session.accept_bi().await?;
            let (id, journal) = (id.to_owned(), journal.clone());
            tokio::spawn(async move {
                let _alive = journal.alive(&id);
                echo_stream(send, recv).await
            });
        }
    };
    let uni = async {
        loop {
            let recv = session.accept_uni().await?;
            tokio::spawn(answer_uni(session.clone(), recv));
        }
    };
    let datagrams = async {
        loop {
            session.send_datagram(session.recv_datagram().await?).await?;
        }
    };
    // Each runs until the session ends, and all at once.
    tokio::select! {
        end = bidi => end,
        end = uni => end,
        end = datagrams => end,
    }
}

async fn echo_stream(mut send: impl SendHalf, mut recv: impl RecvHalf) -> Result {
    while let Some(bytes) = recv.read().await? {
        send.write(bytes).await?;
    }
    send.finish().await
}

async fn answer_uni<S: Session>(session: S, mut recv: S::Recv) -> Result {
    let content = recv.read_to_end().await?;
    let mut send = session.open_uni().await?;
    send.write(content.into()).await?;
    send.finish().await
}

async fn observe(mut send: impl SendHalf, mut recv: impl RecvHalf, id: &str, journal: &Journal) -> Result {
    let _alive = journal.alive(id);
    let first = recv.read().await?.unwrap_or_else(Bytes::new);
    send.write(first.clone()).await?;
    if first != "observe" {
        return echo_stream(send, recv).await;
    }
    let reading = async {
        match recv.read_to_end().await {
            Ok(rest) => journal.note(id, Event::Finished(String::from_utf8_lossy(&rest).into_owned())),
            Err(ReadEnd::Reset(code)) => journal.note(id, Event::Reset(code)),
            Err(ReadEnd::Lost(_)) => {}
        }
    };
    let writing = async {
        if let Ok(code) = send.stopped().await {
            journal.note(id, Event::Stopped(code));
        }
    };
    tokio::join!(reading, writing);
    Ok(())
}
