//! WT-Available-Protocols and WT-Protocol (draft-ietf-webtrans-http3-16 section 3.3), structured fields of Strings.

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::visitor::{EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor, ParameterVisitor};
use sfv::{BareItem, BareItemFromInput, Item, ItemSerializer, ListSerializer, Parser, StringRef};

use crate::connection::CommandError;

pub(crate) const AVAILABLE: HeaderName = HeaderName::from_static("wt-available-protocols");
pub(crate) const CHOSEN: HeaderName = HeaderName::from_static("wt-protocol");

/// Most protocols that a client may offer: each costs many times its bytes in the field.
const MAX_OFFERED: usize = 64;

/// What a client offers, in its order. Empty where there is no such field, or where it is malformed: "Any value type
/// other than String MUST be treated as an error that causes the entire field to be ignored" (draft 16 section 3.3). So
/// is one with more than 64 members.
pub(crate) fn offered(headers: &HeaderMap) -> Vec<String> {
    combined(headers, &AVAILABLE)
        .and_then(|value| Parser::new(&value).parse_list_with_visitor(Offer::default()).ok())
        .unwrap_or_default()
}

/// What was read of an offer.
#[derive(Default)]
struct Offer(Vec<String>);

/// The offer is to be ignored.
#[derive(Debug, thiserror::Error)]
#[error("more than 64 members, or one that is no String")]
struct Unusable;

impl<'de> ListVisitor<'de> for Offer {
    type Out = Vec<String>;
    type Error = Unusable;

    fn entry(&mut self) -> Result<impl EntryVisitor<'de>, Unusable> {
        if self.0.len() == MAX_OFFERED {
            return Err(Unusable);
        }
        Ok(self)
    }

    fn finish(self) -> Result<Vec<String>, Unusable> {
        Ok(self.0)
    }
}

impl<'de> EntryVisitor<'de> for &mut Offer {
    type Error = Unusable;

    fn item(self) -> Result<impl ItemVisitor<'de>, Unusable> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Unusable> {
        Err::<Ignored, _>(Unusable)
    }
}

impl<'de> ItemVisitor<'de> for &mut Offer {
    type Out = ();
    type Error = Unusable;

    /// The "parameters MUST be ignored" (draft 16 section 3.3).
    fn bare_item(self, item: BareItemFromInput<'de>) -> Result<impl ParameterVisitor<'de, Out = ()>, Unusable> {
        let BareItemFromInput::String(protocol) = item else {
            return Err(Unusable);
        };
        self.0.push(protocol.as_str().to_owned());
        Ok(Ignored)
    }
}

/// What a server chose, `None` also where the field is malformed.
pub(crate) fn chosen(headers: &HeaderMap) -> Option<String> {
    let item: Item = Parser::new(&combined(headers, &CHOSEN)?).parse().ok()?;
    // Its "parameters MUST be ignored" (draft 16 section 3.3).
    match item.bare_item {
        BareItem::String(string) => Some(string.into()),
        _ => None,
    }
}

/// Puts the offer into a request, in place of what the caller had there. There is no field for an empty one.
pub(crate) fn offer(headers: &mut HeaderMap, protocols: &[String]) -> Result<(), CommandError> {
    headers.remove(AVAILABLE);
    let mut list = ListSerializer::new();
    for protocol in protocols {
        list.bare_item(sf_string(protocol)?);
    }
    if let Some(value) = list.finish() {
        headers.insert(AVAILABLE, header_value(value)?);
    }
    Ok(())
}

/// Puts the choice into a response, in place of what the caller had there. There is no field for none.
pub(crate) fn choose(headers: &mut HeaderMap, protocol: Option<&str>) -> Result<(), CommandError> {
    headers.remove(CHOSEN);
    if let Some(protocol) = protocol {
        let value = ItemSerializer::new().bare_item(sf_string(protocol)?).finish();
        headers.insert(CHOSEN, header_value(value)?);
    }
    Ok(())
}

/// Several lines of one field are one value (RFC 9110 section 5.3).
fn combined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

fn sf_string(protocol: &str) -> Result<&StringRef, CommandError> {
    StringRef::from_str(protocol).map_err(|_| CommandError::InvalidMessage("a protocol must be printable ASCII"))
}

fn header_value(value: String) -> Result<HeaderValue, CommandError> {
    HeaderValue::try_from(value).map_err(|_| CommandError::InvalidMessage("a protocol must be printable ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn round_trip() {
        let mut headers = HeaderMap::new();
        offer(&mut headers, &[]).expect("nothing to say");
        assert!(headers.is_empty() && offered(&headers).is_empty());
        let protocols = ["echo.v2".to_owned(), "a \"quoted\" \\ one".to_owned()];
        offer(&mut headers, &protocols).expect("legal names");
        assert_eq!(offered(&headers), protocols);
        choose(&mut headers, Some(&protocols[1])).expect("legal name");
        assert_eq!(chosen(&headers).as_ref(), Some(&protocols[1]));
        assert!(offer(&mut headers, &["caf\u{e9}".to_owned()]).is_err());
        assert!(choose(&mut headers, Some("a\nb")).is_err());
    }

    /// "parameters MUST be ignored" (draft 16 section 3.3).
    #[test]
    fn lines_are_combined_and_parameters_ignored() {
        let headers = fields(AVAILABLE, &["\"a\";q=1", "\"b\""]);
        assert_eq!(offered(&headers), ["a", "b"]);
        assert_eq!(chosen(&fields(CHOSEN, &["\"a\";x"])).as_deref(), Some("a"));
    }

    #[test]
    fn an_offer_of_too_many_is_ignored() {
        let of = |n: usize| {
            let value = HeaderValue::try_from(vec!["\"\""; n].join(",")).expect("ASCII");
            HeaderMap::from_iter([(AVAILABLE, value)])
        };
        assert_eq!(offered(&of(MAX_OFFERED)).len(), MAX_OFFERED);
        assert!(offered(&of(MAX_OFFERED + 1)).is_empty());
        assert!(offered(&of(20_000)).is_empty());
    }

    /// "Any value type other than String MUST be treated as an error that causes the entire field to be ignored" (draft
    /// 16 section 3.3).
    #[test]
    fn a_malformed_field_is_ignored_as_a_whole() {
        for bad in ["a", "\"a\", b", "\"a\", 1", "(\"a\")", "\"a", "\"a\",", ":YQ==:", "?1"] {
            assert!(offered(&fields(AVAILABLE, &[bad])).is_empty(), "{bad}");
        }
        for bad in ["a", "1", "\"a", "\"a\", \"b\"", ""] {
            assert_eq!(chosen(&fields(CHOSEN, &[bad])), None, "{bad}");
        }
        assert_eq!(chosen(&fields(CHOSEN, &["\"a\"", "\"a\""])), None);
    }
}
