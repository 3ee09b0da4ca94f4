//! A server under test, as a process.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use wireloom::{CertificateHash, PemPair};

use crate::Result;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Wireloom,
    /// Another build of it
    Before,
    WireloomUvloop,
    Uvicorn,
    Granian,
    Peregrine,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wireloom => "wireloom",
            Self::Before => "wireloom, before",
            Self::WireloomUvloop => "wireloom, uvloop",
            Self::Uvicorn => "uvicorn",
            Self::Granian => "granian",
            Self::Peregrine => "peregrine",
        }
    }

    fn arguments(self, app: &str, port: &str, tls: Option<(&str, &str)>) -> Vec<String> {
        let words = match (self, tls) {
            (Self::Wireloom | Self::Before | Self::WireloomUvloop, tls) => {
                let event_loop = if self == Self::WireloomUvloop {
                    "uvloop"
                } else {
                    "wireloom"
                };
                let mut words = vec![
                    "python",
                    "-m",
                    "wireloom",
                    app,
                    "--port",
                    port,
                    "--no-access-log",
                    "--loop",
                    event_loop,
                ];
                if let Some((certificate, key)) = tls {
                    words.extend(["--certfile", certificate, "--keyfile", key]);
                }
                words
            }
            (Self::Uvicorn, _) => vec![
                "python",
                "-m",
                "uvicorn",
                app,
                "--port",
                port,
                "--no-access-log",
                "--log-level",
                "error",
                "--loop",
                "uvloop",
                "--http",
                "httptools",
            ],
            (Self::Granian, _) => vec![
                "granian",
                "--interface",
                "asgi",
                app,
                "--port",
                port,
                "--workers",
                "1",
                "--log-level",
                "error",
                "--no-ws",
                "--loop",
                "uvloop",
            ],
            (Self::Peregrine, None) => vec!["peregrine", app, "--port", port],
            (Self::Peregrine, Some((certificate, key))) => {
                vec![
                    "peregrine",
                    app,
                    "--port",
                    port,
                    "--tls-cert",
                    certificate,
                    "--tls-key",
                    key,
                    "--http3",
                ]
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

/// A running server; it ends with this.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) hash: CertificateHash,
    process: Child,
    folder: std::path::PathBuf,
}

impl Server {
    pub(crate) async fn start(kind: Kind, app: &str, python: &Path, package: &Path, tls: bool) -> Result<Self> {
        let port = free_port()?;
        let pair = PemPair::self_signed(["localhost", "127.0.0.1"], 10)?;
        let folder = std::env::temp_dir().join(format!("wireloom-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, &pair.certificate)?;
        std::fs::write(&key, &pair.private_key)?;
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let words = kind.arguments(app, &port.to_string(), tls.then_some((&*certificate, &*key)));
        let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("asgi");
        let program = python.join(&words[0]);
        let mut command = if on_core() {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let process = command
            .args(&words[1..])
            .current_dir(&apps)
            .env("PYTHONPATH", std::env::join_paths([package, apps.as_path()])?)
            .env("VIRTUAL_ENV", python.parent().unwrap_or(python))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            port,
            hash: CertificateHash::of_pem(&pair.certificate)?,
            process,
            folder,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(server)
    }

    /// User and system time of the process and its children, in steps of 10 ms.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let ticks: u64 = self.family()?.iter().map(|(_, ticks, _)| ticks).sum();
        Ok(ticks as f64 / 100.0)
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        Ok(self.family()?.iter().map(|(_, _, pages)| pages * 4096).sum())
    }

    /// Process number, CPU ticks and resident pages of the process and all that descend from it.
    fn family(&self) -> Result<Vec<(u32, u64, u64)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // It may have ended since.
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let fields: Vec<&str> = stat
                .rsplit_once(')')
                .map_or("", |(_, rest)| rest)
                .split_whitespace()
                .collect();
            let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            all.push((number, field(1), field(11) + field(12), field(21)));
        }
        let mut family = vec![self.process.id()];
        let mut index = 0;
        while index < family.len() {
            let parent = u64::from(family[index]);
            family.extend(
                all.iter()
                    .filter(|(_, of, ..)| *of == parent)
                    .map(|(number, ..)| *number),
            );
            index += 1;
        }
        let members = all.into_iter().filter(|(number, ..)| family.contains(number));
        Ok(members
            .map(|(number, _, ticks, pages)| (number, ticks, pages))
            .collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let numbers: Vec<String> = self
            .family()
            .unwrap_or_default()
            .iter()
            .map(|(number, ..)| number.to_string())
            .collect();
        let _ = Command::new("kill").arg("-KILL").args(numbers).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn on_core() -> bool {
    Command::new("taskset")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok()
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
