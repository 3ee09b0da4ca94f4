//! The results for people.

use super::protocol::Report;
use crate::output::{self, Paint};

pub(super) fn print(reports: &[Report]) {
    let paint = Paint::stdout();
    output::line(&paint.bold(&format!(
        "{:<15} {:>12} {:<15} {:>9} {:>9}   ",
        "workload", "result", "", "server", "client"
    )));
    for report in reports {
        let cpu = |seconds: f64| format!("{:.0} %", seconds / report.seconds.max(1e-9) * 100.0);
        output::line(
            format!(
                "{:<15} {} {:<15} {:>9} {:>9}   {}",
                report.workload,
                paint.green(&format!("{:>12}", number(report.value))),
                report.unit,
                cpu(report.server_cpu_seconds),
                cpu(report.client_cpu_seconds),
                detail(report),
            )
            .trim_end(),
        );
    }
    output::line(&paint.dim("server and client: CPU time of each over the time measured; one thread each"));
}

fn detail(report: &Report) -> String {
    match (report.p99_us, report.p999_us, report.delivery) {
        (Some(p99), Some(p999), _) => format!("p99 {p99:.1} us, p99.9 {p999:.1} us"),
        (.., Some(delivery)) => format!("{:.2} % delivered", delivery * 100.0),
        _ => String::new(),
    }
}

/// Three digits that say something, and thousands apart.
pub(super) fn number(value: f64) -> String {
    if value < 1000.0 {
        let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown = [0.5, 12.345, 123.4, 1000.0, 123_456.7, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.50", "12.3", "123", "1 000", "123 457", "1 234 567"]);
    }
}
