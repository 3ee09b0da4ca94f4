//! Running the binary: with deadlines that only a hang reaches.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn wireloom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wireloom"));
    command
        .env_remove("RUST_LOG")
        .env_remove("BROWSER")
        .env_remove("SSLKEYLOGFILE")
        .stdin(Stdio::null());
    command
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Each line of standard output as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// The only line of standard output that is of this event.
    pub(crate) fn event(&self, name: &str) -> Value {
        let mut found: Vec<Value> = self.json().into_iter().filter(|value| value["event"] == name).collect();
        assert_eq!(found.len(), 1, "{name} in {self:?}");
        found.remove(0)
    }
}

/// Runs to the end with `input`.
pub(crate) fn run_with(input: &str, args: &[&str]) -> Outcome {
    let mut command = wireloom();
    command.args(args);
    feed(command, input)
}

/// The same with a command that is more than arguments.
pub(crate) fn feed(mut command: Command, input: &str) -> Outcome {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A program that ends without reading is no failure.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    finish(child)
}

pub(crate) fn run(args: &[&str]) -> Outcome {
    run_with("", args)
}

/// Waits for the end.
pub(crate) fn finish(child: Child) -> Outcome {
    let pid = child.id();
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = result.recv_timeout(DEADLINE) else {
        signal(pid, "KILL");
        panic!("the program did not end");
    };
    let output = output.expect("the program can be waited for");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// `wireloom serve` on free ports.
pub(crate) struct Serve {
    child: Child,
    pub(crate) listening: Value,
}

impl Serve {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    pub(crate) fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = wireloom();
        command.envs(environment.iter().copied());
        Self::start_as(command, args)
    }

    /// The same with a command that is more than arguments.
    pub(crate) fn start_as(mut command: Command, args: &[&str]) -> Self {
        command.args(["serve", "--json", "--bind", "127.0.0.1:0"]);
        if !args.contains(&"--page-bind") {
            command.args(["--page-bind", "127.0.0.1:0"]);
        }
        command.args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            let _ = send.send(read.map(|_| line));
        });
        let line = receive
            .recv_timeout(DEADLINE)
            .expect("a first line")
            .expect("standard output can be read");
        let listening = serde_json::from_str(&line).expect("JSON");
        Self { child, listening }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.text("webtransport"))
    }

    pub(crate) fn hash(&self) -> String {
        self.text("certificate_sha256")
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.listening[name].as_str().expect(name).to_owned()
    }

    /// A GET on the plain port: the head and the body.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        self.request("GET", path, "")
    }

    /// The head of the answer to a GET with these fields, which may ask for something else than HTTP.
    pub(crate) fn head(&self, path: &str, fields: &str) -> String {
        let mut stream = self.send("GET", path, fields);
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).to_lowercase()
    }

    pub(crate) fn request(&self, method: &str, path: &str, fields: &str) -> (String, String) {
        let mut stream = self.send(method, path, &format!("connection: close\r\n{fields}"));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_lowercase(), body.to_owned())
    }

    fn send(&self, method: &str, path: &str, fields: &str) -> TcpStream {
        let page = self.text("page");
        let port = page.trim_end_matches('/').rsplit(':').next().expect("a port");
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("the page's port");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let host = if fields.contains("host: ") {
            String::new()
        } else {
            format!("host: localhost:{port}\r\n")
        };
        write!(stream, "{method} {path} HTTP/1.1\r\n{host}{fields}\r\n").expect("written");
        stream
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(mut self, name: &str) -> ExitStatus {
        signal(self.child.id(), name);
        self.child.wait().expect("it ends")
    }

    /// Waits for the end that it comes to by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of its own, removed in the end.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "wireloom-cli-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
