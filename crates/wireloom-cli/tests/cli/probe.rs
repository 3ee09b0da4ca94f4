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

/// Its own connections take the places, and are no reason to distrust the certificate.
#[test]
fn a_server_with_few_places_is_trusted() {
    let server = Serve::start(&["--max-per-address", "3"]);
    let outcome = run(&["probe", &server.url("/echo"), "--cert-hash", &server.hash(), "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.event("probe")["certificate"]["trusted"], true, "{outcome:?}");
}

#[test]
fn what_could_not_be_found_out_is_no_distrust() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let identity = wireloom::Identity::self_signed(["localhost"]).expect("a valid name");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let builder = wireloom::Server::builder()
        // Over TCP its connections would count.
        .sockets(Some(socket), None)
        .identity(identity)
        .max_connections(1, 1);
    let server = runtime.block_on(builder.listen()).expect("a free port");
    let url = format!("https://{}/", server.local_addrs()[0]);
    runtime.spawn(async move {
        while let Some(request) = server.accept().await {
            request.accept().await.expect("a session").closed().await;
        }
    });
    // Nobody answers its GET.
    let trust = ["--cert-hash", &"00".repeat(32), "--timeout", "3"];
    let outcome = run(&[&["probe", &url, "--json"], &trust[..]].concat());
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let report = outcome.event("probe");
    assert!(report["certificate"]["trusted"].is_null(), "{report}");
    assert!(report["certificate"]["not_trusted_because"].is_string(), "{report}");
    let advice = report["advice"].to_string();
    assert!(
        advice.contains("could not be found out") && !advice.contains("vouches"),
        "{advice}"
    );
    assert_eq!(outcome.event("error")["kind"], "refused", "{outcome:?}");
}
