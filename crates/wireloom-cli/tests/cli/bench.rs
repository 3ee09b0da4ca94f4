use std::process::Stdio;
use std::time::Instant;

use crate::harness::{DEADLINE, finish, run, signal, wireloom};

/// The shape of each result; what it says is the machine's affair.
#[test]
fn every_workload_reports() {
    let outcome = run(&[
        "bench",
        "--seconds",
        "0.2",
        "--warmup",
        "0.1",
        "--connections",
        "20",
        "--json",
    ]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let reports = outcome.json();
    let names: Vec<_> = reports
        .iter()
        .map(|r| r["workload"].as_str().expect("a name"))
        .collect();
    assert_eq!(names.len(), 12, "{names:?}");
    for report in &reports {
        assert_eq!(report["program"], "wireloom");
        for field in [
            "value",
            "seconds",
            "count",
            "client_cpu_seconds",
            "server_cpu_seconds",
            "rss_bytes",
        ] {
            assert!(report[field].is_number(), "{field} in {report}");
        }
        assert!(report["count"].as_u64().expect("a count") > 0, "{report}");
        assert_eq!(
            report["p999_us"].is_number(),
            report["workload"] == "echo-latency",
            "{report}"
        );
        let is_datagrams = report["workload"]
            .as_str()
            .is_some_and(|name| name.starts_with("datagrams"));
        assert_eq!(report["delivery"].is_number(), is_datagrams, "{report}");
    }
}

#[test]
fn one_workload_makes_a_table() {
    let outcome = run(&[
        "bench",
        "--workload",
        "echo-latency",
        "--seconds",
        "0.1",
        "--warmup",
        "0.1",
    ]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stdout.contains("echo-latency") && outcome.stdout.contains("p99.9"),
        "{outcome:?}"
    );
}

#[test]
fn a_client_without_a_server_prints_nothing() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let hash = "00".repeat(32);
    let outcome = run(&[
        "bench",
        "client",
        "--server",
        &address,
        "--certificate-sha256",
        &hash,
        "--workload",
        "upload-1",
    ]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
}

/// Whatever becomes of the bench: here it is told to end, and its server has to go by itself.
#[cfg(target_os = "linux")]
#[test]
fn no_server_is_left_behind() {
    for bench in ["topics", "messages"] {
        let mut command = wireloom();
        command
            .args(["bench", bench, "--seconds", "1000"])
            .stdout(Stdio::piped())
            // The server's, too: it is at its end when both are gone.
            .stderr(Stdio::piped());
        let child = command.spawn().expect("the binary starts");
        let pid = child.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let started = Instant::now();
        while std::fs::read_to_string(&children).expect("it runs").is_empty() {
            assert!(started.elapsed() < DEADLINE, "it starts no server");
            std::thread::yield_now();
        }
        signal(pid, "TERM");
        assert_eq!(finish(child).code, None, "by the signal");
    }
}

#[test]
fn a_topic_is_measured() {
    let outcome = run(&["bench", "topics", "--subscribers", "20", "--seconds", "0.2", "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("a line of JSON");
    assert_eq!(report["subscribers"], 20);
    for figure in ["deliveries_per_second", "p99_us", "server_kib_per_subscriber"] {
        assert!(
            report[figure].as_f64().is_some_and(|figure| figure > 0.0),
            "{figure}: {report}"
        );
    }
}
