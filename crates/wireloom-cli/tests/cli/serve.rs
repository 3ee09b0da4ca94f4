use std::net::TcpListener;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::harness::{DEADLINE, Serve, TempDir, run, signal, wireloom};

#[test]
fn the_first_line_is_as_promised() {
    let server = Serve::start(&[]);
    let keys: Vec<&String> = server.listening.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["event", "webtransport", "page", "certificate_sha256"]);
    assert_eq!(server.listening["event"], "listening");
    assert!(server.text("webtransport").starts_with("https://127.0.0.1:"));
    assert!(server.text("page").starts_with("http://localhost:") && server.text("page").ends_with('/'));
    assert_eq!(server.hash().len(), 64);
    assert!(!server.text("webtransport").ends_with(":0"), "the real port");
}

#[test]
fn the_page_its_files_and_the_hashes_are_served() {
    let server = Serve::start(&[]);
    let (head, page) = server.get("/");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-type: text/html"),
        "{head}"
    );
    assert!(head.contains("content-security-policy"), "{head}");
    assert!(page.contains(&server.url("/echo")), "the page knows where to dial");
    assert!(!page.contains("{{"), "every placeholder is filled");
    // Whatever the page names is there.
    let names = page.split('"').filter(|word| word.starts_with("/demo/"));
    for name in names {
        let (head, _) = server.get(name);
        assert!(head.starts_with("http/1.1 200"), "{name}: {head}");
    }
    for module in ["messages.js", "measure.js", "plot.js"] {
        let (head, _) = server.get(&format!("/demo/{module}"));
        assert!(
            head.starts_with("http/1.1 200") && head.contains("text/javascript"),
            "{module}: {head}"
        );
    }
    assert!(server.get("/demo/none").0.starts_with("http/1.1 404"));
    let (head, hashes) = server.get("/certificate-hashes");
    assert!(head.contains("application/json") && head.contains("no-store"), "{head}");
    let hashes: Value = serde_json::from_str(&hashes).expect("JSON");
    assert_eq!(hashes["current"], server.hash());
    assert_eq!(hashes["next"].as_str().expect("the default identity rotates").len(), 64);
    assert!(
        server.get("/echo").0.starts_with("http/1.1 400"),
        "no WebTransport over HTTP/1.1"
    );
}

#[test]
fn files_are_served_and_nothing_outside() {
    let dir = TempDir::new();
    dir.write("secret", "outside");
    std::fs::create_dir(dir.0.join("root")).expect("a directory");
    dir.write("root/a.txt", "0123456789");
    dir.write("root/data.json", "{}");
    let server = Serve::start(&["--root", &dir.path("root")]);
    let (head, body) = server.get("/a.txt");
    assert!(
        head.contains("content-type: text/plain") && body == "0123456789",
        "{head}"
    );
    assert!(server.get("/data.json").0.contains("application/json"));
    let (head, body) = server.request("GET", "/a.txt", "range: bytes=2-4\r\n");
    assert!(head.starts_with("http/1.1 206") && body == "234", "{head} {body}");
    let (head, body) = server.request("HEAD", "/a.txt", "");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-length: 10") && body.is_empty(),
        "{head}"
    );
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/x/../../secret",
        "//etc/passwd",
        "/a.txt/../../secret",
    ] {
        let (head, body) = server.get(path);
        assert!(
            !head.starts_with("http/1.1 200") && !body.contains("outside"),
            "{path}: {head}"
        );
    }
    assert!(
        server.get("/").1.contains("Wireloom"),
        "without an index.html the demo page stays"
    );
    drop(server);
    dir.write("root/index.html", "mine");
    let server = Serve::start(&["--root", &dir.path("root")]);
    assert_eq!(server.get("/").1, "mine");
    assert!(server.get("/demo/").1.contains("Wireloom"));
}

