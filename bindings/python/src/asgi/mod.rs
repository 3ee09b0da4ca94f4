//! The ASGI server: from the requests of `wireloom`'s servers to calls of a Python application and back.

mod access;
mod access_format;
mod beside;
mod body;
mod exchange;
mod fields;
mod http;
mod message;
mod metrics;
mod scope;
mod server;
mod service;
mod settings;
mod site;
mod sources;
mod starting;
mod static_files;
mod tasks;
mod websocket;
mod websocket_pump;
mod webtransport;
mod webtransport_events;

pub(crate) use message::{backed, bytes as bytes_of};
pub(crate) use server::AsgiServer;
