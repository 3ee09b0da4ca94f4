//! `wireloom listen`: signals and session events, until ctrl-c.

use clap::Args;
use serde_json::json;
use wireloom_messaging::IncomingMessage;

use super::{ServerArgs, connect_failure, describe, tell_session};
use crate::failure::Failure;
use crate::output;
use crate::signals::StopSignals;

#[derive(Args)]
#[command(after_help = "\
A lost connection is made again, and the session of --session restored, until ctrl-c.

  wireloom listen ws://127.0.0.1:8080/messages --json")]
pub(crate) struct ListenArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: ListenArgs) -> Result<(), Failure> {
    let json = args.json;
    let mut signals = StopSignals::new();
    output::in_background();
    let event = move |name: &'static str, detail: String| {
        if json {
            output::json(&json!({ "event": name, "detail": detail }));
        } else {
            output::note(&format!("{name} {}", output::printable(&detail)));
        }
    };
    let builder = args
        .server
        .builder()?
        .on_signal(move |signal| print_signal(json, &signal))
        .on_session_created(move |session| tell_session(json, session))
        .on_session_closed(move || event("session_closed", String::new()))
        .on_connected(move |kind| event("connected", kind.to_string()))
        .on_disconnected(move |why| event("disconnected", why.to_string()));
    let stop = async {
        tokio::select! {
            () = signals.next() => {}
            () = output::lost() => {}
        }
    };
    tokio::pin!(stop);
    // The first connection has to be made within --timeout: an address where nothing answers is told.
    let client = tokio::select! {
        client = args.server.dial(builder) => client?,
        () = &mut stop => return Ok(()),
    };
    let listening = async {
        args.server.restore(&client).await?;
        // Over as many connections as it takes; fails when another attempt would be of no use.
        let error = client.closed().await;
        Err(connect_failure(&args.server.url, &error))
    };
    let result = tokio::select! {
        result = listening => result,
        () = stop => Ok(()),
    };
    client.close().await;
    result
}

fn print_signal(json: bool, signal: &IncomingMessage) {
    let name = String::from_utf8_lossy(signal.name_bytes());
    if json {
        let mut line = json!({ "event": "signal", "name": name });
        if let (Some(line), Some(data)) = (line.as_object_mut(), describe(signal.data()).as_object()) {
            line.extend(data.clone());
        }
        output::json(&line);
    } else {
        output::line(&format!("{}: {:?}", output::printable(&name), signal.data()));
    }
}
