"""The lifespan protocol of ASGI: the application hears of the start before the first client, and of the end after the last."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ._wireloom import WireloomError
from .importer import Application

logger = logging.getLogger("wireloom")

#: How long tasks that were cancelled may take to end.
CANCELLED = 5.0


async def cancel(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancels them. Those that do not end."""
    for task in tasks:
        task.cancel()
    _, stubborn = await asyncio.wait(tasks, timeout=CANCELLED)
    for task in stubborn:
        logger.error("a task of the application does not end when it is cancelled: %r", task)
    return stubborn


class LifespanFailed(WireloomError):
    """The application refused to start."""


class Lifespan:
    """One application's life."""

    def __init__(self, app: Application, mode: str = "auto") -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._is_supported = True
        self._failure: str | None = None
        #: Its task, if it did not end when it was cancelled.
        self.stubborn: set[asyncio.Task[Any]] = set()

    async def startup(self) -> None:
        """Returns when the application is ready; raises `LifespanFailed` if it says that it is not."""
        if self._mode == "off":
            self._is_supported = False
            return
        self._task = asyncio.create_task(self._run(), name="lifespan")
        await self._events.put({"type": "lifespan.startup"})
        await self._until(self._started)
        if self._failure is not None:
            raise LifespanFailed(self._failure)

    async def shutdown(self, *, patience: float | None = None) -> None:
        """Returns when the application has cleaned up, or was interrupted, which it is after `patience` seconds."""
        if self._task is None or not self._is_supported:
            return
        self._interrupted.clear()
        if patience is not None:
            asyncio.get_running_loop().call_later(patience, self.interrupt)
        await self._events.put({"type": "lifespan.shutdown"})
        await self._until(self._stopped)
        if self._failure is not None:
            logger.error("the application failed to shut down: %s", self._failure)

    def interrupt(self) -> None:
        """Cuts short a start or an end that is under way."""
        self._interrupted.set()

    async def _until(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        try:
            await asyncio.wait({waiting, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            interrupted.cancel()
        if not event.is_set() and self._task is not None:
            self._failure = "it was cancelled"
            self.stubborn = await cancel({self._task})

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._events.get, self._send)
        except asyncio.CancelledError:
            self._failure = self._failure or "it was cancelled"
        except Exception as error:
            if self._started.is_set():
                self._failure = self._failure or repr(error)
                logger.error("exception in the application's lifespan", exc_info=error)
            elif self._mode == "on":
                self._failure = self._failure or repr(error)
                logger.error("exception at the application's start", exc_info=error)
            elif self._failure is None:
                # What does not know the protocol raises: it is then served without.
                self._is_supported = False
                logger.info("the application has no lifespan: %r", error)
        else:
            if not self._started.is_set():
                self._is_supported = False
        finally:
            self._is_supported = self._is_supported and not self._stopped.is_set()
            self._started.set()
            self._stopped.set()

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._started.set()
        elif kind == "lifespan.startup.failed":
            self._failure = message.get("message") or "the application failed to start"
            self._started.set()
        elif kind == "lifespan.shutdown.complete":
            self._stopped.set()
        elif kind == "lifespan.shutdown.failed":
            self._failure = message.get("message") or "no reason given"
            self._stopped.set()
        else:
            raise RuntimeError(f"a lifespan has no message {kind!r}")
