//! What was found out, as it is printed for programs.

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;

/// Everything about one server. Absent parts could not be looked at.
#[derive(Serialize)]
pub(super) struct Report {
    event: &'static str,
    pub(super) url: String,
    pub(super) addresses: Vec<Address>,
    pub(super) quic: Option<Quic>,
    pub(super) certificate: Option<Certificate>,
    pub(super) settings: Vec<Setting>,
    pub(super) dialects: Dialects,
    pub(super) session: Option<Session>,
    pub(super) http1: Option<HttpAnswer>,
    pub(super) http2: Option<HttpAnswer>,
    pub(super) http3: Option<HttpAnswer>,
    pub(super) advice: Vec<Advice>,
}

/// One address of the name, dialled alone.
#[derive(Serialize)]
pub(super) struct Address {
    pub(super) address: SocketAddr,
    /// Whether HTTP/3 answers there.
    pub(super) answers: bool,
    pub(super) error: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Quic {
    pub(super) remote: SocketAddr,
    /// From the first packet to the server's SETTINGS.
    pub(super) handshake_ms: f64,
    pub(super) rtt_ms: f64,
    pub(super) min_rtt_ms: f64,
    pub(super) mtu: u16,
    /// Payload that a session's datagram can carry, in bytes.
    pub(super) max_datagram_size: Option<usize>,
    pub(super) transport_parameters: Vec<Parameter>,
}

#[derive(Serialize)]
pub(super) struct Parameter {
    pub(super) id: String,
    pub(super) name: Option<&'static str>,
    /// A number, true for a flag, or hexadecimal digits.
    pub(super) value: Value,
}

#[derive(Serialize)]
pub(super) struct Certificate {
    #[serde(flatten)]
    pub(super) facts: Value,
    /// `platform`, `ca`, `hash` or `anything`.
    pub(super) trust: &'static str,
    /// `None`: it could not be found out.
    pub(super) trusted: Option<bool>,
    /// Or why it is not known.
    pub(super) not_trusted_because: Option<String>,
    #[serde(skip)]
    pub(super) unpinnable: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Setting {
    pub(super) id: String,
    pub(super) name: Option<&'static str>,
    pub(super) value: u64,
    #[serde(skip)]
    pub(super) number: u64,
}

#[derive(Serialize, Default)]
pub(super) struct Dialects {
    pub(super) offered: Vec<&'static str>,
    pub(super) chosen: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Session {
    pub(super) open: bool,
    pub(super) status: Option<u16>,
    pub(super) error: Option<String>,
    pub(super) open_ms: f64,
}

/// What a GET of `/` was answered with.
#[derive(Serialize, Default)]
pub(super) struct HttpAnswer {
    pub(super) status: Option<u16>,
    pub(super) server: Option<String>,
    pub(super) alt_svc: Option<String>,
    pub(super) error: Option<String>,
}

/// How much it matters.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Weight {
    /// It stops browsers.
    Problem,
    /// It may matter.
    Note,
}

#[derive(Serialize, Debug)]
pub(super) struct Advice {
    pub(super) weight: Weight,
    pub(super) message: String,
}

impl Report {
    pub(super) fn new(url: &str) -> Self {
        Self {
            event: "probe",
            url: url.to_owned(),
            addresses: Vec::new(),
            quic: None,
            certificate: None,
            settings: Vec::new(),
            dialects: Dialects::default(),
            session: None,
            http1: None,
            http2: None,
            http3: None,
            advice: Vec::new(),
        }
    }

    /// The value of a setting; absent ones are 0 where they are flags.
    pub(super) fn setting(&self, id: u64) -> Option<u64> {
        self.settings
            .iter()
            .find(|setting| setting.number == id)
            .map(|setting| setting.value)
    }

    /// The value of an integer transport parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<u64> {
        let parameters = &self.quic.as_ref()?.transport_parameters;
        parameters.iter().find(|p| p.name == Some(name))?.value.as_u64()
    }
}

impl Address {
    pub(super) fn new(address: SocketAddr, error: Option<String>) -> Self {
        Self {
            address,
            answers: error.is_none(),
            error,
        }
    }
}

impl HttpAnswer {
    pub(super) fn of<B>(response: &::http::Response<B>) -> Self {
        let field = |name| {
            let value: Option<&::http::HeaderValue> = response.headers().get(name);
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self {
            status: Some(response.status().as_u16()),
            server: field(::http::header::SERVER),
            alt_svc: field(::http::header::ALT_SVC),
            error: None,
        }
    }

    pub(super) fn failed(error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }
}
