//! `wireloom cert generate`.

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
    // The key first: a certificate that is there means that its key is.
    write(&args.key, &pair.private_key, 0o600, args.force)?;
    write(&args.cert, &pair.certificate, 0o644, args.force)?;
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

fn write(path: &Path, text: &str, mode: u32, replace: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    // Without --force a file that appeared meanwhile is not touched either.
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let written = options.open(path).and_then(|mut file| {
        #[cfg(unix)]
        // The mode above is for new files only.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(text.as_bytes())
    });
    #[cfg(not(unix))]
    let _ = mode;
    written.map_err(|e| Failure::new("file", format!("cannot write {}: {e}", path.display())))
}
