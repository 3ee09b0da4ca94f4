//! The bodies of responses.

use std::fs::File;
use std::future::Future as _;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::http::HttpExchange;

/// The body of a response, wherever it comes from.
pub(crate) enum ResponseBody {
    Empty,
    Full(Bytes),
    /// What the application goes on to send.
    Stream(Arc<HttpExchange>),
    File(FileBody),
    /// Of another service.
    Other(Pin<Box<dyn http_body::Body<Data = Bytes, Error = io::Error> + Send>>),
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(exchange) => exchange.poll_frame(cx),
            Self::File(file) => file.poll_frame(cx),
            Self::Other(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
            Self::File(file) => file.left == 0,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::new(),
            Self::File(file) => SizeHint::with_exact(file.left),
            Self::Other(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Self::Stream(exchange) = self {
            exchange.body_dropped();
        }
    }
}

/// How much of a file is read at a time, in bytes.
const BLOCK: usize = 128 * 1024;

/// A file, read in another thread: a slow disk must not hold up the event loop.
pub(crate) struct FileBody {
    file: Option<File>,
    left: u64,
    reading: Option<JoinHandle<(File, io::Result<Vec<u8>>)>>,
}

impl FileBody {
    pub(crate) fn new(file: File, length: u64) -> Self {
        Self {
            file: Some(file),
            left: length,
            reading: None,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(mut file) = self.file.take() {
            let wanted = BLOCK.min(usize::try_from(self.left).unwrap_or(BLOCK));
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let mut block = Vec::with_capacity(wanted);
                let read = (&mut file).take(wanted as u64).read_to_end(&mut block);
                (file, read.map(|_| block))
            }));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let joined = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let block = match joined {
            Ok((file, read)) => {
                self.file = Some(file);
                read
            }
            Err(error) => Err(io::Error::other(error)),
        };
        Poll::Ready(match block {
            // The file has become shorter than its announced length.
            Ok(block) if block.is_empty() => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(block) => {
                self.left -= block.len() as u64;
                Some(Ok(Frame::data(block.into())))
            }
            Err(error) => {
                self.left = 0;
                Some(Err(error))
            }
        })
    }
}
