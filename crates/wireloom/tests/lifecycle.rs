//! What ends, and how: nothing hangs and nothing is left over, whoever ends it and whenever.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use axum::Router;
use axum::routing::get;
use common::{run, thrifty, within};

#[tokio::test]
async fn responses_that_nobody_reads_to_the_end_give_their_streams_back() {
    let app = Router::new().route("/big", get(|| async { vec![7; 256 << 10] }));
    let run = run(app, |b| b.max_streams_per_connection(8)).await;
    // The body is complete on the server before the client's window lets it go.
    let client = thrifty(run.hash, 16 << 10);
    let connection = within(client.dial(&run.url)).await.unwrap();
    for _ in 0..20 {
        let response = within(connection.request(run.request("GET", "/big", b"")))
            .await
            .unwrap();
        drop(response);
    }
}
