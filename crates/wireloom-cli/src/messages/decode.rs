//! `wireloom decode`: a captured message, field by field.

use clap::Args;
use serde_json::json;
use wireloom_messaging::codec::{DecodeError, Encoding, Message, Payload};

use super::{fault, hex};
use crate::failure::Failure;
use crate::output::{self, Paint};

#[derive(Args)]
#[command(after_help = "\
The bytes of one message, without what a transport puts around it; blanks and colons are skipped.

  wireloom decode 80efbeadde000000000461757468d0b6c3bc")]
pub(crate) struct DecodeArgs {
    /// The message in hexadecimal digits
    #[arg(value_name = "HEX", required = true, num_args = 1..)]
    hex: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A field: where it begins, its bytes, what it is and what it says.
struct Field {
    at: usize,
    bytes: Vec<u8>,
    name: &'static str,
    meaning: String,
}

struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    list: Vec<Field>,
}

impl Fields<'_> {
    fn take(&mut self, length: usize, name: &'static str, meaning: impl Into<String>) {
        let end = self.message.len().min(self.at + length);
        let bytes = self.message.get(self.at..end).unwrap_or_default().to_vec();
        self.list.push(Field {
            at: self.at,
            bytes,
            name,
            meaning: meaning.into(),
        });
        self.at = end;
    }

    fn rest(&mut self, name: &'static str, meaning: impl Into<String>) {
        let length = self.message.len() - self.at;
        if length > 0 {
            self.take(length, name, meaning);
        }
    }

    fn id(&mut self) {
        let bytes = self.message.get(self.at..self.at + 8).unwrap_or_default();
        let number = bytes.try_into().map_or(0, u64::from_le_bytes);
        self.take(8, "identifier", format!("{number} if it is a little-endian number"));
    }

    fn name(&mut self, name: &[u8]) {
        self.take(1, "name length", name.len().to_string());
        if !name.is_empty() {
            self.take(name.len(), "name", format!("{:?}", String::from_utf8_lossy(name)));
        }
    }

    fn payload(&mut self, payload: &Payload<'_>) {
        let padding = self.message.len() - self.at - payload.len();
        if padding > 0 {
            self.take(padding, "padding", "so that UTF-16 begins at an even offset");
        }
        let meaning = match (payload.encoding, payload.text()) {
            (Encoding::Binary, _) => format!("{} bytes", payload.len()),
            (_, Ok(text)) => format!("{text:?}"),
            (encoding, Err(error)) => format!("{encoding}: {error}"),
        };
        self.rest("payload", meaning);
    }
}

pub(crate) fn run(args: &DecodeArgs) -> Result<(), Failure> {
    let bytes = parse(&args.hex.concat())?;
    let message = Message::decode(&bytes).map_err(|error| {
        let what = match error {
            DecodeError::Unknown => "no type of WebWire 2.0".to_owned(),
            DecodeError::Malformed => {
                let fault = fault::of(&bytes).map_or_else(String::new, |fault| format!(", {fault}"));
                format!("malformed{fault}; a receiver drops the connection")
            }
        };
        let first = bytes
            .first()
            .map_or_else(|| "nothing".to_owned(), |kind| format!("a message of type {kind}"));
        Failure::new("message", format!("{first} is {what}"))
    })?;
    let fields = explain(&bytes, &message);
    if args.json {
        let list: Vec<_> = fields
            .iter()
            .map(|field| {
                json!({ "offset": field.at, "hex": hex(&field.bytes), "field": field.name, "meaning": field.meaning })
            })
            .collect();
        output::json(&json!({ "message": name_of(&message), "bytes": bytes.len(), "fields": list }));
        return Ok(());
    }
    let paint = Paint::stdout();
    output::line(&paint.bold(&format!("{}, {} bytes", name_of(&message), bytes.len())));
    for field in fields {
        let digits = hex(&field.bytes);
        let digits = if digits.len() > 24 {
            format!("{}…", &digits[..22])
        } else {
            digits
        };
        let name = paint.cyan(&format!("{:<20}", field.name));
        output::line(&format!(
            "{:>5}  {digits:<24}  {name}  {}",
            field.at,
            output::printable(&field.meaning)
        ));
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<u8>, Failure> {
    let digits = text.chars().filter(|c| !c.is_whitespace() && *c != ':').map(|c| {
        let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        digit.ok_or_else(|| Failure::usage(format!("{c:?} is no hexadecimal digit")))
    });
    let digits = digits.collect::<Result<Vec<u8>, Failure>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(Failure::usage("an even number of hexadecimal digits is needed"));
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn name_of(message: &Message<'_>) -> &'static str {
    match message {
        Message::ReplyError { .. } => "ReplyError",
        Message::ReplyShutdown { .. } => "ReplyShutdown",
        Message::ReplyInternalError { .. } => "ReplyInternalError",
        Message::ReplySessionNotFound { .. } => "ReplySessionNotFound",
        Message::ReplyMaxSessionConnections { .. } => "ReplyMaxSessConnsReached",
        Message::ReplySessionsDisabled { .. } => "ReplySessionsDisabled",
        Message::SessionCreated { .. } => "NotifySessionCreated",
        Message::SessionClosed => "NotifySessionClosed",
        Message::AcceptConf(_) => "AcceptConf",
        Message::CloseSession { .. } => "RequestCloseSession",
        Message::RestoreSession { .. } => "RequestRestoreSession",
        Message::Heartbeat => "Heartbeat",
        Message::Signal { .. } => "Signal",
        Message::Request { .. } => "Request",
        Message::Reply { .. } => "Reply",
        _ => "a message",
    }
}

fn explain(bytes: &[u8], message: &Message<'_>) -> Vec<Field> {
    let mut fields = Fields {
        message: bytes,
        at: 0,
        list: Vec::new(),
    };
    let encoding = match message {
        Message::Signal { payload, .. } | Message::Request { payload, .. } | Message::Reply { payload, .. } => {
            format!(" ({})", payload.encoding)
        }
        _ => String::new(),
    };
    fields.take(1, "type", format!("{} {}{encoding}", message.kind(), name_of(message)));
    if message.id().is_some() {
        fields.id();
    }
    match message {
        Message::ReplyError { code, message, .. } => {
            fields.take(1, "code length", code.len().to_string());
            fields.take(code.len(), "error code", format!("{:?}", String::from_utf8_lossy(code)));
            fields.rest("error message", format!("{:?}", String::from_utf8_lossy(message)));
        }
        Message::AcceptConf(conf) => {
            fields.take(1, "major version", conf.major.to_string());
            fields.take(1, "minor version", conf.minor.to_string());
            fields.take(4, "read timeout", format!("{} ms", conf.read_timeout_ms));
            fields.take(4, "message buffer size", format!("{} bytes", conf.message_buffer_size));
            fields.rest(
                "sub-protocol",
                format!("{:?}", String::from_utf8_lossy(conf.sub_protocol)),
            );
        }
        Message::SessionCreated { session } => fields.rest("session", String::from_utf8_lossy(session)),
        Message::RestoreSession { key, .. } => fields.rest("session key", String::from_utf8_lossy(key)),
        Message::Signal { name, payload } | Message::Request { name, payload, .. } => {
            fields.name(name.as_bytes());
            fields.payload(payload);
        }
        Message::Reply { payload, .. } => fields.payload(payload),
        _ => fields.rest("ignored", "senders must not send it"),
    }
    fields.list
}
