//! Sessions, streams, datagrams and their ends.

use std::time::Duration;

use serde_json::{Value, json};
use wireloom_interop::journal::{Event, PATIENCE};

use crate::{Case, Lab, Outcome, equal, with};

pub(crate) const CASES: [(&str, Case); 19] = [
    ("silence", silence),
    ("window_close", window_close),
    ("reload", reload),
    ("wrong_hash", wrong_hash),
    ("not_found", not_found),
    ("foreign_origin", foreign_origin),
    ("demo_page", demo_page),
    ("bidi_echo", bidi_echo),
    ("uni_echo", uni_echo),
    ("datagram_echo", datagram_echo),
    ("bulk_echo", bulk_echo),
    ("streams_80_at_once", streams_80_at_once),
    ("streams_1000_in_waves", streams_1000_in_waves),
    ("server_opens", server_opens),
    ("server_closes", server_closes),
    ("client_closes", client_closes),
    ("server_resets", server_resets),
    ("client_resets", client_resets),
    ("protocol", protocol),
];

fn bidi_echo(lab: &Lab, id: &str) -> Outcome {
    lab.run("bidiEcho", &lab.options("/echo?", id))?;
    lab.journal.wait_idle(id)
}

fn uni_echo(lab: &Lab, id: &str) -> Outcome {
    equal(&lab.run("uniEcho", &lab.options("/echo?", id))?, &json!("uni"))
}

fn datagram_echo(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run("datagramEcho", &lab.options("/echo?", id))?;
    equal(&value["text"], &json!("datagram"))?;
    let size = value["size"].as_u64().unwrap_or(0);
    if (1000..1500).contains(&size) {
        Ok(())
    } else {
        Err(format!("maxDatagramSize is {size}"))
    }
}

fn bulk_echo(lab: &Lab, id: &str) -> Outcome {
    let size = 20 << 20;
    let value = lab.run("bulkEcho", &with(lab.options("/echo?", id), &[("size", json!(size))]))?;
    equal(&value["size"], &json!(size))?;
    equal(&value["received"], &value["sent"])
}

fn streams_80_at_once(lab: &Lab, id: &str) -> Outcome {
    let options = with(
        lab.options("/echo?", id),
        &[("atOnce", json!(80)), ("total", json!(80))],
    );
    equal(&lab.run("manyStreams", &options)?, &json!(80))?;
    lab.journal.wait_idle(id)
}

fn streams_1000_in_waves(lab: &Lab, id: &str) -> Outcome {
    let options = with(
        lab.options("/echo?", id),
        &[("atOnce", json!(50)), ("total", json!(1000))],
    );
    equal(&lab.run("manyStreams", &options)?, &json!(1000))?;
    lab.journal.wait_idle(id)
}

fn server_opens(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run("serverOpens", &lab.options("/server-opens?", id))?;
    equal(
        &value,
        &json!({"uni": "uni of the server", "bidi": "bidi of the server"}),
    )?;
    lab.journal.wait(id, &Event::Finished("answer of the page".to_owned()))
}

fn server_closes(lab: &Lab, id: &str) -> Outcome {
    let value = lab.run(
        "serverCloses",
        &lab.options("/close?code=4294967295&reason=so%20long%2C%20%C3%BC&", id),
    )?;
    equal(&value, &json!({"closeCode": u32::MAX, "reason": "so long, ü"}))
}

fn client_closes(lab: &Lab, id: &str) -> Outcome {
    let more = [("closeCode", json!(4_000_000_000_u32)), ("reason", json!("bye, ü"))];
    lab.run("clientCloses", &with(lab.options("/observe?", id), &more))?;
    lab.journal.wait(id, &Event::Closed(4_000_000_000, "bye, ü".to_owned()))
}

/// Chromium tells a page the exact codes; Firefox knows codes up to 255 (0 for others), and none on a bidi stream.
fn server_resets(lab: &Lab, id: &str) -> Outcome {
    let exact = |code: u32| json!({"name": "WebTransportError", "code": code});
    for code in [200_u32, 4_000_000_000] {
        let value = lab.run("serverResets", &lab.options(&format!("/resets?code={code}&"), id))?;
        let seen = if lab.chromium() || code <= 255 { code } else { 0 };
        equal(&value["uni"], &exact(seen))?;
        equal(&value["stopped"], &exact(seen))?;
        let bidi = if lab.chromium() {
            exact(code)
        } else {
            json!({"name": "TypeError", "code": null})
        };
        equal(&value["reset"], &bidi)?;
    }
    Ok(())
}

