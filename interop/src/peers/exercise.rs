//! What a client asks of a server, on any implementation.

use std::time::Duration;

use bytes::Bytes;

use super::session::{Client, ReadEnd, RecvHalf, SendHalf, Session};
use super::{Abilities, Target};
use crate::Result;
use crate::journal::{Event, PATIENCE};

/// The code and reason that clients close with.
pub const CLOSE: (u32, &str) = (4_000_000_000, "done, says the client");
/// The code and reason that the server is asked to close with.
const ASKED: (u32, &str) = (u32::MAX, "so long, ü");
/// The code that the server is asked to reset and stop streams with.
const RESET: u32 = 4242;

/// Every path of a server, each in a session of its own, within [`PATIENCE`]. The server's journal has `id`.
pub async fn exercise(client: &impl Client, target: &Target, id: &str, can: Abilities) -> Result {
    tokio::time::timeout(PATIENCE, async {
        echo(client, target, id, can)
            .await
            .map_err(|error| format!("/echo: {error}"))?;
        server_opens(client, target, id)
            .await
            .map_err(|error| format!("/server-opens: {error}"))?;
        if can.close_server {
            server_closes(client, target, id)
                .await
                .map_err(|error| format!("/close: {error}"))?;
        }
        resets(client, target, id)
            .await
            .map_err(|error| format!("/resets: {error}"))?;
        match client.connect(&format!("{}/nowhere", target.url), &[]).await {
            Ok(_) => Err("/nowhere was accepted".into()),
            Err(_) => Ok(()),
        }
    })
    .await?
}

async fn echo(client: &impl Client, target: &Target, id: &str, can: Abilities) -> Result {
    let session = client
        .connect(&format!("{}/echo?id={id}", target.url), &["other", "echo.v2"])
        .await?;
    if can.protocols {
        equal(&session.protocol().as_deref(), &Some("echo.v2"))?;
    }
    let long = Bytes::from(
        (0..1 << 20)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect::<Vec<_>>(),
    );
    for content in ["bidi".into(), long] {
        let (mut send, mut recv) = session.open_bi().await?;
        let (expected, length) = (content.clone(), content.len());
        let writing = async move {
            send.write(content).await?;
            send.finish().await
        };
        let reading = async { Ok(recv.read_to_end().await?) };
        let ((), received) = tokio::try_join!(writing, reading)?;
        if received != expected {
            return Err(format!("{length} bytes came back as {} others", received.len()).into());
        }
    }

    let mut send = session.open_uni().await?;
    send.write("uni".into()).await?;
    send.finish().await?;
    equal(
        &session.accept_uni().await?.read_to_end().await?.as_slice(),
        &b"uni".as_slice(),
    )?;

    // Datagrams may be lost: send until one comes back.
    let sending = async {
        loop {
            session.send_datagram("datagram".into()).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::select! {
        answer = session.recv_datagram() => answer?,
        outcome = sending => return outcome,
    };
    equal(&answer, &Bytes::from("datagram"))?;

    session.close(CLOSE.0, CLOSE.1);
    session.closed().await;
    Ok(())
}

async fn server_opens(client: &impl Client, target: &Target, id: &str) -> Result {
    let session = client
        .connect(&format!("{}/server-opens?id={id}-opens", target.url), &[])
        .await?;
    let content = session.accept_uni().await?.read_to_end().await?;
    equal(&content.as_slice(), &b"uni of the server".as_slice())?;
    let (mut send, mut recv) = session.accept_bi().await?;
    equal(&recv.read_to_end().await?.as_slice(), &b"bidi of the server".as_slice())?;
    send.write("answer of the client".into()).await?;
    send.finish().await?;
    // An echo proves that the server has read the answer.
    let (mut send, mut recv) = session.open_bi().await?;
    send.write("read?".into()).await?;
    send.finish().await?;
    recv.read_to_end().await?;
    session.close(0, "");
    Ok(())
}

async fn server_closes(client: &impl Client, target: &Target, id: &str) -> Result {
    let path = format!(
        "{}/close?id={id}-close&code={}&reason=so%20long,%20%C3%BC",
        target.url, ASKED.0
    );
    let session = client.connect(&path, &[]).await?;
    equal(&session.closed().await, &Event::Closed(ASKED.0, ASKED.1.to_owned()))
}

async fn resets(client: &impl Client, target: &Target, id: &str) -> Result {
    let session = client
        .connect(&format!("{}/resets?id={id}-resets&code={RESET}", target.url), &[])
        .await?;
    let mut uni = session.accept_uni().await?;
    uni.read().await?;
    let (mut send, mut recv) = session.open_bi().await?;
    send.write("reset".into()).await?;
    send.finish().await?;
    was_reset(uni.read_to_end().await)?;
    was_reset(recv.read_to_end().await)?;
    let mut send = session.open_uni().await?;
    send.write("stop".into()).await?;
    equal(&send.stopped().await?, &Some(RESET))?;
    session.close(0, "");
    Ok(())
}

fn was_reset(end: Result<Vec<u8>, ReadEnd>) -> Result {
    match end {
        Err(ReadEnd::Reset(Some(RESET))) => Ok(()),
        other => Err(format!("expected a reset with {RESET}, got {other:?}").into()),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(got: &T, expected: &T) -> Result {
    if got == expected {
        Ok(())
    } else {
        Err(format!("got {got:?}, expected {expected:?}").into())
    }
}
