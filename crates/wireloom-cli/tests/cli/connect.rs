use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use wireloom::{Identity, Server, Session, SessionError};

use crate::harness::{DEADLINE, Outcome, Serve, feed, finish, run, run_with, signal, wireloom};

/// A client that stays connected.
pub(crate) struct Held(Child);

impl Held {
    pub(crate) fn open(server: &Serve) -> Self {
        let mut child = wireloom()
            .args(["connect", &server.url("/echo"), "--cert-hash", &server.hash(), "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("text");
        assert!(line.contains("connected"), "{line}");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_message_comes_back() {
    let server = Serve::start(&[]);
    let (url, hash) = (server.url("/echo"), server.hash());
    for extra in [&[][..], &["--datagram"]] {
        let outcome = run(&[&["connect", &url, "--cert-hash", &hash, "--message", "grüße"], extra].concat());
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(0), "grüße\n"),
            "{outcome:?}"
        );
    }
    let outcome = run(&[
        "connect",
        &url,
        "--insecure",
        "--message",
        "x",
        "--json",
        "--protocol",
        "other",
        "--protocol",
        "echo.v2",
    ]);
    let connected = outcome.event("connected");
    assert_eq!(connected["protocol"], "echo.v2");
    assert!(
        connected["max_datagram_size"].as_u64().expect("datagrams") > 1000,
        "{connected}"
    );
    let message = outcome.event("message");
    assert_eq!((&message["via"], &message["text"]), (&"stream".into(), &"x".into()));
    assert_eq!(outcome.event("closed")["by"], "client");
}

#[test]
fn lines_go_out_and_come_back_until_the_input_ends() {
    let server = Serve::start(&[]);
    let (url, hash) = (server.url("/echo"), server.hash());
    let outcome = run_with("one\ntwo\nno line feed", &["connect", &url, "--cert-hash", &hash]);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (Some(0), "one\ntwo\nno line feed"),
        "{outcome:?}"
    );
    let outcome = run_with("one\ntwo\n", &["connect", &url, "--cert-hash", &hash, "--json"]);
    let texts: Vec<_> = outcome
        .json()
        .into_iter()
        .filter(|v| v["event"] == "message")
        .map(|v| v["text"].clone())
        .collect();
    assert_eq!(texts, ["one", "two"], "{outcome:?}");
    // Datagrams may be lost, also on one machine; all of them will not be.
    let many = "datagram\n".repeat(20);
    let outcome = run_with(&many, &["connect", &url, "--cert-hash", &hash, "--datagram"]);
    assert!(
        outcome.code == Some(0) && outcome.stdout.starts_with("datagram\n"),
        "{outcome:?}"
    );
}

#[test]
fn failures_say_what_failed_and_what_to_try() {
    let server = Serve::start(&[]);
    let (url, hash) = (server.url("/echo"), server.hash());
    let wrong = "00".repeat(32);
    // Bound and silent: nothing that a client sends is answered.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let silent = format!("https://{}/", silent.local_addr().expect("bound"));
    let not_found = server.url("/nothing-here");
    for (args, kind, parts) in [
        (
            &[&*url, "--cert-hash", &*wrong][..],
            "hash",
            &[&*hash, "--cert-hash"][..],
        ),
        (&[&*url], "tls", &["--cert-hash", "--insecure"]),
        (&[&*not_found, "--insecure"], "status", &["404", "path"]),
        (&[&*silent, "--insecure", "--timeout", "1"], "udp", &["UDP", "firewall"]),
        (
            &["https://no-such-name.invalid/", "--insecure"],
            "name",
            &["no-such-name.invalid"],
        ),
        (
            &[&*url, "--insecure", "--datagram", "--message", &"x".repeat(5000)],
            "datagram",
            &["5000", "stream"],
        ),
    ] {
        let mut args = [&["connect", "--json"], args].concat();
        if !args.contains(&"--message") {
            args.extend(["--message", "x"]);
        }
        let outcome = run(&args);
        assert_eq!(outcome.code, Some(1), "{args:?}: {outcome:?}");
        assert_eq!(outcome.event("error")["kind"], kind, "{args:?}: {outcome:?}");
        assert!(
            outcome.stderr.starts_with("error: ") && outcome.stderr.contains("try: "),
            "{outcome:?}"
        );
        for part in parts {
            assert!(outcome.stderr.contains(part), "{part} of {args:?}: {outcome:?}");
        }
    }
}

/// Runs `behave` on the first session, and the client with `input` against it.
fn against<F>(behave: impl FnOnce(Session) -> F, input: &str, args: &[&str]) -> Outcome
where
    F: Future<Output = ()> + Send + 'static,
{
    let input = input.to_owned();
    let run = move |command| feed(command, &input);
    let (outcome, _) = between(behave, args, run);
    outcome
}

/// The same with a client that is run by `run`; what that says, and how the session ended for the server.
fn between<F, T>(
    behave: impl FnOnce(Session) -> F,
    args: &[&str],
    run: impl FnOnce(Command) -> T + Send + 'static,
) -> (T, SessionError)
where
    F: Future<Output = ()> + Send + 'static,
    T: Send + 'static,
{
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let identity = Identity::self_signed(["localhost"]).expect("a valid name");
    let listen = Server::builder().bind("127.0.0.1:0").identity(identity).listen();
    let server = runtime.block_on(listen).expect("a free port");
    let url = format!("https://{}/", server.local_addrs()[0]);
    let mut command = wireloom();
    command.args(["connect", &url, "--insecure"]).args(args);
    let client = std::thread::spawn(move || run(command));
    let end = runtime.block_on(async {
        let session = server
            .accept()
            .await
            .expect("a request")
            .accept()
            .await
            .expect("a session");
        let behaviour = tokio::spawn(behave(session.clone()));
        let end = session.closed().await;
        behaviour.await.expect("no panic");
        end
    });
    (client.join().expect("no panic"), end)
}

/// Whatever the server does by itself.
async fn idle(_: Session) {}

#[test]
fn what_fails_here_is_told_though_the_session_goes_on() {
    let line = "x".repeat(3000);
    let outcome = against(idle, &format!("one\n{line}\nthree\n"), &["--datagram", "--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "datagram", "{outcome:?}");
    let reset = |session: Session| async move {
        let (mut send, mut recv) = session.accept_bi().await.expect("a stream");
        assert_eq!(recv.read_to_end(8).await.expect("text"), b"hello\n");
        send.reset(7);
    };
    let outcome = against(reset, "hello\n", &["--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "stream", "{outcome:?}");
}

#[cfg(unix)]
#[test]
fn input_that_cannot_be_read_is_told() {
    let read_a_directory = |mut command: Command| {
        let directory = std::fs::File::open(std::env::temp_dir()).expect("a directory");
        command.stdin(directory).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().expect("the binary starts"))
    };
    for args in [&[][..], &["--datagram"]] {
        let (outcome, _) = between(idle, args, read_a_directory);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("standard input"), "{outcome:?}");
    }
}

#[cfg(unix)]
#[test]
fn input_without_line_feeds_goes_out_as_it_comes() {
    let (sent, read) = std::sync::mpsc::channel();
    let take = |session: Session| async move {
        let (mut send, mut recv) = session.accept_bi().await.expect("a stream");
        assert_eq!(recv.read(&mut [0; 8]).await.expect("text"), Some(5));
        // The rest of the input comes when this is known.
        sent.send(()).expect("the client is there");
        assert_eq!(recv.read_to_end(8).await.expect("text"), b"!");
        send.finish().expect("finished");
    };
    let run = move |mut command: Command| {
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"hello").expect("written");
        read.recv_timeout(DEADLINE).expect("it comes before the line is over");
        stdin.write_all(b"!").expect("written");
        drop(stdin);
        finish(child)
    };
    assert_eq!(between(take, &[], run).0.code, Some(0));
}

#[cfg(unix)]
#[test]
fn a_session_is_closed_when_nobody_reads_what_comes() {
    let talk = |session: Session| async move {
        let (mut send, _recv) = session.accept_bi().await.expect("a stream");
        while send.write_all(b"more\n").await.is_ok() {}
    };
    let run = |mut command: Command| {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"begin\n").expect("written");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("text");
        drop(stdout);
        // It ends though the input does not.
        let outcome = finish(child);
        drop(stdin);
        (line, outcome)
    };
    let ((line, outcome), end) = between(talk, &[], run);
    assert_eq!((line.as_str(), outcome.code), ("more\n", Some(0)), "{outcome:?}");
    assert!(matches!(end, SessionError::Closed { code: 0, .. }), "{end:?}");
}

/// Of what nobody takes a bounded part is read, and signals are heard.
#[cfg(unix)]
#[test]
fn a_signal_ends_it_though_nobody_reads() {
    let (stall, is_stalled) = std::sync::mpsc::channel();
    let talk = |session: Session| async move {
        let (mut send, _recv) = session.accept_bi().await.expect("a stream");
        let piece = [b'x'; 64 * 1024];
        let second = std::time::Duration::from_secs(1);
        while let Ok(written) = tokio::time::timeout(second, send.write_all(&piece)).await {
            written.expect("the client is there");
        }
        stall.send(()).expect("the client is there");
        session.closed().await;
    };
    let run = move |mut command: Command| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(command);
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"begin\n").expect("written");
        is_stalled.recv_timeout(DEADLINE).expect("it is full");
        signal(child.id(), "TERM");
        let outcome = finish(child);
        drop((stdin, reader));
        outcome
    };
    let (outcome, end) = between(talk, &[], run);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(matches!(end, SessionError::Closed { code: 0, .. }), "{end:?}");
}

