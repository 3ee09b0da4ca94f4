//! `wireloom call`: one request.

use std::time::Instant;

use clap::Args;
use serde_json::json;
use wireloom_messaging::client::RequestError;

use super::{EncodingArg, ServerArgs, describe, payload, print, request_failure, tell_session};
use crate::failure::Failure;
use crate::output;

#[derive(Args)]
#[command(after_help = "\
--timeout also bounds the wait for the reply, which is printed to standard output: text as UTF-8, anything \
else as it is. A session that the server creates, or restores for --session, is told on standard error, \
or with --json as session_created; --session takes it up again.

  wireloom call ws://127.0.0.1:8080/messages upper hello")]
pub(crate) struct CallArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The request's name
    #[arg(value_name = "NAME")]
    name: String,
    /// What it carries; - reads standard input
    #[arg(value_name = "PAYLOAD")]
    payload: Option<String>,
    /// How the payload is sent
    #[arg(long, value_name = "ENCODING", default_value = "utf8")]
    encoding: EncodingArg,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: CallArgs) -> Result<(), Failure> {
    let data = payload(args.payload.as_deref(), args.encoding)?;
    let json = args.json;
    let builder = args.server.builder()?;
    let builder = builder.on_session_created(move |session| tell_session(json, session));
    let builder = builder.on_session_closed(move || {
        if json {
            output::json(&json!({ "event": "session_closed" }));
        }
    });
    let client = args.server.connect(builder).await?;
    let started = Instant::now();
    let reply = client.request(args.name, data).await;
    let elapsed = started.elapsed();
    client.close().await;
    match reply {
        Ok(reply) if json => {
            let mut line = json!({ "event": "reply" });
            if let (Some(line), Some(reply)) = (line.as_object_mut(), describe(&reply).as_object()) {
                line.extend(reply.clone());
            }
            line["elapsed_ms"] = json!(elapsed.as_secs_f64() * 1000.0);
            output::json(&line);
            Ok(())
        }
        Ok(reply) => {
            print(&reply);
            Ok(())
        }
        Err(error) => {
            if let (RequestError::Application { code, message }, true) = (&error, json) {
                output::json(&json!({ "event": "reply_error", "code": code, "message": message }));
            }
            Err(request_failure(&error))
        }
    }
}
