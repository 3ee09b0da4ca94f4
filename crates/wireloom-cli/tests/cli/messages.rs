use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Serve, TempDir, run, run_with, signal, wireloom};

/// Plain WebSocket, WebSocket over TLS, WebTransport, with the options that trust the server.
fn urls(server: &Serve) -> [(String, Vec<String>); 3] {
    let page = server.text("page");
    let plain = page.replace("http://localhost", "ws://127.0.0.1") + "messages";
    let secure = server.url("/messages").replace("https://", "wss://");
    let trust = vec!["--cert-hash".to_owned(), server.hash()];
    [
        (plain, Vec::new()),
        (secure, trust.clone()),
        (server.url("/messages"), trust),
    ]
}

fn arguments<'a>(command: &'a str, url: &'a str, trust: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    let trust = trust.iter().map(String::as_str);
    [command, url]
        .into_iter()
        .chain(trust)
        .chain(rest.iter().copied())
        .collect()
}

#[test]
fn requests_over_every_transport() {
    let server = Serve::start(&[]);
    for (url, trust) in urls(&server) {
        let call = |rest: &[&str]| run(&arguments("call", &url, &trust, rest));
        let outcome = call(&["echo", "hello"]);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(0), "hello\n"),
            "{url} {outcome:?}"
        );
        for encoding in ["utf8", "utf16"] {
            let outcome = call(&["upper", "жü😀", "--encoding", encoding, "--json"]);
            let reply = outcome.event("reply");
            assert_eq!(
                (&reply["encoding"], &reply["text"]),
                (&json!(encoding), &json!("ЖÜ😀")),
                "{url}"
            );
        }
        let outcome = run_with(
            "from\nstdin",
            &arguments("call", &url, &trust, &["echo", "-", "--encoding", "binary"]),
        );
        assert_eq!(outcome.stdout, "from\nstdin", "{url}: as it is");
        let outcome = call(&["sleep", "1"]);
        assert_eq!(outcome.stdout, "slept\n");
        let outcome = call(&["fail", "why not"]);
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains("FAIL: why not"), "{outcome:?}");
        let outcome = call(&["nonsense", "--json"]);
        assert_eq!(outcome.event("reply_error")["code"], "UNKNOWN_REQUEST");
        assert_eq!(outcome.event("error")["kind"], "application");
        let outcome = call(&["fail", "\x1b[31mred\u{9b}"]);
        assert!(outcome.stderr.contains("\\u{1b}[31mred\\u{9b}"), "{outcome:?}");
        let outcome = run(&arguments("signal", &url, &trust, &["eventA", "something", "--json"]));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.event("sent");
    }
}

#[test]
fn fields_of_ones_own_over_every_transport() {
    let server = Serve::start(&[]);
    for (url, trust) in urls(&server) {
        let call = |field: &str| {
            run(&arguments(
                "call",
                &url,
                &trust,
                &["echo", "hello", "--header", field, "--json"],
            ))
        };
        assert_eq!(call("Authorization: Bearer x").event("reply")["text"], "hello", "{url}");
        let foreign = call("Origin: https://example.com");
        assert_eq!(foreign.event("error")["kind"], "status", "{url}: sent, and refused");
    }
}

