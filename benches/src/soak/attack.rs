//! The floods, each in a process of its own. Their connections end when the server closes them or they are done.

use std::net::SocketAddr;

use clap::ValueEnum;
use quinn::{Connection, Endpoint, SendStream};

use crate::Result;
use crate::raw::{config, connect, int, settings};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Stream opens with half a header each
    Headers,
    /// Datagrams for sessions that will never be
    Datagrams,
    /// CONNECT and reset
    Sessions,
}

impl Attack {
    pub(crate) const ALL: [Self; 3] = [Self::Headers, Self::Datagrams, Self::Sessions];

    pub(crate) const fn count(self) -> usize {
        match self {
            Self::Headers => 100_000,
            Self::Datagrams => 1_000_000,
            Self::Sessions => 10_000,
        }
    }

    /// Done on one connection, before the next.
    const fn per_connection(self) -> usize {
        match self {
            Self::Headers => 1_000,
            Self::Datagrams => 50_000,
            // More than the server takes.
            Self::Sessions => 600,
        }
    }
}

struct Attacker {
    connection: Connection,
    _control: SendStream,
}

async fn dial(endpoint: &Endpoint, server: SocketAddr) -> Result<Attacker> {
    let connection = endpoint.connect(server, "localhost")?.await?;
    let mut control = connection.open_uni().await?;
    control
        .write_all(&[&[0][..], &settings().encode_frame()].concat())
        .await?;
    Ok(Attacker {
        connection,
        _control: control,
    })
}

pub(crate) async fn run(attack: Attack, server: SocketAddr, percent: usize) -> Result {
    let mut endpoint = Endpoint::client("127.0.0.66:0".parse()?)?;
    endpoint.set_default_client_config(config(quinn::TransportConfig::default(), None));
    let total = attack.count() * percent / 100;
    let mut done = 0;
    // What keeps the places busy: half a header is only a burden while it lasts.
    let mut kept = Vec::new();
    while done < total {
        let attacker = dial(&endpoint, server).await?;
        let n = attack.per_connection().min(total - done);
        let mut sent = 0;
        match attack {
            Attack::Headers => {
                for _ in 0..n {
                    let (mut send, _recv) = attacker.connection.open_bi().await?;
                    send.write_all(&[0x40]).await?;
                    kept.push(send);
                    sent += 1;
                }
            }
            Attack::Datagrams => {
                let datagram = bytes::Bytes::from([int(12_345), vec![7; 100]].concat());
                for _ in 0..n {
                    attacker.connection.send_datagram_wait(datagram.clone()).await?;
                    sent += 1;
                }
            }
            Attack::Sessions => {
                while sent < n {
                    let Ok((mut send, _recv)) = attacker.connection.open_bi().await else {
                        break;
                    };
                    if send.write_all(&connect("/echo")).await.is_err() {
                        break;
                    }
                    // On its way before the reset, or the server would never see it.
                    tokio::task::yield_now().await;
                    let _ = send.reset(0x10c_u32.into());
                    sent += 1;
                }
            }
        }
        done += sent;
        if attack == Attack::Headers {
            // Stays open with all its halves, to the end of the flood.
            std::mem::forget(attacker);
        }
    }
    drop(kept);
    endpoint.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}