#[test]
fn a_message_that_is_not_answered_fails_in_time() {
    let silent = |session: Session| async move {
        let _stream = session.accept_bi().await.expect("a stream");
        session.closed().await;
    };
    let outcome = against(silent, "", &["--message", "x", "--timeout", "1", "--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "timeout", "{outcome:?}");
}

#[cfg(unix)]
#[test]
fn a_signal_before_the_reply_is_no_success() {
    let (tell, is_asked) = std::sync::mpsc::channel();
    let silent = |session: Session| async move {
        let _stream = session.accept_bi().await.expect("a stream");
        tell.send(()).expect("the client is there");
        session.closed().await;
    };
    let run = move |mut command: Command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the binary starts");
        is_asked.recv_timeout(DEADLINE).expect("a stream");
        signal(child.id(), "TERM");
        finish(child)
    };
    let args = ["--message", "x", "--timeout", "1000"];
    let (outcome, end) = between(silent, &args, run);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(matches!(end, SessionError::Closed { code: 0, .. }), "{end:?}");
}

#[test]
fn a_close_by_the_server_is_told() {
    let close = |code: u32| {
        move |session: Session| async move {
            let _stream = session.accept_bi().await.expect("a stream");
            session.close(code, "enough");
        }
    };
    let outcome = against(close(7), "", &["--message", "x"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.stderr.contains("code 7") && outcome.stderr.contains("enough"),
        "{outcome:?}"
    );
    let outcome = against(close(0), "", &["--message", "x", "--json"]);
    assert_eq!(outcome.code, Some(1), "the message was not answered: {outcome:?}");
    assert_eq!(outcome.event("closed")["reason"], "enough", "{outcome:?}");
}

#[test]
fn what_the_server_sends_by_itself_is_printed() {
    let outcome = against(
        |session: Session| async move {
            let mut uni = session.open_uni().await.expect("a stream");
            uni.write_all(b"mine").await.expect("written");
            uni.finish().expect("finished");
            let (mut send, mut recv) = session.accept_bi().await.expect("a stream");
            assert_eq!(recv.read_to_end(1000).await.expect("text"), b"hello\n");
            send.write_all(b"bye").await.expect("written");
            send.finish().expect("finished");
        },
        "hello\n",
        &["--json"],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let via = |name: &str| {
        outcome
            .json()
            .into_iter()
            .find(|v| v["via"] == name)
            .map(|v| v["text"].clone())
    };
    assert_eq!(via("stream"), Some("bye".into()), "{outcome:?}");
    assert_eq!(via("incoming_uni"), Some("mine".into()), "{outcome:?}");
}

/// Of a stream of the server that breaks off, or goes on, nobody takes what came for all of it.
#[test]
fn streams_of_the_server_that_do_not_end_are_told() {
    let answer = async |session: &Session| {
        let (mut send, mut recv) = session.accept_bi().await.expect("a stream");
        assert_eq!(recv.read_to_end(8).await.expect("text"), b"hello\n");
        send.finish().expect("finished");
    };
    let resets = move |session: Session| async move {
        let mut uni = session.open_uni().await.expect("a stream");
        uni.write_all(b"only a part").await.expect("written");
        answer(&session).await;
        uni.reset(7);
    };
    let outcome = against(resets, "hello\n", &["--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.event("message")["text"], "only a part", "{outcome:?}");
    assert_eq!(outcome.event("stream_reset")["via"], "incoming_uni", "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "stream", "{outcome:?}");
    let goes_on = move |session: Session| async move {
        let mut uni = session.open_uni().await.expect("a stream");
        uni.write_all(b"only a part").await.expect("written");
        answer(&session).await;
        session.closed().await;
        drop(uni);
    };
    let outcome = against(goes_on, "hello\n", &["--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.event("message")["text"], "only a part", "{outcome:?}");
    assert_eq!(outcome.event("unfinished_streams")["count"], 1, "{outcome:?}");
}

/// A last line without a line feed is printed however the stream ends.
#[test]
fn a_broken_line_is_printed_too() {
    let (sent, is_sent) = std::sync::mpsc::channel();
    let breaks_off = move |session: Session| async move {
        let (mut send, _recv) = session.accept_bi().await.expect("a stream");
        send.write_all(b"one\nabc").await.expect("written");
        sent.send(()).expect("the client is there");
        session.closed().await;
    };
    let run = move |mut command: Command| {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"begin\n").expect("written");
        is_sent.recv_timeout(DEADLINE).expect("a stream");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = String::new();
        // The line before has come: what was sent with it, too.
        while !lines.contains("one") {
            assert_ne!(stdout.read_line(&mut lines).expect("text"), 0, "{lines}");
        }
        signal(child.id(), "TERM");
        std::io::Read::read_to_string(&mut stdout, &mut lines).expect("text");
        drop(stdin);
        (lines, finish(child))
    };
    let ((lines, outcome), _) = between(breaks_off, &["--json"], run);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(lines.contains(r#""text":"abc""#), "{lines}");
}

/// Who stops what it is sent may say why.
#[test]
fn an_answer_to_what_was_stopped_is_printed() {
    let stops = |session: Session| async move {
        let (mut send, mut recv) = session.accept_bi().await.expect("a stream");
        recv.read(&mut [0; 8]).await.expect("text");
        recv.stop(5);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        send.write_all(b"too large").await.expect("written");
        send.finish().expect("finished");
    };
    let input = "x".repeat(8 << 20);
    let outcome = against(stops, &input, &["--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.event("message")["text"], "too large", "{outcome:?}");
    assert_eq!(outcome.event("error")["kind"], "stream", "{outcome:?}");
}

/// The server may be gone, which is a reason to press it.
#[cfg(unix)]
#[test]
fn a_second_signal_does_not_wait_for_the_server() {
    let server = Serve::start(&[]);
    let mut client = Held::open(&server);
    signal(server.pid(), "STOP");
    let started = std::time::Instant::now();
    let mut ended = None;
    while ended.is_none() {
        assert!(started.elapsed() < DEADLINE, "it goes on");
        signal(client.0.id(), "INT");
        ended = client.0.try_wait().expect("it can be asked");
    }
    let waited = started.elapsed();
    signal(server.pid(), "CONT");
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    assert!(waited < std::time::Duration::from_secs(5), "{waited:?}");
}

#[test]
fn statistics_are_printed_at_the_end_and_traces_written() {
    let dir = std::env::temp_dir().join(format!("wireloom-cli-qlog-{}", std::process::id()));
    let traces = dir.to_str().expect("UTF-8");
    let transport = ["--congestion", "bbr", "--keep-alive", "0.5", "--qlog-dir", traces];
    let server = Serve::start(&transport);
    let (url, hash) = (server.url("/echo"), server.hash());
    let call = ["connect", &url, "--cert-hash", &hash, "--message", "hello", "--stats"];
    let outcome = run(&[&call[..], &transport, &["--json"]].concat());
    let stats = outcome.event("stats");
    assert_eq!(
        (&stats["streams_opened"], &stats["bytes_written"]),
        (&1.into(), &5.into())
    );
    assert_eq!(stats["bytes_received"], 5);
    assert!(
        stats["connection"]["bytes_sent"].as_u64().expect("a number") > 1000,
        "{stats}"
    );
    let outcome = run(&call);
    assert!(outcome.stderr.contains("5 written, 5 received"), "{outcome:?}");

    let names: Vec<_> = std::fs::read_dir(&dir)
        .expect("it was created")
        .map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    let of = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((of("_client.sqlog"), of("_server.sqlog")), (1, 2), "{names:?}");
    std::fs::remove_dir_all(&dir).expect("ours");
}

/// Both ends write the secrets of the connection, and they are the same.
#[test]
fn secrets_are_written_where_sslkeylogfile_says() {
    let dir = std::env::temp_dir().join(format!("wireloom-cli-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let file = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let (server_file, client_file) = (file("server"), file("client"));
    let server = Serve::start_with(&[], &[("SSLKEYLOGFILE", &server_file)]);
    let (url, hash) = (server.url("/echo"), server.hash());
    let call = ["connect", &url, "--cert-hash", &hash, "--message", "hello"];
    let mut command = wireloom();
    command.args(call).env("SSLKEYLOGFILE", &client_file);
    let outcome = feed(command, "");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let secrets = |file: &str| {
        let text = std::fs::read_to_string(file).expect("written");
        let lines = text.lines().filter(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let client = secrets(&client_file);
    assert_eq!(client.len(), 1);
    assert_eq!(secrets(&server_file), client);
    let _ = std::fs::remove_dir_all(dir);
}