#[test]
fn sessions_survive_a_restart() {
    let folder = TempDir::new();
    let directory = folder.path("sessions");
    let server = Serve::start(&["--session-dir", &directory]);
    let [(url, _), ..] = urls(&server);
    let login = run(&["call", &url, "login", "ann", "--json"]);
    let created = login.event("session_created");
    assert_eq!(created["info"], json!({"user": "ann"}));
    let key = created["key"].as_str().expect("a key").to_owned();
    assert!(server.stop("TERM").success());
    let server = Serve::start(&["--session-dir", &directory]);
    for (url, trust) in urls(&server) {
        let outcome = run(&arguments("call", &url, &trust, &["whoami", "--session", &key]));
        assert_eq!(outcome.stdout, "{\"user\":\"ann\"}\n", "{url} {outcome:?}");
    }
    let [(url, _), ..] = urls(&server);
    let outcome = run(&["call", &url, "logout", "--session", &key, "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.event("session_closed");
    let outcome = run(&["call", &url, "whoami", "--session", &key, "--json"]);
    assert_eq!(
        (outcome.code, outcome.event("error")["kind"].as_str()),
        (Some(1), Some("session"))
    );
    // As servers make some.
    let hyphen = format!("-{}", &key[1..]);
    let outcome = run(&["call", &url, "whoami", "--session", &hyphen, "--json"]);
    assert_eq!(outcome.event("error")["kind"], "session", "{outcome:?}");
    let outcome = run(&["call", &url, "whoami"]);
    assert!(outcome.stderr.contains("NO_SESSION"), "{outcome:?}");
}

/// Whoever may connect may log in: neither their number nor their age grows without end.
#[test]
fn sessions_are_bounded_and_forgotten() {
    let folder = TempDir::new();
    let directory = folder.path("sessions");
    let count = || std::fs::read_dir(&directory).expect("made by the server").count();
    let login = |server: &Serve| {
        let [(url, _), ..] = urls(server);
        let outcome = run(&["call", &url, "login", "ann", "--json"]);
        outcome.event("session_created")["key"]
            .as_str()
            .expect("a key")
            .to_owned()
    };
    let bounded = ["--session-dir", &directory, "--max-sessions", "3"];
    let server = Serve::start(&bounded);
    let keys: Vec<String> = (0..5).map(|_| login(&server)).collect();
    assert_eq!(count(), 3);
    let [(url, _), ..] = urls(&server);
    let restored = |key: &str| run(&["call", &url, "whoami", &format!("--session={key}")]).code;
    assert_eq!((restored(&keys[0]), restored(&keys[4])), (Some(1), Some(0)));
    let outcome = run(&["call", &url, "login", &"x".repeat(257)]);
    assert!(outcome.stderr.contains("256 bytes"), "{outcome:?}");
    assert!(server.stop("TERM").success());
    // Also those that were there before.
    let server = Serve::start(&bounded);
    login(&server);
    assert_eq!(count(), 3);
    assert!(server.stop("TERM").success());
    let _server = Serve::start(&["--session-dir", &directory, "--session-lifetime", "0.5"]);
    let started = Instant::now();
    while count() > 0 {
        assert!(started.elapsed() < DEADLINE, "they stay");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told_at_once() {
    let outcome = run(&[
        "serve",
        "--session-dir",
        "/dev/null/sessions",
        "--bind",
        "127.0.0.1:0",
        "--page-bind",
        "127.0.0.1:0",
    ]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("/dev/null/sessions"), "{outcome:?}");
}

/// A WebSocket without a library, to know what the server has read.
struct Socket(TcpStream);

impl Socket {
    fn open(url: &str) -> Self {
        let (authority, path) = url.trim_start_matches("ws://").split_once('/').expect("a path");
        let mut stream = TcpStream::connect(authority).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read::<1>(&mut stream)[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    fn request(&mut self, id: u8, name: &str, payload: &str) {
        let mut message = vec![0x80, id, 0, 0, 0, 0, 0, 0, 0, name.len() as u8];
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(payload.as_bytes());
        let mut frame = vec![0x82, 0x80 | message.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(&message);
        self.0.write_all(&frame).expect("written");
    }

    /// The first byte of the next frame, and its payload.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let [first, length] = read(&mut self.0);
        assert!(length < 126, "a short frame");
        let mut payload = vec![0; length.into()];
        self.0.read_exact(&mut payload).expect("a whole frame");
        (first, payload)
    }
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).expect("more bytes");
    bytes
}

/// Section 10: what was accepted is answered, however long it takes, what comes after is refused, and then comes the Close.
#[test]
fn the_first_signal_waits_for_requests_and_their_replies() {
    let server = Serve::start(&[]);
    let [(url, _), ..] = urls(&server);
    let mut socket = Socket::open(&url);
    assert_eq!(socket.frame().1[0], 0x17, "AcceptConf");
    // Longer than sessions are given.
    socket.request(1, "sleep", "4000");
    socket.request(2, "echo", "x");
    assert_eq!(
        socket.frame(),
        (0x82, b"\xc0\x02\0\0\0\0\0\0\0x".to_vec()),
        "it has read the other, too"
    );
    signal(server.pid(), "TERM");
    let mut id = 2;
    let refused = loop {
        id += 1;
        socket.request(id, "echo", "x");
        let (_, reply) = socket.frame();
        if reply[0] != 0xc0 {
            break reply;
        }
    };
    assert_eq!((refused[0], refused[1]), (1, id), "ReplyShutdown");
    assert_eq!(socket.frame(), (0x82, b"\xc0\x01\0\0\0\0\0\0\0slept".to_vec()));
    let (first, close) = socket.frame();
    assert_eq!((first, &close[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    drop(socket);
    assert!(server.wait().success());
}

#[test]
fn listening_goes_on_until_it_is_told() {
    let server = Serve::start(&[]);
    let [(url, _), ..] = urls(&server);
    let login = run(&["call", &url, "login", "ann", "--json"]);
    let key = login.event("session_created")["key"]
        .as_str()
        .expect("a key")
        .to_owned();
    let mut command = wireloom();
    command
        .args(["listen", &url, "--session", &key, "--json"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let stdout = child.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!(next()["event"], "connected");
    let created = next();
    assert_eq!(
        (&created["event"], &created["key"]),
        (&json!("session_created"), &json!(key))
    );
    signal(child.id(), "TERM");
    assert_eq!(next()["event"], "disconnected");
    assert!(child.wait().expect("it ends").success());
}

/// The first connection is made in time, or not at all.
#[test]
fn listening_where_nothing_answers_fails() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/", silent.local_addr().expect("bound"));
    let outcome = run(&["listen", &url, "--timeout", "1", "--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "connect", "{outcome:?}");
}

#[test]
fn what_is_wrong_with_a_url_is_told() {
    let outcome = run(&["call", "http://127.0.0.1/", "x"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("ws://"), "{outcome:?}");
    let server = Serve::start(&[]);
    let [(url, _), ..] = urls(&server);
    let outcome = run(&["call", &url.replace("messages", "nowhere"), "x", "--json"]);
    assert_eq!(
        (outcome.code, outcome.event("error")["kind"].as_str()),
        (Some(1), Some("status")),
        "{outcome:?}"
    );
    // A page answers at /, and 404 over both transports elsewhere.
    let plain = url.replace("messages", "");
    let both = server.url("/nowhere");
    for args in [&[&*plain][..], &[&*both, "--insecure"]] {
        let outcome = run(&[&["call"], args, &["x", "--json"]].concat());
        assert_eq!(outcome.event("error")["kind"], "status", "{outcome:?}");
        assert!(outcome.stderr.contains("another path"), "{outcome:?}");
    }
    let [_, (secure, _), _] = urls(&server);
    let outcome = run(&["call", &secure, "x", "--json"]);
    assert_eq!(outcome.event("error")["kind"], "tls", "{outcome:?}");
}

/// V08 and V02 of the protocol's section 17.
#[test]
fn messages_are_explained() {
    let outcome = run(&["decode", "810100000000000000036f646400720061006e0064006f006d00"]);
    for part in ["Request", "identifier", "\"odd\"", "padding", "\"random\""] {
        assert!(outcome.stdout.contains(part), "{part} in {}", outcome.stdout);
    }
    let outcome = run(&[
        "decode",
        "--json",
        "17 02 00 b8 0b 00 00 00 20 00 00",
        "63:68:61:74:2f:31",
    ]);
    let explained = &outcome.json()[0];
    assert_eq!(explained["message"], "AcceptConf");
    let fields = explained["fields"].as_array().expect("fields");
    let covered: usize = fields
        .iter()
        .map(|field| field["hex"].as_str().expect("hex").len() / 2)
        .sum();
    assert_eq!(covered, 17, "every byte is explained: {fields:?}");
    assert_eq!(fields[3]["meaning"], "3000 ms");
    let outcome = run(&["decode", "150a1b5b316d"]);
    assert!(
        !outcome.stdout.contains('\x1b') && outcome.stdout.contains("[1m"),
        "{outcome:?}"
    );
    for (hex, code) in [("ff", 1), ("2100", 1), ("8", 2), ("zz", 2), ("", 1)] {
        assert_eq!(run(&["decode", hex]).code, Some(code), "{hex}");
    }
}

#[test]
fn what_is_malformed_in_a_message_is_told() {
    for (hex, part) in [
        (
            "2100",
            "nothing may follow the type, and the message goes on at offset 1",
        ),
        ("800102", "the identifier at offset 1 is cut: it has 2 of 8 bytes"),
        (
            "80 0102030405060708 04 6563",
            "the name at offset 10 is cut: it has 2 of 4 bytes",
        ),
        ("80 0102030405060708 00", "there is neither a name nor a payload"),
        (
            "81 0102030405060708 02 6563 61",
            "the payload at offset 12 has the odd length 1",
        ),
        ("00 0102030405060708 00", "the error code is empty"),
        (
            "17 02 00 b8 0b",
            "the read timeout at offset 3 is cut: it has 2 of 4 bytes",
        ),
        ("15", "the session is missing: the message ends at offset 1"),
    ] {
        let outcome = run(&["decode", hex]);
        assert_eq!(
            (outcome.code, outcome.stderr.lines().count()),
            (Some(1), 1),
            "{outcome:?}"
        );
        assert!(outcome.stderr.contains(part), "{part} in {}", outcome.stderr);
    }
}

/// The shape of each result; what it says is the machine's affair.
#[test]
fn the_bench_measures_every_transport() {
    let outcome = run(&[
        "bench",
        "messages",
        "--connections",
        "4",
        "--in-flight",
        "3",
        "--seconds",
        "0.2",
        "--warmup",
        "0.1",
        "--json",
    ]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let reports = outcome.json();
    let transports: Vec<&str> = reports
        .iter()
        .filter_map(|report| report["transport"].as_str())
        .collect();
    assert_eq!(
        transports,
        ["websocket", "websocket-tls", "webtransport-s", "webtransport-m"]
    );
    for report in &reports {
        assert_eq!(
            (&report["connections"], &report["in_flight"], &report["errors"]),
            (&json!(4), &json!(3), &json!(0))
        );
        assert!(report["replies"].as_u64().expect("a count") > 0, "{report}");
        assert!(
            report["p999_us"].is_number() && report["server_rss_bytes"].is_number(),
            "{report}"
        );
    }
}

/// Idle connections are alive: they say so in time, and the end of one is a failure.
#[test]
fn idle_connections_of_the_bench_are_held() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the bench");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read::<1>(&mut stream)[0]);
        }
        // AcceptConf: version 2.0, a second, buffers of 8 KiB.
        let conf = [0x17, 2, 0, 0xe8, 3, 0, 0, 0, 0x20, 0, 0];
        let answer = [b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x82\x0b", &conf[..]].concat();
        stream.write_all(&answer).expect("written");
        read::<7>(&mut stream)
    });
    let outcome = run(&[
        "bench",
        "messages",
        &url,
        "--connections",
        "1",
        "--idle",
        "--seconds",
        "100",
    ]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("closed the connection"), "{outcome:?}");
    let heartbeat = server.join().expect("no panic");
    assert_eq!(heartbeat, [0x82, 0x81, 0, 0, 0, 0, 0x21]);
}

#[test]
fn the_bench_takes_errors_for_no_result() {
    let server = Serve::start(&[]);
    let [(url, _), ..] = urls(&server);
    let bench = ["bench", "messages", &url, "--connections", "1", "--seconds", "0.2"];
    let outcome = run(&[&bench[..], &["--request", "nonsense"]].concat());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    for odd in [
        ["--rate", "1e-300"],
        ["--payload", "99999999999999"],
        ["--server-pid", "4294967295"],
        ["--seconds", "1e18"],
    ] {
        let outcome = run(&[&bench[..5], &odd].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
    }
}

#[test]
fn the_bench_sends_at_a_rate_and_holds_idle_connections() {
    let server = Serve::start(&[]);
    let [(url, _), ..] = urls(&server);
    let pid = server.pid().to_string();
    let run = |rest: &[&str]| {
        let fixed = [
            "bench",
            "messages",
            &url,
            "--server-pid",
            &pid,
            "--seconds",
            "0.5",
            "--json",
        ];
        let outcome = run(&[&fixed[..], rest].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.json().remove(0)
    };
    let report = run(&["--connections", "2", "--rate", "100"]);
    let replies = report["replies"].as_u64().expect("a count");
    // Without the rate it would be tens of thousands.
    assert!((1..=1000).contains(&replies), "{report}");
    let report = run(&["--connections", "20", "--idle"]);
    assert_eq!((&report["replies"], &report["connections"]), (&json!(0), &json!(20)));
    assert!(report["server_kib_per_connection"].is_number());
}
