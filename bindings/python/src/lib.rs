//! The native half of the Python package `wireloom`.

mod asgi;
mod awaitable;
mod descriptor;
mod errors;
mod event_loop;
mod hub;
mod identity;
mod library;
mod pause;
mod reactor;
mod waiters;

use pyo3::prelude::*;

/// `wireloom._wireloom`
#[pymodule(gil_used = true)]
fn _wireloom(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    errors::add_to(module)?;
    module.add_class::<reactor::Reactor>()?;
    module.add_class::<identity::Identity>()?;
    module.add_class::<asgi::AsgiServer>()?;
    library::add_to(module)?;
    module.add_function(wrap_pyfunction!(identity::self_signed_pem, module)?)
}
