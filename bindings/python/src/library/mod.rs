//! The library for asyncio: clients, servers, sessions and streams.

mod client;
pub(crate) mod failure;
mod half;
mod messaging;
mod server;
mod session;
mod stream;

use pyo3::prelude::*;

/// Adds its classes to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<client::Client>()?;
    module.add_class::<server::Server>()?;
    module.add_class::<server::SessionRequest>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<stream::SendStream>()?;
    module.add_class::<stream::RecvStream>()?;
    module.add_class::<messaging::MessagingClient>()?;
    module.add_class::<messaging::Message>()?;
    messaging::add_to(module)
}
