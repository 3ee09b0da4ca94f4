use std::process::Stdio;

use crate::harness::{Serve, TempDir, finish, run, wireloom};

#[test]
fn a_generated_certificate_serves_and_is_pinned() {
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    let args = [
        "cert",
        "generate",
        "--name",
        "localhost",
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    let made = run(&[&args[..], &["--json"]].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    let hash = made.event("generated")["sha256"].as_str().expect("a hash").to_owned();

    let shown = run(&["cert", "hash", &cert]);
    assert_eq!((shown.code, shown.stdout.trim()), (Some(0), hash.as_str()), "{shown:?}");
    let facts = run(&["cert", "hash", &cert, "--json"]).event("certificate");
    assert_eq!(facts["accepted_by_hash"], true, "{facts}");
    assert_eq!(facts["names"], serde_json::json!(["localhost"]));

    let again = run(&args);
    assert_eq!(again.code, Some(1), "files are not replaced unasked");
    assert!(again.stderr.contains("--force"), "{again:?}");

    let server = Serve::start(&["--cert", &cert, "--key", &key]);
    assert_eq!(server.hash(), hash);
    let reply = run(&["connect", &server.url("/echo"), "--cert-hash", &hash, "--message", "hi"]);
    assert_eq!((reply.code, reply.stdout.as_str()), (Some(0), "hi\n"), "{reply:?}");
}

#[test]
fn a_key_is_neither_replaced_by_its_certificate_nor_left_without_one() {
    let dir = TempDir::new();
    let file = dir.path("both.pem");
    let same = dir.path("./both.pem");
    for cert in [&file, &same] {
        let made = run(&["cert", "generate", "--cert", cert, "--key", &file, "--force"]);
        assert_eq!(made.code, Some(2), "{made:?}");
        assert!(!dir.0.join("both.pem").exists());
    }
    let (cert, key) = (dir.path("nowhere/cert.pem"), dir.path("key.pem"));
    let made = run(&["cert", "generate", "--cert", &cert, "--key", &key]);
    assert_eq!(made.code, Some(1), "{made:?}");
    assert!(
        !dir.0.join("key.pem").exists(),
        "it would be in the way of the next try"
    );
    dir.write("key.pem", "another's");
    let made = run(&["cert", "generate", "--cert", &cert, "--key", &key, "--force"]);
    assert_eq!(made.code, Some(1), "{made:?}");
    assert_eq!(std::fs::read_to_string(&key).expect("it is there"), "another's");
}

/// As on a full disk: here no file may have a length.
#[cfg(unix)]
#[test]
fn a_pair_that_cannot_be_replaced_stays() {
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    dir.write("key.pem", "old key");
    std::fs::write(dir.path("real.pem"), "old certificate").expect("written");
    std::os::unix::fs::symlink("real.pem", &cert).expect("linked");
    let names = || {
        let entries = std::fs::read_dir(&dir.0).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let read = |path: &str| std::fs::read_to_string(path).expect("it is there");
    let args = ["cert", "generate", "--force", "--cert", &cert, "--key", &key];
    let mut limited = std::process::Command::new("sh");
    limited
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 0; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_wireloom"),
        ])
        .args(args);
    let outcome = crate::harness::feed(limited, "");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        (read(&key).as_str(), read(&cert).as_str()),
        ("old key", "old certificate")
    );
    assert_eq!(names(), before);
    let outcome = run(&args);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(read(&key).contains("PRIVATE KEY") && read(&dir.path("real.pem")).contains("CERTIFICATE"));
    assert_eq!(names(), before);
    let outcome = run(&["cert", "generate", "--force", "--cert", "/dev/null", "--key", &key]);
    assert_eq!(outcome.code, Some(0), "a device: {outcome:?}");
}

#[cfg(unix)]
#[test]
fn the_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    dir.write("key.pem", "was readable");
    let made = run(&["cert", "generate", "--cert", &cert, "--key", &key, "--force"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let mode = std::fs::metadata(&key).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_long_certificate_is_noted() {
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    let made = run(&["cert", "generate", "--days", "90", "--cert", &cert, "--key", &key]);
    assert!(made.code == Some(0) && made.stderr.contains("14 days"), "{made:?}");
    let shown = run(&["cert", "hash", &cert]);
    assert!(shown.code == Some(0) && shown.stderr.contains("90 days"), "{shown:?}");

    // The page must not pin it, and dials the name that a root would vouch for.
    let server = Serve::start(&["--cert", &cert, "--key", &key]);
    assert!(
        server.text("webtransport").starts_with("https://localhost:"),
        "{}",
        server.listening
    );
    assert!(server.get("/").1.contains("data-pin=\"false\""));
    let (url, ca) = (server.url("/echo"), ["--ca", &cert]);
    let reply = run(&[&["connect", &url, "--message", "hi"], &ca[..]].concat());
    assert_eq!((reply.code, reply.stdout.as_str()), (Some(0), "hi\n"), "{reply:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_told() {
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    let made = run(&["cert", "generate", "--cert", &cert, "--key", &key]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let mut command = wireloom();
    command
        .args(["cert", "hash", &cert])
        .stdout(full)
        .stderr(Stdio::piped());
    let outcome = finish(command.spawn().expect("the binary starts"));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("standard output"), "{outcome:?}");
}

#[test]
fn what_is_no_certificate_says_so() {
    let dir = TempDir::new();
    dir.write("note.txt", "hello");
    for (file, why) in [("note.txt", "no certificate"), ("missing", "cannot read")] {
        let outcome = run(&["cert", "hash", &dir.path(file)]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(why), "{outcome:?}");
    }
}
