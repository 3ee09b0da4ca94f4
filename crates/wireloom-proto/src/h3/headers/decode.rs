use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode, Version};

use super::{HeaderError, is_connection_specific};
use crate::qpack::Field;
use crate::webtransport::negotiate;

/// A request's header section.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, URI of scheme, authority and path (a plain CONNECT: authority only), version 3, fields.
    ///
    /// Where there is no `:authority` the URI takes Host's value. A Host field stays among the fields; none is made up.
    pub head: Request<()>,
    /// `:protocol` (RFC 9220).
    pub protocol: Option<String>,
    /// Content-Length in bytes. A CONNECT has no content: its receiver ignores this (RFC 9110 section 9.3.6), except that a
    /// message that uses the capsule protocol may not have it at all (RFC 9297 section 3.2).
    pub content_length: Option<u64>,
}

/// A response's header section.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version 3, fields.
    pub head: Response<()>,
    /// Content-Length in bytes. It tells the body's length only where there can be a body: not after HEAD, not with 1xx, 204
    /// or 304, nor with a 2xx to CONNECT (RFC 9110 section 8.6).
    pub content_length: Option<u64>,
}

/// Reads a request's header section.
pub fn decode_request(fields: impl IntoIterator<Item = Field>) -> Result<RequestHead, HeaderError> {
    let Section {
        pseudo,
        headers,
        content_length,
    } = Section::read(fields, Kind::Request)?;
    let method = pseudo.method.ok_or(HeaderError::MissingPseudo(":method"))?;
    let method = Method::from_bytes(&method).map_err(|_| HeaderError::InvalidMethod)?;
    let protocol = pseudo.protocol.map(protocol).transpose()?;
    // "The :protocol pseudo-header field" is for CONNECT only (RFC 8441 section 4).
    if protocol.is_some() && method != Method::CONNECT {
        return Err(HeaderError::ProtocolWithoutConnect);
    }
    // A plain CONNECT has no Host to fall back to, as other requests have (RFC 9114 section 4.4). That of a session neither:
    // "Both the :authority and the :path value MUST be set" (draft 16 section 3.2).
    if method == Method::CONNECT
        && pseudo.authority.is_none()
        && protocol.as_deref().is_none_or(negotiate::is_upgrade_token)
    {
        return Err(HeaderError::MissingPseudo(":authority"));
    }
    let authority = authority(pseudo.authority, &headers)?;
    let uri = if method == Method::CONNECT && protocol.is_none() {
        // "A CONNECT request MUST be constructed as follows" (RFC 9114 section 4.4): "The :scheme and :path
        // pseudo-header fields are omitted", and ":authority [...] contains the host and port to connect to".
        if pseudo.scheme.is_some() {
            return Err(HeaderError::UnexpectedPseudo(":scheme"));
        }
        if pseudo.path.is_some() {
            return Err(HeaderError::UnexpectedPseudo(":path"));
        }
        let authority = authority.ok_or(HeaderError::MissingPseudo(":authority"))?;
        if authority.port().is_none() {
            return Err(HeaderError::InvalidAuthority);
        }
        Uri::from(authority)
    } else {
        // "All HTTP/3 requests MUST include exactly one value for the :method, :scheme, and :path pseudo-header fields,
        // unless the request is a CONNECT request" (RFC 9114 section 4.3.1); an extended CONNECT must too (RFC 8441
        // section 4).
        let scheme = pseudo.scheme.ok_or(HeaderError::MissingPseudo(":scheme"))?;
        let path = pseudo.path.ok_or(HeaderError::MissingPseudo(":path"))?;
        uri(&scheme, authority, path, &method)?
    };
    let mut head = Request::new(());
    *head.method_mut() = method;
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_3;
    *head.headers_mut() = headers;
    Ok(RequestHead {
        head,
        protocol,
        content_length,
    })
}

/// Reads a response's header section, interim or final.
pub fn decode_response(fields: impl IntoIterator<Item = Field>) -> Result<ResponseHead, HeaderError> {
    let Section {
        pseudo,
        headers,
        content_length,
    } = Section::read(fields, Kind::Response)?;
    // "field MUST be included in all responses" (RFC 9114 section 4.3.2).
    let status = pseudo.status.ok_or(HeaderError::MissingPseudo(":status"))?;
    let status = StatusCode::from_bytes(&status).map_err(|_| HeaderError::InvalidStatus)?;
    // "HTTP/3 does not support the HTTP Upgrade mechanism [...] or the 101 (Switching Protocols) informational status code"
    // (RFC 9114 section 4.5).
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeaderError::InvalidStatus);
    }
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.version_mut() = Version::HTTP_3;
    *head.headers_mut() = headers;
    Ok(ResponseHead { head, content_length })
}

