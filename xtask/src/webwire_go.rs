//! The software that WebWire comes from, which `interop/webwire-go` drives.

use std::ffi::OsString;

use crate::shell::{Result, command, output, root, run, target};

/// The environment variable that names the program, to the tests and to us.
pub(crate) const PROGRAM: &str = "WEBWIRE_GO_PEER";

/// The program that is named, or else is built. `None` without Go, or where its modules cannot be had or built: they are old, and not
/// every proxy has them.
pub(crate) fn program() -> Result<Option<OsString>> {
    if let Some(program) = std::env::var_os(PROGRAM) {
        return Ok(Some(program));
    }
    let folder = root().join("interop/webwire-go");
    // A proxy that does not answer costs a minute, not the run.
    let mut download = command("timeout");
    download.args(["60", "go", "mod", "download"]);
    // Another toolchain than the machine's own would be fetched.
    if output(download.current_dir(&folder).env("GOTOOLCHAIN", "local")).is_none() {
        return Ok(None);
    }
    let program = target().join("webwire-go");
    let mut build = command("go");
    build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
    let built = run(build.current_dir(&folder).env("GOTOOLCHAIN", "local"));
    Ok(built.is_ok().then(|| program.into()))
}
