//! What handlers of axum ask for as arguments: extractors of what this crate puts into the extensions of requests.

use std::convert::Infallible;

use axum::extract::rejection::ExtensionRejection;
use axum::extract::{Extension, FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;

use crate::body::RemoteAddr;
use crate::early_hints::EarlyHints;
use crate::tls::TlsInfo;

/// The first is answered 500 where it is missing, as [`Extension`] is; the second is for what may be.
macro_rules! extract {
    ($type:ty) => {
        impl<S: Send + Sync> FromRequestParts<S> for $type {
            type Rejection = ExtensionRejection;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ExtensionRejection> {
                let Extension(found) =
                    <Extension<Self> as FromRequestParts<S>>::from_request_parts(parts, state).await?;
                Ok(found)
            }
        }

        impl<S: Send + Sync> OptionalFromRequestParts<S> for $type {
            type Rejection = Infallible;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
                Ok(parts.extensions.get::<Self>().cloned())
            }
        }
    };
}

extract!(RemoteAddr);
extract!(TlsInfo);
extract!(EarlyHints);
