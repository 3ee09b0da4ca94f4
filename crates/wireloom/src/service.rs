//! What all servers ask of an application's tower service. The public functions spell it out, where their users look for it.

use std::error::Error as StdError;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use tower_service::Service;

use crate::body::Body;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of an answer.
pub(crate) trait AnswerBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B> AnswerBody for B where B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

/// A service that is cloned for each request.
pub(crate) trait HttpService:
    Service<Request<Body>, Response = Response<Self::Body>, Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
    type Body: AnswerBody;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: AnswerBody,
{
    type Body = B;
}

/// Makes the head of an answer to `method` say what its content is, of which `length` is known, and whether it has content at
/// all, whatever the service returned: that to HEAD, 1xx, 204 and 304 have none (RFC 9110 section 6.4.1).
pub(crate) fn settle_content<T>(method: &Method, head: &mut Response<T>, length: Option<u64>) -> bool {
    let status = head.status();
    let fields = head.headers_mut();
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // "A server MUST NOT send a Content-Length header field in any response with a status code of 1xx (Informational) or 204
        // (No Content)" (section 8.6); clients of HTTP/2 and HTTP/3 take such a response for malformed.
        fields.remove(CONTENT_LENGTH);
        return false;
    }
    // What is sent with 304 would describe another body.
    if status == StatusCode::NOT_MODIFIED {
        return false;
    }
    let is_head = method == Method::HEAD;
    // A known length spares the client from guessing. That of an answer to HEAD may have been dropped with its body.
    if let Some(length) = length
        && (length > 0 || !is_head)
        && !fields.contains_key(CONTENT_LENGTH)
        && !fields.contains_key(TRANSFER_ENCODING)
    {
        fields.insert(CONTENT_LENGTH, length.into());
    }
    !is_head
}
