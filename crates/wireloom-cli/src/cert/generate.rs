//! `wireloom cert generate`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use wireloom::{CertificateHash, IdentityError, PemPair};

use super::facts::MAX_PINNED_DAYS;
use crate::failure::{Failure, chain};
use crate::output::{self, Paint};

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// DNS name or IP address of the server; may be repeated
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    names: Vec<String>,
    /// Days until it expires; browsers accept certificates by their hash for 14 at most
    #[arg(long, default_value = "13", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Where the certificate goes
    #[arg(long, value_name = "PEM", default_value = "cert.pem")]
    cert: PathBuf,
    /// Where the private key goes, readable for its owner only
    #[arg(long, value_name = "PEM", default_value = "key.pem")]
    key: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    if is_same_file(&args.cert, &args.key) {
        return Err(Failure::usage(
            "--cert and --key name the same file: the certificate would replace its key",
        ));
    }
    let pair = PemPair::self_signed(&args.names, args.days).map_err(|e| match e {
        IdentityError::InvalidName(_) => Failure::usage(format!("--name: {e}")),
        e => Failure::new("tls", chain(&e)),
    })?;
    if !args.force {
        // Both before either is written.
        for path in [&args.cert, &args.key] {
            if path.exists() {
                return Err(Failure::new("file", format!("{} exists", path.display()))
                    .hint("--force to replace it, or another place with --cert and --key"));
            }
        }
    }
    write(args, &pair)?;
    let hash = CertificateHash::of_pem(&pair.certificate).map_err(|e| Failure::new("tls", chain(&e)))?;
    if args.json {
        output::json(&json!({
            "event": "generated",
            "certificate": args.cert,
            "key": args.key,
            "sha256": hash.to_string(),
            "names": args.names,
            "days": args.days,
        }));
        return Ok(());
    }
    let paint = Paint::stdout();
    let row = |name: &str, value: &str| output::line(&format!("{}  {value}", paint.dim(&format!("{name:<11}"))));
    row("certificate", &args.cert.display().to_string());
    row("key", &args.key.display().to_string());
    row("names", &args.names.join(", "));
    row("valid", &format!("{} days", args.days));
    row("SHA-256", &paint.cyan(&hash.to_string()));
    if args.days > MAX_PINNED_DAYS {
        output::note(&format!(
            "{} browsers accept certificates by their hash for {MAX_PINNED_DAYS} days at most; this one needs a root",
            Paint::stderr().yellow("note:")
        ));
    }
    Ok(())
}

/// Also by way of links, and before either is there.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize().ok();
        path.canonicalize()
            .ok()
            .or_else(|| Some(folder?.join(path.file_name()?)))
    };
    a == b || real(a).is_some_and(|a| Some(a) == real(b))
}

/// Both or none: a key without its certificate is of no use, and in the way of the next try. Nor is one that is replaced lost
/// before both are there.
fn write(args: &GenerateArgs, pair: &PemPair) -> Result<(), Failure> {
    let mut made = Vec::new();
    let mut write = || {
        let mut files = Vec::new();
        // The key first: a certificate that is there means that its key is.
        for (path, text, mode) in [
            (&args.key, &pair.private_key, 0o600),
            (&args.cert, &pair.certificate, 0o644),
        ] {
            let place = Place::open(path, mode, args.force).map_err(|e| unwritten(path, &e))?;
            made.extend(place.made.clone());
            files.push((path, text, place));
        }
        for (path, text, place) in &mut files {
            place.file.write_all(text.as_bytes()).map_err(|e| unwritten(path, &e))?;
        }
        for (path, _, place) in files {
            place.finish().map_err(|e| unwritten(path, &e))?;
        }
        Ok(())
    };
    let written = write();
    if written.is_err() {
        for path in made {
            // It has failed already.
            let _ = std::fs::remove_file(path);
        }
    }
    written
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("file", format!("cannot write {}: {error}", path.display()))
}

/// Where a file is written.
struct Place {
    file: File,
    /// What is there now and was not before.
    made: Option<PathBuf>,
    /// What that replaces in the end.
    replaces: Option<PathBuf>,
}

impl Place {
    /// What is there stays as it is so far.
    fn open(path: &Path, mode: u32, replace: bool) -> std::io::Result<Self> {
        if !path.exists() || !replace {
            return Ok(Self {
                // One that appeared meanwhile is not touched either.
                file: create(path, mode)?,
                made: Some(path.to_owned()),
                replaces: None,
            });
        }
        if !path.is_file() {
            // A device, or a pipe.
            return Ok(Self {
                file: File::options().write(true).open(path)?,
                made: None,
                replaces: None,
            });
        }
        // A link goes on leading to it.
        let target = path.canonicalize()?;
        let mut beside = target.clone().into_os_string();
        beside.push(format!(".{}.new", std::process::id()));
        Ok(Self {
            file: create(Path::new(&beside), mode)?,
            made: Some(beside.into()),
            replaces: Some(target),
        })
    }

    fn finish(self) -> std::io::Result<()> {
        if let (Some(made), Some(target)) = (self.made, self.replaces) {
            self.file.sync_all()?;
            std::fs::rename(made, target)?;
        }
        Ok(())
    }
}

fn create(path: &Path, mode: u32) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)
}
