//! What all servers ask of an application's tower service. The public functions spell it out, where their users look for it.

use std::error::Error as StdError;

use bytes::Bytes;
use http::{Request, Response};
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
