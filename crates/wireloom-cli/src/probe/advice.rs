//! What would keep a browser from using the server, and what to do about it.

use wireloom::proto::h3::settings;

use super::ProbeArgs;
use super::report::{Advice, Report, Weight};

/// Browsers send a PING about this often, in milliseconds.
const BROWSER_PING: u64 = 15_000;

pub(super) fn give(report: &Report, args: &ProbeArgs) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut say = |weight, message: String| advice.push(Advice { weight, message });
    addresses(report, &mut say);
    if report.quic.is_some() {
        negotiation(report, &mut say);
        transport(report, &mut say);
        certificate(report, &mut say);
        session(report, args, &mut say);
    } else {
        say(
            Weight::Problem,
            "HTTP/3 does not answer, and WebTransport needs it".to_owned(),
        );
    }
    fallback(report, &mut say);
    advice
}

type Say<'a> = dyn FnMut(Weight, String) + 'a;

fn addresses(report: &Report, say: &mut Say<'_>) {
    let silent: Vec<_> = report
        .addresses
        .iter()
        .filter(|a| !a.answers)
        .map(|a| a.address.to_string())
        .collect();
    if !silent.is_empty() && silent.len() < report.addresses.len() {
        say(
            Weight::Problem,
            format!(
                "the name has {} too, where nothing answers over UDP: browsers that try it first may fail. Bind it, or use \
                 the address that answers in URLs",
                silent.join(", ")
            ),
        );
    }
}

fn negotiation(report: &Report, say: &mut Say<'_>) {
    let on = |id| report.setting(id).unwrap_or(0) > 0;
    if !on(settings::WEBTRANSPORT_DRAFT02) {
        say(
            Weight::Problem,
            "SETTINGS lack WEBTRANSPORT_DRAFT02 (0x2b603742 = 1): Chromium and Firefox speak that dialect and no newer one, \
             and do not even send a request. Announce it beside the newer ones"
                .to_owned(),
        );
    } else if !on(settings::H3_DATAGRAM) {
        say(
            Weight::Problem,
            "SETTINGS lack H3_DATAGRAM (0x33 = 1), without which Chromium fails".to_owned(),
        );
    }
    if !on(settings::WEBTRANSPORT_DRAFT02) && !on(settings::ENABLE_CONNECT_PROTOCOL) {
        say(
            Weight::Problem,
            "SETTINGS lack ENABLE_CONNECT_PROTOCOL (0x8 = 1), which newer dialects need".to_owned(),
        );
    }
}

fn transport(report: &Report, say: &mut Say<'_>) {
    if report.parameter("max_datagram_frame_size").unwrap_or(0) == 0 {
        say(
            Weight::Note,
            "the server takes no datagrams (max_datagram_frame_size): pages see a size of 0".to_owned(),
        );
    }
    if report.parameter("initial_max_streams_uni").unwrap_or(0) < 3 {
        say(
            Weight::Problem,
            "initial_max_streams_uni is below 3: HTTP/3 needs a control stream and two of QPACK (RFC 9114 section 6.2)"
                .to_owned(),
        );
    }
    match report.parameter("initial_max_streams_bidi").unwrap_or(0) {
        0 => say(Weight::Problem, "initial_max_streams_bidi is 0: no session can be requested".to_owned()),
        1 => say(
            Weight::Note,
            "initial_max_streams_bidi is 1, which the session itself takes: pages cannot open bidirectional streams before \
             the server raises it"
                .to_owned(),
        ),
        _ => {}
    }
    if let idle @ 1..=BROWSER_PING = report.parameter("max_idle_timeout").unwrap_or(0) {
        say(
            Weight::Problem,
            format!("max_idle_timeout is {idle} ms, and browsers send a PING only every 15 s: quiet sessions will die"),
        );
    }
}

fn certificate(report: &Report, say: &mut Say<'_>) {
    let Some(certificate) = &report.certificate else { return };
    let hash = certificate.facts["sha256"].as_str().unwrap_or_default();
    let pin =
        format!("new WebTransport(url, {{serverCertificateHashes: [{{algorithm: \"sha-256\", value}}]}}) with {hash}");
    let Some(is_trusted) = certificate.trusted else {
        let why = certificate.not_trusted_because.as_deref().unwrap_or_default();
        say(
            Weight::Note,
            format!("whether the certificate is trusted could not be found out: {why}"),
        );
        return;
    };
    match (&certificate.unpinnable, certificate.trust, is_trusted) {
        (_, "platform", true) => {}
        (_, "ca", true) => say(
            Weight::Note,
            "browsers must have that root too; Chromium takes only public roots for WebTransport unless it is started with \
             --webtransport-developer-mode"
                .to_owned(),
        ),
        (None, "platform", false) => {
            say(Weight::Note, format!("no public root vouches for the certificate, so pages must pin it: {pin}"));
        }
        (None, ..) => say(
            Weight::Note,
            format!("unless a public root vouches for the certificate, which was not asked, pages must pin it: {pin}"),
        ),
        (Some(reason), "anything" | "hash", true) => say(
            Weight::Note,
            format!("pages cannot pin the certificate ({reason}); it works only where browsers trust its issuer"),
        ),
        (Some(reason), ..) => say(
            Weight::Problem,
            format!(
                "the certificate is not trusted, and pages cannot pin it: {reason}. Use one of a public authority, or an ECDSA \
                 P-256 one of at most 14 days (`wireloom cert generate`)"
            ),
        ),
    }
}

fn session(report: &Report, args: &ProbeArgs, say: &mut Say<'_>) {
    let Some(session) = &report.session else { return };
    match (session.open, session.status, &args.origin) {
        (true, _, None) => say(
            Weight::Note,
            "browsers send an Origin, which this probe did not; --origin https://your.page shows whether it is allowed"
                .to_owned(),
        ),
        (true, _, Some(_)) => {}
        (false, Some(403), Some(origin)) => {
            say(
                Weight::Problem,
                format!("the server answered 403: does it allow the origin {origin}?"),
            );
        }
        (false, Some(status), _) => {
            say(
                Weight::Problem,
                format!("the server answered {status}, and browsers show pages no more than \"failed\""),
            );
        }
        (false, None, _) => say(
            Weight::Problem,
            format!(
                "no session could be opened: {}",
                session.error.as_deref().unwrap_or("no reason was given")
            ),
        ),
    }
}

fn fallback(report: &Report, say: &mut Say<'_>) {
    let (Some(http1), Some(http2)) = (&report.http1, &report.http2) else {
        return;
    };
    if http1.status.is_none() && http2.status.is_none() {
        let why = http1.error.as_deref().unwrap_or("no answer");
        say(
            Weight::Note,
            format!(
                "no HTTPS over TCP on this port ({why}): users whose network blocks UDP have nothing to fall back to"
            ),
        );
    } else if report.quic.is_some() && http1.alt_svc.is_none() && http2.alt_svc.is_none() {
        say(
            Weight::Note,
            "responses over TCP have no Alt-Svc, so pages will not be loaded over HTTP/3; WebTransport does not need it".to_owned(),
        );
    }
}
