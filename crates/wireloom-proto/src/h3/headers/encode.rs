use http::header::{self, HeaderMap};
use http::{Method, Request, StatusCode};

use super::{HeaderError, is_connection_specific};
use crate::qpack::FieldRef;

/// The header section of a request; with `protocol` it is an extended CONNECT (RFC 9220).
///
/// The URI must be absolute, or have its authority in Host. Connection-specific fields, and TE other than `trailers`, are
/// dropped; a Host that repeats the authority is too, since `:authority` says it.
///
/// Fails where a pseudo-header field would be missing or wrong, for `protocol` without CONNECT, for a plain CONNECT without
/// port, and for a Host that differs from the authority. A path that is a query alone (`https://host?x`) is
/// [`HeaderError::InvalidPath`].
///
/// "All pseudo-header fields MUST appear in the header section before regular header fields" (RFC 9114 section 4.3).
/// "Endpoints MUST NOT generate pseudo-header fields other than those defined in this document" (RFC 9114 section 4.3).
pub fn encode_request<'a>(head: &'a Request<()>, protocol: Option<&'a str>) -> Result<Vec<FieldRef<'a>>, HeaderError> {
    let (uri, headers, method) = (head.uri(), head.headers(), head.method());
    if protocol.is_some() && method != Method::CONNECT {
        return Err(HeaderError::ProtocolWithoutConnect);
    }
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let authority = match (uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            return Err(HeaderError::HostMismatch);
        }
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host,
        (None, None) => return Err(HeaderError::MissingPseudo(":authority")),
    };
    // "The authority MUST NOT include the deprecated userinfo subcomponent" (RFC 9114 section 4.3.1).
    // "If these fields are present, they MUST NOT be empty" (RFC 9114 section 4.3.1).
    if authority.is_empty() || authority.contains(&b'@') {
        return Err(HeaderError::InvalidAuthority);
    }

    let mut fields = Vec::with_capacity(headers.len() + 5);
    fields.push(FieldRef::new(b":method", method.as_str().as_bytes()));
    if method == Method::CONNECT && protocol.is_none() {
        // "A CONNECT request MUST be constructed as follows" (RFC 9114 section 4.4). Of host and port, that is.
        if uri.port().is_none() {
            return Err(HeaderError::InvalidAuthority);
        }
        fields.push(FieldRef::new(b":authority", authority));
    } else {
        let scheme = uri.scheme_str().ok_or(HeaderError::MissingPseudo(":scheme"))?;
        // ""http" or "https" URIs that do not contain a path component MUST include a value of /" (RFC 9114 section
        // 4.3.1).
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let rooted = path.starts_with('/') || (method == Method::OPTIONS && path == "*");
        if !rooted {
            return Err(HeaderError::InvalidPath);
        }
        fields.push(FieldRef::new(b":scheme", scheme.as_bytes()));
        fields.push(FieldRef::new(b":authority", authority));
        fields.push(FieldRef::new(b":path", path.as_bytes()));
        fields.extend(protocol.map(|protocol| FieldRef::new(b":protocol", protocol.as_bytes())));
    }
    fields.extend(regular(headers, true).filter(|field| field.name != b"host"));
    Ok(fields)
}

/// The header section of a response, interim or final.
///
/// Connection-specific fields are dropped: frameworks made for HTTP/1 set them. Fails for 101, which HTTP/3 has not.
pub fn encode_response<'a>(status: &'a StatusCode, headers: &'a HeaderMap) -> Result<Vec<FieldRef<'a>>, HeaderError> {
    if *status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeaderError::InvalidStatus);
    }
    let mut fields = Vec::with_capacity(headers.len() + 1);
    // "field MUST be included in all responses" (RFC 9114 section 4.3.2).
    fields.push(FieldRef::new(b":status", status.as_str().as_bytes()));
    fields.extend(regular(headers, false));
    Ok(fields)
}

/// A trailer section, without connection-specific fields.
pub fn encode_trailers(trailers: &HeaderMap) -> Vec<FieldRef<'_>> {
    regular(trailers, false).collect()
}

/// The size of a section in bytes as SETTINGS_MAX_FIELD_SECTION_SIZE counts it (RFC 9114 section 4.2.2).
pub fn section_size(fields: &[FieldRef<'_>]) -> u64 {
    fields.iter().map(FieldRef::size).sum()
}

/// "An endpoint MUST NOT generate an HTTP/3 field section containing connection-specific fields" (RFC 9114 section
/// 4.2); "the Transfer-Encoding header field MUST NOT be used" (RFC 9114 section 4.1).
/// "Characters in field names MUST be converted to lowercase prior to their encoding" (RFC 9114 section 4.2), which a
/// `HeaderName` is by itself.
fn regular(headers: &HeaderMap, is_request: bool) -> impl Iterator<Item = FieldRef<'_>> {
    headers.iter().filter_map(move |(name, value)| {
        let is_te = name == header::TE;
        let te = is_te && !(is_request && value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        if te || is_connection_specific(name.as_str()) {
            return None;
        }
        let (name, sensitive) = (name.as_str().as_bytes(), value.is_sensitive());
        Some(FieldRef {
            name,
            value: value.as_bytes(),
            sensitive,
        })
    })
}
