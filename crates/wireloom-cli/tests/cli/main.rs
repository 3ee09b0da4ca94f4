//! The real binary, as a user runs it.

mod bench;
mod cert;
mod connect;
mod harness;
mod messages;
mod probe;
mod serve;
mod usage;
