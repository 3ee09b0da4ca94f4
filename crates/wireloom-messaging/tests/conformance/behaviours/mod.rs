//! Behaviours that every transport shares.

pub mod consumers;
pub mod endings;
pub mod handlers;
pub mod messages;
pub mod order;
pub mod sessions;
pub mod topics;

use wireloom_messaging::Data;
use wireloom_messaging::server::Handlers;

/// A service with `echo`.
pub fn echo() -> Handlers {
    Handlers::new().on_request("echo", async |data: Data| data)
}
