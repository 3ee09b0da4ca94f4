//! What a process has used, by Linux's /proc. Elsewhere the figures are 0.

/// A process that there is, and that the figures can be had of.
pub(super) fn parse_pid(text: &str) -> Result<u32, String> {
    let pid = text.parse().map_err(|_| "a number of a process is needed".to_owned())?;
    match std::fs::read(format!("/proc/{pid}/statm")) {
        Ok(_) => Ok(pid),
        Err(error) => Err(format!("its /proc/{pid} cannot be read: {error}")),
    }
}

/// User and system time of this process, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    cpu_seconds_in("self")
}

/// Of another process.
pub(super) fn cpu_seconds_of(pid: u32) -> f64 {
    cpu_seconds_in(&pid.to_string())
}

fn cpu_seconds_in(process: &str) -> f64 {
    /// USER_HZ, which Linux fixes at 100 for programs.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    cpu_ticks(&stat).unwrap_or(0) as f64 / TICKS
}

/// Fields 14 and 15. The second, the program's name in parentheses, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of this process that is in RAM, in bytes.
pub(super) fn rss_bytes() -> u64 {
    rss_bytes_in("self")
}

/// Of another process.
pub(super) fn rss_bytes_of(pid: u32) -> u64 {
    rss_bytes_in(&pid.to_string())
}

fn rss_bytes_in(process: &str) -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

/// Two processors that this process may run on.
pub(super) fn two_processors() -> Option<[usize; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut processors = list.trim().split(',').filter_map(range).flatten();
    Some([processors.next()?, processors.next()?])
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_name_whatever_it_is() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(range("3"), Some(3..=3));
        assert_eq!(range("0-7"), Some(0..=7));
        assert_eq!(range("x"), None);
    }
}
