//! Every congestion controller moves data, at either end.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{fixture_with, within};
use wireloom::{Client, CongestionControl};

const SIZE: usize = 3 << 20;

#[tokio::test]
async fn every_controller_gets_megabytes_through() {
    for control in [
        CongestionControl::Cubic,
        CongestionControl::NewReno,
        CongestionControl::Bbr,
    ] {
        let f = fixture_with(|b| b.congestion_control(control)).await;
        let builder = Client::builder().server_certificate_hash(f.hash);
        let client = builder.congestion_control(control).build().unwrap();
        let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
        let (client, server) = within(async { tokio::join!(client.connect(&f.url), accept) }).await;
        let client = client.unwrap();
        let echo = async {
            let (mut send, mut recv) = server.accept_bi().await.unwrap();
            while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
                send.write_chunk(chunk).await.unwrap();
            }
            send.finish().unwrap();
        };
        let (mut send, mut recv) = within(client.open_bi()).await.unwrap();
        let write = async {
            send.write_all(&vec![7; SIZE]).await.unwrap();
            send.finish().unwrap();
        };
        let (.., got) = within(async { tokio::join!(echo, write, recv.read_to_end(SIZE)) }).await;
        assert_eq!(got.unwrap().len(), SIZE, "{control:?}");
        let stats = client.stats().transport;
        assert!(
            stats.congestion_window > 0 && stats.estimated_send_rate.unwrap() > 0,
            "{control:?}: {stats:?}"
        );
    }
}
