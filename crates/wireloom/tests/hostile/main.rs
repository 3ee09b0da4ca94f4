//! A peer that breaks the rules, over real QUIC and TCP: every case of [`table`] gets the code and the scope that the
//! specification names, a session of somebody else goes on meanwhile, and nothing is left of it.
//!
//! `docs/hostile.md` is made from the table; `WIRELOOM_BLESS=1` writes it anew.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod address_validation;
mod connect;
mod control;
mod datagrams_capsules;
mod document;
mod flow_control;
mod qpack;
mod quic;
mod requests;
mod soak;
mod support;
mod table;
mod websocket;

/// Counts what is allocated, so that a test can see that nothing is left over.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);
