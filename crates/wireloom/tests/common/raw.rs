//! A QUIC peer that says exactly what it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ReadToEndError, RecvStream, SendStream, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use wireloom_proto::h3::settings::{self, Settings};
use wireloom_proto::h3::{frame, headers, stream_type};
use wireloom_proto::{Code, StreamId, qpack, varint};

/// A connection with ALPN h3, and the control stream that is not to be closed.
pub struct Raw {
    pub conn: Connection,
    pub control: Option<SendStream>,
    _endpoint: quinn::Endpoint,
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// For QUIC: trusts any server, and uses early data where a ticket allows it.
pub fn tls_config() -> Arc<rustls::ClientConfig> {
    tls_config_for(b"h3")
}

/// Trusts any server that speaks `alpn`.
pub fn tls_config_for(alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.enable_early_data = true;
    Arc::new(tls)
}

pub fn config(transport: quinn::TransportConfig, key_log: Option<Arc<dyn rustls::KeyLog>>) -> quinn::ClientConfig {
    let mut tls = tls_config();
    if let Some(key_log) = key_log {
        Arc::make_mut(&mut tls).key_log = key_log;
    }
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// For connections that resume each other with early data.
pub fn early_config() -> quinn::ClientConfig {
    config(quinn::TransportConfig::default(), None)
}

/// What a draft-02 browser announces; it may have several sessions.
pub fn settings() -> Settings {
    let mut settings = Settings::new();
    settings.set(settings::H3_DATAGRAM, 1);
    settings.set(settings::WEBTRANSPORT_DRAFT02, 1);
    settings
}

/// What a client of draft 15 or 16 announces that has no flow control: one session.
pub fn settings_draft15() -> Settings {
    let mut settings = Settings::new();
    settings.set(settings::H3_DATAGRAM, 1);
    settings.set(settings::WT_ENABLED, 1);
    settings
}

impl Raw {
    /// The handshake alone.
    pub async fn silent(server: SocketAddr) -> Self {
        Self::with_transport(server, quinn::TransportConfig::default()).await
    }

    pub async fn with_transport(server: SocketAddr, transport: quinn::TransportConfig) -> Self {
        Self::with_config(server, config(transport, None)).await
    }

    /// The handshake alone, and its secrets to `log`.
    pub async fn with_key_log(server: SocketAddr, log: Arc<dyn rustls::KeyLog>) -> Self {
        Self::with_config(server, config(quinn::TransportConfig::default(), Some(log))).await
    }

    /// A connection that resumes what `config` made before and speaks before the handshake is complete.
    pub async fn early(server: SocketAddr, config: quinn::ClientConfig) -> Self {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, server, "localhost").unwrap();
        let Ok((conn, _)) = connecting.into_0rtt() else {
            panic!("nothing to resume")
        };
        Self {
            conn,
            control: None,
            _endpoint: endpoint,
        }
    }

    pub async fn with_config(server: SocketAddr, config: quinn::ClientConfig) -> Self {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, server, "localhost").unwrap();
        Self {
            conn: connecting.await.unwrap(),
            control: None,
            _endpoint: endpoint,
        }
    }

    /// And a control stream with SETTINGS.
    pub async fn connect(server: SocketAddr) -> Self {
        let mut raw = Self::silent(server).await;
        raw.start().await;
        raw
    }

    pub async fn start(&mut self) {
        self.start_with(settings()).await;
    }

    pub async fn start_with(&mut self, settings: Settings) {
        let mut control = self.conn.open_uni().await.unwrap();
        control.write_all(&[0x00]).await.unwrap();
        control.write_all(&settings.encode_frame()).await.unwrap();
        self.control = Some(control);
    }

    /// As `start`, with these settings, legal or not.
    pub async fn announce(&mut self, settings: &[(u64, u64)]) {
        self.control = Some(self.uni(&[int(0), settings_frame(settings)].concat()).await);
    }

    /// A unidirectional stream with these bytes, open.
    pub async fn uni(&self, bytes: &[u8]) -> SendStream {
        let mut send = self.conn.open_uni().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send
    }

    /// A bidirectional stream with these bytes.
    pub async fn bi(&self, bytes: &[u8], fin: bool) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.conn.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        if fin {
            send.finish().unwrap();
        }
        (send, recv)
    }

    /// A session that the server accepted.
    pub async fn session(&self, path: &str) -> (SendStream, RecvStream) {
        let (send, mut recv) = self.bi(&connect(path), false).await;
        let status = read_status(&mut recv).await;
        assert_eq!(status, 200);
        (send, recv)
    }

    /// The code with which the server closes the connection.
    pub async fn closed(&self) -> Code {
        self.closed_as("").await
    }

    pub async fn closed_as(&self, what: &str) -> Code {
        match self.conn.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => code(close.error_code),
            other => panic!("{what}: {other:?}"),
        }
    }

    /// Reads a whole response, after which everything that was sent before has arrived.
    pub async fn assert_served(&self, path: &str) {
        let (_send, recv) = self.bi(&get(path), true).await;
        assert_eq!(answer(recv).await, Answer::Status(200));
    }

    /// Swaps the socket for one that hears nothing and never answers.
    pub fn vanish(&self) {
        let deaf = std::net::UdpSocket::bind("[::1]:0").unwrap();
        self._endpoint.rebind(deaf).unwrap();
    }

    /// Whether the connection still serves.
    pub async fn assert_alive(&self) {
        let (_send, recv) = self.bi(&get("/"), true).await;
        assert_eq!(answer(recv).await, Answer::Status(200));
    }
}