#[test]
fn origins_are_checked() {
    let server = Serve::start(&["--allow-origin", "https://my.page"]);
    let page = server.text("page");
    let from = |origin: &str| {
        let header = format!("Origin: {origin}");
        run(&[
            "connect",
            &server.url("/echo"),
            "--cert-hash",
            &server.hash(),
            "--message",
            "x",
            "--header",
            &header,
        ])
    };
    for allowed in [
        page.trim_end_matches('/'),
        &page.trim_end_matches('/').replace("localhost", "127.0.0.1"),
        "https://my.page",
    ] {
        assert_eq!(from(allowed).code, Some(0), "{allowed}");
    }
    let foreign = from("https://evil.test");
    assert!(foreign.code == Some(1) && foreign.stderr.contains("403"), "{foreign:?}");
}

/// As pages over WebTransport.
#[test]
fn origins_are_checked_for_websockets_too() {
    let server = Serve::start(&["--allow-origin", "https://MY.page:443/"]);
    let page = server.text("page");
    let upgrade = |origin: &str| {
        let fields = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                      sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        server.head("/messages", &format!("{fields}origin: {origin}\r\n"))
    };
    for allowed in [page.trim_end_matches('/'), "https://my.page"] {
        let head = upgrade(allowed);
        assert!(head.starts_with("http/1.1 101"), "{allowed}: {head}");
    }
    for foreign in ["https://evil.test", "null"] {
        let head = upgrade(foreign);
        assert!(head.starts_with("http/1.1 403"), "{foreign}: {head}");
    }
}

/// Against sites whose name resolves to this machine. Where others reach the port, it has other names, too.
#[test]
fn the_plain_port_of_this_machine_has_no_other_name() {
    let status = |server: &Serve, host: &str| {
        let plain = server.request("GET", "/", &format!("host: {host}\r\n")).0;
        let fields = format!(
            "host: {host}\r\norigin: http://{host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        );
        let upgrade = server.head("/messages", &fields);
        [plain, upgrade].map(|head| head.split(' ').nth(1).expect("a status").to_owned())
    };
    let server = Serve::start(&["--allow-origin", "https://My.page:443"]);
    for host in [
        "localhost",
        "LocalHost.:8",
        "a.localhost:80",
        "127.0.0.1:81",
        "[::1]:8",
        "192.0.2.1",
        "my.page",
    ] {
        assert_eq!(status(&server, host), ["200", "101"], "{host}");
    }
    for host in [
        "evil.test:8080",
        "localhost.evil.test",
        "notlocalhost",
        "127.0.0.1.evil.test",
    ] {
        assert_eq!(status(&server, host), ["421", "421"], "{host}");
    }
    for args in [&["--page-bind", "0.0.0.0:0"], &["--allow-origin", "*"]] {
        assert_eq!(status(&Serve::start(args), "my.host:8080"), ["200", "101"], "{args:?}");
    }
}

#[test]
fn a_taken_port_says_what_to_try() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    for (option, other) in [("--page-bind", "--bind"), ("--bind", "--page-bind")] {
        let outcome = run(&["serve", option, &address, other, "127.0.0.1:0", "--json"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("is taken"), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("{option} 127.0.0.1:0")), "{outcome:?}");
        assert_eq!(outcome.event("error")["kind"], "bind");
    }
}

#[test]
fn a_file_that_is_no_certificate_or_key_is_named() {
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    let made = run(&["cert", "generate", "--cert", &cert, "--key", &key]);
    assert_eq!(made.code, Some(0), "{made:?}");
    for (args, named) in [([&key, &key], &key), ([&cert, &cert], &cert)] {
        let outcome = run(&["serve", "--cert", args[0], "--key", args[1]]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(named.as_str()), "{outcome:?}");
    }
}

#[cfg(unix)]
#[test]
fn both_signals_end_it_cleanly() {
    for name in ["INT", "TERM"] {
        let server = Serve::start(&[]);
        assert_eq!(server.stop(name).code(), Some(0), "{name}");
    }
}

