//! `wireloom connect`: a session from the terminal.

mod input;
mod print;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue};
use tokio::task::JoinSet;
use wireloom::{Client, ReadError, RecvStream, Session, SessionBuilder};

use self::input::Input;
use self::print::{Printer, Via};
use crate::explain;
use crate::failure::{Failure, chain};
use crate::output;
use crate::signals::StopSignals;
use crate::transport::TransportArgs;
use crate::trust::{TrustArgs, parse_url};

/// How long what the server still has to send is waited for at the end: datagrams, which may have been lost, and the rest of
/// the streams that it opened, which may never end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest reply that `--message` holds in memory, in bytes.
const MAX_REPLY: usize = 64 << 20;

#[derive(Args)]
#[command(after_help = "\
Standard input goes out on one bidirectional stream. Where it ends the stream is finished, and what \
still comes back is printed. Streams and datagrams that the server sends by itself are printed too. \
--timeout also bounds the wait for the reply to --message.

  wireloom connect https://127.0.0.1:4433/echo --cert-hash HEX --message hello")]
pub(crate) struct ConnectArgs {
    /// https://HOST[:PORT]/PATH
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// Offer a subprotocol, the preferred one first; may be repeated
    #[arg(long, value_name = "P", value_parser = parse_protocol)]
    protocol: Vec<String>,
    /// Send a header field with the request; may be repeated
    #[arg(long, value_name = "'NAME: VALUE'", value_parser = parse_header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Send datagrams instead, one for each line
    #[arg(long)]
    datagram: bool,
    /// Print what the session and its connection counted, at the end
    #[arg(long)]
    stats: bool,
    /// Send this, print the reply, and exit; fails where none comes within --timeout
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    transport: TransportArgs,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_protocol(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a subprotocol is visible ASCII, such as chat.v1".to_owned())
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || "write a header field as 'Name: value'".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    Ok((name, value.trim().parse().map_err(|_| wrong())?))
}

pub(crate) async fn run(args: ConnectArgs) -> Result<(), Failure> {
    let client = args
        .transport
        .client(args.trust.client()?)?
        .build()
        .map_err(|e| explain::connect_error(&args.url, &e))?;
    let session = request(&client, &args)
        .connect()
        .await
        .map_err(|e| explain::connect_error(&args.url, &e))?;
    let mut signals = StopSignals::new();
    let printer = Printer::new(args.json);
    printer.connected(&args.url, &session);
    let result = tokio::select! {
        result = talk(&session, &args, &printer) => result,
        () = signals.next() => match &args.message {
            Some(_) => Err(Failure::new("interrupted", "there was no reply before the signal to end")),
            None => Ok(()),
        },
        () = output::lost() => Ok(()),
    };
    // Asked before it is closed here: that would be the end of every session.
    let ended = session.close_reason();
    session.close(0, "");
    client.shut_down().await;
    let end = session.close_reason();
    let result = match (result, ended.as_ref().map(explain::session_end)) {
        // Why the session ended says more than what failed because of it.
        (Err(failed), Some(Some(failure))) if failed.kind == SESSION => Err(failure),
        // A conversation may be ended by either side. A message that was not answered has failed.
        (Err(failed), Some(None)) if failed.kind == SESSION && args.message.is_none() => Ok(()),
        (result, _) => result,
    };
    printer.closed(end.as_ref(), result.is_err());
    if args.stats {
        printer.stats(&session.stats());
    }
    result
}

fn request(client: &Client, args: &ConnectArgs) -> SessionBuilder {
    let mut request = client.session(&args.url).protocols(args.protocol.iter().cloned());
    for (name, value) in &args.header {
        request = match value.to_str() {
            // The library sends exactly one.
            Ok(origin) if name == http::header::ORIGIN => request.origin(origin),
            _ => request.header(name.clone(), value.clone()),
        };
    }
    request
}

async fn talk(session: &Session, args: &ConnectArgs, printer: &Printer) -> Result<(), Failure> {
    let Some(message) = &args.message else {
        return interactive(session, args.datagram, printer).await;
    };
    let reply = async {
        if args.datagram {
            message_as_datagram(session, message, printer).await
        } else {
            message_on_stream(session, message, printer).await
        }
    };
    let timeout = args.trust.timeout;
    tokio::time::timeout(timeout, reply).await.unwrap_or_else(|_| {
        let (what, hint) = if args.datagram {
            (
                "datagram",
                "again: datagrams may be lost; or without --datagram, on a stream",
            )
        } else {
            (
                "reply",
                "--timeout with more seconds, if the server takes them; `wireloom serve` answers at /echo",
            )
        };
        let message = format!("no {what} came back within {} s", timeout.as_secs_f64());
        Err(Failure::new(if args.datagram { "datagram" } else { "timeout" }, message).hint(hint))
    })
}

/// The kind of a failure that the end of the session may be the cause of.
const SESSION: &str = "session";

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(SESSION, chain(error))
}

