//! Every implementation as a client of every other's server, ours among them.

use std::path::Path;
use std::sync::Arc;

use wireloom_interop::Result;
use wireloom_interop::journal::{Event, Journal};
use wireloom_interop::peers::exercise::{CLOSE, exercise};
use wireloom_interop::peers::process::Server;
use wireloom_interop::peers::session::Client;
use wireloom_interop::peers::{Abilities, Target, aioquic, web_transport_quinn, webtransport_go, wireloom, wtransport};

/// What all do unless a test says otherwise.
const ALL: Abilities = Abilities {
    protocols: true,
    close_server: true,
    close_client: true,
};
/// wtransport closes connections, not sessions, and knows no subprotocols.
const WTRANSPORT_SERVER: Abilities = Abilities {
    protocols: false,
    close_server: false,
    ..ALL
};
/// See [`WTRANSPORT_SERVER`].
const WTRANSPORT_CLIENT: Abilities = Abilities {
    protocols: false,
    close_client: false,
    ..ALL
};

async fn check<C: Client>(
    serve: impl AsyncFnOnce(Arc<Journal>) -> Result<Target>,
    dial: impl FnOnce(&Target) -> Result<C>,
    can: Abilities,
) {
    let journal = Arc::new(Journal::default());
    let target = serve(journal.clone()).await.expect("the server starts");
    let client = dial(&target).expect("the client starts");
    exercise(&client, &target, "x", can)
        .await
        .expect("the exercise succeeds");
    judge(journal, can).await;
}

/// What the server must have seen of a client that did the exercise.
async fn judge(journal: Arc<Journal>, can: Abilities) {
    let judged = tokio::task::spawn_blocking(move || {
        journal.wait("x-opens", &Event::Finished("answer of the client".to_owned()))?;
        if can.close_client {
            journal.wait("x", &Event::Closed(CLOSE.0, CLOSE.1.to_owned()))?;
        }
        ["x", "x-opens", "x-close", "x-resets"]
            .iter()
            .try_for_each(|id| journal.wait_idle(id))
    });
    judged
        .await
        .expect("judging does not panic")
        .expect("the server saw it all");
}

async fn check_aioquic_client(serve: impl AsyncFnOnce(Arc<Journal>) -> Result<Target>, can: Abilities, http: bool) {
    let journal = Arc::new(Journal::default());
    let target = serve(journal.clone()).await.expect("the server starts");
    aioquic::exercise(&target, "x", can, http)
        .await
        .expect("the exercise succeeds");
    judge(journal, can).await;
}

async fn check_aioquic_server<C: Client>(dial: impl FnOnce(&Target) -> Result<C>, can: Abilities) {
    let journal = Arc::new(Journal::default());
    let server = aioquic::serve(journal.clone()).await.expect("the server starts");
    check_process(&server, journal, dial, can).await;
}

async fn check_process<C: Client>(
    server: &Server,
    journal: Arc<Journal>,
    dial: impl FnOnce(&Target) -> Result<C>,
    can: Abilities,
) {
    let client = dial(&server.target).expect("the client starts");
    exercise(&client, &server.target, "x", can)
        .await
        .expect("the exercise succeeds");
    judge(journal, can).await;
}

async fn serve_wireloom(journal: Arc<Journal>) -> Result<Target> {
    Ok(wireloom::serve(journal, &[]).await?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn wireloom_client_wireloom_server() {
    check(serve_wireloom, wireloom::Dialer::new, ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wireloom_client_wtransport_server() {
    check(wtransport::serve, wireloom::Dialer::new, WTRANSPORT_SERVER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wireloom_client_web_transport_quinn_server() {
    check(web_transport_quinn::serve, wireloom::Dialer::new, ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wireloom_client_aioquic_server() {
    check_aioquic_server(wireloom::Dialer::new, ALL).await;
}

/// The one peer of the newest draft, with flow control of sessions.
#[tokio::test(flavor = "multi_thread")]
async fn wireloom_client_webtransport_go_server() {
    let journal = Arc::new(Journal::default());
    let Some(server) = webtransport_go::serve(journal.clone(), Path::new(env!("CARGO_TARGET_TMPDIR")))
        .await
        .expect("the server starts")
    else {
        eprintln!("not run: it needs Go 1.26 or newer");
        return;
    };
    check_process(&server, journal, wireloom::Dialer::new, ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wtransport_client_wireloom_server() {
    check(serve_wireloom, wtransport::Dialer::new, WTRANSPORT_CLIENT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_transport_quinn_client_wireloom_server() {
    check(serve_wireloom, web_transport_quinn::Dialer::new, ALL).await;
}

/// Also an ordinary HTTP/3 request on the connection that carries a session.
#[tokio::test(flavor = "multi_thread")]
async fn aioquic_client_wireloom_server() {
    check_aioquic_client(serve_wireloom, ALL, true).await;
}

/// The others among themselves: what fails here is theirs, or the laboratory's.
mod control {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn wtransport_client_web_transport_quinn_server() {
        check(web_transport_quinn::serve, wtransport::Dialer::new, WTRANSPORT_CLIENT).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn web_transport_quinn_client_aioquic_server() {
        check_aioquic_server(web_transport_quinn::Dialer::new, ALL).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn aioquic_client_wtransport_server() {
        check_aioquic_client(wtransport::serve, WTRANSPORT_SERVER, false).await;
    }
}
