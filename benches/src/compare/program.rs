//! The programs that are compared: how each is started, and what it can do.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use wireloom_benches::certificate::Certificate;

use crate::Result;
use crate::measure::Measured;

/// What Wireloom is compared with.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// QUIC streams and datagrams on the quinn crate
    RawQuinn,
    /// Wireloom, with a server that offers no session flow control
    NoFlowControl,
    /// The crate wtransport, both sides
    Wtransport,
    /// The crate web-transport-quinn, both sides
    WebTransportQuinn,
    /// The crate web-transport-quiche, both sides
    WebTransportQuiche,
    /// quic-go's webtransport-go as the server
    WebtransportGo,
    /// aioquic as the server
    Aioquic,
    /// pywebtransport as the server
    Pywebtransport,
    /// HTTP/3 on h3 and h3-quinn, both sides
    H3Quinn,
    /// The ceiling: sealed UDP packets and nothing else
    SealedUdp,
}

/// Where programs are that this folder does not have.
#[derive(Args)]
pub(crate) struct Foreign {
    /// The program `peer-quiche`
    #[arg(long)]
    quiche: Option<PathBuf>,
    /// The server on webtransport-go
    #[arg(long)]
    webtransport_go: Option<PathBuf>,
    /// The interpreter with aioquic, and with pywebtransport if that is compared
    #[arg(long)]
    python: Option<PathBuf>,
    /// The folder of the servers in Python
    #[arg(long, default_value = "benches/python")]
    python_servers: PathBuf,
}

/// One of the programs.
pub(crate) struct Program {
    pub(crate) name: String,
    /// The command of each side, up to its own options.
    server: Vec<PathBuf>,
    client: Vec<PathBuf>,
    /// The one workload that it has, where it has not all that are for sessions.
    only: Option<&'static str>,
    /// Of the certificate that the server is given, if it makes none.
    certificate_sha256: Option<String>,
}

/// Wireloom first.
pub(crate) fn all(peers: &[Peer], foreign: &Foreign, folder: &Path, files: &Path) -> Result<Vec<Program>> {
    let ours = |side: &str| vec![folder.join("wireloom"), "bench".into(), side.into()];
    let peer = |name: &str, side: &str| vec![folder.join("peer"), name.into(), side.into()];
    let (options, hash) = pem_files(files)?;
    let served = |mut command: Vec<PathBuf>| {
        command.extend(options.iter().cloned());
        command
    };
    let python = |script: &str| -> Result<Vec<PathBuf>> {
        let interpreter = foreign.python.clone().ok_or("--python is missing")?;
        Ok(served(vec![interpreter, foreign.python_servers.join(script)]))
    };
    let mut programs = vec![Program {
        name: "wireloom".to_owned(),
        server: ours("server"),
        client: ours("client"),
        only: None,
        certificate_sha256: None,
    }];
    for which in peers {
        let name = which.to_possible_value().ok_or("no name")?.get_name().to_owned();
        // With our client, since theirs would be measured too.
        let client = ours("client");
        let (server, client, only) = match which {
            Peer::RawQuinn | Peer::Wtransport | Peer::WebTransportQuinn => {
                (peer(&name, "server"), peer(&name, "client"), None)
            }
            Peer::H3Quinn => (peer("h3", "server"), peer("h3", "client"), Some("http3-requests")),
            Peer::SealedUdp => (peer(&name, "server"), peer(&name, "client"), Some("upload-1")),
            Peer::NoFlowControl => {
                let mut server = ours("server");
                server.push("--no-flow-control".into());
                (server, client, None)
            }
            Peer::WebTransportQuiche => {
                let program = foreign.quiche.clone().ok_or("--quiche is missing")?;
                (
                    vec![program.clone(), "server".into()],
                    vec![program, "client".into()],
                    None,
                )
            }
            Peer::WebtransportGo => {
                let program = foreign.webtransport_go.clone();
                let program = program.ok_or("--webtransport-go is missing")?;
                (served(vec![program]), client, None)
            }
            Peer::Aioquic => (python("aioquic_server.py")?, client, None),
            Peer::Pywebtransport => (python("pywebtransport_server.py")?, client, None),
        };
        let makes_none = matches!(which, Peer::WebtransportGo | Peer::Aioquic | Peer::Pywebtransport);
        programs.push(Program {
            name,
            server,
            client,
            only,
            certificate_sha256: makes_none.then(|| hash.clone()),
        });
    }
    Ok(programs)
}

/// The options that name a certificate and its key, for servers that make none; and the hash for their client.
fn pem_files(folder: &Path) -> Result<([PathBuf; 4], String)> {
    let made = Certificate::generate().map_err(|error| error.to_string())?;
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.join(name));
    std::fs::write(&certificate, made.pem())?;
    std::fs::write(&key, made.key_pem())?;
    Ok((["--certificate".into(), certificate, "--key".into(), key], made.sha256))
}

#[derive(Deserialize)]
struct Listening {
    address: String,
    /// Missing where the certificate was given.
    certificate_sha256: Option<String>,
}

/// A server that ends when this is dropped, because its standard input does.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Should it ignore that, it must not outlive the run either.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Server and client have a core each, so that one's work is not the other's delay.
fn pinned(core: &str, command: &[PathBuf]) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", core]).args(command);
    pinned
}

impl Program {
    /// Whether it has the workload.
    pub(crate) fn runs(&self, workload: &str) -> bool {
        match self.only {
            Some(only) => workload == only,
            None => workload != "http3-requests" || matches!(&*self.name, "wireloom" | "no-flow-control"),
        }
    }

    pub(crate) fn measure(&self, workload: &str, seconds: f64) -> Result<Measured> {
        // Stream slots cost memory and time at the handshake; only streams need many.
        let slots = if matches!(workload, "sessions" | "idle-memory") {
            "100"
        } else {
            "1024"
        };
        let mut server = pinned("0", &self.server);
        server.args(["--max-streams", slots]);
        let mut server = Server(server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        let listening: Listening =
            serde_json::from_str(&line).map_err(|error| format!("the server said {line:?}: {error}"))?;
        let hash = listening.certificate_sha256.or_else(|| self.certificate_sha256.clone());
        let hash = hash.ok_or("the server names no certificate")?;
        // Its own deadline does not help where its one thread is caught in a loop.
        let limit = (seconds + 60.0).to_string();
        let mut client = vec!["timeout".into(), limit.into()];
        client.extend(self.client.iter().cloned());
        let output = pinned("1", &client)
            .args(["--server", &listening.address, "--certificate-sha256", &hash])
            .args(["--workload", workload, "--seconds", &seconds.to_string()])
            .args(["--max-streams", slots])
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            let reason = reason.trim().lines().last().unwrap_or("no reason given");
            return Err(format!("{reason} ({})", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
