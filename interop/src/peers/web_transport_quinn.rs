//! The crate web-transport-quinn (drafts 02 and 07).

use std::sync::Arc;

use web_transport_quinn::proto::ConnectResponse;
use web_transport_quinn::{
    ReadError, ReadToEndError, RecvStream, Request, SendStream, ServerBuilder, Session, SessionError, WebTransportError,
};

use super::{Behaviour, Route, Target};
use crate::Result;
use crate::certificate::Certificate;
use crate::journal::{Event, Journal};

const LIMIT: usize = 64 << 20;

/// Serves the laboratory's paths on a free port until the runtime ends.
pub async fn serve(journal: Arc<Journal>) -> Result<Target> {
    let certificate = Certificate::generate()?;
    let hash = certificate.sha256_hex();
    let mut server = ServerBuilder::new()
        .with_addr(([127, 0, 0, 1], 0).into())
        .with_certificate(vec![certificate.certificate.clone()], certificate.private_key())?;
    let url = format!("https://{}", server.local_addr()?);
    tokio::spawn(async move {
        while let Some(request) = server.accept().await {
            let journal = journal.clone();
            tokio::spawn(async move {
                // The peer's errors end its own session only; the journal has them.
                let _ = answer(request, journal).await;
            });
        }
    });
    Ok(Target { url, hash })
}

async fn answer(request: Request, journal: Arc<Journal>) -> Result {
    let path = &request.url[url::Position::BeforePath..url::Position::AfterQuery];
    let Some(route) = Route::parse(path) else {
        return Ok(request.reject(http::StatusCode::NOT_FOUND).await?);
    };
    let mut response = ConnectResponse::OK;
    if let Some(protocol) = request
        .protocols
        .iter()
        .find(|offered| matches!(offered.as_str(), "echo.v1" | "echo.v2"))
    {
        response = response.with_protocol(protocol.clone());
    }
    let session = request.respond(response).await?;
    let _alive = journal.alive(&route.id);
    journal.note(&route.id, Event::Accepted);
    let outcome = tokio::select! {
        error = session.closed() => error.into(),
        Err(error) = run(&session, &route, &journal) => error,
    };
    journal.note(&route.id, end_of(outcome.as_ref()));
    Ok(())
}

fn end_of(error: &(dyn std::error::Error + 'static)) -> Event {
    match error.downcast_ref::<SessionError>() {
        Some(SessionError::WebTransportError(WebTransportError::Closed(code, reason))) => {
            Event::Closed(*code, reason.clone())
        }
        _ => Event::Lost(error.to_string()),
    }
}

async fn run(session: &Session, route: &Route, journal: &Arc<Journal>) -> Result {
    match route.behaviour {
        Behaviour::Echo => {}
        Behaviour::Close => {
            session.close(route.code, route.reason.as_bytes());
            // The caller waits for the peer to answer the close.
            return std::future::pending().await;
        }
        Behaviour::ServerOpens => {
            let mut uni = session.open_uni().await?;
            uni.write_all(b"uni of the server").await?;
            uni.finish()?;
            let (mut send, mut recv) = session.open_bi().await?;
            send.write_all(b"bidi of the server").await?;
            send.finish()?;
            let answer = recv.read_to_end(LIMIT).await?;
            journal.note(
                &route.id,
                Event::Finished(String::from_utf8_lossy(&answer).into_owned()),
            );
        }
        Behaviour::Resets => {
            let mut uni = session.open_uni().await?;
            uni.write_all(b"x").await?;
            let (mut send, mut recv) = session.accept_bi().await?;
            recv.read_to_end(LIMIT).await?;
            uni.reset(route.code)?;
            send.reset(route.code)?;
            session.accept_uni().await?.stop(route.code)?;
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

async fn echo(session: &Session, id: &str, journal: &Arc<Journal>) -> Result {
    loop {
        tokio::select! {
            stream = session.accept_bi() => {
                let (send, recv) = stream?;
                let (id, journal) = (id.to_owned(), journal.clone());
                tokio::spawn(async move {
                    let _alive = journal.alive(&id);
                    echo_stream(send, recv).await
                });
            }
            stream = session.accept_uni() => {
                let mut recv = stream?;
                let session = session.clone();
                tokio::spawn(async move {
                    let content = recv.read_to_end(LIMIT).await?;
                    let mut send = session.open_uni().await?;
                    send.write_all(&content).await?;
                    send.finish()?;
                    Ok::<_, crate::Error>(())
                });
            }
            datagram = session.read_datagram() => session.send_datagram(datagram?)?,
        }
    }
}

async fn echo_stream(mut send: SendStream, mut recv: RecvStream) -> Result {
    while let Some(chunk) = recv.read_chunk(1 << 16, true).await? {
        send.write_chunk(chunk.bytes).await?;
    }
    Ok(send.finish()?)
}

async fn observe(mut send: SendStream, mut recv: RecvStream, id: &str, journal: &Journal) -> Result {
    let _alive = journal.alive(id);
    let first = recv
        .read_chunk(1 << 16, true)
        .await?
        .map(|chunk| chunk.bytes)
        .unwrap_or_default();
    send.write_chunk(first.clone()).await?;
    if first != "observe" {
        return echo_stream(send, recv).await;
    }
    let reading = async {
        match recv.read_to_end(LIMIT).await {
            Ok(_) => journal.note(id, Event::Finished(String::from_utf8_lossy(&first).into_owned())),
            Err(ReadToEndError::ReadError(ReadError::Reset(code))) => journal.note(id, Event::Reset(Some(code))),
            Err(ReadToEndError::ReadError(ReadError::InvalidReset(_))) => journal.note(id, Event::Reset(None)),
            Err(_) => {}
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
