use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::files::PemFiles;
use super::generate::{DAY, Names};
use super::rotating::{Rotating, TERM, VALIDITY};
use super::*;

fn rotating(now: SystemTime) -> Rotating {
    Rotating::new(Names::new(["localhost"]).expect("a valid name"), now).expect("generated")
}

/// Some moment with a fraction of a second, which certificates cannot express.
fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_700)
}

fn validity(key: &CertifiedKey) -> (SystemTime, SystemTime) {
    let (rest, certificate) = X509Certificate::from_der(&key.cert[0]).expect("X.509");
    assert!(rest.is_empty());
    let validity = certificate.validity();
    let time = |t: x509_parser::time::ASN1Time| SystemTime::from(t.to_datetime());
    (time(validity.not_before), time(validity.not_after))
}

#[test]
fn rotation_keeps_every_published_promise() {
    let identity = rotating(start());
    let mut published: Vec<(SystemTime, CertificateHashes)> = Vec::new();
    for hours in (0..60 * 24).step_by(5) {
        let now = start() + Duration::from_secs(hours * 3600);
        let hashes = identity.hashes(now);
        let key = identity.current(now);
        assert_eq!(leaf_hash(&key), hashes.current);
        let (from, to) = validity(&key);
        assert!(
            from < now && now + DAY < to,
            "at hour {hours}: presented well within its validity"
        );
        assert_eq!(to.duration_since(from).expect("in order"), VALIDITY);
        assert!(VALIDITY <= 13 * DAY);
        for (when, earlier) in &published {
            if now < *when + TERM {
                assert!(
                    earlier.iter().any(|hash| hash == hashes.current),
                    "a client of a term ago can connect"
                );
            }
        }
        published.push((now, hashes));
    }
    let mut seen: Vec<_> = published.iter().map(|(_, hashes)| hashes.current).collect();
    seen.dedup();
    assert_eq!(seen.len(), 6, "60 days are six terms");
    for pair in seen.windows(2) {
        let announced = published
            .iter()
            .any(|(_, hashes)| hashes.current == pair[0] && hashes.next == Some(pair[1]));
        assert!(announced, "used only after it was the next one");
    }
}

#[test]
fn rotation_survives_idleness_and_clocks_that_jump() {
    let identity = rotating(start());
    let first = identity.hashes(start());
    let back = start() - Duration::from_secs(3600);
    assert_eq!(identity.hashes(back), first, "an hour back changes nothing");
    for jump in [start() + 365 * DAY, start() - 365 * DAY, start() + TERM * 7 / 2] {
        let key = identity.current(jump);
        let (from, to) = validity(&key);
        assert!(from < jump && jump < to);
        assert_ne!(leaf_hash(&key), first.current);
    }
    let slept = rotating(start());
    let before = slept.hashes(start());
    let after = slept.hashes(start() + TERM);
    assert_eq!(
        Some(after.current),
        before.next,
        "one missed term promotes the published certificate"
    );
}

#[test]
fn self_signed_names_and_key() {
    let names = ["localhost", "127.0.0.1", "::1", "[::2]", "*.Example.com"];
    let identity = Identity::self_signed(names).expect("valid names");
    let key = identity.certified_key(None);
    let (_, certificate) = X509Certificate::from_der(&key.cert[0]).expect("X.509");
    let san = certificate
        .subject_alternative_name()
        .expect("parsed")
        .expect("present");
    assert_eq!(san.value.general_names.len(), names.len());
    let text = format!("{:?}", san.value.general_names);
    assert!(text.contains("*.example.com") && text.contains("localhost"), "{text}");
    let (from, to) = validity(&key);
    assert_eq!(to.duration_since(from).expect("in order"), 13 * DAY);
    assert_eq!(identity.certificate_hashes().next, None);
    assert!(!format!("{identity:?}").contains("key"));
}

