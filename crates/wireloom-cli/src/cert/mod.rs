//! `wireloom cert`: certificates and their hashes.

pub(crate) mod facts;
mod generate;

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use serde_json::json;

use self::facts::Facts;
use crate::failure::Failure;
use crate::output::{self, Paint};

#[derive(Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Subcommand)]
enum CertCommand {
    /// Make a self-signed ECDSA P-256 certificate and its key
    Generate(generate::GenerateArgs),
    /// Print the SHA-256 of a certificate, as serverCertificateHashes and --cert-hash want it
    Hash(HashArgs),
}

#[derive(Args)]
struct HashArgs {
    /// A certificate in PEM or DER; of a chain, the first
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON, with what else the certificate says
    #[arg(long)]
    json: bool,
}

impl CertArgs {
    pub(crate) fn wants_json(&self) -> bool {
        match &self.command {
            CertCommand::Generate(args) => args.json,
            CertCommand::Hash(args) => args.json,
        }
    }
}

pub(crate) fn run(args: CertArgs) -> Result<(), Failure> {
    match args.command {
        CertCommand::Generate(args) => generate::run(&args),
        CertCommand::Hash(args) => hash(&args),
    }
}

fn hash(args: &HashArgs) -> Result<(), Failure> {
    let facts = Facts::of_file(&args.file)?;
    if args.json {
        let mut value = facts.to_json();
        value["event"] = json!("certificate");
        value["base64"] = json!(BASE64_STANDARD.encode(facts.sha256.as_bytes()));
        output::json(&value);
        return Ok(());
    }
    // Alone on standard output, for scripts.
    output::line(&facts.sha256.to_string());
    if let Some(reason) = facts.unpinnable() {
        output::note(&format!(
            "{} browsers do not accept it by its hash: {reason}",
            Paint::stderr().yellow("note:")
        ));
    }
    Ok(())
}
