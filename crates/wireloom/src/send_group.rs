//! Send groups: streams that share as one.

use std::num::NonZeroU64;
use std::sync::{Arc, Weak};

use crate::session::SessionState;

/// A send group of one session, made by [`Session::create_send_group`](crate::Session::create_send_group) (as the W3C API's
/// `WebTransportSendGroup`).
///
/// The groups of a session share what it may send evenly, and each has its own numbers for
/// [`set_send_order`](crate::SendStream::set_send_order). A media player, say, gives video and audio a group each and orders the
/// frames within. Streams without a group are one more. Dropping the handle changes nothing for the streams in it.
#[derive(Debug, Clone)]
pub struct SendGroup {
    session: Weak<SessionState>,
    id: NonZeroU64,
}

impl SendGroup {
    pub(crate) fn new(session: &Arc<SessionState>, id: NonZeroU64) -> Self {
        Self {
            session: Arc::downgrade(session),
            id,
        }
    }

    /// The group's number, if it is of this session.
    pub(crate) fn id_in(&self, session: &Arc<SessionState>) -> Option<u64> {
        std::ptr::eq(self.session.as_ptr(), Arc::as_ptr(session)).then(|| self.id.get())
    }
}

/// A [`SendGroup`] was used in another session than its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the send group is another session's")]
#[non_exhaustive]
pub struct ForeignSendGroup;
