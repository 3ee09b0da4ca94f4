//! A device on a local network, without a public name or authority: its clients trust it by the hash of its certificate,
//! which rotates within the fourteen days that browsers allow. `cargo run --release --example iot-pinned-certificate`.
//!
//! The device publishes the current and the next hash over a channel that its clients trust already (here: standard
//! output); a client that knows both stays connected across a rotation.

use wireloom::{Client, Identity, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let identity = Identity::rotating(["sensor.local", "127.0.0.1"])?;
    let hashes = identity.certificate_hashes();
    println!("current {}", hashes.current);
    if let Some(next) = &hashes.next {
        println!("next    {next}");
    }

    let server = Server::builder()
        .bind("127.0.0.1:0")
        .identity(identity)
        .listen()
        .await?;
    let url = format!("https://{}/temperature", server.local_addrs()[0]);
    tokio::spawn(async move {
        while let Some(request) = server.accept().await {
            tokio::spawn(async move {
                let session = request.accept().await?;
                for reading in ["21.5", "21.6", "21.4"] {
                    let mut stream = session.open_uni().await?;
                    stream.write_all(reading.as_bytes()).await?;
                    stream.finish()?;
                }
                session.closed().await;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            });
        }
    });

    let mut client = Client::builder().server_certificate_hash(hashes.current);
    if let Some(next) = hashes.next {
        client = client.server_certificate_hash(next);
    }
    let client = client.build()?;
    let session = client.connect(&url).await?;
    for _ in 0..3 {
        let reading = session.accept_uni().await?.read_to_end(64).await?;
        println!("{} °C", String::from_utf8_lossy(&reading));
    }
    session.close(0, "enough");
    client.shut_down().await;
    Ok(())
}
