//! Load over WebTransport.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wireloom::{Client, Session};

use crate::Result;
use crate::server::Server;

pub(crate) async fn connect(server: &Server) -> Result<Session> {
    let client = Client::builder().server_certificate_hash(server.hash).build()?;
    Ok(client.connect(&format!("https://127.0.0.1:{}/", server.port)).await?)
}

/// Sessions on connections of their own, and what holds them.
pub(crate) async fn idle(server: &Server, count: usize) -> Result<(usize, Vec<Session>)> {
    let client = Client::builder().server_certificate_hash(server.hash).build()?;
    let url = format!("https://127.0.0.1:{}/", server.port);
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(client.connect(&url).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok((held.len(), held))
}

/// How many pieces came back.
pub(crate) async fn echo(session: &Session, streams: usize, size: usize, duration: Duration) -> Result<u64> {
    let until = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let session = session.clone();
        tasks.spawn(async move {
            let (mut send, mut recv) = session.open_bi().await?;
            let piece = vec![7; size];
            let mut count = 0;
            while Instant::now() < until {
                send.write_all(&piece).await?;
                let mut left = size;
                while left > 0 {
                    let chunk = recv.read_chunk(left).await?.ok_or("the stream has ended")?;
                    left -= chunk.len();
                }
                count += 1;
            }
            Result::<u64>::Ok(count)
        });
    }
    let mut total = 0;
    while let Some(count) = tasks.join_next().await {
        total += count??;
    }
    Ok(total)
}

/// How many datagrams came back, so many being under way.
pub(crate) async fn datagrams(session: &Session, under_way: usize, size: usize, duration: Duration) -> Result<u64> {
    let until = Instant::now() + duration;
    let datagram = vec![7; size];
    for _ in 0..under_way {
        session.send_datagram(&datagram)?;
    }
    let mut count = 0;
    while Instant::now() < until {
        match tokio::time::timeout(Duration::from_millis(200), session.recv_datagram()).await {
            Ok(received) => {
                received?;
                count += 1;
                session.send_datagram(&datagram)?;
            }
            // All that was under way is lost.
            Err(_) => {
                for _ in 0..under_way {
                    session.send_datagram(&datagram)?;
                }
            }
        }
    }
    Ok(count)
}
