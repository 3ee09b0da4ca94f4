//! Interleaved rounds, and their medians.

use serde::Deserialize;

use crate::program::Program;

/// What a client prints, as far as it is compared.
#[derive(Clone, Deserialize)]
pub(crate) struct Measured {
    value: f64,
    unit: String,
    better: String,
    count: u64,
    client_cpu_seconds: f64,
    server_cpu_seconds: f64,
    p99_us: Option<f64>,
    delivery: Option<f64>,
}

/// Medians of one program.
pub(crate) struct Medians {
    pub(crate) unit: String,
    pub(crate) value: f64,
    pub(crate) lower_is_better: bool,
    /// Microseconds of CPU for each thing counted (for each byte: WORKLOADS.md says what counts).
    pub(crate) client_cpu_us: f64,
    pub(crate) server_cpu_us: f64,
    pub(crate) p99_us: Option<f64>,
    pub(crate) delivery: Option<f64>,
}

impl Medians {
    /// How many times better this is than the other.
    pub(crate) fn times_better(&self, other: &Self) -> f64 {
        if self.lower_is_better {
            other.value / self.value
        } else {
            self.value / other.value
        }
    }
}

/// Every program in turn, as often as there are rounds. One that fails is left out from then on.
pub(crate) fn interleaved(
    programs: &[&Program],
    workload: &str,
    rounds: usize,
    seconds: f64,
) -> Vec<(String, Result<Medians, String>)> {
    let mut runs: Vec<Result<Vec<Measured>, String>> = programs.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..rounds {
        for (program, runs) in programs.iter().zip(&mut runs) {
            let Ok(so_far) = runs else { continue };
            match program.measure(workload, seconds) {
                Ok(measured) => so_far.push(measured),
                Err(error) => *runs = Err(error.to_string()),
            }
        }
    }
    let names = programs.iter().map(|program| program.name.clone());
    let medians = runs
        .into_iter()
        .map(|runs| medians(&runs?).ok_or_else(|| "nothing was counted".to_owned()));
    names.zip(medians).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn medians(runs: &[Measured]) -> Option<Medians> {
    let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
    let first = runs.first().filter(|first| first.count > 0)?;
    Some(Medians {
        unit: first.unit.clone(),
        value: of(|run| run.value),
        lower_is_better: first.better == "lower",
        client_cpu_us: of(|run| run.client_cpu_seconds * 1e6 / run.count as f64),
        server_cpu_us: of(|run| run.server_cpu_seconds * 1e6 / run.count as f64),
        p99_us: first.p99_us.map(|_| of(|run| run.p99_us.unwrap_or(f64::NAN))),
        delivery: first.delivery.map(|_| of(|run| run.delivery.unwrap_or(f64::NAN))),
    })
}
