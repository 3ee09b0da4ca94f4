//! What a person reads while it runs.

use crate::Row;
use crate::measure::Medians;

pub(crate) fn print(row: &Row) {
    let Row { workload, ours, others } = row;
    println!("\n{workload}, {}", ours.unit);
    println!(
        "  {:<22} {:>13} {:>10} {:>13} {:>13}",
        "", "median", "Wireloom x", "server CPU us", "client CPU us"
    );
    line("wireloom", ours, String::new());
    for (name, other) in others {
        match other {
            Ok(other) => line(name, other, format!("{:.3}", ours.times_better(other))),
            Err(reason) => println!("  {name:<22} failed: {reason}"),
        }
    }
}

fn line(name: &str, medians: &Medians, ratio: String) {
    let [server, client] = [medians.server_cpu_us, medians.client_cpu_us].map(significant);
    println!(
        "  {name:<22} {:>13.2} {ratio:>10} {server:>13} {client:>13}  {}",
        medians.value,
        notes(medians)
    );
}

/// Three digits that count: nanoseconds for a byte, hundreds of microseconds for a session.
pub(crate) fn significant(value: f64) -> String {
    let digits = if value > 0.0 {
        (2.0 - value.log10().floor()).clamp(0.0, 9.0) as usize
    } else {
        0
    };
    format!("{value:.digits$}")
}

pub(crate) fn notes(medians: &Medians) -> String {
    let p99 = medians.p99_us.map(|p99| format!("p99 {p99:.0}"));
    let delivery = medians.delivery.map(|delivery| format!("delivery {delivery:.2}"));
    p99.into_iter().chain(delivery).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::significant;

    #[test]
    fn three_digits_count() {
        assert_eq!(significant(0.000_612_3), "0.000612");
        assert_eq!(significant(2.345), "2.35");
        assert_eq!(significant(271.6), "272");
        assert_eq!(significant(0.0), "0");
    }
}
