//! The tables in Markdown, with what they were measured on.

use std::fmt::Write as _;

use crate::Row;
use crate::measure::Medians;
use crate::table::{notes, significant};

const HEAD: &str = "\
# Performance beside others

Written by `cargo xtask bench peers`; benches/WORKLOADS.md says what each workload is and with which settings. All programs of a
workload ran in turns (A B C A B C ...); the figures are medians. Server and client had a core each. The peers in Rust ran both
sides; webtransport-go, aioquic and pywebtransport ran the server, driven by Wireloom's client. The ratio says how many times
better Wireloom was. CPU time is that of the whole process for each thing counted: a byte, a round trip, a stream, a datagram, a
session, a request. Ratios carry over to other machines, absolute figures do not.
";

pub(crate) fn render(rows: &[Row], settings: &str, versions: &[String]) -> String {
    let mut text = format!("{HEAD}\n| | |\n|---|---|\n");
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    let today = time::OffsetDateTime::now_utc().date();
    fact("date", &today.to_string());
    fact("machine", &machine());
    fact("rounds", settings);
    for version in versions {
        let (name, version) = version.split_once('=').unwrap_or((version, "?"));
        fact(name, version);
    }
    for Row { workload, ours, others } in rows {
        let _ = write!(
            text,
            "\n## {workload}\n\n| | {} | Wireloom is times better | server CPU us | client CPU us | |\n|---|---|---|---|---|---|\n",
            ours.unit
        );
        line(&mut text, "**wireloom**", ours, "");
        for (name, other) in others {
            match other {
                Ok(other) => line(&mut text, name, other, &format!("{:.2}", ours.times_better(other))),
                Err(reason) => {
                    let reason = reason.replace(['\n', '|'], " ");
                    let _ = writeln!(text, "| {name} | failed | | | | {reason} |");
                }
            }
        }
    }
    text
}

fn line(text: &mut String, name: &str, medians: &Medians, ratio: &str) {
    let [value, server, client] = [medians.value, medians.server_cpu_us, medians.client_cpu_us].map(significant);
    let _ = writeln!(
        text,
        "| {name} | {value} | {ratio} | {server} | {client} | {} |",
        notes(medians)
    );
}

/// The processor, how many of them, and the kernel.
fn machine() -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let models = processors.lines().filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> = models.map(|model| model.trim_start_matches(['\t', ' ', ':'])).collect();
    let model = models.first().copied().unwrap_or("an unknown processor");
    let kernel = read("/proc/sys/kernel/osrelease");
    // What follows is its builder's.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{} x {model}, Linux {kernel}", models.len())
}
