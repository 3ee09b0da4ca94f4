//! The TCP side, through real clients: curl, hyper and tungstenite.

mod client_auth;
mod early_hints;
mod extractors;
mod identity;
mod limits;
mod protocols;
mod shutdown;
mod support;
mod websocket;
