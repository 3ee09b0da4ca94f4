//! What comes: on the stream that was opened here, and what the server sends of its own accord.

use std::ops::ControlFlow;

use tokio::task::JoinSet;
use wireloom::{ReadError, RecvStream, Session};

use super::print::{Printer, Via};
use super::{PATIENCE, SESSION, failed};
use crate::failure::{Failure, chain};
use crate::output;

#[derive(Default)]
pub(super) struct Incoming {
    streams: JoinSet<(Via, Result<(), Failure>)>,
    /// How the stream ended that was opened here.
    pub(super) answer: Option<Result<(), Failure>>,
    /// How many have come.
    pub(super) datagrams: u64,
    /// What the first of the server's streams failed of that did.
    broken: Option<Failure>,
}

impl Incoming {
    /// Prints what comes on a stream.
    pub(super) fn print(&mut self, recv: RecvStream, via: Via, printer: &Printer) {
        let printer = *printer;
        self.streams
            .spawn(async move { (via, print_stream(recv, via, printer).await) });
    }

    /// Takes and prints until `until` resolves, or the session is over.
    pub(super) async fn serve_until<T>(
        &mut self,
        session: &Session,
        printer: &Printer,
        until: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::pin!(until);
        let mut done = None;
        loop {
            let until = async { done = Some(until.as_mut().await) };
            tokio::pin!(until);
            if self.step(session, printer, until).await?.is_break() {
                break;
            }
        }
        done.ok_or_else(|| Failure::new(SESSION, "the session is over"))
    }

    /// One thing that comes, or `Break` when `until` resolves.
    pub(super) async fn step(
        &mut self,
        session: &Session,
        printer: &Printer,
        until: impl Future<Output = ()>,
    ) -> Result<ControlFlow<()>, Failure> {
        let end = |error| Err(failed(&error));
        tokio::select! {
            // What is there already is printed before the end is believed.
            biased;
            datagram = async {
                output::room().await;
                session.recv_datagram().await
            } => match datagram {
                Ok(datagram) => {
                    self.datagrams += 1;
                    printer.message(Via::Datagram, &datagram, None);
                }
                Err(error) => return end(error),
            },
            stream = session.accept_uni() => match stream {
                Ok(recv) => self.print(recv, Via::Uni, printer),
                Err(error) => return end(error),
            },
            stream = session.accept_bi() => match stream {
                // Nothing is answered on it: dropping the sending half says so.
                Ok((_, recv)) => self.print(recv, Via::Bidi, printer),
                Err(error) => return end(error),
            },
            Some(Ok((via, result))) = self.streams.join_next() => self.ended(via, result, printer),
            () = until => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn ended(&mut self, via: Via, result: Result<(), Failure>, printer: &Printer) {
        match result {
            result if via == Via::Stream => self.answer = Some(result),
            // That the session is over is told in its own way.
            Err(failure) if failure.kind != SESSION => {
                printer.broken(via, &failure.message);
                self.broken.get_or_insert(failure);
            }
            _ => {}
        }
    }

    /// Prints the rest of the streams, as far as it comes in time.
    pub(super) async fn finish(&mut self, printer: &Printer) {
        if !self.rest(printer).await {
            printer.unfinished(self.streams.len());
        }
    }

    /// Whether all have ended in time.
    async fn rest(&mut self, printer: &Printer) -> bool {
        let rest = async {
            while let Some(ended) = self.streams.join_next().await {
                if let Ok((via, result)) = ended {
                    self.ended(via, result, printer);
                }
            }
        };
        tokio::time::timeout(PATIENCE, rest).await.is_ok()
    }

    /// Prints what is left when the session is over, and fails if one of the server's streams did.
    pub(super) async fn end(mut self, printer: &Printer) -> Result<(), Failure> {
        self.rest(printer).await;
        self.streams.shutdown().await;
        self.broken.map_or(Ok(()), Err)
    }
}

async fn print_stream(mut recv: RecvStream, via: Via, printer: Printer) -> Result<(), Failure> {
    let mut printer = printer.stream(via);
    loop {
        match recv.read_chunk(64 * 1024).await {
            Ok(Some(chunk)) => {
                output::room().await;
                printer.chunk(&chunk);
            }
            Ok(None) => return Ok(()),
            Err(ReadError::Session(error)) => return Err(failed(&error)),
            Err(error) => return Err(Failure::new("stream", chain(&error))),
        }
    }
}
