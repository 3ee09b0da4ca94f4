use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};

use super::*;
use crate::qpack::{Field, FieldRef};

fn fields(list: &[(&str, &str)]) -> Vec<Field> {
    list.iter()
        .map(|(name, value)| Field {
            name: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            sensitive: false,
        })
        .collect()
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "a.example"),
    (":path", "/"),
];

/// The crime of a GET with these fields added, or with those replaced whose name is there already.
fn crime(changes: &[(&'static str, &'static str)]) -> HeaderError {
    let mut list = GET.to_vec();
    for change in changes {
        match list.iter_mut().find(|field| field.0 == change.0) {
            Some(field) => *field = *change,
            None => list.push(*change),
        }
    }
    match decode_request(fields(&list)) {
        Err(error) => {
            assert_eq!(error.code(), Code::H3_MESSAGE_ERROR);
            error
        }
        Ok(head) => panic!("{head:?}"),
    }
}

fn request(list: &[(&str, &str)]) -> Result<RequestHead, HeaderError> {
    decode_request(fields(list))
}

#[test]
fn requests() {
    let all = [
        &GET[..],
        &[("content-length", "12"), ("x-a", "1"), ("x-a", "2"), ("te", "trailers")],
    ]
    .concat();
    let Ok(RequestHead {
        head,
        protocol,
        content_length,
    }) = request(&all)
    else {
        panic!("legal")
    };
    assert_eq!((head.method(), head.version()), (&Method::GET, Version::HTTP_3));
    assert_eq!(head.uri(), "https://a.example/");
    assert_eq!((protocol, content_length), (None, Some(12)));
    assert_eq!(head.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);

    let star = request(&[
        (":method", "OPTIONS"),
        (":scheme", "https"),
        (":authority", "a"),
        (":path", "*"),
    ]);
    assert_eq!(star.map(|star| star.head.uri().path().to_owned()), Ok("*".into()));
    let by_host = request(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/?q"),
        ("host", "a:1"),
    ]);
    assert_eq!(
        by_host.map(|by_host| by_host.head.uri().to_string()),
        Ok("https://a:1/?q".into())
    );
}

#[test]
fn connects() {
    let plain = request(&[(":method", "CONNECT"), (":authority", "a.example:443")]);
    assert_eq!(
        plain.map(|plain| plain.head.uri().to_string()),
        Ok("a.example:443".into())
    );
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "[::1]:4433"),
        (":path", "/chat?room=1"),
        ("origin", "null"),
    ];
    let Ok(head) = request(&extended) else { panic!("legal") };
    assert_eq!(head.protocol.as_deref(), Some("webtransport"));
    assert_eq!(head.head.uri(), "https://[::1]:4433/chat?room=1");
    for missing in [":scheme", ":authority", ":path"] {
        let list: Vec<_> = extended.into_iter().filter(|field| field.0 != missing).collect();
        assert_eq!(request(&list).err(), Some(HeaderError::MissingPseudo(missing)));
    }
    // Host does not stand for it in a plain CONNECT, nor in one of WebTransport. In others it does.
    let host = ("host", "[::1]:4433");
    let without = |protocol: &'static str| {
        let list = extended.map(|field| {
            if field.0 == ":protocol" {
                (field.0, protocol)
            } else {
                field
            }
        });
        let mut list: Vec<_> = list.into_iter().filter(|field| field.0 != ":authority").collect();
        list.push(host);
        request(&list)
    };
    let missing = Some(HeaderError::MissingPseudo(":authority"));
    assert_eq!(request(&[(":method", "CONNECT"), host]).err(), missing);
    assert_eq!(without("webtransport").err(), missing);
    assert_eq!(without("webtransport-h3").err(), missing);
    assert_eq!(
        without("websocket").map(|head| head.head.uri().to_string()),
        Ok("https://[::1]:4433/chat?room=1".into())
    );
}