#[test]
fn bad_names_and_days_are_the_callers() {
    for name in ["", "a b", "*", "a..b", "bücher.example", "a.*.b"] {
        let error = Identity::self_signed([name]).expect_err(name);
        assert!(
            matches!(error, IdentityError::InvalidName(ref n) if n == name),
            "{name}: {error}"
        );
    }
    assert!(matches!(Identity::self_signed([""; 0]), Err(IdentityError::NoName)));
    assert!(matches!(
        PemPair::self_signed(["a"], 0),
        Err(IdentityError::InvalidValidity(0))
    ));
    assert!(matches!(
        PemPair::self_signed(["a"], 99_999),
        Err(IdentityError::InvalidValidity(_))
    ));
}

#[test]
fn pem_errors_say_what_to_mend() {
    let pair = PemPair::self_signed(["localhost"], 13).expect("generated");
    let other = PemPair::self_signed(["localhost"], 13).expect("generated");
    let identity = Identity::pem(&pair.certificate, &pair.private_key).expect("a pair");
    assert_eq!(
        Ok(identity.certificate_sha256()),
        CertificateHash::of_pem(&pair.certificate).map_err(drop)
    );
    assert!(matches!(
        Identity::pem("", &pair.private_key),
        Err(IdentityError::NoCertificate)
    ));
    assert!(matches!(
        Identity::pem(&pair.private_key, &pair.private_key),
        Err(IdentityError::NoCertificate)
    ));
    assert!(matches!(
        Identity::pem(&pair.certificate, &pair.certificate),
        Err(IdentityError::NoPrivateKey)
    ));
    assert!(matches!(
        Identity::pem(&pair.certificate, &other.private_key),
        Err(IdentityError::KeyMismatch)
    ));
    let cut = &pair.certificate[..pair.certificate.len() / 2];
    assert!(matches!(
        Identity::pem(cut, &pair.private_key),
        Err(IdentityError::Pem(_))
    ));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        Identity::pem(nonsense, &pair.private_key),
        Err(IdentityError::MalformedCertificate(_))
    ));
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(
        Identity::pem(&pair.certificate, nonsense),
        Err(IdentityError::UnusableKey(_))
    ));
    assert!(!format!("{pair:?}").contains("PRIVATE"));
}

#[test]
fn names_choose_the_identity() {
    let identity = |name: &str| Identity::self_signed([name]).expect("a valid name");
    let (default, exact, wild) = (identity("default"), identity("exact"), identity("wild"));
    let hash = Identity::certificate_sha256;
    let sni = Identity::sni(
        default.clone(),
        [
            ("A.example.com", exact.clone()),
            ("*.example.com.", wild.clone()),
            ("other.org", wild.clone()),
        ],
    )
    .expect("valid names");
    let selected = |name: Option<&str>| leaf_hash(&sni.certified_key(name));
    for (name, expected) in [
        (None, &default),
        (Some("a.example.com"), &exact),
        (Some("A.EXAMPLE.com."), &exact),
        (Some("b.example.com"), &wild),
        (Some("b.c.example.com"), &default),
        (Some("example.com"), &default),
        (Some("other.org"), &wild),
        (Some("com"), &default),
    ] {
        assert_eq!(selected(name), hash(expected), "{name:?}");
    }
    assert_eq!(sni.certificate_sha256(), hash(&default));
    assert!(matches!(
        Identity::sni(default, [("b c", wild)]),
        Err(IdentityError::InvalidName(_))
    ));
}

#[test]
fn der_is_what_pem_holds() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("signed");
    let (chain, key) = ([certificate.der().to_vec()], key.serialize_der());
    let identity = Identity::der(chain.clone(), key.clone()).expect("a pair");
    assert_eq!(identity.certificate_sha256(), CertificateHash::of_der(&chain[0]));
    let none: [Vec<u8>; 0] = [];
    assert!(matches!(
        Identity::der(none, key.clone()),
        Err(IdentityError::NoCertificate)
    ));
    assert!(matches!(
        Identity::der([b"no DER".to_vec()], key),
        Err(IdentityError::MalformedCertificate(_))
    ));
    assert!(matches!(
        Identity::der(chain.clone(), *b"no DER"),
        Err(IdentityError::UnusableKey(_))
    ));
    let other = rcgen::KeyPair::generate().expect("a key");
    assert!(matches!(
        Identity::der(chain, other.serialize_der()),
        Err(IdentityError::KeyMismatch)
    ));
}

