//! The W3C's API point by point, as each browser has it: where they differ, what each does is written down, so that a
//! change is noticed.

use serde_json::{Value, json};
use wireloom_interop::browser::Kind;
use wireloom_interop::journal::Event;

use crate::{Case, Lab, Outcome, equal, with};

const ALL: &[Kind] = &Kind::ALL;
const CHROMIUM: &[Kind] = &[Kind::Chromium, Kind::Experimental];
/// What only Chromium has, and not yet for everybody.
const EXPERIMENTAL: &[Kind] = &[Kind::Experimental];
const ORDERED: &[Kind] = &[Kind::Experimental, Kind::Firefox];

pub(crate) const CASES: [(&str, &[Kind], Case); 24] = [
    ("constructor_errors", ALL, constructor_errors),
    ("duplicate_protocols", CHROMIUM, duplicate_protocols),
    ("unknown_hash_algorithm", ALL, unknown_hash_algorithm),
    ("stream_before_ready", ALL, stream_before_ready),
    ("close_before_ready", ALL, close_before_ready),
    ("use_after_close", ALL, use_after_close),
    ("long_close_reason", ALL, long_close_reason),
    (
        "what_waits_when_the_server_closes",
        ALL,
        what_waits_when_the_server_closes,
    ),
    ("session_aborted", ALL, session_aborted),
    ("byob_reads", ALL, byob_reads),
    ("empty_streams", ALL, empty_streams),
    ("server_streams", ALL, server_streams),
    ("many_open_streams", ALL, many_open_streams),
    ("backpressure", ALL, backpressure),
    ("datagram_attributes", ALL, datagram_attributes),
    ("datagram_too_large", ALL, datagram_too_large),
    ("datagram_sizes", ALL, datagram_sizes),
    ("statistics", EXPERIMENTAL, statistics),
    ("send_orders", ORDERED, send_orders),
    ("send_groups", EXPERIMENTAL, send_groups),
    ("draining", EXPERIMENTAL, draining),
    ("headers", ALL, headers),
    ("several_sessions", ALL, several_sessions),
    ("in_a_worker", ALL, in_a_worker),
];

fn echo(lab: &Lab, case: &str, id: &str, expected: &Value) -> Outcome {
    equal(&lab.run(case, &lab.options("/echo?", id))?, expected)
}

fn error(name: &str, source: Option<&str>) -> Value {
    json!({"name": name, "source": source, "code": null})
}

fn session_error() -> Value {
    error("WebTransportError", Some("session"))
}

/// Chromium does not mind pooling and hashes together.
fn constructor_errors(lab: &Lab, id: &str) -> Outcome {
    let pooled = if lab.chromium() {
        Value::Null
    } else {
        json!("NotSupportedError")
    };
    let syntax = "SyntaxError";
    let expected =
        json!({"http": syntax, "fragment": syntax, "nonsense": syntax, "pooledHashes": pooled, "fine": null});
    echo(lab, "constructorErrors", id, &expected)
}

fn duplicate_protocols(lab: &Lab, id: &str) -> Outcome {
    let expected = json!({"twice": "SyntaxError", "empty": "SyntaxError"});
    echo(lab, "duplicateProtocols", id, &expected)
}

fn unknown_hash_algorithm(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "unknownHashAlgorithm", id, &session_error())
}

fn stream_before_ready(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "streamBeforeReady", id, &json!("early"))
}

fn close_before_ready(lab: &Lab, id: &str) -> Outcome {
    let expected = json!({"ready": "WebTransportError", "closed": "WebTransportError"});
    echo(lab, "closeBeforeReady", id, &expected)
}

/// Firefox leaves those waiting who wait for a datagram.
fn use_after_close(lab: &Lab, id: &str) -> Outcome {
    let expected = json!({
        "closed": {"closeCode": 1, "reason": "first"},
        "stream": error("InvalidStateError", None),
        "incoming": {"value": true},
        "datagram": if lab.chromium() { session_error() } else { json!("pending") },
    });
    echo(lab, "useAfterClose", id, &expected)
}

/// Both cut a reason at 1024 bytes, and not within a character.
fn long_close_reason(lab: &Lab, id: &str) -> Outcome {
    let options = with(lab.options("/observe?", id), &[("reason", json!("é".repeat(1000)))]);
    lab.run("longCloseReason", &options)?;
    lab.journal.wait(id, &Event::Closed(5, "é".repeat(512)))
}