pub fn code(code: VarInt) -> Code {
    Code::new(code.into_inner())
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Answer {
    Status(u16),
    Reset(Code),
    Closed(Code),
    Empty,
}

pub async fn answer(mut recv: RecvStream) -> Answer {
    match recv.read_to_end(1 << 20).await {
        Ok(bytes) if bytes.is_empty() => Answer::Empty,
        Ok(bytes) => Answer::Status(status(&mut bytes.into())),
        Err(ReadToEndError::Read(quinn::ReadError::Reset(reset))) => Answer::Reset(code(reset)),
        Err(ReadToEndError::Read(quinn::ReadError::ConnectionLost(quinn::ConnectionError::ApplicationClosed(c)))) => {
            Answer::Closed(code(c.error_code))
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// The HEADERS frame at the front.
fn response(bytes: &mut Bytes) -> http::Response<()> {
    assert_eq!(varint::take(bytes), Some(frame::HEADERS));
    let len = usize::try_from(varint::take(bytes).unwrap()).unwrap();
    let fields = qpack::Decoder::new().decode(StreamId::from_u64(0), bytes.split_to(len), 1 << 16);
    headers::decode_response(fields.unwrap().fields().unwrap())
        .unwrap()
        .head
}

fn status(bytes: &mut Bytes) -> u16 {
    response(bytes).status().as_u16()
}

/// Reads a HEADERS frame and no more of the stream.
pub async fn read_response(recv: &mut RecvStream) -> http::Response<()> {
    let mut bytes = BytesMut::new();
    loop {
        let mut rest = bytes.clone().freeze();
        let whole = varint::take(&mut rest).and_then(|_| varint::take(&mut rest));
        if whole.is_some_and(|len| rest.len() as u64 >= len) {
            return response(&mut bytes.freeze());
        }
        let mut byte = [0];
        recv.read_exact(&mut byte).await.unwrap();
        bytes.extend_from_slice(&byte);
    }
}

pub async fn read_status(recv: &mut RecvStream) -> u16 {
    read_response(recv).await.status().as_u16()
}

/// A field of a 200 response.
pub async fn field_of_response(recv: &mut RecvStream, name: &str) -> Option<String> {
    let response = read_response(recv).await;
    assert_eq!(response.status(), 200);
    Some(response.headers().get(name)?.to_str().unwrap().to_owned())
}

/// A field section of literals, without Huffman.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    let integer = |out: &mut Vec<u8>, first: u8, max: usize, mut n: usize| {
        if n < max {
            out.push(first | u8::try_from(n).unwrap());
            return;
        }
        out.push(first | u8::try_from(max).unwrap());
        n -= max;
        while n >= 128 {
            out.push((n % 128) as u8 | 128);
            n /= 128;
        }
        out.push(n as u8);
    };
    for (name, value) in fields {
        integer(&mut out, 0x20, 7, name.len());
        out.extend_from_slice(name.as_bytes());
        integer(&mut out, 0, 127, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

pub fn frame_of(ty: u64, payload: &[u8]) -> Vec<u8> {
    frame::encode(ty, payload).to_vec()
}

pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame_of(frame::HEADERS, &section(fields))
}

pub fn get(path: &str) -> Vec<u8> {
    head(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", path),
    ])
}

/// A POST to /body, with its body.
pub fn post_of(length: &str, body: &[u8]) -> Vec<u8> {
    let head = head(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/body"),
        ("content-length", length),
    ]);
    [head, frame_of(frame::DATA, body)].concat()
}

/// GET / with more fields.
pub fn get_with(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "/"),
    ];
    all.extend_from_slice(fields);
    head(&all)
}

/// A CONNECT with more fields.
pub fn connect_with(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", path),
    ];
    all.extend_from_slice(fields);
    head(&all)
}

pub fn connect(path: &str) -> Vec<u8> {
    head(&[
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", path),
    ])
}

pub fn int(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(value, &mut out);
    out
}

/// The header of a unidirectional WebTransport stream, and `payload`.
pub fn wt_uni(session: u64, payload: &[u8]) -> Vec<u8> {
    [int(stream_type::WEBTRANSPORT), int(session), payload.to_vec()].concat()
}

/// The header of a bidirectional WebTransport stream, and `payload`.
pub fn wt_bi(session: u64, payload: &[u8]) -> Vec<u8> {
    [int(stream_type::WEBTRANSPORT_BIDI), int(session), payload.to_vec()].concat()
}

/// A SETTINGS frame with these pairs in this order, legal or not.
pub fn settings_frame(pairs: &[(u64, u64)]) -> Vec<u8> {
    let payload: Vec<u8> = pairs
        .iter()
        .flat_map(|&(id, value)| [int(id), int(value)].concat())
        .collect();
    frame_of(frame::SETTINGS, &payload)
}

/// A capsule in a DATA frame.
pub fn capsule(ty: u64, payload: &[u8]) -> Vec<u8> {
    frame_of(
        frame::DATA,
        &[int(ty), int(payload.len() as u64), payload.to_vec()].concat(),
    )
}
