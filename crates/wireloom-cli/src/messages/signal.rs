//! `wireloom signal`: one signal.

use clap::Args;
use serde_json::json;

use super::{EncodingArg, ServerArgs, payload, request_failure};
use crate::failure::Failure;
use crate::output;

#[derive(Args)]
#[command(after_help = "\
A signal is not acknowledged: that it was sent says nothing of its arrival.

  wireloom signal ws://127.0.0.1:8080/messages eventA something")]
pub(crate) struct SignalArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The signal's name
    #[arg(value_name = "NAME")]
    name: String,
    /// What it carries; - reads standard input
    #[arg(value_name = "PAYLOAD")]
    payload: Option<String>,
    /// How the payload is sent
    #[arg(long, value_name = "ENCODING", default_value = "utf8")]
    encoding: EncodingArg,
    /// On a stream of its own, over WebTransport
    #[arg(long, conflicts_with = "unreliable")]
    unordered: bool,
    /// In a datagram, over WebTransport, if it fits into one
    #[arg(long)]
    unreliable: bool,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: SignalArgs) -> Result<(), Failure> {
    let data = payload(args.payload.as_deref(), args.encoding)?;
    let client = args.server.connect(args.server.builder()?).await?;
    let signal = client.signal(args.name, data);
    let signal = match (args.unordered, args.unreliable) {
        (true, _) => signal.unordered(),
        (_, true) => signal.unreliable(),
        _ => signal,
    };
    let sent = signal.await;
    // Handed to the network before it is closed.
    client.close().await;
    sent.map_err(|error| request_failure(&error))?;
    if args.json {
        output::json(&json!({ "event": "sent" }));
    }
    Ok(())
}
