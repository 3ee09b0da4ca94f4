//! One case of the runner between two endpoint programs, without containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Result;
use crate::certificate::Certificate;

/// What a case takes at most; a pair that works takes a second.
const PATIENCE: Duration = Duration::from_secs(90);

/// A case, and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in tables, and the `TESTCASE` of whoever requests.
    pub name: &'static str,
    /// The server requests, not the client.
    pub server_requests: bool,
    /// How many sessions, on one connection.
    pub sessions: usize,
    /// The size of each file; 0 for no files.
    pub size: usize,
    /// `TESTCASE`.
    testcase: &'static str,
}

const fn case(name: &'static str, testcase: &'static str, server_requests: bool, sessions: usize, size: usize) -> Case {
    Case {
        name,
        server_requests,
        sessions,
        size,
        testcase,
    }
}

/// Files on streams, each a little longer than QUIC's and HTTP/3's usual windows for one stream are at first.
const FILE: usize = 1_300_000;
/// A file that fits into any datagram.
const SMALL: usize = 800;

/// Every case, the last of them ours: the runner's do not say how many sessions there are.
pub const CASES: [Case; 8] = [
    case("handshake", "handshake", false, 1, 0),
    case(
        "transfer-unidirectional-receive",
        "transfer-unidirectional-receive",
        false,
        1,
        FILE,
    ),
    case(
        "transfer-bidirectional-receive",
        "transfer-bidirectional-receive",
        false,
        1,
        FILE,
    ),
    case(
        "transfer-datagram-receive",
        "transfer-datagram-receive",
        false,
        1,
        SMALL,
    ),
    case(
        "transfer-unidirectional-send",
        "transfer-unidirectional-send",
        true,
        1,
        FILE,
    ),
    case(
        "transfer-bidirectional-send",
        "transfer-bidirectional-send",
        true,
        1,
        FILE,
    ),
    case("transfer-datagram-send", "transfer-datagram-send", true, 1, SMALL),
    case("two sessions", "transfer-bidirectional-receive", false, 2, 50_000),
];

/// Runs a program in both roles.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<PathBuf>,
}

impl Program {
    fn start(&self, folder: &Path, variables: &BTreeMap<&str, String>) -> Result<Child> {
        let (program, arguments) = self.command.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(variables)
            .env("WWW", folder.join("www"))
            .env("DOWNLOADS", folder.join("downloads"))
            .env("LOGS", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()).into())
    }
}

/// Both ends' folders.
struct Ends {
    directory: TempDir,
}

