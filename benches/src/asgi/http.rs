//! Load over HTTP/1.1: one request after the other on each connection.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Result;

/// The bytes of one request.
pub(crate) fn request(post: bool) -> Vec<u8> {
    if !post {
        return b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n\r\n".to_vec();
    }
    let mut request = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\ncontent-length: 1024\r\n\r\n".to_vec();
    request.extend([b'x'; 1024]);
    request
}

/// How many responses came.
pub(crate) async fn load(port: u16, connections: usize, request: &[u8], duration: Duration) -> Result<u64> {
    let until = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let request = request.to_vec();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let mut buffer = Vec::with_capacity(16 * 1024);
            let mut count = 0;
            while Instant::now() < until {
                stream.write_all(&request).await?;
                buffer.clear();
                loop {
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Err("the server has closed the connection".into());
                    }
                    if is_complete(&buffer)? {
                        break;
                    }
                }
                count += 1;
            }
            Result::<u64>::Ok(count)
        });
    }
    let mut total = 0;
    while let Some(count) = tasks.join_next().await {
        total += count??;
    }
    Ok(total)
}

fn is_complete(response: &[u8]) -> Result<bool> {
    let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&response[..end])?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(format!("another answer than 200: {head}").into());
    }
    let length = head
        .split("content-length:")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next())
        .ok_or("a response without Content-Length")?;
    Ok(response.len() >= end + 4 + length.trim().parse::<usize>()?)
}
