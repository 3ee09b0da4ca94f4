"""Serving one application in this process: from the lifespan's start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from ._wireloom import AsgiServer, Identity
from .config import Config
from .importer import Application
from .lifespan import Lifespan, LifespanFailed
from .sockets import Address

logger = logging.getLogger("wireloom")

#: How often a worker looks whether it has served its requests, or whether its supervisor is gone.
_LOOK = 0.5

#: How long tasks that were cancelled may take to end.
_CANCELLED = 5.0


def report(message: str, error: BaseException | None) -> None:
    """What applications did wrong."""
    logger.error(message, exc_info=error)


def identity_of(config: Config) -> Identity | None:
    if config.certfile is not None and config.keyfile is not None:
        return Identity.pem_files(config.certfile, config.keyfile)
    if config.self_signed:
        return Identity.self_signed(config.names())
    return None


def _given(sock: socket.socket | None) -> int | None:
    """A duplicate for the native server to own."""
    return None if sock is None else os.dup(sock.fileno())


class Server:
    """An application on sockets that are bound already."""

    def __init__(
        self,
        app: Application,
        config: Config,
        addresses: list[Address],
        *,
        identity: Identity | None = None,
        worker: int = 0,
        board: int | None = None,
    ) -> None:
        self.config = config
        self.app = app
        self.identity = identity
        self.addresses: list[str] = []
        self.started = asyncio.Event()
        self._sockets = addresses
        self._worker = worker
        self._board = board
        self._stop = asyncio.Event()
        self._is_forced = False
        self._native: AsgiServer | None = None

    @property
    def native(self) -> AsgiServer:
        if self._native is None:
            raise RuntimeError("the server has not started")
        return self._native

    def stop(self, *, force: bool = False) -> None:
        """Ends in good order, or at once when `force` is set or this is the second time."""
        self._is_forced = force or self._stop.is_set()
        self._stop.set()

    async def serve(self, *, watch: Callable[[], bool] | None = None) -> None:
        """Serves until `stop`. `watch` is asked now and then whether to go on."""
        config = self.config
        lifespan = Lifespan(self.app, config.lifespan)
        await lifespan.startup()
        try:
            await self._serve(lifespan, watch)
        finally:
            await lifespan.shutdown()

    async def _serve(self, lifespan: Lifespan, watch: Callable[[], bool] | None) -> None:
        config = self.config
        access = self._access_log()
        self._native = native = AsgiServer(
            self.app,
            report,
            config.native(worker=self._worker, access_log=access, board=self._board),
            self.identity,
            lifespan.state,
        )
        try:
            # UDP has been bound before, but nobody has read it: what came was dropped or waits for this.
            self.addresses = await native.start(
                [
                    {
                        "udp": _given(address.udp[self._worker]) if address.udp else None,
                        "tcp": _given(address.tcp),
                        "unix": _given(address.unix),
                    }
                    for address in self._sockets
                ]
            )
            self.started.set()
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _LOOK)
                if native.is_exhausted:
                    logger.info("the limit of requests is reached")
                    self._stop.set()
                if watch is not None and not watch():
                    self._stop.set()
        finally:
            await self._end(native)

    async def _end(self, native: AsgiServer) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.graceful_timeout
        native.stop()
        ended = asyncio.ensure_future(native.wait())
        force = asyncio.ensure_future(self._forced())
        try:
            await asyncio.wait({ended, force}, return_when=asyncio.FIRST_COMPLETED)
            tasks = set(native.tasks())
            while tasks and not self._is_forced and loop.time() < deadline:
                await asyncio.wait(tasks, timeout=min(0.1, deadline - loop.time()))
                tasks = {task for task in tasks if not task.done()}
            for task in tasks:
                task.cancel()
            if tasks:
                logger.warning("%d tasks of the application were cancelled: they had not ended in time", len(tasks))
                _, stubborn = await asyncio.wait(tasks, timeout=_CANCELLED)
                for task in stubborn:
                    logger.error("a task of the application does not end when it is cancelled: %r", task)
        finally:
            force.cancel()
            if not ended.done():
                ended.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await ended
            native.flush()

    async def _forced(self) -> None:
        while not self._is_forced:
            await asyncio.sleep(0.05)

    def _access_log(self) -> tuple[str, int] | None:
        config = self.config
        if config.access_log_file is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            return config.access_log_format, os.open(config.access_log_file, flags, 0o644)
        if not config.access_log:
            return None
        sys.stdout.flush()
        return config.access_log_format, os.dup(1)


def install_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Callable[[], None]:
    """SIGINT and SIGTERM stop; what this returns puts things back."""
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop)

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    return restore


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The kind of event loop."""
    if name == "uvloop":
        import uvloop

        made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return made
    if name == "asyncio":
        return asyncio.new_event_loop
    from .event_loop import new_event_loop

    return new_event_loop


def run_worker(
    app: Callable[[], Application],
    config: Config,
    addresses: list[Address],
    *,
    identity: Identity | None,
    worker: int = 0,
    board: int | None = None,
    on_started: Callable[[Server], None] | None = None,
    watch: Callable[[], bool] | None = None,
) -> int:
    """Serves in this process until a signal. The exit status: 3 for an application that does not start, as uvicorn has it."""

    async def main() -> int:
        # Imported within the loop: applications make tasks and locks while they are imported.
        server = Server(app(), config, addresses, identity=identity, worker=worker, board=board)
        restore = install_signals(asyncio.get_running_loop(), server.stop)
        if on_started is not None:
            announced = asyncio.ensure_future(_announce(server, on_started))
        try:
            await server.serve(watch=watch)
        except LifespanFailed as error:
            logger.error("the application did not start: %s", error)
            return 3
        finally:
            restore()
            if on_started is not None:
                announced.cancel()
        return 0

    with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
        return runner.run(main())


async def _announce(server: Server, on_started: Callable[[Server], None]) -> None:
    await server.started.wait()
    on_started(server)


__all__ = ["Server", "identity_of", "install_signals", "loop_factory", "report", "run_worker"]