/// Reads a trailer section: "Pseudo-header fields MUST NOT appear in trailer sections" (RFC 9114 section 4.3).
pub fn decode_trailers(fields: impl IntoIterator<Item = Field>) -> Result<HeaderMap, HeaderError> {
    Section::read(fields, Kind::Trailers).map(|section| section.headers)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
    Trailers,
}

#[derive(Default)]
struct Pseudo {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<Bytes>,
}

impl Pseudo {
    fn set(&mut self, field: Field, kind: Kind) -> Result<(), HeaderError> {
        let (slot, name) = match (&field.name[..], kind) {
            (_, Kind::Trailers) => return Err(HeaderError::PseudoInTrailers),
            (b":method", Kind::Request) => (&mut self.method, ":method"),
            (b":scheme", Kind::Request) => (&mut self.scheme, ":scheme"),
            (b":authority", Kind::Request) => (&mut self.authority, ":authority"),
            (b":path", Kind::Request) => (&mut self.path, ":path"),
            (b":protocol", Kind::Request) => (&mut self.protocol, ":protocol"),
            (b":status", Kind::Response) => (&mut self.status, ":status"),
            // "Pseudo-header fields defined for requests MUST NOT appear in responses" (RFC 9114 section 4.3);
            // "pseudo-header fields defined for responses MUST NOT appear in requests" (RFC 9114 section 4.3).
            // "Endpoints MUST treat a request or response that contains undefined or invalid pseudo-header fields as
            // malformed" (RFC 9114 section 4.3).
            _ => return Err(HeaderError::UnknownPseudo),
        };
        if slot.replace(field.value).is_some() {
            Err(HeaderError::DuplicatePseudo(name))
        } else {
            Ok(())
        }
    }
}

struct Section {
    pseudo: Pseudo,
    headers: HeaderMap,
    content_length: Option<u64>,
}

impl Section {
    fn read(fields: impl IntoIterator<Item = Field>, kind: Kind) -> Result<Self, HeaderError> {
        let fields = fields.into_iter();
        let headers = HeaderMap::try_with_capacity(fields.size_hint().0).map_err(|_| HeaderError::TooManyFields)?;
        let mut section = Self {
            pseudo: Pseudo::default(),
            headers,
            content_length: None,
        };
        let mut cookies: Vec<Bytes> = Vec::new();
        let mut is_secret = false;
        let mut regular_seen = false;
        for field in fields {
            if field.name.first() == Some(&b':') {
                // "Any request or response that contains a pseudo-header field that appears in a header section after a
                // regular header field MUST be treated as malformed" (RFC 9114 section 4.3).
                if regular_seen {
                    return Err(if kind == Kind::Trailers {
                        HeaderError::PseudoInTrailers
                    } else {
                        HeaderError::LatePseudo
                    });
                }
                section.pseudo.set(field, kind)?;
                continue;
            }
            regular_seen = true;
            if &field.name[..] == b"cookie" {
                cookies.push(field.value);
                is_secret |= field.sensitive;
            } else {
                section.regular(field, kind)?;
            }
        }
        section.cookies(cookies, is_secret)?;
        Ok(section)
    }

    fn regular(&mut self, field: Field, kind: Kind) -> Result<(), HeaderError> {
        // "A request or response containing uppercase characters in field names MUST be treated as malformed" (RFC 9114
        // section 4.2).
        let name = HeaderName::from_lowercase(&field.name).map_err(|_| {
            if field.name.iter().any(u8::is_ascii_uppercase) {
                HeaderError::UppercaseName
            } else {
                HeaderError::InvalidName
            }
        })?;
        // "any message containing connection-specific fields MUST be treated as malformed" (RFC 9114 section 4.2). TE
        // is one too where it is not in a request.
        if is_connection_specific(name.as_str()) || (name == header::TE && kind != Kind::Request) {
            return Err(HeaderError::ConnectionSpecific);
        }
        let mut value = HeaderValue::from_maybe_shared(field.value).map_err(|_| HeaderError::InvalidValue)?;
        value.set_sensitive(field.sensitive);
        // TE "MAY be present in an HTTP/3 request header"; when it is, "it MUST NOT contain any value other than
        // "trailers"" (RFC 9114 section 4.2).
        if name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            return Err(HeaderError::InvalidTe);
        }
        if name == header::CONTENT_LENGTH {
            let before = self.content_length;
            self.content_length = Some(content_length(&value, before)?);
            // One may stand for all that say the same (RFC 9110 section 8.6).
            if before.is_some() {
                return Ok(());
            }
        }
        self.append(name, value)
    }

    /// "If a decompressed field section contains multiple cookie field lines, these MUST be concatenated into a single
    /// byte string" (RFC 9114 section 4.2.1), with "; " between them. One that no compression may see makes all of it so.
    fn cookies(&mut self, mut cookies: Vec<Bytes>, is_secret: bool) -> Result<(), HeaderError> {
        let joined = match cookies.len() {
            0 => return Ok(()),
            1 => cookies.swap_remove(0),
            _ => cookies.join(&b"; "[..]).into(),
        };
        let mut value = HeaderValue::from_maybe_shared(joined).map_err(|_| HeaderError::InvalidValue)?;
        value.set_sensitive(is_secret);
        self.append(header::COOKIE, value)
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), HeaderError> {
        self.headers
            .try_append(name, value)
            .map(|_| ())
            .map_err(|_| HeaderError::TooManyFields)
    }
}

