//! One publisher and a thousand subscribers: Wireloom beside Socket.IO (npm, over WebSocket) and core NATS (over TCP).
//!
//! All three are measured by the same generator, `wireloom bench topics`, which writes and reads the bytes of each protocol itself and
//! counts deliveries without decoding them. The servers run one beside the other and are measured in turns: first how long deliveries
//! take on a quiet stream, then how many there are in a second.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::shell::{Result, cargo, command, run, target};

const SOCKET_IO: &str = "socket.io@4.8.1";

const SOCKET_IO_SERVER: &str = "
const http = require('http').createServer();
const { Server } = require('socket.io');
const io = new Server(http, { transports: ['websocket'], serveClient: false, perMessageDeflate: false });
io.on('connection', (socket) => socket.on('publish', (data) => io.emit('bench', data)));
http.listen(0, '127.0.0.1', () => console.log(http.address().port));
";

/// Messages a second while latency is measured: each has reached everybody before the next.
const QUIET: &str = "20";

/// What a server has to be faster by, at least: (against whom, how many times).
const GOALS: [(&str, f64); 2] = [("nats", 1.0), ("socket-io", 8.0)];

/// Ended when it is dropped.
struct Server {
    process: Child,
    url: String,
    protocol: &'static str,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(protocol: &'static str, command: &mut Command) -> std::result::Result<Self, String> {
        let process = command.spawn().map_err(|error| format!("{protocol}: {error}"))?;
        Ok(Self {
            process,
            url: String::new(),
            protocol,
        })
    }

    fn first_line(&mut self) -> std::result::Result<String, String> {
        let stdout = self.process.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        read.map_err(|error| error.to_string())?;
        Ok(line)
    }
}

pub(crate) fn compare(arguments: &[&str]) -> Result {
    let (rounds, seconds) = parse(arguments)?;
    build()?;
    let folder = target().join("bench-topics");
    let text = |error: std::io::Error| error.to_string();
    fs::create_dir_all(&folder).map_err(text)?;
    let servers = [wireloom()?, nats(&folder)?, socket_io(&folder)?];
    // By figure, server and round.
    let mut all = FIGURES.map(|_| [const { Vec::new() }; 3]);
    for round in 1..=rounds {
        for (nth, server) in servers.iter().enumerate() {
            let measured = measure(server, &seconds)?;
            println!("round {round}, {:<9} {measured}", server.protocol);
            for (figure, values) in FIGURES.iter().zip(&mut all) {
                let value = number(&measured, figure).ok_or_else(|| format!("the generator printed no {figure}"))?;
                values[nth].push(value);
            }
        }
    }
    let [medians, p50s, p99s] = all.map(|servers| servers.map(median));
    println!();
    println!("medians of {rounds}; latency from a publication to each delivery, at {QUIET} publications a second");
    println!("{:<9} {:>14} {:>10} {:>10}", "", "deliveries/s", "p50 ms", "p99 ms");
    for (nth, server) in servers.iter().enumerate() {
        println!(
            "{:<9} {:>14.0} {:>10.2} {:>10.2}",
            server.protocol,
            medians[nth],
            p50s[nth] / 1000.0,
            p99s[nth] / 1000.0
        );
    }
    let mut missed = Vec::new();
    for (against, goal) in GOALS {
        let other = servers.iter().position(|server| server.protocol == against);
        let ratio = medians[0] / other.map_or(f64::NAN, |other| medians[other]);
        println!("wireloom is {ratio:.1} times {against} (goal: {goal})");
        if ratio < goal {
            missed.push(against);
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("slower than it has to be, against {}", missed.join(" and ")))
    }
}

/// What of the generator's report is compared.
const FIGURES: [&str; 3] = ["deliveries_per_second", "p50_us", "p99_us"];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn parse(arguments: &[&str]) -> std::result::Result<(u32, String), String> {
    let (mut rounds, mut seconds) = (3, "3".to_owned());
    for pair in arguments.chunks(2) {
        match pair {
            ["--rounds", count] => rounds = count.parse().map_err(|_| "--rounds needs a number".to_owned())?,
            ["--seconds", length] => (*length).clone_into(&mut seconds),
            _ => return Err("bench topics takes --rounds N and --seconds N".to_owned()),
        }
    }
    if rounds == 0 {
        return Err("--rounds needs a number above 0".to_owned());
    }
    Ok((rounds, seconds))
}

fn build() -> Result {
    run(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "wireloom-cli",
    ]))
}

fn measure(server: &Server, seconds: &str) -> std::result::Result<String, String> {
    let mut bench = command(target().join("release/wireloom"));
    bench
        .args(["bench", "topics", &server.url, "--json", "--seconds", seconds])
        .args(["--rate", QUIET, "--protocol", server.protocol, "--server-pid"])
        .arg(server.process.id().to_string());
    // Why it failed it says itself, on standard error.
    let printed = bench
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !printed.status.success() {
        return Err(format!("{} could not be measured", server.protocol));
    }
    Ok(String::from_utf8_lossy(&printed.stdout).trim().to_owned())
}

/// A number in a line of JSON that has no other member with such a name.
fn number(json: &str, member: &str) -> Option<f64> {
    let (_, after) = json.split_once(&format!("\"{member}\":"))?;
    after.split([',', '}']).next()?.parse().ok()
}

fn wireloom() -> std::result::Result<Server, String> {
    let mut serve = Command::new(target().join("release/wireloom"));
    serve
        .args(["serve", "--json", "--bind", "127.0.0.1:0", "--page-bind", "127.0.0.1:0"])
        .args(["--max-per-address", "1000000"])
        .stdout(Stdio::piped());
    let mut server = Server::start("wireloom", &mut serve)?;
    let line = server.first_line()?;
    let page = line.split_once("\"page\":\"http://localhost:").map(|(_, after)| after);
    let port: String = page
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    server.url = format!("ws://127.0.0.1:{port}/messages");
    Ok(server)
}

fn nats(folder: &Path) -> std::result::Result<Server, String> {
    let mut serve = Command::new("nats-server");
    serve
        .args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = Server::start("nats", &mut serve)?;
    let file = folder.join(format!("nats-server_{}.ports", server.process.id()));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(30) {
        let ports = fs::read_to_string(&file).unwrap_or_default();
        if let Some((_, after)) = ports.split_once("nats://")
            && let Some((address, _)) = after.split_once('"')
        {
            server.url = format!("http://{address}");
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("nats-server does not say where it listens".to_owned())
}

fn socket_io(folder: &Path) -> std::result::Result<Server, String> {
    let text = |error: std::io::Error| error.to_string();
    fs::write(folder.join("package.json"), "{\"private\":true}").map_err(text)?;
    fs::write(folder.join("server.js"), SOCKET_IO_SERVER).map_err(text)?;
    run(command("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-save", SOCKET_IO])
        .current_dir(folder))?;
    let mut serve = Command::new("node");
    serve.arg("server.js").current_dir(folder).stdout(Stdio::piped());
    let mut server = Server::start("socket-io", &mut serve)?;
    let port = server.first_line()?;
    server.url = format!("http://127.0.0.1:{}", port.trim());
    Ok(server)
}