/// A stream fails by its reset, by its stop or by the session, whichever the browser sees first.
fn what_waits_when_the_server_closes(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run(
        "whatWaitsWhenTheServerCloses",
        &lab.options("/close-when-told?code=9&reason=done&", id),
    )?;
    for half in ["read", "written"] {
        let name = value[half]["name"].as_str().unwrap_or_default();
        if !["WebTransportError", "NetworkError", "TypeError"].contains(&name) {
            return Err(format!("{half}: {value}"));
        }
    }
    equal(&value["closed"], &json!({"closeCode": 9, "reason": "done"}))?;
    equal(&value["incoming"], &json!({"value": true}))?;
    let datagram = if lab.chromium() {
        session_error()
    } else {
        json!("pending")
    };
    equal(&value["datagram"], &datagram)
}

fn session_aborted(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run("sessionAborted", &lab.options("/abort?", id))?;
    equal(&value, &session_error())
}

fn byob_reads(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "byobReads", id, &json!(true))
}

fn empty_streams(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "emptyStreams", id, &json!([0, 1, 0, 65536]))
}

fn server_streams(lab: &Lab, id: &str) -> Outcome {
    let options = with(lab.options("/streams?code=200&", id), &[("count", json!(200))]);
    equal(&lab.run("serverStreamsInOrder", &options)?, &json!(200))
}

fn many_open_streams(lab: &Lab, id: &str) -> Outcome {
    let options = with(lab.options("/echo?", id), &[("count", json!(300))]);
    let digits = 10 + 90 * 2 + 200 * 3;
    equal(&lab.run("manyOpenStreams", &options)?, &json!(digits))
}

/// A stream's window is 2 MiB, and a browser keeps some more.
fn backpressure(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run("backpressure", &lab.options("/unread?", id))?;
    let written = value.as_u64().unwrap_or(0);
    if (2 << 20..16 << 20).contains(&written) {
        lab.journal.wait_idle(id)
    } else {
        Err(format!("{written} bytes were written before the writer was held back"))
    }
}

fn datagram_attributes(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "datagramAttributes", id, &json!([5, 6, 100, 200]))
}

fn datagram_too_large(lab: &Lab, id: &str) -> Outcome {
    echo(
        lab,
        "datagramTooLarge",
        id,
        &json!({"large": "dropped", "next": "small"}),
    )
}

/// Empty ones do not come back through the older of Chromium's two writables.
fn datagram_sizes(lab: &Lab, id: &str) -> Outcome {
    let mut sizes = vec![0, 1, 100, 1000, 1100];
    if lab.kind() == Kind::Chromium {
        sizes.remove(0);
    }
    let options = with(lab.options("/echo?", id), &[("sizes", json!(sizes))]);
    lab.run("datagramSizes", &options).map(drop)
}

/// Chromium tells no bytes.
fn statistics(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run("statistics", &lab.options("/echo?", id))?;
    let (trip, rate) = (&value["smoothedRtt"], &value["estimatedSendRate"]);
    if trip.as_f64().is_some_and(|trip| trip > 0.0) && rate.as_f64().is_some_and(|rate| rate > 0.0) {
        let none = json!({"droppedIncoming": 0, "expiredOutgoing": 0, "lostOutgoing": 0});
        equal(&value["datagrams"], &none)
    } else {
        Err(value.to_string())
    }
}

fn send_orders(lab: &Lab, id: &str) -> Outcome {
    let expected = json!({
        "streams": [[3, 4], [-1, 0], [0, 1]],
        "answers": ["order -1", "order 0", "order 3"],
    });
    echo(lab, "sendOrders", id, &expected)
}

fn send_groups(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "sendGroups", id, &json!({"isIn": true, "received": "grouped"}))
}

fn draining(lab: &Lab, id: &str) -> Outcome {
    lab.run("draining", &lab.options("/drain?", id)).map(drop)
}

/// Only the experimental Chromium lets a page choose fields and see the response's.
fn headers(lab: &Lab, id: &str) -> Outcome {
    let options = with(
        lab.options("/request?", id),
        &[("headers", json!({"x-question": "how?"}))],
    );
    let value = lab.run("headers", &options)?;
    let experimental = lab.kind() == Kind::Experimental;
    let (question, answer) = if experimental {
        (json!("how?"), json!("yes"))
    } else {
        (Value::Null, Value::Null)
    };
    let request = &value["request"];
    equal(&request["x-question"], &question)?;
    equal(&value["response"], &answer)?;
    equal(&request["sec-webtransport-http3-draft02"], &json!("1"))?;
    equal(
        &request["origin"]
            .as_str()
            .is_some_and(|o| o.starts_with("http://localhost:")),
        &true,
    )
}

fn several_sessions(lab: &Lab, id: &str) -> Outcome {
    let options = with(lab.options("/echo?", id), &[("count", json!(5))]);
    lab.run("severalSessions", &options)?;
    equal(&lab.journal.count(id, &Event::Accepted), &5)
}

fn in_a_worker(lab: &Lab, id: &str) -> Outcome {
    echo(lab, "inAWorker", id, &json!("echoed"))
}
