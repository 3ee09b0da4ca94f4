//! Functions as handlers: what they take and return.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handler::{INVALID_PAYLOAD, ReplyError};
use super::{Connection, Context, Server};
use crate::data::{Data, IncomingMessage};

/// A value in JSON: as an argument it is read from the payload, as a reply it is written in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json<T>(pub T);

/// What a handler function can take as an argument.
pub trait FromMessage: Sized {
    /// Makes the argument.
    ///
    /// # Errors
    /// The message is not what the function takes; a request is answered with this.
    fn from_message(context: &Context, message: &IncomingMessage) -> Result<Self, ReplyError>;
}

impl FromMessage for Context {
    fn from_message(context: &Context, _: &IncomingMessage) -> Result<Self, ReplyError> {
        Ok(context.clone())
    }
}

impl FromMessage for Connection {
    fn from_message(context: &Context, _: &IncomingMessage) -> Result<Self, ReplyError> {
        Ok(context.connection().clone())
    }
}

/// The server that the message came to.
impl FromMessage for Server {
    fn from_message(context: &Context, _: &IncomingMessage) -> Result<Self, ReplyError> {
        Ok(context.connection().server())
    }
}

impl FromMessage for IncomingMessage {
    fn from_message(_: &Context, message: &IncomingMessage) -> Result<Self, ReplyError> {
        Ok(message.clone())
    }
}

/// The payload as it is.
impl FromMessage for Data {
    fn from_message(_: &Context, message: &IncomingMessage) -> Result<Self, ReplyError> {
        Ok(message.data().clone())
    }
}

/// The payload's bytes, of any encoding.
impl FromMessage for Bytes {
    fn from_message(_: &Context, message: &IncomingMessage) -> Result<Self, ReplyError> {
        Ok(message.bytes().clone())
    }
}

/// The payload as text, of any encoding.
impl FromMessage for String {
    fn from_message(_: &Context, message: &IncomingMessage) -> Result<Self, ReplyError> {
        match message.text() {
            Ok(text) => Ok(text.into_owned()),
            Err(error) => Err(ReplyError::new(INVALID_PAYLOAD, error.to_string())),
        }
    }
}

impl<T: DeserializeOwned> FromMessage for Json<T> {
    fn from_message(_: &Context, message: &IncomingMessage) -> Result<Self, ReplyError> {
        match message.data().parse_json() {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(ReplyError::new(INVALID_PAYLOAD, error.to_string())),
        }
    }
}

/// What a handler function can return.
pub trait IntoReply {
    /// Makes the reply.
    ///
    /// # Errors
    /// The reply is an error.
    fn into_reply(self) -> Result<Data, ReplyError>;
}

macro_rules! replies {
    ($($kind:ty),*) => {
        $(impl IntoReply for $kind {
            fn into_reply(self) -> Result<Data, ReplyError> {
                Ok(self.into())
            }
        })*
    };
}

replies!((), Data, &'static str, String, Bytes, Vec<u8>);

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Result<Data, ReplyError> {
        Data::json(&self.0).map_err(ReplyError::internal)
    }
}

impl<T: IntoReply, E: Into<ReplyError>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Data, ReplyError> {
        self.map_err(Into::into)?.into_reply()
    }
}

pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Data, ReplyError>> + Send>>;

/// An async function of up to four arguments, each [`FromMessage`], that returns something [`IntoReply`].
pub trait MessageFn<Arguments>: Send + Sync + 'static {
    /// Calls it.
    fn call(&self, context: &Context, message: &IncomingMessage) -> Reply;
}

macro_rules! functions {
    ($(($($argument:ident),*))*) => {
        $(impl<F, Fut, $($argument),*> MessageFn<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoReply,
            $($argument: FromMessage,)*
        {
            #[allow(non_snake_case, unused_variables)]
            fn call(&self, context: &Context, message: &IncomingMessage) -> Reply {
                $(let $argument = match $argument::from_message(context, message) {
                    Ok(argument) => argument,
                    Err(error) => return Box::pin(std::future::ready(Err(error))),
                };)*
                let called = self($($argument),*);
                Box::pin(async move { called.await.into_reply() })
            }
        })*
    };
}

functions! { () (A) (A, B) (A, B, C) (A, B, C, D) }
