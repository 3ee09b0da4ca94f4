//! HTTP/3 on the crates h3 and h3-quinn: `http3-requests`, on the same quinn with the same settings. The control connection is
//! an HTTP/3 connection of its own, where `GET /stats` asks for the server's figures.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use http::{Request, Response};
use quinn::Endpoint;

use crate::certificate::Certificate;
use crate::client::{self, Options, Sample};
use crate::load::{REQUESTS, Tally};
use crate::report::{Report, Stats};
use crate::{Error, Result, Side, exit, print, quic, server};

const PROGRAM: &str = "h3-quinn";
const ALPN: &[u8] = b"h3";
/// What `GET /hello` is answered with.
const HELLO: &[u8] = b"Hello, world!";

/// Runs one side.
pub fn run(side: Side) -> ExitCode {
    exit(PROGRAM, async {
        match side {
            Side::Server { bind, max_streams } => {
                let certificate = Certificate::generate()?;
                let endpoint = quic::server(bind, quic::server_config(&certificate, ALPN, max_streams)?)?;
                server::announce(endpoint.local_addr()?, &certificate.sha256);
                server::until_told(serve(endpoint)).await
            }
            Side::Client(options) => print(&options, measure(&options)).await,
        }
    })
}

async fn serve(endpoint: Endpoint) -> Result {
    let start = Instant::now();
    let answered = Arc::new(AtomicU64::new(0));
    while let Some(incoming) = endpoint.accept().await {
        let answered = answered.clone();
        tokio::spawn(async move { serve_connection(incoming, start, answered).await });
    }
    Ok(())
}

async fn serve_connection(incoming: quinn::Incoming, start: Instant, answered: Arc<AtomicU64>) -> Result {
    let mut connection = h3::server::Connection::new(h3_quinn::Connection::new(incoming.await?)).await?;
    while let Some(request) = connection.accept().await? {
        let answered = answered.clone();
        tokio::spawn(async move {
            let (request, mut stream) = request.resolve_request().await?;
            let body = if request.uri().path() == "/stats" {
                serde_json::to_vec(&server::stats(start, 0, answered.load(Relaxed), 0)?)?.into()
            } else {
                answered.fetch_add(1, Relaxed);
                Bytes::from_static(HELLO)
            };
            let response = Response::builder()
                .header("content-type", "text/plain")
                .header("content-length", body.len())
                .body(())?;
            stream.send_response(response).await?;
            stream.send_data(body).await?;
            stream.finish().await?;
            Ok::<_, Error>(())
        });
    }
    Ok(())
}

/// A connection that requests are sent on.
#[derive(Clone)]
struct Client {
    requests: SendRequest<h3_quinn::OpenStreams, Bytes>,
    origin: String,
}

impl Client {
    async fn connect(endpoint: &Endpoint, options: &Options) -> Result<Self> {
        let connection = endpoint.connect(options.server, "localhost")?.await?;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self {
            requests,
            origin: format!("https://{}", options.server),
        })
    }

    async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let request = Request::get(format!("{}{path}", self.origin)).body(())?;
        let mut stream = self.requests.send_request(request).await?;
        stream.finish().await?;
        let response = stream.recv_response().await?;
        if !response.status().is_success() {
            return Err(format!("{path}: {}", response.status()).into());
        }
        let mut body = Vec::new();
        while let Some(mut data) = stream.recv_data().await? {
            while data.has_remaining() {
                let chunk = data.chunk();
                body.extend_from_slice(chunk);
                let length = chunk.len();
                data.advance(length);
            }
        }
        Ok(body)
    }

    async fn stats(&mut self) -> Result<Stats> {
        Ok(serde_json::from_slice(&self.get("/stats").await?)?)
    }
}

async fn measure(options: &Options) -> Result<Report> {
    if options.workload != "http3-requests" {
        return Err(format!("h3 does not run {}", options.workload).into());
    }
    let config = quic::client_config(&options.certificate_sha256, ALPN, options.max_streams)?;
    let endpoint = quic::client(config)?;
    let mut control = Client::connect(&endpoint, options).await?;
    let load = Client::connect(&endpoint, options).await?;
    let tally = Tally::new()?;
    for _ in 0..REQUESTS {
        let (mut client, counted) = (load.clone(), tally.clone());
        tally.spawn(async move {
            loop {
                let body = client.get("/hello").await?;
                if body != HELLO {
                    return Err(format!("{} bytes came instead of {}", body.len(), HELLO.len()).into());
                }
                counted.add(1);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs_f64(options.warmup)).await;
    let a = Sample::new(control.stats().await?, &tally)?;
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let b = Sample::new(control.stats().await?, &tally)?;
    let report = client::report(PROGRAM, &options.workload, &a, &b, &tally);
    endpoint.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    report
}
