//! What topics and sessions on NATS share.

use std::time::Duration;

use async_nats::Error;
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{Config, DiscardPolicy};

/// Opens a key-value bucket, with one value for each key, and makes it if it is not there.
///
/// Not with the client's own function for that: it asks for the account first, and does not understand what servers before 2.10
/// answer. These are the settings that it makes buckets with.
pub(crate) async fn open_bucket(
    context: &Context,
    name: &str,
    max_age: Duration,
    replicas: usize,
) -> Result<Store, Error> {
    if let Ok(store) = context.get_key_value(name).await {
        return Ok(store);
    }
    let config = Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_age,
        // A longer one than the entries' lifetime is refused.
        duplicate_window: max_age.min(Duration::from_secs(120)),
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Config::default()
    };
    context.get_or_create_stream(config).await?;
    Ok(context.get_key_value(name).await?)
}
