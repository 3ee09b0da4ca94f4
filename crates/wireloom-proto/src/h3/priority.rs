//! How urgent a request is: the Priority field and the value of PRIORITY_UPDATE (RFC 9218).

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// The field's name.
pub const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// The priority of a request or a session, for whoever sends its data (RFC 9218 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Priority {
    /// 0 (first) to 7 (last). Default 3; 7 is for what runs in the background.
    pub urgency: u8,
    /// Whether parts of the response are of use before the whole is there. Default no: responses of one urgency are then sent
    /// one after the other, in the order of their requests. Sessions share in any case.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self {
            urgency: 3,
            incremental: false,
        }
    }
}

impl Priority {
    /// A priority of this urgency; above 7 counts as 7.
    pub const fn new(urgency: u8) -> Self {
        Self {
            urgency: if urgency > 7 { 7 } else { urgency },
            incremental: false,
        }
    }

    /// The same with this choice of [`incremental`](Self::incremental).
    #[must_use]
    pub const fn incremental(self, incremental: bool) -> Self {
        Self { incremental, ..self }
    }

    /// The value of the field. Empty for the default.
    pub fn to_value(self) -> HeaderValue {
        let default = Self::default();
        let text = match (self.urgency == default.urgency, self.incremental) {
            (true, false) => String::new(),
            (true, true) => "i".to_owned(),
            (false, false) => format!("u={}", self.urgency.min(7)),
            (false, true) => format!("u={}, i", self.urgency.min(7)),
        };
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// What a request's fields say; `None` if they say nothing, or nothing that can be read.
    ///
    /// "When receiving an HTTP request that does not carry these priority parameters, a server SHOULD act as if their default
    /// values were specified" (section 4).
    pub fn of_request(fields: &HeaderMap) -> Option<Self> {
        Self::default().merged(fields)
    }

    /// This priority as a response's fields change it: "the absence of a priority parameter in an HTTP response indicates the
    /// server's disinterest in changing the client-provided value" (section 8). `None` if they say nothing.
    pub fn merged(self, fields: &HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(PRIORITY).iter();
        let first = lines.next()?;
        let mut value = first.as_bytes().to_vec();
        // Several lines of one field are one value (RFC 9110 section 5.3).
        for line in lines {
            value.extend_from_slice(b", ");
            value.extend_from_slice(line.as_bytes());
        }
        self.updated(&value)
    }

    /// This priority with the parameters of `value`; `None` if it is no structured-field dictionary.
    ///
    /// "unknown priority parameters, priority parameters with out-of-range values, or values of unexpected types MUST be
    /// ignored" (section 4).
    pub fn updated(self, value: &[u8]) -> Option<Self> {
        let parameters: Dictionary = Parser::new(value).parse().ok()?;
        let mut priority = self;
        for (name, entry) in &parameters {
            let ListEntry::Item(item) = entry else { continue };
            match (name.as_str(), &item.bare_item) {
                ("u", BareItem::Integer(urgency)) => {
                    let urgency = u8::try_from(i64::from(*urgency)).ok().filter(|urgency| *urgency <= 7);
                    priority.urgency = urgency.unwrap_or(priority.urgency);
                }
                ("i", BareItem::Boolean(incremental)) => priority.incremental = *incremental,
                _ => {}
            }
        }
        Some(priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&'static str]) -> Option<Priority> {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(PRIORITY, HeaderValue::from_static(line));
        }
        Priority::of_request(&fields)
    }

    #[test]
    fn fields_are_read_as_far_as_they_make_sense() {
        let default = Priority::default();
        assert_eq!(request(&[]), None);
        assert_eq!(request(&[""]), Some(default));
        assert_eq!(request(&["u=5, i"]), Some(Priority::new(5).incremental(true)));
        assert_eq!(
            request(&["u=5", "i=?1, x=\"y\";z"]),
            Some(Priority::new(5).incremental(true))
        );
        assert_eq!(request(&["u=8, i=?0"]), Some(default));
        assert_eq!(request(&["u=-1"]), Some(default));
        assert_eq!(request(&["u=1.0, i=1"]), Some(default));
        assert_eq!(request(&["u=(1 2)"]), Some(default));
        assert_eq!(request(&["u=1, u=6"]), Some(Priority::new(6)));
        for malformed in ["u=", "=1", "u=1,,i", "U=1", "\u{7f}"] {
            assert_eq!(default.updated(malformed.as_bytes()), None, "{malformed}");
        }
        assert_eq!(default.updated(&[0xff]), None);
    }

    #[test]
    fn a_response_changes_only_what_it_names() {
        let client = Priority::new(5).incremental(true);
        let merged = |value| {
            let mut fields = HeaderMap::new();
            fields.insert(PRIORITY, HeaderValue::from_static(value));
            client.merged(&fields)
        };
        assert_eq!(merged("u=1"), Some(Priority::new(1).incremental(true)));
        assert_eq!(merged("i=?0"), Some(Priority::new(5)));
        assert_eq!(client.merged(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for urgency in 0..=8 {
            for incremental in [false, true] {
                let priority = Priority::new(urgency).incremental(incremental);
                assert_eq!(
                    Priority::default().updated(priority.to_value().as_bytes()),
                    Some(priority)
                );
            }
        }
        assert_eq!(Priority::new(1).to_value(), "u=1");
    }
}
