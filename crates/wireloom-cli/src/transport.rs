//! How QUIC is spoken: the options that `serve`, `connect` and `bench` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use wireloom::{ClientBuilder, CongestionControl, ServerBuilder};

use crate::failure::Failure;
use crate::trust::seconds;

#[derive(Args, Clone)]
pub(crate) struct TransportArgs {
    /// How fast is sent when the network is the limit
    #[arg(long, help_heading = "Transport", value_name = "NAME", value_enum, default_value_t)]
    congestion: Congestion,
    /// Keep a quiet connection alive with a packet this often; 0 never [default: 15 for clients, 0 for servers]
    #[arg(long, help_heading = "Transport", value_name = "SECONDS", value_parser = parse_interval)]
    keep_alive: Option<Interval>,
    /// Write a trace of each connection into this directory, for qvis and the like
    #[arg(long, help_heading = "Transport", value_name = "DIR", env = "QLOGDIR")]
    qlog_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Congestion {
    #[default]
    Cubic,
    NewReno,
    Bbr,
}

impl Congestion {
    pub(crate) fn control(self) -> CongestionControl {
        match self {
            Self::Cubic => CongestionControl::Cubic,
            Self::NewReno => CongestionControl::NewReno,
            Self::Bbr => CongestionControl::Bbr,
        }
    }

    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::NewReno => "new-reno",
            Self::Bbr => "bbr",
        }
    }
}

/// `None` never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval(Option<Duration>);

fn parse_interval(text: &str) -> Result<Interval, String> {
    if text.parse() == Ok(0.0) {
        return Ok(Interval(None));
    }
    let interval = seconds(text).ok_or("a number of seconds is needed, such as 2.5, or 0 for never")?;
    Ok(Interval(Some(interval)))
}

impl TransportArgs {
    pub(crate) fn client(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
        // As browsers and curl do: whoever sets SSLKEYLOGFILE wants them.
        builder = builder.congestion_control(self.congestion.control()).key_log(true);
        if let Some(Interval(interval)) = self.keep_alive {
            builder = builder.keep_alive(interval);
        }
        if let Some(dir) = self.create_qlog_dir()? {
            builder = builder.qlog_dir(dir);
        }
        Ok(builder)
    }

    pub(crate) fn server(&self, mut builder: ServerBuilder) -> Result<ServerBuilder, Failure> {
        builder = builder.congestion_control(self.congestion.control()).key_log(true);
        if let Some(Interval(interval)) = self.keep_alive {
            builder = builder.keep_alive(interval);
        }
        if let Some(dir) = self.create_qlog_dir()? {
            builder = builder.qlog_dir(dir);
        }
        Ok(builder)
    }

    fn create_qlog_dir(&self) -> Result<Option<&PathBuf>, Failure> {
        // An empty variable is an unset one.
        let Some(dir) = self.qlog_dir.as_ref().filter(|dir| !dir.as_os_str().is_empty()) else {
            return Ok(None);
        };
        std::fs::create_dir_all(dir)
            .map_err(|e| Failure::new("file", format!("cannot write traces to {}: {e}", dir.display())))?;
        Ok(Some(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds_and_zero_is_never() {
        assert_eq!(parse_interval("0"), Ok(Interval(None)));
        assert_eq!(parse_interval("2.5"), Ok(Interval(Some(Duration::from_millis(2500)))));
        for text in ["-1", "often", "1e30"] {
            assert!(parse_interval(text).expect_err(text).contains("0 for never"));
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for congestion in Congestion::value_variants() {
            assert_eq!(Congestion::from_str(congestion.name(), false), Ok(*congestion));
        }
    }
}