#[test]
fn pseudo_header_crimes() {
    // "All HTTP/3 requests MUST include exactly one value for the :method, :scheme, and :path pseudo-header fields,
    // unless the request is a CONNECT request" (RFC 9114 section 4.3.1).
    // "the request MUST contain either an :authority pseudo-header field or a Host header field" (RFC 9114 section
    // 4.3.1).
    // "Any request or response that contains a pseudo-header field that appears in a header section after a regular
    // header field MUST be treated as malformed" (RFC 9114 section 4.3).
    // "Pseudo-header fields MUST NOT appear in trailer sections" (RFC 9114 section 4.3).
    // "Pseudo-header fields defined for requests MUST NOT appear in responses" (RFC 9114 section 4.3).
    for (name, value) in GET {
        let duplicate = [&GET[..], &[(name, value)]].concat();
        assert_eq!(request(&duplicate).err(), Some(HeaderError::DuplicatePseudo(name)));
        let missing: Vec<_> = GET.into_iter().filter(|field| field.0 != name).collect();
        assert_eq!(request(&missing).err(), Some(HeaderError::MissingPseudo(name)));
        let late: Vec<_> = [&missing[..], &[("x", "y"), (name, value)]].concat();
        assert_eq!(request(&late).err(), Some(HeaderError::LatePseudo));
        assert_eq!(
            decode_trailers(fields(&[(name, value)])),
            Err(HeaderError::PseudoInTrailers)
        );
        assert_eq!(
            decode_trailers(fields(&[("x", "y"), (name, value)])),
            Err(HeaderError::PseudoInTrailers)
        );
        assert_eq!(
            decode_response(fields(&[(name, value)])).err(),
            Some(HeaderError::UnknownPseudo)
        );
    }
    // "pseudo-header fields defined for responses MUST NOT appear in requests" (RFC 9114 section 4.3).
    // "Endpoints MUST treat a request or response that contains undefined or invalid pseudo-header fields as malformed"
    // (RFC 9114 section 4.3).
    assert_eq!(crime(&[(":status", "200")]), HeaderError::UnknownPseudo);
    assert_eq!(crime(&[(":madeup", "x")]), HeaderError::UnknownPseudo);
    assert_eq!(crime(&[(":", "x")]), HeaderError::UnknownPseudo);
    assert_eq!(crime(&[(":method", "G T")]), HeaderError::InvalidMethod);
    assert_eq!(crime(&[(":method", "")]), HeaderError::InvalidMethod);
    assert_eq!(crime(&[(":scheme", "")]), HeaderError::InvalidScheme);
    assert_eq!(crime(&[(":scheme", "ht tp")]), HeaderError::InvalidScheme);
    assert_eq!(
        crime(&[(":protocol", "websocket")]),
        HeaderError::ProtocolWithoutConnect
    );
    // "This pseudo-header field MUST NOT be empty for "http" or "https" URIs" (RFC 9114 section 4.3.1).
    for path in ["", "a", "?q", "*", "/a#b", "/a b", "/\0", "//a\r\n"] {
        assert_eq!(crime(&[(":path", path)]), HeaderError::InvalidPath, "{path:?}");
    }
    // "If these fields are present, they MUST NOT be empty" (RFC 9114 section 4.3.1).
    // "The authority MUST NOT include the deprecated userinfo subcomponent" (RFC 9114 section 4.3.1).
    for authority in ["", "user@a.example", "a b", "a\0", "a/b", "[::1"] {
        assert_eq!(
            crime(&[(":authority", authority)]),
            HeaderError::InvalidAuthority,
            "{authority:?}"
        );
    }
    // "A CONNECT request MUST be constructed as follows" (RFC 9114 section 4.4).
    for authority in ["a", "a:", "[::1]"] {
        let list = [(":method", "CONNECT"), (":authority", authority)];
        assert_eq!(request(&list).err(), Some(HeaderError::InvalidAuthority), "{authority}");
    }
    let connect = [(":method", "CONNECT"), (":authority", "a:443")];
    for (name, value) in [(":path", "/"), (":scheme", "https")] {
        let list = [&connect[..], &[(name, value)]].concat();
        assert_eq!(request(&list).err(), Some(HeaderError::UnexpectedPseudo(name)));
    }
    assert_eq!(
        request(&connect[..1]).err(),
        Some(HeaderError::MissingPseudo(":authority"))
    );
    for protocol in ["", "web transport", "\u{e9}"] {
        let list = [
            &connect[..],
            &[(":protocol", protocol), (":scheme", "https"), (":path", "/")],
        ]
        .concat();
        assert_eq!(request(&list).err(), Some(HeaderError::InvalidProtocol));
    }
}

