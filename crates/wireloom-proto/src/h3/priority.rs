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

    /// The value of the field, and of PRIORITY_UPDATE. Empty for the default: the field is then to be left out (RFC 9651
    /// section 4.1).
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

    /// What a request's fields say, the default where they say nothing.
    ///
    /// "When receiving an HTTP request that does not carry these priority parameters, a server SHOULD act as if their default
    /// values were specified" (section 4).
    pub fn of_request(fields: &HeaderMap) -> Self {
        Self::default().merged(fields)
    }

    /// This priority as a response's fields change it: "the absence of a priority parameter in an HTTP response indicates the
    /// server's disinterest in changing the client-provided value" (section 8).
    #[must_use]
    pub fn merged(self, fields: &HeaderMap) -> Self {
        self.with(Wish::of(fields).unwrap_or_default())
    }

    pub(crate) fn with(self, wish: Wish) -> Self {
        Self {
            urgency: wish.urgency.unwrap_or(self.urgency),
            incremental: wish.incremental.unwrap_or(self.incremental),
        }
    }
}

/// The parameters of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wish {
    urgency: Option<u8>,
    incremental: Option<bool>,
}

impl From<Priority> for Wish {
    fn from(priority: Priority) -> Self {
        Self {
            urgency: Some(priority.urgency.min(7)),
            incremental: Some(priority.incremental),
        }
    }
}

impl Wish {
    /// `None` where there is no such field, or it is no structured-field dictionary.
    pub(crate) fn of(fields: &HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(PRIORITY).iter();
        let mut value = lines.next()?.as_bytes().to_vec();
        // Several lines of one field are one value (RFC 9110 section 5.3).
        for line in lines {
            value.extend_from_slice(b", ");
            value.extend_from_slice(line.as_bytes());
        }
        Self::parse(&value)
    }

    /// "unknown priority parameters, priority parameters with out-of-range values, or values of unexpected types MUST be
    /// ignored" (section 4). `None` if it is no structured-field dictionary.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let parameters: Dictionary = Parser::new(value).parse().ok()?;
        let mut wish = Self::default();
        for (name, entry) in &parameters {
            let ListEntry::Item(item) = entry else { continue };
            match (name.as_str(), &item.bare_item) {
                ("u", BareItem::Integer(urgency)) => {
                    wish.urgency = u8::try_from(i64::from(*urgency)).ok().filter(|urgency| *urgency <= 7);
                }
                ("i", BareItem::Boolean(incremental)) => wish.incremental = Some(*incremental),
                _ => {}
            }
        }
        Some(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[&'static str]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(PRIORITY, HeaderValue::from_static(line));
        }
        fields
    }

    #[test]
    fn fields_are_read_as_far_as_they_make_sense() {
        let request = |lines: &[&'static str]| Priority::of_request(&fields(lines));
        let default = Priority::default();
        assert_eq!(request(&[]), default);
        assert_eq!(request(&[""]), default);
        assert_eq!(request(&["u=5, i"]), Priority::new(5).incremental(true));
        assert_eq!(request(&["u=5", "i=?1, x=\"y\";z"]), Priority::new(5).incremental(true));
        assert_eq!(request(&["u=8, i=?0"]), default);
        assert_eq!(request(&["u=-1"]), default);
        assert_eq!(request(&["u=1.0, i=1"]), default);
        assert_eq!(request(&["u=(1 2)"]), default);
        assert_eq!(request(&["u=1, u=6"]), Priority::new(6));
        for malformed in ["u=", "=1", "u=1,,i", "U=1"] {
            assert_eq!(Wish::parse(malformed.as_bytes()), None, "{malformed}");
            assert_eq!(request(&[malformed]), default);
        }
        assert_eq!(Wish::parse(&[0xff]), None);
    }

    #[test]
    fn a_response_changes_only_what_it_names() {
        let client = Priority::new(5).incremental(true);
        assert_eq!(client.merged(&fields(&["u=1"])), Priority::new(1).incremental(true));
        assert_eq!(client.merged(&fields(&["i=?0"])), Priority::new(5));
        assert_eq!(client.merged(&fields(&[])), client);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for urgency in 0..=8 {
            for incremental in [false, true] {
                let priority = Priority::new(urgency).incremental(incremental);
                let wish = Wish::parse(priority.to_value().as_bytes()).expect("well formed");
                assert_eq!(Priority::default().with(wish), priority);
            }
        }
        assert_eq!(Priority::new(1).to_value(), "u=1");
    }
}