#[test]
fn a_replacement_counts_wherever_the_identity_is() {
    let made = |name: &str| Identity::self_signed([name]).expect("a valid name");
    let (first, second) = (made("first"), made("second"));
    let slot = ReplaceableIdentity::new(first.clone());
    let identity = slot.identity();
    let sni = Identity::sni(made("default"), [("a.example", slot.identity())]).expect("a name");
    let presented = || {
        let named = leaf_hash(&sni.certified_key(Some("a.example")));
        assert_eq!(leaf_hash(&identity.certified_key(None)), named);
        assert_eq!(identity.certificate_sha256(), named);
        named
    };
    assert_eq!(presented(), first.certificate_sha256());
    slot.clone().replace(second.clone());
    assert_eq!(presented(), second.certificate_sha256());
    for part_of in [
        slot.identity(),
        sni.clone(),
        ReplaceableIdentity::new(sni.clone()).identity(),
    ] {
        slot.replace(part_of);
        assert_eq!(presented(), second.certificate_sha256(), "there would be no end of it");
    }
    // What it is made of is reloaded through it.
    let dir = TempDir::new("replaceable");
    let pair = || PemPair::self_signed(["localhost"], 13).expect("generated");
    dir.write(&pair());
    slot.replace(Identity::pem_files(dir.certificate(), dir.key()).expect("readable"));
    let pair = pair();
    dir.write(&pair);
    identity.reload().expect("readable");
    let hash = CertificateHash::of_pem(&pair.certificate).expect("a certificate");
    assert_eq!(presented(), hash);
}

/// A directory that is removed again.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wireloom-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a writable temporary directory");
        Self(path)
    }

    fn write(&self, pair: &PemPair) {
        // The size differs each time, because two writes can fall into one tick of the file system's clock.
        let padding = "\n".repeat(usize::from(
            CertificateHash::of_der(pair.certificate.as_bytes()).as_bytes()[0],
        ));
        replace(&self.certificate(), &format!("{}{padding}", pair.certificate));
        replace(&self.key(), &pair.private_key);
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_read_again_when_they_change() {
    let dir = TempDir::new("files");
    let pair = || PemPair::self_signed(["localhost"], 13).expect("generated");
    let hash = |pair: &PemPair| CertificateHash::of_pem(&pair.certificate).expect("a certificate");
    let (first, second, third) = (pair(), pair(), pair());
    assert!(matches!(
        Identity::pem_files(dir.certificate(), dir.key()),
        Err(IdentityError::File { path, .. }) if path == dir.certificate()
    ));
    dir.write(&first);
    let begin = Instant::now();
    let interval = Duration::from_secs(10);
    let files = PemFiles::open(dir.certificate(), dir.key(), interval).expect("readable");
    let at = |seconds| leaf_hash(&files.current(begin + Duration::from_secs(seconds)));
    dir.write(&second);
    assert_eq!(at(1), hash(&first), "not looked at yet");
    assert_eq!(at(20), hash(&second));
    replace(&dir.certificate(), &format!("{}\n\n\n", third.certificate));
    assert_eq!(at(40), hash(&second), "the key is not replaced yet: the old pair stays");
    replace(&dir.key(), &format!("{}\n", third.private_key));
    assert_eq!(at(60), hash(&third));
    fs::remove_file(dir.key()).expect("removed");
    assert_eq!(at(80), hash(&third), "files that vanish change nothing");
    assert!(matches!(files.reload(), Err(IdentityError::File { path, .. }) if path == dir.key()));
    assert_eq!(at(100), hash(&third));
    dir.write(&first);
    files.reload().expect("back again");
    assert_eq!(at(100), hash(&first), "an explicit reload does not wait");
}
