//! Behaviours that every transport shares.

pub mod consumers;
pub mod endings;
pub mod handlers;
pub mod messages;
pub mod order;
pub mod sessions;
pub mod topics;

use tokio::sync::mpsc;
use wireloom_messaging::Data;
use wireloom_messaging::server::Handlers;

/// A service with `echo`.
pub fn echo() -> Handlers {
    Handlers::new().on_request("echo", async |data: Data| data)
}

/// Says `dropped` when it is: what a future holds that is dropped without having ended.
pub struct TellDrop(pub mpsc::UnboundedSender<&'static str>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        // Nobody may listen any more.
        let _ = self.0.send("dropped");
    }
}
