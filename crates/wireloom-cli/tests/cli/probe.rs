use crate::harness::{Serve, run};

#[test]
fn a_server_of_ours_stops_no_browser() {
    let server = Serve::start(&[]);
    let outcome = run(&["probe", &server.url("/echo"), "--cert-hash", &server.hash(), "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report = outcome.event("probe");
    assert_eq!(report["certificate"]["sha256"], server.hash());
    assert_eq!(report["certificate"]["trusted"], true);
    assert_eq!(report["session"]["open"], true);
    assert_eq!(
        report["dialects"]["offered"].as_array().expect("a list").len(),
        4,
        "{report}"
    );
    assert!(report["quic"]["max_datagram_size"].as_u64().expect("datagrams") > 1000);
    assert!(report["quic"]["rtt_ms"].as_f64().expect("a time") > 0.0);
    let names: Vec<_> = report["settings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| s["name"].clone())
        .collect();
    assert!(names.contains(&"WEBTRANSPORT_DRAFT02".into()), "{names:?}");
    let parameters = report["quic"]["transport_parameters"].as_array().expect("a list");
    assert!(
        parameters
            .iter()
            .any(|p| p["name"] == "max_idle_timeout" && p["value"] == 30_000),
        "{parameters:?}"
    );
    for version in ["http1", "http2", "http3"] {
        assert_eq!(report[version]["status"], 200, "{version}: {report}");
    }
    assert!(report["http1"]["alt_svc"].as_str().expect("announced").contains("h3="));
    let advice = report["advice"].as_array().expect("a list");
    assert!(advice.iter().all(|a| a["weight"] == "note"), "{advice:?}");
}

#[test]
fn people_get_a_report_too() {
    let server = Serve::start(&[]);
    let outcome = run(&[
        "probe",
        &server.url("/echo"),
        "--insecure",
        "--origin",
        "https://evil.test",
    ]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for part in [&*server.hash(), "SETTINGS", "HTTP/2", "problem", "https://evil.test"] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
    assert!(outcome.stderr.contains("403"), "{outcome:?}");
}

#[test]
fn an_untrusted_certificate_is_looked_at_and_fails() {
    let server = Serve::start(&[]);
    let outcome = run(&["probe", &server.url("/echo"), "--cert-hash", &"00".repeat(32), "--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let report = outcome.event("probe");
    assert_eq!(
        (&report["certificate"]["trusted"], &report["session"]["open"]),
        (&false.into(), &true.into())
    );
    assert_eq!(outcome.event("error")["kind"], "hash");
}

#[test]
fn silence_is_reported() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}/", silent.local_addr().expect("bound"));
    let outcome = run(&["probe", &url, "--timeout", "1", "--json"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let report = outcome.event("probe");
    assert_eq!(report["addresses"][0]["answers"], false, "{report}");
    assert_eq!(outcome.event("error")["kind"], "udp");
}
