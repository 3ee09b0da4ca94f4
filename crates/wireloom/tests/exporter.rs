//! Keying material for the application, derived a second time by hand.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};

use common::raw::{Raw, connect, read_status};
use common::{fixture, within};
use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, SupportedCipherSuite};

/// Keeps the secret from which a connection's exporters are derived.
#[derive(Debug, Default)]
struct ExporterSecret(Mutex<Vec<u8>>);

impl KeyLog for ExporterSecret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "EXPORTER_SECRET" {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

/// A suite whose hash has `len` bytes, for HKDF and the hash.
fn suite(len: usize) -> &'static rustls::Tls13CipherSuite {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let suite = provider.cipher_suites.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) if suite.common.hash_provider.output_len() == len => Some(*suite),
        _ => None,
    });
    suite.unwrap()
}

/// RFC 8446 section 7.1: HKDF-Expand-Label.
fn expand_label(secret: &[u8], label: &[u8], context: &[u8], len: usize) -> Vec<u8> {
    let mut info = u16::try_from(len).unwrap().to_be_bytes().to_vec();
    let label = [b"tls13 ", label].concat();
    info.push(u8::try_from(label.len()).unwrap());
    info.extend_from_slice(&label);
    info.push(u8::try_from(context.len()).unwrap());
    info.extend_from_slice(context);
    let hkdf = suite(secret.len()).hkdf_provider;
    let mut out = vec![0; len];
    let expander = hkdf.expander_for_okm(&OkmBlock::new(secret));
    expander.expand_slice(&[&info], &mut out).unwrap();
    out
}

/// RFC 8446 section 7.5, with the label and the context of draft-ietf-webtrans-http3-16 section 4.8.
fn derive(exporter_secret: &[u8], session: u64, label: &[u8], context: &[u8]) -> [u8; 48] {
    let mut exporter_context = session.to_be_bytes().to_vec();
    exporter_context.push(u8::try_from(label.len()).unwrap());
    exporter_context.extend_from_slice(label);
    exporter_context.push(u8::try_from(context.len()).unwrap());
    exporter_context.extend_from_slice(context);
    let hash = |data: &[u8]| {
        let provider = suite(exporter_secret.len()).common.hash_provider;
        provider.hash(data).as_ref().to_vec()
    };
    let len = exporter_secret.len();
    let derived = expand_label(exporter_secret, b"EXPORTER-WebTransport", &hash(b""), len);
    let out = expand_label(&derived, b"exporter", &hash(&exporter_context), 48);
    out.try_into().unwrap()
}

/// "the resulting exporter MUST be a TLS exporter" (draft 16 section 4.8).
#[tokio::test]
async fn a_peer_that_derives_by_hand_gets_the_same() {
    let f = fixture().await;
    let secret = Arc::new(ExporterSecret::default());
    let mut raw = within(Raw::with_key_log(f.server.local_addrs()[0], secret.clone())).await;
    raw.start().await;
    let long = [b'x'; 255];
    let cases: [(&[u8], &[u8]); 4] = [
        (b"l", b""),
        (b"label", b"context"),
        (b"labelc", b"ontext"),
        (&long, &long),
    ];
    let mut all = Vec::new();
    // The second session is on stream 4, the third on stream 8.
    for id in [0, 4, 8] {
        let (send, mut recv) = raw.bi(&connect("/wt"), false).await;
        assert_eq!(u64::from(send.id()), id);
        let server = within(f.server.accept()).await.unwrap().accept().await.unwrap();
        assert_eq!(within(read_status(&mut recv)).await, 200);
        let secret = secret.0.lock().unwrap().clone();
        for (label, context) in cases {
            let exported = server.export_keying_material::<48>(label, context);
            assert_eq!(exported, Some(derive(&secret, id, label, context)), "{id} {label:?}");
            all.extend(exported);
        }
        // "Label (8..)": at least one byte.
        assert_eq!(server.export_keying_material::<48>(b"", b"context"), None);
        assert_eq!(server.export_keying_material::<48>(&[0; 256], b""), None);
        assert_eq!(server.export_keying_material::<48>(b"label", &[0; 256]), None);
        std::mem::forget((send, recv));
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "each session, label and context has its own");
}
