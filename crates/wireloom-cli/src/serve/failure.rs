//! Why the server cannot start, and what to try.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use wireloom::ServeError;

use crate::failure::{Failure, chain};

pub(super) fn of_server(error: ServeError) -> Failure {
    match &error {
        ServeError::Bind { address, source } => of_bind(*address, source, "UDP or TCP", "--bind"),
        _ => Failure::new("system", chain(&error)),
    }
}

pub(super) fn of_page(address: SocketAddr, error: &Error) -> Failure {
    of_bind(address, error, "TCP", "--page-bind")
}

fn of_bind(address: SocketAddr, error: &Error, transport: &str, option: &str) -> Failure {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        ErrorKind::AddrInUse => Failure::new(
            "bind",
            format!("{transport} port {port} of {ip} is taken by another program"),
        )
        .hint(format!(
            "{option} {} for a free port, or end the other program (`ss -lntup '( sport = :{port} )'` names it)",
            SocketAddr::new(ip, 0)
        )),
        ErrorKind::PermissionDenied => Failure::new(
            "bind",
            format!("{transport} port {port} of {ip} may not be bound: {error}"),
        )
        .hint(format!(
            "{option} with a port above 1023, or the right to bind lower ones"
        )),
        ErrorKind::AddrNotAvailable => Failure::new("bind", format!("this machine does not have the address {ip}"))
            .hint(format!("{option} [::]:{port} for every address of this machine")),
        _ => Failure::new("bind", format!("cannot bind {transport} port {port} of {ip}: {error}")),
    }
}
