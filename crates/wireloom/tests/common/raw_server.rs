//! A QUIC server that says exactly what it is told to.

use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use wireloom_proto::h3::settings::{self, Settings};

use super::raw;

/// Its certificate is nobody's: clients have to accept any.
pub struct RawServer(pub quinn::Endpoint);

/// A connection with SETTINGS sent. The control stream is not to be closed.
pub struct RawPeer {
    pub conn: Connection,
    _control: SendStream,
}

/// What a draft-02 server announces.
pub fn settings() -> Settings {
    let mut settings = raw::settings();
    settings.set(settings::ENABLE_CONNECT_PROTOCOL, 1);
    settings
}

impl RawServer {
    pub fn new() -> Self {
        Self(quinn::Endpoint::server(Self::config(), "127.0.0.1:0".parse().unwrap()).unwrap())
    }

    /// Forgets every client: no ticket is good any more.
    pub fn forget(&self) {
        self.0.set_server_config(Some(Self::config()));
    }

    /// Takes early data.
    fn config() -> quinn::ServerConfig {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        tls.max_early_data_size = u32::MAX;
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        quinn::ServerConfig::with_crypto(Arc::new(crypto))
    }

    pub fn url(&self) -> String {
        format!("https://{}/raw", self.0.local_addr().unwrap())
    }

    /// A connection, with what a draft-02 server announces.
    pub async fn accept(&self) -> RawPeer {
        let conn = self.0.accept().await.unwrap().await.unwrap();
        RawPeer::start(conn, settings()).await
    }
}

impl RawPeer {
    pub async fn start(conn: Connection, settings: Settings) -> Self {
        let mut control = conn.open_uni().await.unwrap();
        control.write_all(&[0x00]).await.unwrap();
        control.write_all(&settings.encode_frame()).await.unwrap();
        Self {
            conn,
            _control: control,
        }
    }

    /// The CONNECT stream of the next session, unanswered.
    pub async fn request(&self) -> (SendStream, RecvStream) {
        self.conn.accept_bi().await.unwrap()
    }

    /// A session that it accepts at once.
    pub async fn session(&self) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.request().await;
        send.write_all(&accepted()).await.unwrap();
        (send, recv)
    }
}

/// 200 without more.
pub fn accepted() -> Vec<u8> {
    raw::head(&[(":status", "200")])
}
