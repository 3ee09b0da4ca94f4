"""An asyncio event loop that has Tokio inside: servers and clients of this package run in its own thread.

Where asyncio would wait for its file descriptors, Tokio runs and watches them among its own. Everything else is asyncio's
``SelectorEventLoop``.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ._wireloom import Reactor

_T = TypeVar("_T")


class _Selector(selectors.DefaultSelector):
    """asyncio's selector, with Tokio where it would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.reactor = Reactor(os.dup(self.fileno()))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.reactor.turn(timeout):
            return super().select(0)
        return []

    def close(self) -> None:
        self.reactor.close()
        super().close()


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop and Tokio's, in one thread."""

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        self._wireloom_reactor = selector.reactor
        self._wireloom_reactor.attach(self)

    def run_forever(self) -> None:
        # A signal has to end Tokio's wait, which is restarted when a signal interrupts it.
        if threading.current_thread() is not threading.main_thread():
            super().run_forever()
            return
        before = signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)  # type: ignore[attr-defined]
        try:
            super().run_forever()
        finally:
            if not self.is_closed():
                signal.set_wakeup_fd(before)

    def remove_signal_handler(self, sig: int) -> bool:
        removed = super().remove_signal_handler(sig)
        # With the last one asyncio takes the descriptor away, which every signal needs here.
        if self.is_running() and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)  # type: ignore[attr-defined]
        return removed


def new_event_loop() -> EventLoop:
    """For ``asyncio.Runner(loop_factory=wireloom.new_event_loop)``."""
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop) -> _T:
    """``asyncio.run`` with this event loop."""
    if isinstance(main, str) or (callable(main) and not asyncio.iscoroutine(main)):
        raise TypeError(f"a coroutine was expected, got {main!r}; an application is served by wireloom.serve(app)")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
