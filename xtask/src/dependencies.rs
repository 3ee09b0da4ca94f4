//! Every direct dependency of the published crates, and why it is there. `cargo xtask lint` refuses any other: each one is
//! code that our users run and updates that we follow.

use std::collections::BTreeSet;
use std::fs;

use crate::shell::{Result, cargo, output, root};

const ALLOWED: &[(&str, &str)] = &[
    ("async-nats", "topics and sessions on NATS (a feature of messaging)"),
    (
        "axum",
        "the router of `wireloom serve`; its extractors and where its clients are, in features of the libraries",
    ),
    ("base64", "certificate hashes as Chromium's flags want them"),
    (
        "bytes",
        "payloads without copies; the vocabulary of http, hyper and quinn",
    ),
    ("clap", "the command line"),
    ("futures-util", "streams and polling helpers that std lacks"),
    (
        "getrandom",
        "session keys and the client's jitter, from the operating system",
    ),
    ("hdrhistogram", "latencies in `wireloom bench`"),
    (
        "http",
        "requests, responses and fields; the vocabulary of the ecosystem",
    ),
    ("http-body", "bodies; the vocabulary of hyper, tower and axum"),
    ("http-body-util", "combinators of bodies"),
    ("httpdate", "the `date` field of responses"),
    ("hyper", "HTTP/1.1 and HTTP/2"),
    ("hyper-util", "hyper's glue to tokio, and version detection"),
    ("indicatif", "progress in the command line"),
    (
        "metrics",
        "counters for whichever exporter an application has (a feature)",
    ),
    ("quinn-proto", "the QUIC state machine"),
    ("quinn-udp", "UDP with GSO, GRO and ECN"),
    ("rcgen", "self-signed and rotating certificates"),
    ("pyo3", "the Python package"),
    (
        "rustc-hash",
        "fast maps keyed by stream ids, which peers choose only in part",
    ),
    (
        "rustix",
        "watching asyncio's file descriptors from Tokio; locks of sessions' files",
    ),
    ("rustls", "TLS"),
    (
        "rustls-platform-verifier",
        "the operating system's trust in certificates",
    ),
    ("serde", "JSON: payloads, sessions and lines of the command line"),
    ("serde_json", "JSON: payloads, sessions and lines of the command line"),
    ("sfv", "structured fields: subprotocol negotiation"),
    ("sha2", "public identifiers of sessions, which must not tell their keys"),
    ("slab", "connection handles"),
    ("socket2", "socket options that std lacks"),
    ("thiserror", "error types without boilerplate"),
    ("time", "validity periods of certificates, times of sessions"),
    ("tokio", "the runtime"),
    ("tokio-rustls", "TLS over TCP"),
    ("tokio-tungstenite", "WebSocket in messaging"),
    ("tower-http", "files in `wireloom serve --root`"),
    ("tower-service", "the trait that routers implement"),
    ("tracing", "logs and spans"),
    ("tracing-subscriber", "logs of the command line"),
    ("wireloom", "ours"),
    ("wireloom-messaging", "ours"),
    ("wireloom-proto", "ours"),
    ("x509-parser", "names and dates of certificates that others made"),
];

/// Fails if a crate under `crates/`, or the Python package, depends on anything that is not in the list, or the list has what nothing needs.
pub(crate) fn check() -> Result {
    let folder = root().join("crates");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut crates: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    crates.push("wireloom-python".to_owned());
    let mut unknown = BTreeSet::new();
    let mut used = BTreeSet::new();
    for name in &crates {
        let mut tree = cargo(&[
            "tree",
            "--package",
            name,
            "--edges",
            "normal,build",
            "--depth",
            "1",
            "--all-features",
        ]);
        tree.args(["--target", "all", "--prefix", "none", "--format", "{p}"]);
        let tree = output(&mut tree).ok_or_else(|| format!("cargo tree fails for {name}"))?;
        for dependency in tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|word| !word.is_empty())
        {
            if ALLOWED.iter().any(|(allowed, _)| *allowed == dependency) {
                used.insert(dependency.to_owned());
            } else if dependency != name {
                unknown.insert(format!("{dependency} (of {name})"));
            }
        }
    }
    let unused: Vec<&str> = ALLOWED
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !used.contains(*name) && !name.starts_with("wireloom"))
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "not in xtask/src/dependencies.rs, with a reason: {}",
            join(&unknown)
        ));
    }
    if !unused.is_empty() {
        return Err(format!(
            "in xtask/src/dependencies.rs, but no longer used: {}",
            unused.join(", ")
        ));
    }
    println!("lint: {} direct dependencies, all in the list", used.len());
    Ok(())
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
