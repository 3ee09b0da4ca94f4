//! Our endpoint against every peer's, every case, both ways: printed, and written to docs/interop.md. `cargo xtask interop` says
//! where the programs and their versions are: `matrix DOCUMENT NAME VERSION PROGRAM [ARGUMENT...] [-- NAME ...]`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use wireloom_interop::endpoint::pair::{CASES, Program, run};
use wireloom_interop::endpoint::reasons;

struct Peer {
    name: String,
    version: String,
    program: Program,
}

struct Row {
    client: String,
    server: String,
    cells: Vec<Result<(), String>>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((document, rest)) = arguments.split_first() else {
        eprintln!("matrix DOCUMENT NAME VERSION PROGRAM [ARGUMENT...] [-- NAME ...]");
        return ExitCode::from(2);
    };
    let peers: Vec<Peer> = rest.split(|word| word == "--").filter_map(peer).collect();
    let Some((ours, others)) = peers.split_first() else {
        eprintln!("matrix: no peer");
        return ExitCode::from(2);
    };
    let mut rows = vec![row(ours, ours).await];
    for other in others {
        rows.push(row(ours, other).await);
        rows.push(row(other, ours).await);
    }
    let (text, unexplained) = render(&peers, &rows);
    if let Err(error) = std::fs::write(document, text) {
        eprintln!("{document}: {error}");
        return ExitCode::FAILURE;
    }
    println!("written to {document}; {unexplained} failures that nothing explains");
    if unexplained == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn peer(words: &[String]) -> Option<Peer> {
    let [name, version, command @ ..] = words else {
        return None;
    };
    let command = command.iter().map(PathBuf::from).collect();
    Some(Peer {
        name: name.clone(),
        version: version.clone(),
        program: Program { command },
    })
}

async fn row(client: &Peer, server: &Peer) -> Row {
    let mut cells = Vec::new();
    print!("{:<28} -> {:<28}", client.name, server.name);
    for case in CASES {
        let cell = run(case, &client.program, &server.program).await;
        print!(" {}", if cell.is_ok() { "yes" } else { "no " });
        let _ = std::io::Write::flush(&mut std::io::stdout());
        cells.push(cell.map_err(|error| error.to_string()));
    }
    println!();
    Row {
        client: client.name.clone(),
        server: server.name.clone(),
        cells,
    }
}

/// The document, and how many failures it has no reason for.
fn render(peers: &[Peer], rows: &[Row]) -> (String, usize) {
    let mut text = String::from(
        "# Interoperability\n\nWritten by `cargo xtask interop`. The cases are those of the QUIC Interop Runner for WebTransport, and one with two \
         sessions on\none connection. A number points to the reason below.\n\n| | version |\n|---|---|\n",
    );
    for peer in peers {
        let _ = writeln!(text, "| {} | {} |", peer.name, peer.version);
    }
    text.push_str("\n| client | server |");
    for case in CASES {
        let _ = write!(text, " {} |", case.name);
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(CASES.len()));
    let mut notes: Vec<String> = Vec::new();
    let mut unexplained = 0;
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.client, row.server);
        for (case, cell) in CASES.iter().zip(&row.cells) {
            let Err(evidence) = cell else {
                text.push_str(" yes |");
                continue;
            };
            let reason = reasons::find(&row.client, &row.server, case.name, evidence);
            let note = match reason {
                Some(reason) => reason.to_owned(),
                None => {
                    unexplained += 1;
                    format!(
                        "Not explained. {} to {}, {}: `{evidence}`",
                        row.client, row.server, case.name
                    )
                }
            };
            let evidence = evidence.replace('\n', " ");
            let known = notes.iter().position(|known| known.starts_with(&note));
            let number = known.unwrap_or_else(|| {
                let seen = if reason.is_some() {
                    format!(" Seen: `{evidence}`")
                } else {
                    String::new()
                };
                notes.push(format!("{note}{seen}"));
                notes.len() - 1
            });
            let _ = write!(text, " no ({}) |", number + 1);
        }
        text.push('\n');
    }
    text.push_str("\npywebtransport needs Python 3.12, and is left out where there is none.\n");
    if !notes.is_empty() {
        text.push_str("\n## Why not\n\n");
    }
    for (number, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "{}. {note}", number + 1);
    }
    (text, unexplained)
}
