//! Times as section 9.2 has them: RFC 3339 with up to nine fractional digits, trailing zeros removed.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// In UTC.
pub(super) fn format(time: SystemTime) -> String {
    // Fails outside of the years 0 to 9999, which RFC 3339 cannot say.
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "9999-12-31T23:59:59Z".to_owned())
}

/// Of any zone.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn fractions_lose_their_trailing_zeros() {
        for (nanos, text) in [
            (0, "2019-01-15T11:29:22Z"),
            (123_456_789, "2019-01-15T11:29:22.123456789Z"),
            (532_151_450, "2019-01-15T11:29:22.53215145Z"),
            (500_000_000, "2019-01-15T11:29:22.5Z"),
            (1, "2019-01-15T11:29:22.000000001Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::new(1_547_551_762, nanos);
            assert_eq!(format(time), text);
            assert_eq!(parse(text), Some(time));
        }
        assert_eq!(parse("2019-01-15T12:29:22+01:00"), parse("2019-01-15T11:29:22Z"));
        assert_eq!(parse("2019-01-15"), None);
    }
}
