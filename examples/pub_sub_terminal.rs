//! A publisher and its subscribers: `cargo run --release --example pub-sub-terminal`. The server signals to everybody who is connected.

use std::time::Duration;

use tokio::net::TcpListener;
use wireloom_messaging::client::{Client, ConnectError};
use wireloom_messaging::server::{Handlers, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder().build(Handlers::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let listening = server.clone();
    tokio::spawn(async move { listening.listen(listener).await });

    let mut subscribers = Vec::new();
    for name in ["ann", "bob", "cleo"] {
        subscribers.push(subscribe(&url, name).await?);
    }
    for minute in 0..3 {
        // A subscriber that does not keep up is disconnected, and the others do not wait for it.
        let reached = server.broadcast("time", format!("{minute} minutes past"))?;
        println!("published to {reached}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.shut_down().await;
    Ok(())
}

/// Goes on for as long as the client is kept, over as many connections as it takes.
async fn subscribe(url: &str, name: &'static str) -> Result<Client, ConnectError> {
    Client::builder(url)
        .on_signal(move |signal| println!("  {name} hears {:?}", signal.data()))
        .connect()
        .await
}