/// Both browsers clamp the page's codes to 255; Firefox stops a bidi stream only when its session closes.
fn client_resets(lab: &Lab, id: &str) -> Outcome {
    for (code, sent) in [(7_u32, 7_u32), (1000, 255)] {
        let id = &format!("{id}-{code}");
        let window = lab.browser.open(
            "clientResets",
            &with(lab.options("/observe?", id), &[("code", json!(code))]),
        );
        window.result(PATIENCE)?;
        lab.journal.wait(id, &Event::Reset(Some(sent)))?;
        if lab.chromium() {
            lab.journal.wait(id, &Event::Stopped(Some(sent)))?;
        }
    }
    Ok(())
}

fn handshake_fails(lab: &Lab, options: &Value) -> Outcome {
    let value = lab.run("handshakeFails", options)?;
    let message = if lab.chromium() {
        "Opening handshake failed."
    } else {
        "WebTransport connection rejected"
    };
    equal(&value, &json!({"name": "WebTransportError", "message": message}))
}

fn not_found(lab: &Lab, id: &str) -> Outcome {
    handshake_fails(lab, &lab.options("/nowhere?", id))
}

fn foreign_origin(lab: &Lab, id: &str) -> Outcome {
    handshake_fails(
        lab,
        &json!({"url": format!("{}/echo?id={id}", lab.strict.url), "hash": lab.strict.hash}),
    )?;
    equal(&lab.journal.count(id, &Event::Accepted), &0)
}

fn wrong_hash(lab: &Lab, id: &str) -> Outcome {
    handshake_fails(
        lab,
        &with(lab.options("/echo?", id), &[("hash", json!("00".repeat(32)))]),
    )?;
    equal(&lab.journal.count(id, &Event::Accepted), &0)
}

/// Firefox has no subprotocols yet: its page sees none, and the session works.
fn protocol(lab: &Lab, id: &str) -> Outcome {
    let offered = with(
        lab.options("/echo?", id),
        &[("protocols", json!(["other", "echo.v2", "echo.v1"]))],
    );
    let value = lab.run("protocol", &offered)?;
    equal(&value, &if lab.chromium() { json!("echo.v2") } else { Value::Null })
}

/// `wireloom serve` itself, and every button of its page.
fn demo_page(lab: &Lab, _: &str) -> Outcome {
    let advice = lab.run("demoPage", &json!({}))?;
    equal(&advice, &json!("Closed with code 7 and reason “seen enough”."))
}

/// Longer than QUIC's idle timeout of 30 s.
fn silence(lab: &Lab, id: &str) -> Outcome {
    let options = with(lab.options("/echo?", id), &[("seconds", json!(40))]);
    lab.browser
        .open("silence", &options)
        .result(PATIENCE + Duration::from_secs(40))
        .map(drop)
}

/// Chromium closes the sessions of a page that goes. Firefox keeps them, alive by its own PINGs, until it ends itself
/// (nothing had come 400 s after the window was closed); `killed_browsers_leave_nothing` covers that.
fn page_has_gone(lab: &Lab, id: &str) -> Outcome {
    if lab.chromium() {
        lab.journal.wait_idle(id)
    } else {
        Ok(())
    }
}

fn window_close(lab: &Lab, id: &str) -> Outcome {
    let window = lab.browser.open("hold", &lab.options("/observe?", id));
    window.result(PATIENCE)?;
    drop(window);
    page_has_gone(lab, id)
}

fn reload(lab: &Lab, id: &str) -> Outcome {
    let window = lab.browser.open("hold", &lab.options("/observe?", id));
    window.result(PATIENCE)?;
    window.reload();
    window.result(PATIENCE)?;
    equal(&lab.journal.count(id, &Event::Accepted), &2)?;
    drop(window);
    page_has_gone(lab, id)
}