/// Neither a full disk nor a reader of the log that is gone ends what is served.
#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_is_no_matter() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let (reader, broken) = std::io::pipe().expect("a pipe");
    drop(reader);
    for log in [Stdio::from(full), Stdio::from(broken)] {
        let mut command = wireloom();
        command.arg("-v").stderr(log);
        let server = Serve::start_as(command, &[]);
        for _ in 0..2 {
            let outcome = run(&["connect", &server.url("/echo"), "--insecure", "--message", "hello"]);
            assert_eq!(
                (outcome.code, outcome.stdout.as_str()),
                (Some(0), "hello\n"),
                "{outcome:?}"
            );
        }
        assert_eq!(server.stop("TERM").code(), Some(0));
    }
}

/// What a client says at the end is no line of the log.
#[cfg(unix)]
#[test]
fn nobody_writes_lines_into_the_log() {
    let dir = TempDir::new();
    let log = std::fs::File::create(dir.path("log")).expect("a file");
    let mut command = wireloom();
    command.arg("-v").stderr(log);
    let server = Serve::start_as(command, &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = wireloom::Client::builder().dangerous().accept_any_certificate();
        let client = client.build().expect("a client");
        let session = client.connect(&server.url("/echo")).await.expect("a session");
        session.close(1, "bye\r\nFORGED");
        client.shut_down().await;
    });
    let read = || std::fs::read_to_string(dir.path("log")).expect("text");
    let started = Instant::now();
    while !read().contains("FORGED") {
        assert!(started.elapsed() < DEADLINE, "{}", read());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(read().lines().all(|line| !line.starts_with("FORGED")), "{}", read());
}

#[cfg(unix)]
#[test]
fn sessions_hear_of_the_end() {
    use std::io::{BufRead, BufReader};

    let server = Serve::start(&[]);
    let mut client = wireloom()
        .args(["connect", &server.url("/echo"), "--cert-hash", &server.hash(), "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(client.stdout.take().expect("piped")).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().expect("a line").expect("text")).expect("JSON");
    assert_eq!(next()["event"], "connected");
    signal(server.pid(), "INT");
    let closed = next();
    assert_eq!(
        (&closed["event"], &closed["by"]),
        (&"closed".into(), &"server".into()),
        "{closed}"
    );
    assert!(
        closed["reason"].as_str().expect("text").contains("shutting down"),
        "{closed}"
    );
    assert_eq!(client.wait().expect("it ends").code(), Some(0), "an ordinary end");
}

#[cfg(unix)]
#[test]
fn a_second_signal_does_not_wait() {
    let mut server = Serve::start(&[]);
    // Held open: a graceful end would wait for it.
    let _client = crate::connect::Held::open(&server);
    signal(server.pid(), "INT");
    // Signals of one kind that wait count once: the second is sent until one comes as the second.
    let started = Instant::now();
    while !server.has_ended() {
        assert!(started.elapsed() < DEADLINE, "it goes on");
        signal(server.pid(), "INT");
    }
}

/// $BROWSER is asked first: here it is a script that says with what it was started.
#[cfg(unix)]
#[test]
fn open_starts_a_browser_on_the_page() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let pipe = dir.path("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("mkfifo runs")
            .success()
    );
    dir.write("browser", &format!("#!/bin/sh\necho \"$1\" > {pipe}\n"));
    let script = std::path::PathBuf::from(dir.path("browser"));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("mode set");
    // Beside a page of one's own at /, and after a browser that fails.
    dir.write("index.html", "mine");
    let browsers = format!("false:{}", dir.path("browser"));
    let server = Serve::start_with(&["--open", "--root", &dir.path("")], &[("BROWSER", &browsers)]);
    // Waits for the writer.
    let opened = std::fs::read_to_string(&pipe).expect("written");
    assert_eq!(opened.trim(), server.text("page") + "demo/");
}
