//! Requests, replies and signals, over plain WebSocket: `cargo run --release --example messages-echo`.

use tokio::net::TcpListener;
use wireloom_messaging::Data;
use wireloom_messaging::client::Client;
use wireloom_messaging::server::{Connection, Handlers, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let handlers = Handlers::new()
        // Whatever comes goes back, in its encoding.
        .on_request("echo", async |data: Data| data)
        // The signal leaves before the reply.
        .on_request("greet", async |connection: Connection, name: String| {
            connection.signal("greeting", format!("hello, {name}"))?;
            Ok::<_, wireloom_messaging::server::ReplyError>("greeted")
        });
    let server = Server::builder().build(handlers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let listening = server.clone();
    tokio::spawn(async move { listening.listen(listener).await });

    let client = Client::builder(&url)
        .on_signal(|signal| println!("signal {}: {:?}", signal.name().unwrap_or("?"), signal.data()))
        .connect()
        .await?;
    println!("reply: {:?}", client.request("echo", "hello").await?);
    println!(
        "reply: {:?}",
        client.request("echo", Data::utf16("grüß Gott 😀")).await?
    );
    println!("reply: {:?}", client.request("greet", "Ann").await?);
    if let Err(error) = client.request("nonsense", "?").await {
        println!("error: {error}");
    }

    // Answers what runs, and waits until the last reply is written.
    server.shut_down().await;
    Ok(())
}