#[test]
fn field_crimes() {
    // "A request or response containing uppercase characters in field names MUST be treated as malformed" (RFC 9114
    // section 4.2).
    assert_eq!(crime(&[("X-Up", "1")]), HeaderError::UppercaseName);
    for name in ["", "a b", "a:", "\u{e9}", "a\0"] {
        assert_eq!(crime(&[(name, "1")]), HeaderError::InvalidName, "{name:?}");
    }
    for value in ["a\rb", "a\nb", "a\0b", "\u{7f}"] {
        assert_eq!(crime(&[("x", value)]), HeaderError::InvalidValue);
        assert_eq!(crime(&[("cookie", value)]), HeaderError::InvalidValue);
    }
    // "any message containing connection-specific fields MUST be treated as malformed" (RFC 9114 section 4.2).
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        assert_eq!(crime(&[(name, "x")]), HeaderError::ConnectionSpecific);
        assert_eq!(
            decode_trailers(fields(&[(name, "x")])),
            Err(HeaderError::ConnectionSpecific)
        );
    }
    // "it MUST NOT contain any value other than "trailers"" (RFC 9114 section 4.2), and is connection-specific
    // elsewhere.
    assert_eq!(crime(&[("te", "gzip")]), HeaderError::InvalidTe);
    let te = ("te", "trailers");
    assert!(request(&[&GET[..], &[te]].concat()).is_ok());
    let error = HeaderError::ConnectionSpecific;
    assert_eq!(decode_response(fields(&[(":status", "200"), te])).err(), Some(error));
    assert_eq!(decode_trailers(fields(&[te])), Err(error));
    for value in ["", "-1", "+1", "1.0", "0x1", "1, 1", " 1", "18446744073709551616"] {
        assert_eq!(
            crime(&[("content-length", value)]),
            HeaderError::InvalidContentLength,
            "{value:?}"
        );
    }
    let twice = |a, b| request(&[&GET[..], &[("content-length", a), ("content-length", b)]].concat());
    assert_eq!(twice("1", "2").err(), Some(HeaderError::ConflictingContentLength));
    assert_eq!(twice("7", "7").map(|head| head.head.headers().len()), Ok(1));
    // "If both fields are present, they MUST contain the same value" (RFC 9114 section 4.3.1).
    assert_eq!(crime(&[("host", "b.example")]), HeaderError::HostMismatch);
    let hosts = [&GET[..], &[("host", "a.example"), ("host", "a.example")]].concat();
    assert_eq!(request(&hosts).err(), Some(HeaderError::HostMismatch));
    let by_host = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "")];
    assert_eq!(request(&by_host).err(), Some(HeaderError::InvalidAuthority));
}

#[test]
fn what_is_sent_is_judged_as_what_is_received() {
    let declared = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("content-length", HeaderValue::from_static(value));
        }
        declared_length(&headers)
    };
    assert_eq!(declared(&[]), Ok(None));
    assert_eq!(declared(&["7", "7"]), Ok(Some(7)));
    assert_eq!(declared(&["7", "8"]), Err(HeaderError::ConflictingContentLength));
    for value in ["+5", "", "-1", "1, 1", "18446744073709551616"] {
        assert_eq!(declared(&[value]), Err(HeaderError::InvalidContentLength), "{value:?}");
    }
}

