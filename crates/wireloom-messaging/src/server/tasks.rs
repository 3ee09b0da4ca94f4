//! The handlers that run for one connection.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Sleep;

use super::Context;
use super::handler::{DEADLINE_EXCEEDED, Panicked, ReplyError, Task};
use crate::codec::RequestId;
use crate::data::Data;
use crate::transport::Route;

/// What became of a message.
pub(super) enum Done {
    /// To be replied to.
    Request(RequestId, Route, Outcome),
    Signal,
}

pub(super) type Outcome = Result<Result<Data, ReplyError>, Panicked>;

enum Work {
    Request(RequestId, Route, Task<Result<Data, ReplyError>>),
    Signal(Task<()>),
}

impl Work {
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Done> {
        Poll::Ready(match self {
            Self::Request(id, route, task) => Done::Request(*id, *route, ready!(task.as_mut().poll(cx))),
            Self::Signal(task) => {
                if ready!(task.as_mut().poll(cx)).is_err() {
                    tracing::error!("the handler of a signal panicked");
                }
                Done::Signal
            }
        })
    }

    fn give_up(&self, error: ReplyError) -> Done {
        match self {
            Self::Request(id, route, _) => Done::Request(*id, *route, Ok(Err(error))),
            Self::Signal(_) => Done::Signal,
        }
    }
}

/// One handler at work.
pub(super) struct Running {
    work: Work,
    context: Context,
    token: u64,
    grace: Duration,
    /// The deadline, or after the context was cancelled the end of the grace.
    timer: Option<Pin<Box<Sleep>>>,
    cancelled: bool,
}

impl Running {
    pub(super) fn request(id: RequestId, route: Route, task: Task<Result<Data, ReplyError>>, context: Context) -> Self {
        Self::new(Work::Request(id, route, task), context)
    }

    pub(super) fn signal(task: Task<()>, context: Context) -> Self {
        Self::new(Work::Signal(task), context)
    }

    fn new(work: Work, context: Context) -> Self {
        Self {
            work,
            context,
            token: 0,
            grace: Duration::ZERO,
            timer: None,
            cancelled: false,
        }
    }

    /// The first step, which is the only one of many a handler.
    pub(super) fn start(&mut self, cx: &mut TaskContext<'_>) -> Poll<Done> {
        self.work.poll(cx)
    }

    fn route(&self) -> Route {
        match self.work {
            Work::Request(_, route, _) => route,
            Work::Signal(_) => Route::CONTROL,
        }
    }
}

impl Future for Running {
    type Output = (u64, Done);

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<(u64, Done)> {
        let this = &mut *self;
        if let Poll::Ready(done) = this.work.poll(cx) {
            return Poll::Ready((this.token, done));
        }
        this.context.wake_on_cancel(cx);
        if this.context.is_cancelled() && !this.cancelled {
            this.cancelled = true;
            this.timer = Some(Box::pin(tokio::time::sleep(this.grace)));
        }
        if this.timer.is_none()
            && let Some(deadline) = this.context.deadline()
        {
            this.timer = Some(Box::pin(tokio::time::sleep_until(deadline.into())));
        }
        let Some(timer) = &mut this.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(cx));
        // What the handler has spawned learns it too.
        this.context.cancel();
        let error = ReplyError::new(DEADLINE_EXCEEDED, "the handler took too long");
        Poll::Ready((this.token, this.work.give_up(error)))
    }
}

/// All of a connection.
#[derive(Default)]
pub(super) struct Tasks {
    futures: FuturesUnordered<Running>,
    contexts: HashMap<u64, (Route, Context)>,
    last: u64,
}

impl Tasks {
    /// Takes a handler that has not ended at once. After its context is cancelled it is dropped within `grace`.
    pub(super) fn push(&mut self, mut running: Running, grace: Duration) {
        self.last += 1;
        running.token = self.last;
        running.grace = grace;
        self.contexts
            .insert(self.last, (running.route(), running.context.clone()));
        self.futures.push(running);
    }

    pub(super) fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Done>> {
        let next = ready!(self.futures.poll_next_unpin(cx));
        Poll::Ready(next.map(|(token, done)| {
            self.contexts.remove(&token);
            done
        }))
    }

    pub(super) fn cancel(&self, route: Route) {
        for (_, context) in self.contexts.values().filter(|(of, _)| *of == route) {
            context.cancel();
        }
    }

    pub(super) fn cancel_all(&self) {
        self.contexts.values().for_each(|(_, context)| context.cancel());
    }
}
