//! quic-go's webtransport-go (draft 16, with session flow control): the server of `interop/webtransport-go`.
//!
//! As a client it refuses every server without the reset_stream_at extension of QUIC, which quinn-proto has not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::process::Command;

use super::process::Server;
use crate::Result;
use crate::journal::Journal;

/// Serves the laboratory's paths on a free port; built into `products`. `None` without a Go toolchain.
pub async fn serve(journal: Arc<Journal>, products: &Path) -> Result<Option<Server>> {
    match build(".", products.join("webtransport-go")).await? {
        Some(program) => Ok(Some(Server::start(Command::new(program), journal).await?)),
        None => Ok(None),
    }
}

/// Builds a package of `interop/webtransport-go` as `program`. `None` without a Go toolchain: Debian 12's is too old for it, and a newer
/// one cannot be asked of everybody.
pub async fn build(package: &str, program: PathBuf) -> Result<Option<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("webtransport-go");
    // Another toolchain than the machine's own would be fetched from elsewhere than the module proxy.
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.args(arguments).current_dir(&folder).env("GOTOOLCHAIN", "local");
        go
    };
    // Fails without Go, and with one that is older than `go.mod` asks for.
    if !go(&["list", package])
        .output()
        .await
        .is_ok_and(|output| output.status.success())
    {
        return Ok(None);
    }
    let output = go(&["build", "-o"]).arg(&program).arg(package).output().await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(Some(program))
}
