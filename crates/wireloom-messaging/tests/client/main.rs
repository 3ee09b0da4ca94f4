//! The client against servers that the tests play, byte by byte, in memory.
#![cfg(feature = "client")]

mod connection;
mod requests;
mod served;
mod session;
mod subscriptions;
mod watched;