#[test]
fn responses() {
    let list = [
        (":status", "204"),
        ("content-length", "5"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
    ];
    let Ok(ResponseHead { head, content_length }) = decode_response(fields(&list)) else {
        panic!("legal")
    };
    assert_eq!((head.status(), content_length), (StatusCode::NO_CONTENT, Some(5)));
    assert_eq!(head.headers().get_all("set-cookie").iter().count(), 2);
    for status in ["", "20", "2000", "099", "101", "abc", "+20"] {
        assert_eq!(
            decode_response(fields(&[(":status", status)])).err(),
            Some(HeaderError::InvalidStatus)
        );
    }
    // "field MUST be included in all responses" (RFC 9114 section 4.3.2).
    assert_eq!(
        decode_response(fields(&[("x", "y")])).err(),
        Some(HeaderError::MissingPseudo(":status"))
    );
}

/// "If a decompressed field section contains multiple cookie field lines, these MUST be concatenated into a single byte
/// string" (RFC 9114 section 4.2.1).
#[test]
fn cookies_are_joined() {
    let Ok(head) = request(
        &[
            &GET[..],
            &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")],
        ]
        .concat(),
    ) else {
        panic!("legal")
    };
    assert_eq!(
        head.head.headers().get_all("cookie").iter().collect::<Vec<_>>(),
        ["a=1; b=2; c=3"]
    );
    assert!(!head.head.headers()["cookie"].is_sensitive());
}

/// The N bit of one of them is that of all (RFC 9204 section 4.5.4).
#[test]
fn secret_cookies_stay_secret() {
    for secret in [0, 1] {
        let cookies = [("cookie", "a=1"), ("cookie", "b=2")];
        let mut list = fields(&[&GET[..], &cookies[secret..]].concat());
        list[GET.len()].sensitive = true;
        let Ok(head) = decode_request(list) else {
            panic!("legal")
        };
        let cookie = &head.head.headers()["cookie"];
        assert!(cookie.is_sensitive() && cookie.as_bytes().ends_with(b"b=2"));
    }
}

fn owned(list: &[FieldRef<'_>]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    list.iter().map(|field| (text(field.name), text(field.value))).collect()
}

/// "An endpoint MUST NOT generate an HTTP/3 field section containing connection-specific fields" (RFC 9114 section
/// 4.2); "the Transfer-Encoding header field MUST NOT be used" (RFC 9114 section 4.1).
#[test]
fn encoding_drops_what_only_http1_knows() {
    let mut headers = HeaderMap::new();
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "x-a",
    ] {
        headers.insert(name, HeaderValue::from_static("v"));
    }
    let expected = |first: &[(&str, &str)]| -> Vec<(String, String)> {
        first
            .iter()
            .chain([&("x-a", "v")])
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    };
    assert_eq!(
        encode_response(&StatusCode::OK, &headers).map(|list| owned(&list)),
        Ok(expected(&[(":status", "200")]))
    );
    assert_eq!(owned(&encode_trailers(&headers)), expected(&[]));
    headers.insert("te", HeaderValue::from_static("trailers"));
    assert_eq!(owned(&encode_trailers(&headers)), expected(&[]));
    headers.insert("te", HeaderValue::from_static("gzip"));
    headers.insert("host", HeaderValue::from_static("a.example"));
    let mut head = Request::new(());
    // ""http" or "https" URIs that do not contain a path component MUST include a value of /" (RFC 9114 section 4.3.1).
    *head.uri_mut() = http::Uri::from_static("https://a.example");
    *head.headers_mut() = headers;
    assert_eq!(encode_request(&head, None).map(|list| owned(&list)), Ok(expected(&GET)));
    assert_eq!(
        encode_request(&head, None).map(|list| section_size(&list)),
        Ok(5 * 32 + 10 + 12 + 19 + 6 + 4)
    );
    assert_eq!(
        encode_response(&StatusCode::SWITCHING_PROTOCOLS, head.headers()),
        Err(HeaderError::InvalidStatus)
    );
}

/// "Characters in field names MUST be converted to lowercase prior to their encoding" (RFC 9114 section 4.2).
#[test]
fn names_are_written_in_lower_case() {
    let mut headers = HeaderMap::new();
    let name = http::HeaderName::from_bytes(b"X-Upper").expect("a name");
    headers.insert(name, HeaderValue::from_static("Value"));
    assert_eq!(owned(&encode_trailers(&headers)), [("x-upper".into(), "Value".into())]);
}

#[test]
fn encoding_refuses_what_a_peer_would() {
    let get = |uri: &'static str| {
        let mut head = Request::new(());
        *head.uri_mut() = http::Uri::from_static(uri);
        head
    };
    assert_eq!(
        encode_request(&get("/path"), None),
        Err(HeaderError::MissingPseudo(":authority"))
    );
    assert_eq!(
        encode_request(&get("a.example"), None),
        Err(HeaderError::MissingPseudo(":scheme"))
    );
    // "The authority MUST NOT include the deprecated userinfo subcomponent" (RFC 9114 section 4.3.1).
    assert_eq!(
        encode_request(&get("https://u@a.example/"), None),
        Err(HeaderError::InvalidAuthority)
    );
    assert_eq!(
        encode_request(&get("https://a.example?x"), None),
        Err(HeaderError::InvalidPath)
    );
    assert_eq!(
        encode_request(&get("https://a/"), Some("webtransport")),
        Err(HeaderError::ProtocolWithoutConnect)
    );
    // "A CONNECT request MUST be constructed as follows" (RFC 9114 section 4.4).
    let mut head = get("a.example");
    *head.method_mut() = Method::CONNECT;
    assert_eq!(encode_request(&head, None), Err(HeaderError::InvalidAuthority));
    *head.uri_mut() = http::Uri::from_static("a.example:443");
    assert_eq!(
        encode_request(&head, None).map(|list| owned(&list)),
        Ok(vec![
            (":method".into(), "CONNECT".into()),
            (":authority".into(), "a.example:443".into())
        ])
    );
    let mut head = get("https://a.example/");
    head.headers_mut().insert("host", HeaderValue::from_static("b.example"));
    assert_eq!(encode_request(&head, None), Err(HeaderError::HostMismatch));
}

#[test]
fn what_is_encoded_is_decoded() {
    let mut head = Request::new(());
    *head.method_mut() = Method::CONNECT;
    *head.uri_mut() = http::Uri::from_static("https://a.example:4433/chat?x=1");
    let mut secret = HeaderValue::from_static("Bearer x");
    secret.set_sensitive(true);
    head.headers_mut().insert("authorization", secret);
    let Ok(list) = encode_request(&head, Some("webtransport-h3")) else {
        panic!("legal")
    };
    let list = list.iter().map(|field| Field {
        name: Bytes::copy_from_slice(field.name),
        value: Bytes::copy_from_slice(field.value),
        sensitive: field.sensitive,
    });
    let Ok(decoded) = decode_request(list) else {
        panic!("own request")
    };
    assert_eq!(decoded.protocol.as_deref(), Some("webtransport-h3"));
    assert_eq!((decoded.head.uri(), decoded.head.method()), (head.uri(), head.method()));
    assert_eq!(decoded.head.headers(), head.headers());
    assert!(decoded.head.headers()["authorization"].is_sensitive());
}
