//! The report for people.

use serde_json::Value;

use super::report::{HttpAnswer, Report, Weight};
use crate::output::{self, Paint, printable};

pub(super) fn report(report: &Report) {
    let paint = Paint::stdout();
    let title = |text: &str| output::line(&format!("\n{}", paint.bold(text)));
    let row = |name: &str, value: &str| output::line(&format!("  {}  {value}", paint.dim(&format!("{name:<20}"))));
    // The server may have a part in it.
    let yes = |good: bool, text: &str| {
        let text = printable(text);
        if good { paint.green(&text) } else { paint.red(&text) }
    };

    output::line(&paint.bold(&report.url));
    for address in &report.addresses {
        let answer = address.error.as_deref().unwrap_or("answers over HTTP/3");
        row(&address.address.to_string(), &yes(address.answers, answer));
    }
    if let Some(session) = &report.session {
        title("WebTransport");
        let status = session.status.map_or_else(String::new, |status| format!("{status}, "));
        match &session.error {
            None => row(
                "session",
                &paint.green(&format!("open ({status}after {:.1} ms)", session.open_ms)),
            ),
            Some(error) => row("session", &paint.red(&printable(error))),
        }
        let offered = if report.dialects.offered.is_empty() {
            "none".to_owned()
        } else {
            report.dialects.offered.join(", ")
        };
        row("dialects offered", &offered);
        row("dialect chosen", report.dialects.chosen.unwrap_or("none"));
    }
    if let Some(quic) = &report.quic {
        row(
            "datagrams",
            &quic
                .max_datagram_size
                .map_or_else(|| "none".to_owned(), |size| format!("up to {size} bytes")),
        );
        row(
            "round trip",
            &format!("{:.2} ms, at least {:.2} ms", quic.rtt_ms, quic.min_rtt_ms),
        );
        row("handshake", &format!("{:.1} ms, with SETTINGS", quic.handshake_ms));
        row("path MTU", &format!("{} bytes of UDP payload", quic.mtu));
    }
    if let Some(certificate) = &report.certificate {
        title("Certificate");
        let text = |name: &str| printable(certificate.facts[name].as_str().unwrap_or_default()).into_owned();
        row("SHA-256", &paint.cyan(&text("sha256")));
        row("subject", &text("subject"));
        row("issuer", &text("issuer"));
        row("names", &list(&certificate.facts["names"]));
        row("key", &text("key"));
        row("expires", &format!("in {} days", certificate.facts["days_left"]));
        let why = certificate.not_trusted_because.as_deref();
        let verdict = match (certificate.trusted, why) {
            (None, why) => paint.yellow(&printable(&format!(
                "could not be found out: {}",
                why.unwrap_or_default()
            ))),
            (Some(is_trusted), why) => yes(is_trusted, why.unwrap_or("yes")),
        };
        row(&format!("trusted by {}", certificate.trust), &verdict);
        row(
            "accepted by hash",
            &certificate
                .unpinnable
                .as_deref()
                .map_or_else(|| "yes".to_owned(), |why| printable(&format!("no: {why}")).into_owned()),
        );
    }
    title("HTTP");
    for (name, answer) in [
        ("HTTP/1.1", &report.http1),
        ("HTTP/2", &report.http2),
        ("HTTP/3", &report.http3),
    ] {
        row(name, &answer.as_ref().map_or_else(|| "not asked".to_owned(), http));
    }
    if !report.settings.is_empty() {
        title("SETTINGS");
        for setting in &report.settings {
            output::line(&format!(
                "  {:<36}  {}",
                setting.name.unwrap_or(&setting.id),
                setting.value
            ));
        }
    }
    if let Some(quic) = &report.quic {
        title("Transport parameters");
        for parameter in &quic.transport_parameters {
            let value = parameter
                .value
                .as_str()
                .map_or_else(|| parameter.value.to_string(), str::to_owned);
            output::line(&format!("  {:<36}  {value}", parameter.name.unwrap_or(&parameter.id)));
        }
    }
    title("For browsers");
    if !report.advice.iter().any(|a| a.weight == Weight::Problem) {
        output::line(&format!("  {} nothing here stops a browser", paint.green("ok")));
    }
    for advice in &report.advice {
        let mark = match advice.weight {
            Weight::Problem => paint.red("problem"),
            Weight::Note => paint.yellow("note"),
        };
        output::line(&format!("  {mark} {}", printable(&advice.message)));
    }
}

fn list(value: &Value) -> String {
    let names = value.as_array().map_or(&[][..], Vec::as_slice);
    printable(&names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")).into_owned()
}

fn http(answer: &HttpAnswer) -> String {
    match (&answer.status, &answer.error) {
        (Some(status), _) => {
            let alt_svc = answer
                .alt_svc
                .as_ref()
                .map_or_else(String::new, |value| format!(", Alt-Svc {value}"));
            let server = answer
                .server
                .as_ref()
                .map_or_else(String::new, |value| format!(", server {value}"));
            printable(&format!("{status}{server}{alt_svc}")).into_owned()
        }
        (None, Some(error)) => printable(error).into_owned(),
        (None, None) => "no answer".to_owned(),
    }
}
