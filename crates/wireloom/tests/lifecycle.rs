//! What ends, and how: nothing hangs and nothing is left over, whoever ends it and whenever.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{fixture_with, within};
use wireloom::Client;

#[tokio::test]
async fn a_stream_that_is_stopped_after_its_end_gives_its_buffer_back() {
    let mut f = fixture_with(|b| b.send_window(1 << 20)).await;
    f.client = Client::builder()
        .server_certificate_hash(f.hash)
        .receive_windows(64 << 10, 1 << 20)
        .build()
        .unwrap();
    let (server, client) = f.session().await;
    for _ in 0..20 {
        // More than the client's window: the end cannot be sent before the client reads.
        let mut send = within(server.open_uni()).await.unwrap();
        within(send.write_all(&vec![7; 256 << 10])).await.unwrap();
        send.finish().unwrap();
        drop(within(client.accept_uni()).await.unwrap());
    }
}
