//! The end of a link. Closing a session resets its streams and may take with it what they still carry, so the control
//! stream is ended first, and the session closed when the peer has ended its own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use wireloom::Session;

use super::{WebTransportLink, ended};
use crate::engine::CloseCode;
use crate::transport::Ended;

/// How long the end of the control stream waits for the session's, which says why.
const REASON_DEADLINE: Duration = Duration::from_secs(1);

type Waiting = Pin<Box<dyn Future<Output = Option<Ended>> + Send>>;

#[derive(Default)]
pub(super) struct Closing {
    /// What the control stream ended with.
    pub(super) control_ended: Option<Ended>,
    session: Option<Waiting>,
    reason: Option<Waiting>,
    /// Client: the server's wish that the session be ended soon.
    draining: Option<Waiting>,
    /// What the peer is told, also if it does not answer in time and the link is dropped.
    code: Option<CloseCode>,
    done: bool,
}

impl Closing {
    /// Client: is going to hear when the server drains.
    pub(super) fn with_draining(session: &Session) -> Self {
        let session = session.clone();
        let draining = async move {
            session.draining().await;
            None
        };
        Self {
            draining: Some(Box::pin(draining)),
            ..Self::default()
        }
    }

    /// Whether the server has begun to drain. Once.
    pub(super) fn poll_draining(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<()> {
        let Some(draining) = &mut self.draining else {
            return Poll::Pending;
        };
        ready!(draining.as_mut().poll(cx));
        self.draining = None;
        if session.close_reason().is_some() {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The end of the session.
    pub(super) fn poll_session(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<Ended> {
        let waiting = self.session.get_or_insert_with(|| {
            let session = session.clone();
            Box::pin(async move { Some(ended(&session.closed().await)) })
        });
        waiting.as_mut().poll(cx).map(|ended| {
            self.session = None;
            ended.unwrap_or_else(|| Ended::lost("the session is over"))
        })
    }

    /// The end of the session, if it comes soon.
    pub(super) fn poll_reason(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<Option<Ended>> {
        let waiting = self.reason.get_or_insert_with(|| {
            let session = session.clone();
            Box::pin(async move {
                let closed = tokio::time::timeout(REASON_DEADLINE, session.closed()).await;
                Some(ended(&closed.ok()?))
            })
        });
        let reason = ready!(waiting.as_mut().poll(cx));
        self.reason = None;
        Poll::Ready(reason)
    }
}

pub(super) fn poll_close(link: &mut WebTransportLink, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
    if link.closing.done {
        return Poll::Ready(());
    }
    let code = *link.closing.code.get_or_insert(code);
    if link.session.close_reason().is_none() {
        if let Some(multi) = &mut link.multi {
            ready!(multi.poll_answered(cx));
        }
        if ready!(link.control.poll_flush(cx)).is_ok() {
            link.control.finish();
            // A peer that broke a rule is not listened to any more.
            use CloseCode::{Dismissed, Internal, Normal, Shutdown};
            let orderly = matches!(code, Normal | Shutdown | Internal | Dismissed);
            if orderly
                && link.closing.control_ended.is_none()
                && link.closing.poll_session(cx, &link.session).is_pending()
            {
                ready!(link.control.poll_drain(cx));
            }
        }
        link.session.close(code.webtransport(), reason);
    }
    link.closing.done = true;
    Poll::Ready(())
}

impl Drop for WebTransportLink {
    fn drop(&mut self) {
        if !self.closing.done {
            let code = self.closing.code.unwrap_or(CloseCode::Normal);
            self.session.close(code.webtransport(), "");
        }
    }
}
