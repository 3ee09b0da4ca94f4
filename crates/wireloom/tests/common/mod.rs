//! A server and a client of ours, over loopback.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::future::Future;
use std::time::Duration;

use wireloom::{CertificateHash, Client, Identity, Server, ServerBuilder, Session};

/// Generous: a deadline here only tells a hang from a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("hung")
}

pub struct Fixture {
    pub server: Server,
    pub client: Client,
    pub url: String,
    pub hash: CertificateHash,
}

pub async fn fixture() -> Fixture {
    fixture_with(|builder| builder).await
}

pub async fn fixture_with(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Fixture {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
    let hash = identity.certificate_hashes().current;
    let server = configure(Server::builder().bind("127.0.0.1:0").identity(identity))
        .listen()
        .await
        .unwrap();
    let url = format!("https://{}/test?x=1", server.local_addrs()[0]);
    let client = Client::builder().server_certificate_hash(hash).build().unwrap();
    Fixture {
        server,
        client,
        url,
        hash,
    }
}

impl Fixture {
    /// A session, seen from the server and from the client.
    pub async fn session(&self) -> (Session, Session) {
        let accept = async { self.server.accept().await.unwrap().accept().await.unwrap() };
        let (server, client) = within(async { tokio::join!(accept, self.client.connect(&self.url)) }).await;
        (server, client.unwrap())
    }
}
