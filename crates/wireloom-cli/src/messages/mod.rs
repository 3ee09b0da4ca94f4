//! `call`, `signal`, `listen` and `decode`: WebWire messages from the terminal.

mod call;
mod decode;
mod fault;
mod listen;
mod signal;

use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use wireloom_messaging::Data;
use wireloom_messaging::client::{Client, ClientBuilder, ConnectError, RequestError};
use wireloom_messaging::codec::Encoding;
use wireloom_messaging::session::{Session, SessionKey};
use wireloom_messaging::transport::webtransport::Profile;

pub(crate) use self::call::{CallArgs, run as call};
pub(crate) use self::decode::{DecodeArgs, run as decode};
pub(crate) use self::listen::{ListenArgs, run as listen};
pub(crate) use self::signal::{SignalArgs, run as signal};
use crate::connect::parse_header;
use crate::failure::Failure;
use crate::output;
use crate::trust::{TrustArgs, dialable};

/// Which server, and as whom.
#[derive(Args)]
struct ServerArgs {
    /// ws://, wss:// or https://HOST[:PORT]/PATH; https is WebTransport, with wss as the fallback
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// Restore the session with this key first
    // One in 64 begins with a hyphen.
    #[arg(long, value_name = "KEY", value_parser = parse_key, allow_hyphen_values = true)]
    session: Option<SessionKey>,
    /// Requests over WebTransport on one stream (s), or on one each (m)
    #[arg(long, default_value = "m")]
    profile: ProfileArg,
    /// Send a header field with the request; may be repeated
    #[arg(long, value_name = "'NAME: VALUE'", value_parser = parse_header)]
    header: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileArg {
    S,
    M,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EncodingArg {
    Utf8,
    Utf16,
    Binary,
}

impl From<EncodingArg> for Encoding {
    fn from(encoding: EncodingArg) -> Self {
        match encoding {
            EncodingArg::Utf8 => Self::Utf8,
            EncodingArg::Utf16 => Self::Utf16,
            EncodingArg::Binary => Self::Binary,
        }
    }
}

/// So that a mistake is told before anything is dialled.
pub(crate) fn parse_url(text: &str) -> Result<String, String> {
    let wrong = "write ws://, wss:// or https://HOST:PORT/PATH, as in ws://127.0.0.1:8080/messages";
    dialable(text, &["ws", "wss", "https"], wrong).map(|_| text.to_owned())
}

fn parse_key(text: &str) -> Result<SessionKey, String> {
    SessionKey::parse(text.as_bytes()).map_err(|error| error.to_string())
}

impl ServerArgs {
    fn builder(&self) -> Result<ClientBuilder, Failure> {
        let builder = Client::builder(&self.url)
            .trust(self.trust.server_trust()?)
            .key_log(true)
            .connect_timeout(self.trust.timeout)
            .request_timeout(self.trust.timeout)
            .profile(match self.profile {
                ProfileArg::S => Profile::Single,
                ProfileArg::M => Profile::Multi,
            });
        let headers = self.header.iter().cloned();
        Ok(headers.fold(builder, |builder, (name, value)| builder.header(name, value)))
    }

    /// A connected client that has the session which was asked for.
    async fn connect(&self, builder: ClientBuilder) -> Result<Client, Failure> {
        let client = self.dial(builder).await?;
        self.restore(&client).await?;
        Ok(client)
    }

    /// A connected client.
    async fn dial(&self, builder: ClientBuilder) -> Result<Client, Failure> {
        let client = builder.connect().await;
        client.map_err(|error| connect_failure(&self.url, &error))
    }

    /// Takes up the session which was asked for.
    async fn restore(&self, client: &Client) -> Result<(), Failure> {
        if let Some(key) = &self.session {
            let restored = client.restore_session(key.clone()).await;
            restored.map_err(|error| request_failure(&error))?;
        }
        Ok(())
    }
}

fn connect_failure(url: &str, error: &ConnectError) -> Failure {
    let failure = |kind| Failure::new(kind, format!("no connection to {url}: {error}"));
    let is_certificate = |error: &ConnectError| matches!(error, ConnectError::Certificate(_));
    match error {
        ConnectError::Unusable(_) => failure("usage"),
        _ if is_answered(error) => failure("status").hint("another path; `wireloom serve` has /messages"),
        ConnectError::Certificate(_) => untrusted(failure("tls")),
        ConnectError::Both(first, second) if is_certificate(first) || is_certificate(second) => {
            untrusted(failure("tls"))
        }
        ConnectError::Dismissed { .. } => failure("dismissed"),
        ConnectError::Rejected(_) => failure("protocol").hint("a server of WebWire 2.0 at that path is needed"),
        _ => failure("connect")
            .hint("is the server running, does the URL have its port and path, and has the port TLS (wss://)?"),
    }
}

/// Whether there is a server, and nothing to connect to at that path: by WebSocket and, where that is tried, WebTransport.
fn is_answered(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused(_) => true,
        // A page, mostly; the client does not take that for the server's last word.
        ConnectError::Unreachable(why) => why.starts_with("the server answers "),
        ConnectError::Both(first, second) => is_answered(first) && is_answered(second),
        _ => false,
    }
}

fn untrusted(failure: Failure) -> Failure {
    failure.hint("--cert-hash with the certificate's SHA-256, --ca with its issuer as PEM, or --insecure")
}

fn request_failure(error: &RequestError) -> Failure {
    let kind = match error {
        RequestError::Application { .. } => "application",
        RequestError::Invalid(_) => "usage",
        RequestError::TimedOut => "timeout",
        RequestError::Shutdown => "shutdown",
        RequestError::SessionNotFound | RequestError::SessionsDisabled | RequestError::MaxSessionConnections => {
            "session"
        }
        RequestError::Disconnected(_) | RequestError::Closed(_) => "connection",
        _ => "internal",
    };
    Failure::new(kind, error.to_string())
}

/// The payload of the command line, or of standard input where it is `-`.
fn payload(argument: Option<&str>, encoding: EncodingArg) -> Result<Data, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match argument {
        Some("-") => {
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::new("file", format!("cannot read standard input: {error}")))?;
        }
        Some(text) => bytes.extend_from_slice(text.as_bytes()),
        None => {}
    }
    match encoding {
        EncodingArg::Binary => Ok(bytes.into()),
        text => {
            let payload = String::from_utf8(bytes)
                .map_err(|_| Failure::usage("the payload is no text").hint("--encoding binary"))?;
            Ok(Data::text_as(&payload, text.into()))
        }
    }
}

/// `encoding`, and the payload as text where it is some.
fn describe(data: &Data) -> Value {
    let mut value = json!({ "encoding": data.encoding.as_str(), "bytes": data.bytes.len() });
    match data.text() {
        Ok(text) => value["text"] = text.into(),
        Err(_) => value["hex"] = hex(&data.bytes).into(),
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text as UTF-8 with a line feed at its end, or the bytes as they are.
fn print(data: &Data) {
    match (data.encoding, data.text()) {
        (Encoding::Utf8 | Encoding::Utf16, Ok(text)) => output::line(text.strip_suffix('\n').unwrap_or(&text)),
        _ => output::raw(&data.bytes),
    }
}

/// The line that tells of a session; the key is a secret, and whoever asked for it has it.
fn tell_session(json: bool, session: &Session) {
    if json {
        output::json(&json!({
            "event": "session_created",
            "key": session.key.as_str(),
            "info": session.info,
        }));
    } else {
        let info = Value::from_iter(session.info.clone());
        let info = info.to_string();
        output::note(&format!(
            "session {} {}",
            session.key.as_str(),
            output::printable(&info)
        ));
    }
}