impl Ends {
    fn folder(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Runs a case.
///
/// # Errors
/// Why it failed: what a program printed, or which file is missing.
pub async fn run(case: Case, client: &Program, server: &Program) -> Result {
    let ends = Ends {
        directory: TempDir::with_prefix("wireloom-runner-")?,
    };
    let certs = ends.folder("certs");
    std::fs::create_dir(&certs)?;
    let certificate = Certificate::generate()?;
    std::fs::write(certs.join("cert.pem"), &certificate.certificate_pem)?;
    std::fs::write(certs.join("priv.key"), &certificate.key_pem)?;
    let (requester, responder) = if case.server_requests {
        ("server", "client")
    } else {
        ("client", "server")
    };
    let mut files = BTreeMap::new();
    for session in 1..=case.sessions {
        for end in ["client", "server"] {
            std::fs::create_dir_all(ends.folder(end).join(format!("www/webtransport{session}")))?;
        }
        for number in (1..=3).filter(|_| case.size > 0) {
            let name = format!("webtransport{session}/file{number}.bin");
            let salt = number * 31 + session;
            let content: Vec<u8> = (0..case.size)
                .map(|at| ((at * 131 + at / 256 * salt) % 251) as u8)
                .collect();
            std::fs::write(ends.folder(responder).join("www").join(&name), &content)?;
            files.insert(name, content);
        }
    }
    let endpoints = || (1..=case.sessions).map(|session| format!("webtransport{session}"));
    let named: Vec<String> = if files.is_empty() {
        endpoints().collect()
    } else {
        files.keys().cloned().collect()
    };
    let role = |role: &'static str, requests: Vec<String>, protocols: &str| {
        let testcase = if role == requester || case.size == 0 {
            case.testcase
        } else {
            "transfer"
        };
        BTreeMap::from([
            ("ROLE", role.to_owned()),
            ("TESTCASE", testcase.to_owned()),
            ("REQUESTS", requests.join(" ")),
            ("PROTOCOLS", protocols.to_owned()),
            ("CERTS", certs.display().to_string()),
            ("PORT", "0".to_owned()),
        ])
    };

    let server_requests = if case.server_requests {
        named.clone()
    } else {
        Vec::new()
    };
    let mut serving = server.start(&ends.folder("server"), &role("server", server_requests, "third second"))?;
    let mut lines = BufReader::new(serving.stdout.take().ok_or("no standard output")?).lines();
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
    let Some(port) = first.as_deref().and_then(|line| line.strip_prefix("listening ")) else {
        return Err(format!("the server does not listen: {}", said(&mut serving).await).into());
    };
    let paths = if case.server_requests {
        endpoints().collect()
    } else {
        named
    };
    let urls = paths
        .iter()
        .map(|path| format!("https://127.0.0.1:{port}/{path}"))
        .collect();
    let mut dialling = client.start(&ends.folder("client"), &role("client", urls, "first second third"))?;
    let status = tokio::time::timeout(PATIENCE, dialling.wait()).await;
    if !matches!(&status, Ok(Ok(status)) if status.success()) {
        let client = said(&mut dialling).await;
        let server = said(&mut serving).await;
        let status = match status {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "still running".to_owned(),
        };
        return Err(format!("client ({status}): {client}; server: {server}").into());
    }
    let wrong = files.iter().find_map(|(name, content)| {
        let what = match std::fs::read(ends.folder(requester).join("downloads").join(name)) {
            Ok(kept) => difference(&kept, content)?,
            Err(_) => "did not arrive".to_owned(),
        };
        Some(format!("{name} {what}"))
    });
    if let Some(wrong) = wrong {
        let (client, server) = (said(&mut dialling).await, said(&mut serving).await);
        return Err(format!("{wrong}; client: {client}; server: {server}").into());
    }
    if case.size == 0 {
        // The client has ended; the server may still be writing.
        for (end, patience) in [("client", Duration::ZERO), ("server", PATIENCE)] {
            let kept = negotiated(&ends.folder(end), patience).await;
            if kept.as_deref() != Some("second") {
                return Err(format!("the {end} negotiated {kept:?}").into());
            }
        }
    }
    Ok(())
}

/// The protocol that an end says was negotiated, as soon as it says one, but not later than after `patience`.
async fn negotiated(folder: &Path, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    loop {
        let kept = std::fs::read_to_string(folder.join("downloads/negotiated_protocol.txt")).ok();
        if kept.as_ref().is_some_and(|kept| !kept.is_empty()) || Instant::now() >= deadline {
            return kept;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How what arrived is other than what was sent.
fn difference(kept: &[u8], sent: &[u8]) -> Option<String> {
    let same = kept.iter().zip(sent).take_while(|(kept, sent)| kept == sent).count();
    (kept.len() != sent.len() || same < sent.len()).then(|| {
        format!(
            "arrived with {} bytes of {}, the first {same} of them right",
            kept.len(),
            sent.len()
        )
    })
}

/// The last line that a program printed to its standard error; the program is ended.
async fn said(process: &mut Child) -> String {
    let _ = process.kill().await;
    let mut text = String::new();
    if let Some(mut stderr) = process.stderr.take() {
        let _ = stderr.read_to_string(&mut text).await;
    }
    let last = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("nothing printed");
    last.chars().take(300).collect()
}