/// The Content-Length of fields that are to be sent, as a receiver will read them.
pub(crate) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, HeaderError> {
    let mut fields = headers.get_all(header::CONTENT_LENGTH).iter();
    fields.try_fold(None, |before, value| content_length(value, before).map(Some))
}

/// The number of one Content-Length, where those `before` it said that.
fn content_length(value: &HeaderValue, before: Option<u64>) -> Result<u64, HeaderError> {
    let digits = value.to_str().map_err(|_| HeaderError::InvalidContentLength)?;
    // `parse` alone would take a plus sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeaderError::InvalidContentLength);
    }
    let length = digits.parse().map_err(|_| HeaderError::InvalidContentLength)?;
    if before.is_some_and(|before| before != length) {
        return Err(HeaderError::ConflictingContentLength);
    }
    Ok(length)
}

/// An upgrade token, perhaps with a version (RFC 9110 section 7.8).
fn protocol(value: Bytes) -> Result<String, HeaderError> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    if value.is_empty() || !value.iter().all(legal) {
        return Err(HeaderError::InvalidProtocol);
    }
    String::from_utf8(value.into()).map_err(|_| HeaderError::InvalidProtocol)
}

/// `:authority` and Host. "If these fields are present, they MUST NOT be empty" (RFC 9114 section 4.3.1).
/// "If both fields are present, they MUST contain the same value" (RFC 9114 section 4.3.1).
fn authority(pseudo: Option<Bytes>, headers: &HeaderMap) -> Result<Option<Authority>, HeaderError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeaderError::HostMismatch);
    }
    let bytes = match (pseudo, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(HeaderError::HostMismatch);
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => Bytes::copy_from_slice(host.as_bytes()),
        (None, None) => return Ok(None),
    };
    // "The authority MUST NOT include the deprecated userinfo subcomponent" (RFC 9114 section 4.3.1).
    if bytes.is_empty() || bytes.contains(&b'@') {
        return Err(HeaderError::InvalidAuthority);
    }
    Authority::from_maybe_shared(bytes)
        .map(Some)
        .map_err(|_| HeaderError::InvalidAuthority)
}

fn uri(scheme: &[u8], authority: Option<Authority>, path: Bytes, method: &Method) -> Result<Uri, HeaderError> {
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic) {
        return Err(HeaderError::InvalidScheme);
    }
    let scheme = Scheme::try_from(scheme).map_err(|_| HeaderError::InvalidScheme)?;
    // "This pseudo-header field MUST NOT be empty for "http" or "https" URIs" (RFC 9114 section 4.3.1), and only
    // OPTIONS may have `*` in place of a path. A fragment is no part of it.
    let rooted = path.first() == Some(&b'/') || (*method == Method::OPTIONS && &path[..] == b"*");
    if !rooted || path.contains(&b'#') {
        return Err(HeaderError::InvalidPath);
    }
    let path = PathAndQuery::from_maybe_shared(path).map_err(|_| HeaderError::InvalidPath)?;
    let mut parts = http::uri::Parts::default();
    if authority.is_some() {
        parts.scheme = Some(scheme);
    } else if ["http", "https"]
        .iter()
        .any(|known| scheme.as_str().eq_ignore_ascii_case(known))
    {
        // For these schemes "the request MUST contain either an :authority pseudo-header field or a Host header field"
        // (RFC 9114 section 4.3.1).
        return Err(HeaderError::MissingPseudo(":authority"));
    }
    parts.authority = authority;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| HeaderError::InvalidPath)
}
