//! WebTransport in an axum router, beside ordinary routes, on one port: `cargo run --release --example axum`.
//!
//! `curl -k https://127.0.0.1:4433/` answers over HTTP/2; `cargo run --release -- connect --insecure https://127.0.0.1:4433/live` talks.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use wireloom::{Identity, Server, WebTransportUpgrade};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new()
        .route("/", get(|| async { "hello over HTTP/1.1, 2 and 3\n" }))
        .route("/live", any(live));
    println!("https://127.0.0.1:4433/ and /live");
    Server::builder()
        .bind("127.0.0.1:4433")
        .identity(Identity::self_signed(["localhost", "127.0.0.1"])?)
        .serve(app)
        .with_graceful_shutdown(async {
            // Without a signal handler the server just runs on.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    Ok(())
}

async fn live(upgrade: WebTransportUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(|session| async move {
        while let Ok((mut send, mut recv)) = session.accept_bi().await {
            tokio::spawn(async move {
                if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
                    let _ = send.finish();
                }
            });
        }
    })
}
