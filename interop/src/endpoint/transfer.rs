//! GET and PUSH over one session, the same for every implementation.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::settings::{Carrier, Settings, TestCase, within};
use crate::Result;
use crate::peers::session::{RecvHalf, SendHalf, Session};

/// How long a datagram's answer is waited for before it is asked for again: both may be lost.
const DATAGRAM_RETRY: Duration = Duration::from_millis(200);

/// Whatever the runner allows, it is less.
const PATIENCE: Duration = Duration::from_secs(60);

/// One session of an endpoint.
struct Exchange<S> {
    session: S,
    www: PathBuf,
    downloads: PathBuf,
    wanted: HashSet<String>,
    arrived: watch::Sender<HashSet<String>>,
}

/// Does what `settings` say on a session of `endpoint`, and returns when it is over. Whoever requested files closes the session
/// when it has them; the other waits for that.
///
/// # Errors
/// A file did not come, or could not be kept.
pub async fn run<S: Session>(session: S, endpoint: &str, settings: &Settings) -> Result {
    if let Some(protocol) = session.protocol() {
        std::fs::create_dir_all(&settings.downloads)?;
        std::fs::write(settings.downloads.join("negotiated_protocol.txt"), protocol)?;
    }
    let (Some(www), Some(downloads)) = (within(&settings.www, endpoint), within(&settings.downloads, endpoint)) else {
        return Err(format!("{endpoint:?} is no name of an endpoint").into());
    };
    let files = settings.files(endpoint);
    let exchange = std::sync::Arc::new(Exchange {
        session,
        www,
        downloads,
        wanted: files.iter().cloned().collect(),
        arrived: watch::Sender::new(HashSet::new()),
    });
    let mut serving = JoinSet::new();
    serving.spawn(serve_bidirectional(exchange.clone()));
    serving.spawn(serve_unidirectional(exchange.clone()));
    serving.spawn(serve_datagrams(exchange.clone()));
    if let TestCase::Request(carrier) = settings.testcase
        && !files.is_empty()
    {
        let mut requests = JoinSet::new();
        for file in files {
            requests.spawn(request(exchange.clone(), carrier, file.clone()));
        }
        let all = async {
            while let Some(done) = requests.join_next().await {
                done??;
            }
            Ok::<_, crate::Error>(())
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .unwrap_or_else(|_| Err("not every file came".into()))?;
        exchange.session.close(0, "");
    } else if settings.role == super::settings::Role::Client && settings.testcase != TestCase::Transfer {
        exchange.session.close(0, "");
    }
    exchange.session.closed().await;
    Ok(())
}

async fn request<S: Session>(exchange: std::sync::Arc<Exchange<S>>, carrier: Carrier, file: String) -> Result {
    let get = Bytes::from(format!("GET {file}"));
    match carrier {
        Carrier::Bidirectional => {
            let (mut send, mut recv) = exchange.session.open_bi().await?;
            send.write(get).await?;
            send.finish().await?;
            let content = recv.read_to_end().await?;
            exchange.keep(&file, &content)
        }
        Carrier::Unidirectional => {
            let mut send = exchange.session.open_uni().await?;
            send.write(get).await?;
            send.finish().await?;
            exchange.arrival(&file).await
        }
        Carrier::Datagram => loop {
            exchange.session.send_datagram(get.clone()).await?;
            if let Ok(arrived) = tokio::time::timeout(DATAGRAM_RETRY, exchange.arrival(&file)).await {
                return arrived;
            }
        },
    }
}

async fn serve_bidirectional<S: Session>(exchange: std::sync::Arc<Exchange<S>>) {
    let mut answers = JoinSet::new();
    while let Ok((mut send, mut recv)) = exchange.session.accept_bi().await {
        let exchange = exchange.clone();
        answers.spawn(async move {
            let content = exchange.asked_for(&recv.read_to_end().await?)?;
            send.write(content.1).await?;
            send.finish().await
        });
        while answers.try_join_next().map(tell).is_some() {}
    }
}

async fn serve_unidirectional<S: Session>(exchange: std::sync::Arc<Exchange<S>>) {
    let mut answers = JoinSet::new();
    while let Ok(mut recv) = exchange.session.accept_uni().await {
        let exchange = exchange.clone();
        answers.spawn(async move {
            let message = recv.read_to_end().await?;
            if message.starts_with(b"PUSH ") {
                return exchange.pushed(&message);
            }
            let (name, content) = exchange.asked_for(&message)?;
            let mut send = exchange.session.open_uni().await?;
            send.write(Bytes::from(format!("PUSH {name}\n"))).await?;
            send.write(content).await?;
            send.finish().await
        });
        while answers.try_join_next().map(tell).is_some() {}
    }
}

async fn serve_datagrams<S: Session>(exchange: std::sync::Arc<Exchange<S>>) {
    while let Ok(message) = exchange.session.recv_datagram().await {
        let answer = async {
            if message.starts_with(b"PUSH ") {
                return exchange.pushed(&message);
            }
            let (name, content) = exchange.asked_for(&message)?;
            let mut push = format!("PUSH {name}\n").into_bytes();
            push.extend_from_slice(&content);
            exchange.session.send_datagram(push.into()).await
        };
        tell(Ok(answer.await));
    }
}

/// What went wrong with one request does not end the others.
fn tell(outcome: Result<Result, tokio::task::JoinError>) {
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("{error}"),
        Err(error) => eprintln!("{error}"),
    }
}

impl<S> Exchange<S> {
    /// The name and the content of what a GET asks for.
    fn asked_for(&self, message: &[u8]) -> Result<(String, Bytes)> {
        let text = std::str::from_utf8(message)?.trim_end_matches(['\r', '\n']);
        let name = text.strip_prefix("GET ").ok_or("neither GET nor PUSH")?;
        let path = within(&self.www, name).ok_or_else(|| format!("{name:?} leads out of the folder"))?;
        let content = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((name.to_owned(), content.into()))
    }

    fn pushed(&self, message: &[u8]) -> Result {
        let end = message
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("a PUSH without a line's end")?;
        let name = std::str::from_utf8(&message[b"PUSH ".len()..end])?;
        self.keep(name, &message[end + 1..])
    }

    /// Keeps a file, if it was asked for.
    fn keep(&self, name: &str, content: &[u8]) -> Result {
        if !self.wanted.contains(name) {
            return Err(format!("{name:?} was not asked for").into());
        }
        let path = within(&self.downloads, name).ok_or_else(|| format!("{name:?} leads out of the folder"))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, content)?;
        self.arrived.send_modify(|arrived| {
            arrived.insert(name.to_owned());
        });
        Ok(())
    }

    async fn arrival(&self, name: &str) -> Result {
        self.arrived
            .subscribe()
            .wait_for(|arrived| arrived.contains(name))
            .await?;
        Ok(())
    }
}
