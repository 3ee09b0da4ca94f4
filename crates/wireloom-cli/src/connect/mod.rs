//! `wireloom connect`: a session from the terminal.

mod incoming;
mod input;
mod print;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue};
use wireloom::{Client, Session, SessionBuilder, WriteError};

use self::incoming::Incoming;
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
still comes back is printed. Streams and datagrams that the server sends by itself are printed too; \
those that have not ended a second after the rest are told of, and one that is reset is a failure. \
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

pub(crate) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
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
    output::in_background();
    let printer = Printer::new(args.json);
    printer.connected(&args.url, &session);
    let mut incoming = Incoming::default();
    let result = tokio::select! {
        result = talk(&session, &args, &printer, &mut incoming) => result,
        () = signals.next() => match &args.message {
            Some(_) => Err(Failure::new("interrupted", "there was no reply before the signal to end")),
            None => Ok(()),
        },
        () = output::lost() => Ok(()),
    };
    // Asked before it is closed here: that would be the end of every session.
    let ended = session.close_reason();
    session.close(0, "");
    let broken = incoming.end(&printer).await;
    tokio::select! {
        () = client.shut_down() => {}
        // The server may be gone, which is a reason to end this.
        () = signals.next() => {}
    }
    // What is told on standard error comes after what was received.
    let _ = tokio::time::timeout(PATIENCE, output::drained()).await;
    let end = session.close_reason();
    let result = match (result, ended.as_ref().map(explain::session_end)) {
        // Why the session ended says more than what failed because of it.
        (Err(failed), Some(Some(failure))) if failed.kind == SESSION => Err(failure),
        // A conversation may be ended by either side. A message that was not answered has failed.
        (Err(failed), Some(None)) if failed.kind == SESSION && args.message.is_none() => Ok(()),
        (result, _) => result,
    };
    let result = result.and(broken);
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

async fn talk(
    session: &Session,
    args: &ConnectArgs,
    printer: &Printer,
    incoming: &mut Incoming,
) -> Result<(), Failure> {
    let Some(message) = &args.message else {
        return if args.datagram {
            lines_as_datagrams(session, printer, incoming).await
        } else {
            input_on_stream(session, args.trust.timeout, printer, incoming).await
        };
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
    let sending = async {
        send.write_all(message.as_bytes()).await?;
        send.finish()
    };
    let stopped = stop(sending.await)?;
    let reply = recv.read_to_end(MAX_REPLY).await.map_err(|e| failed(&e))?;
    printer.message(Via::Stream, &reply, Some(started.elapsed()));
    stopped
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

/// A stream that the server stopped has failed, but what the server says of it is heard first: the failure is inside.
fn stop(sent: Result<(), WriteError>) -> Result<Result<(), Failure>, Failure> {
    match sent {
        Ok(()) => Ok(Ok(())),
        Err(error @ WriteError::Stopped(_)) => Ok(Err(Failure::new("stream", chain(&error)))),
        Err(error) => Err(failed(&error)),
    }
}

/// Lines of standard input out, and everything that comes back in, until as much came as went or the session is over.
async fn lines_as_datagrams(session: &Session, printer: &Printer, incoming: &mut Incoming) -> Result<(), Failure> {
    let mut lines = Input::lines();
    let mut sent = 0;
    while let Some(line) = incoming.serve_until(session, printer, lines.next()).await? {
        send_datagram(session, line.map_err(|e| unread(&e))?.trim_ascii_end())?;
        sent += 1;
    }
    // As many as went out may come back; some may be lost.
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    while incoming.datagrams < sent {
        match incoming.step(session, printer, patience.as_mut()).await? {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(()) => break,
        }
    }
    incoming.finish(printer).await;
    Ok(())
}

/// Standard input out, everything that comes back in, until both are done or the session is over.
async fn input_on_stream(
    session: &Session,
    timeout: Duration,
    printer: &Printer,
    incoming: &mut Incoming,
) -> Result<(), Failure> {
    let mut input = Input::pieces();
    let (mut send, recv) = session.open_bi().await.map_err(|e| failed(&e))?;
    incoming.print(recv, Via::Stream, printer);
    let writing = async {
        while let Some(piece) = input.next().await {
            let piece = piece.map_err(|e| unread(&e))?;
            let sent = send.write_chunk(Bytes::from(piece)).await;
            match stop(sent)? {
                Ok(()) => {}
                stopped => return Ok(stopped),
            }
        }
        stop(send.finish())
    };
    let stopped = incoming.serve_until(session, printer, writing).await??;
    // Who stopped the stream may say why, and may say nothing.
    let is_stopped = stopped.is_err();
    let limit = async {
        if !is_stopped {
            std::future::pending().await
        }
        tokio::time::sleep(timeout).await;
    };
    tokio::pin!(limit);
    let answer = loop {
        if let Some(answer) = incoming.answer.take() {
            break answer;
        }
        if incoming.step(session, printer, limit.as_mut()).await?.is_break() {
            break Ok(());
        }
    };
    incoming.finish(printer).await;
    stopped.and(answer)
}
