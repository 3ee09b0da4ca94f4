//! A server without a router, and a client that talks to it: `cargo run --release --example echo`.

use wireloom::{Client, Identity, Server, Session, SessionError};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"])?;
    let hash = identity.certificate_hashes().current;
    let server = Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity)
        .listen()
        .await?;
    let url = format!("https://{}/", server.local_addrs()[0]);
    tokio::spawn(async move {
        while let Some(request) = server.accept().await {
            tokio::spawn(async move {
                let session = request.accept().await?;
                echo(session).await
            });
        }
    });

    let client = Client::builder().server_certificate_hash(hash).build()?;
    let session = client.connect(&url).await?;
    let (mut send, mut recv) = session.open_bi().await?;
    send.write_all(b"hello, stream").await?;
    send.finish()?;
    println!("{}", String::from_utf8_lossy(&recv.read_to_end(1024).await?));
    session.send_datagram(b"hello, datagram")?;
    println!("{}", String::from_utf8_lossy(&session.recv_datagram().await?));
    session.close(0, "done");
    client.shut_down().await;
    Ok(())
}

async fn echo(session: Session) -> Result<(), SessionError> {
    loop {
        tokio::select! {
            stream = session.accept_bi() => {
                let (mut send, mut recv) = stream?;
                tokio::spawn(async move {
                    // An error here is the stream's own affair: the peer reset or stopped it.
                    if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
                        let _ = send.finish();
                    }
                });
            }
            datagram = session.recv_datagram() => {
                let _ = session.send_datagram(&datagram?);
            }
        }
    }
}
