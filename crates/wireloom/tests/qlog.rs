//! Traces of connections, read as the tools that show them read them.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(feature = "qlog")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{fixture_with, within};
use serde_json::Value;
use wireloom::Client;

/// The records of a JSON text sequence (RFC 7464): each begins with RS and ends with LF.
fn records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut parts = text.split('\u{1e}');
    assert_eq!(parts.next(), Some(""), "RS comes first");
    let record = |part: &str| serde_json::from_str(part.strip_suffix('\n').unwrap()).unwrap();
    parts.map(record).collect()
}

#[tokio::test]
async fn each_connection_has_a_trace_at_both_ends() {
    let dir = std::env::temp_dir().join(format!("wireloom-qlog-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let f = fixture_with(|b| b.qlog_dir(&dir)).await;
    let builder = Client::builder().server_certificate_hash(f.hash).qlog_dir(&dir);
    let client = builder.build().unwrap();
    for _ in 0..2 {
        let accept = async { f.server.accept().await.unwrap().accept().await.unwrap() };
        let (session, server) = within(async { tokio::join!(client.connect(&f.url), accept) }).await;
        let session = session.unwrap();
        let mut send = within(session.open_uni()).await.unwrap();
        send.write_all(&[7; 100_000]).await.unwrap();
        send.finish().unwrap();
        let mut recv = within(server.accept_uni()).await.unwrap();
        within(recv.read_to_end(100_000)).await.unwrap();
        session.close(0, "");
        within(server.closed()).await;
    }
    within(client.shut_down()).await;
    within(f.server.shut_down(0, "")).await;
    drop((client, f));

    // By connection id: which ends wrote.
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // The tasks of the endpoints hold the files until they are gone.
    let complete = async {
        loop {
            let mut files = std::fs::read_dir(&dir).unwrap();
            let is_written = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().metadata().unwrap().len() > 0;
            if files.all(is_written) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    within(complete).await;
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (id, vantage) = name.strip_suffix(".sqlog").unwrap().split_once('_').unwrap();
        assert!(id.len() >= 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        ends.entry(id.to_owned()).or_default().push(vantage.to_owned());

        let records = records(&path);
        // What qvis asks of the first record.
        let head = &records[0];
        assert_eq!(head["qlog_format"], "JSON-SEQ");
        assert!(head["qlog_version"].is_string());
        assert_eq!(head["trace"]["vantage_point"]["type"], vantage);
        assert_eq!(head["trace"]["common_fields"]["time_format"], "relative");
        // And of each event.
        let (mut sent, mut received, mut metrics) = (0, 0, 0);
        for event in &records[1..] {
            // Not always in order: a turn of the endpoint has one time, and a handle that writes meanwhile its own.
            let time = event["time"].as_f64().unwrap();
            assert!(time >= 0.0 && event["data"].is_object(), "{event}");
            match event["name"].as_str().unwrap() {
                "transport:packet_sent" => sent += 1,
                "transport:packet_received" => received += 1,
                "recovery:metrics_updated" => metrics += 1,
                _ => {}
            }
        }
        let bulk = if vantage == "client" { sent } else { received };
        assert!(
            bulk > 50 && sent > 2 && received > 2 && metrics > 0,
            "{name}: {sent} {received} {metrics}"
        );
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(ends.len(), 2, "a name for each connection");
    for (_, mut vantages) in ends {
        vantages.sort_unstable();
        assert_eq!(vantages, ["client", "server"]);
    }
}

#[tokio::test]
async fn where_no_file_can_be_created_the_connection_goes_on() {
    let nowhere = std::env::temp_dir().join("wireloom-qlog-that-is-not-there");
    let f = fixture_with(|b| b.qlog_dir(&nowhere)).await;
    let (_server, _client) = f.session().await;
}