async fn message_on_stream(session: &Session, message: &str, printer: &Printer) -> Result<(), Failure> {
    let started = Instant::now();
    let (mut send, mut recv) = session.open_bi().await.map_err(|e| failed(&e))?;
    send.write_all(message.as_bytes()).await.map_err(|e| failed(&e))?;
    send.finish().map_err(|e| failed(&e))?;
    let reply = recv.read_to_end(MAX_REPLY).await.map_err(|e| failed(&e))?;
    printer.message(Via::Stream, &reply, Some(started.elapsed()));
    Ok(())
}

async fn message_as_datagram(session: &Session, message: &str, printer: &Printer) -> Result<(), Failure> {
    let started = Instant::now();
    send_datagram(session, message.as_bytes())?;
    let reply = session.recv_datagram().await.map_err(|e| failed(&e))?;
    printer.message(Via::Datagram, &reply, Some(started.elapsed()));
    Ok(())
}

fn send_datagram(session: &Session, payload: &[u8]) -> Result<(), Failure> {
    session.send_datagram(payload).map_err(|e| {
        Failure::new("datagram", format!("{e} (it has {})", payload.len())).hint("a stream, without --datagram")
    })
}

fn unread(error: &std::io::Error) -> Failure {
    Failure::new("file", format!("cannot read standard input: {error}"))
}

/// Standard input out, everything that comes back in, until both are done or the session is over.
async fn interactive(session: &Session, datagrams: bool, printer: &Printer) -> Result<(), Failure> {
    let mut incoming = Incoming::default();
    if datagrams {
        let mut lines = Input::lines();
        let (mut sent, mut received) = (0_u64, 0_u64);
        while let Some(line) = incoming
            .serve_until(session, printer, &mut received, lines.next())
            .await?
        {
            send_datagram(session, line.map_err(|e| unread(&e))?.trim_ascii_end())?;
            sent += 1;
        }
        // As many as went out may come back; some may be lost.
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        while received < sent {
            match incoming
                .step(session, printer, &mut received, patience.as_mut())
                .await?
            {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => break,
            }
        }
        incoming.finish().await;
        return Ok(());
    }
    let mut input = Input::pieces();
    let (mut send, recv) = session.open_bi().await.map_err(|e| failed(&e))?;
    let mut echo = tokio::spawn(print_stream(recv, Via::Stream, printer.clone()));
    let mut received = 0;
    let writing = async {
        while let Some(piece) = input.next().await {
            let piece = piece.map_err(|e| unread(&e))?;
            send.write_chunk(Bytes::from(piece)).await.map_err(|e| failed(&e))?;
        }
        send.finish().map_err(|e| failed(&e))
    };
    incoming.serve_until(session, printer, &mut received, writing).await??;
    let reading = async { (&mut echo).await };
    let result = incoming.serve_until(session, printer, &mut received, reading).await?;
    incoming.finish().await;
    result.unwrap_or_else(|_| Err(Failure::new("session", "reading ended")))
}

/// What the server sends of its own accord.
#[derive(Default)]
struct Incoming {
    streams: JoinSet<Result<(), Failure>>,
}

impl Incoming {
    /// Takes and prints until `until` resolves, or the session is over.
    async fn serve_until<T>(
        &mut self,
        session: &Session,
        printer: &Printer,
        received: &mut u64,
        until: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::pin!(until);
        let mut done = None;
        loop {
            let until = async { done = Some(until.as_mut().await) };
            tokio::pin!(until);
            if self.step(session, printer, received, until).await?.is_break() {
                break;
            }
        }
        done.ok_or_else(|| Failure::new("session", "the session is over"))
    }

    /// One thing that comes, or `Break` when `until` resolves.
    async fn step(
        &mut self,
        session: &Session,
        printer: &Printer,
        received: &mut u64,
        until: impl Future<Output = ()>,
    ) -> Result<ControlFlow<()>, Failure> {
        let end = |error| Err(failed(&error));
        tokio::select! {
            // What is there already is printed before the end is believed.
            biased;
            datagram = session.recv_datagram() => match datagram {
                Ok(datagram) => {
                    *received += 1;
                    printer.message(Via::Datagram, &datagram, None);
                }
                Err(error) => return end(error),
            },
            stream = session.accept_uni() => match stream {
                Ok(recv) => drop(self.streams.spawn(print_stream(recv, Via::Uni, printer.clone()))),
                Err(error) => return end(error),
            },
            stream = session.accept_bi() => match stream {
                // Nothing is answered on it: dropping the sending half says so.
                Ok((_, recv)) => drop(self.streams.spawn(print_stream(recv, Via::Bidi, printer.clone()))),
                Err(error) => return end(error),
            },
            Some(_) = self.streams.join_next() => {}
            () = until => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Prints the rest of the streams, as far as it comes in time.
    async fn finish(mut self) {
        let rest = async { while self.streams.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }
}

async fn print_stream(mut recv: RecvStream, via: Via, mut printer: Printer) -> Result<(), Failure> {
    loop {
        match recv.read_chunk(64 * 1024).await {
            Ok(Some(chunk)) => printer.chunk(via, &chunk),
            Ok(None) => {
                printer.end_of_stream(via);
                return Ok(());
            }
            Err(ReadError::Session(error)) => return Err(failed(&error)),
            Err(error) => return Err(Failure::new("stream", error.to_string())),
        }
    }
}
