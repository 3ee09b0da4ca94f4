//! The TCP side, through real clients: curl, hyper and tungstenite.

mod identity;
mod limits;
mod protocols;
mod shutdown;
mod support;
mod websocket;
