"""Serving one application in this process: from the lifespan's start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from . import access
from ._wireloom import AsgiServer, Identity
from .config import Config
from .importer import Application
from .lifespan import CANCELLED, Lifespan, LifespanFailed, cancel
from .sockets import Address

logger = logging.getLogger("wireloom")

#: How often a worker looks whether it has served its requests, or whether its supervisor is gone.
_LOOK = 0.5


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


def _port(addresses: list[Address]) -> int | None:
    """That of the site."""
    for address in addresses:
        for sock in address.all():
            if address.role == "site" and sock.family != socket.AF_UNIX:
                port: int = sock.getsockname()[1]
                return port
    return None


class SettingsRefused(ValueError):
    """The server cannot be made as the settings say; the message is for the user."""


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
        self._lifespan = Lifespan(app, config.lifespan)
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._is_told = False
        self._has_cancelled = False
        self._stubborn: set[asyncio.Task[Any]] = set()
        self._native: AsgiServer | None = None

    @property
    def native(self) -> AsgiServer:
        if self._native is None:
            raise RuntimeError("the server has not started")
        return self._native

    @property
    def is_forced(self) -> bool:
        """It was told to end at once."""
        return self._force.is_set()

    @property
    def stubborn(self) -> set[asyncio.Task[Any]]:
        """Tasks of the application that did not end when they were cancelled."""
        return self._stubborn | self._lifespan.stubborn

    def stop(self, *, force: bool = False) -> None:
        """Ends in good order, or at once when `force` is set or this is the second time."""
        if force or self._is_told:
            self._force.set()
            self._lifespan.interrupt()
        else:
            # Not the same as `_stop`, which the limit of requests sets, too.
            self._is_told = True
        self._stop.set()

    def on_signal(self) -> None:
        """`stop`, and says what the next one does."""
        if not self._is_told:
            logger.info("shutting down; a signal once more ends it at once")
        self.stop()

    async def serve(self, *, watch: Callable[[], bool] | None = None) -> None:
        """Serves until `stop`. `watch` is asked now and then whether to go on."""
        lifespan = self._lifespan
        watching = None if watch is None else asyncio.ensure_future(self._watch(watch))
        try:
            await lifespan.startup()
            try:
                # A signal may have come meanwhile.
                if not self._stop.is_set():
                    await self._serve(lifespan)
            finally:
                await lifespan.shutdown(patience=CANCELLED if self.is_forced else None)
        finally:
            if watching is not None:
                watching.cancel()

    async def _watch(self, watch: Callable[[], bool]) -> None:
        while watch():
            await asyncio.sleep(_LOOK)
        logger.info("shutting down: the parent process is gone")
        self.stop()
        # Nobody is left to lose patience.
        await asyncio.sleep(self.config.graceful_timeout + CANCELLED)
        self.stop(force=True)

    def _report(self, message: str, error: BaseException | None) -> None:
        if self._has_cancelled and isinstance(error, asyncio.CancelledError):
            # The end of the server did that, and has told how many.
            return
        report(message, error)

    async def _serve(self, lifespan: Lifespan) -> None:
        config = self.config
        try:
            options = config.native(
                worker=self._worker,
                access_log=access.destination(config),
                board=self._board,
                redirect_to=_port(self._sockets),
            )
            self._native = native = AsgiServer(
                self.app,
                self._report,
                options,
                self.identity,
                lifespan.state,
            )
        except (OSError, ValueError) as error:
            raise SettingsRefused(str(error)) from error
        logging_lines = None
        try:
            # UDP has been bound before, but nobody has read it: what came was dropped or waits for this.
            self.addresses = await native.start(
                [
                    {
                        "udp": _given(address.udp[self._worker]) if address.udp else None,
                        "tcp": _given(address.tcp),
                        "unix": _given(address.unix),
                        "role": address.role,
                    }
                    for address in self._sockets
                ]
            )
            self.started.set()
            if config.access_log_logger:
                logging_lines = asyncio.ensure_future(access.hand_over(native))
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _LOOK)
                if native.is_exhausted:
                    logger.info("the limit of requests is reached")
                    self._stop.set()
        finally:
            await self._end(native)
            if logging_lines is not None:
                logging_lines.cancel()
                access.hand_over_now(native)

    async def _end(self, native: AsgiServer) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.graceful_timeout
        native.stop()
        ended = asyncio.ensure_future(native.wait())
        force = asyncio.ensure_future(self._force.wait())
        try:
            await asyncio.wait({ended, force}, return_when=asyncio.FIRST_COMPLETED)
            tasks = set(native.tasks())
            while tasks and not self.is_forced and loop.time() < deadline:
                await asyncio.wait(tasks, timeout=min(0.1, deadline - loop.time()))
                tasks = {task for task in tasks if not task.done()}
            if tasks:
                logger.warning("%d tasks of the application were cancelled: they had not ended in time", len(tasks))
                self._has_cancelled = True
                self._stubborn |= await cancel(tasks)
        finally:
            force.cancel()
            if not ended.done():
                ended.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await ended
            native.flush()


def install_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Callable[[], None]:
    """SIGINT and SIGTERM stop; what this returns puts things back. Only the main thread hears signals."""
    is_main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
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

    server: Server | None = None

    async def main() -> int:
        nonlocal server
        # Imported within the loop: applications make tasks and locks while they are imported.
        server = Server(app(), config, addresses, identity=identity, worker=worker, board=board)
        restore = install_signals(asyncio.get_running_loop(), server.on_signal)
        if on_started is not None:
            announced = asyncio.ensure_future(_announce(server, on_started))
        try:
            await server.serve(watch=watch)
        except LifespanFailed as error:
            if server.is_forced:
                logger.warning("the application had not started yet")
                return 0
            logger.error("the application did not start: %s", error)
            return 3
        finally:
            restore()
            if on_started is not None:
                announced.cancel()
        return 0

    runner = asyncio.Runner(loop_factory=loop_factory(config.loop))
    event_loop = runner.get_loop()
    try:
        return runner.run(main())
    finally:
        # The runner would do this, too, and wait for ever.
        stubborn = set() if server is None else server.stubborn
        tasks = asyncio.all_tasks(event_loop) - stubborn
        if tasks:
            stubborn |= event_loop.run_until_complete(cancel(tasks))
        if not stubborn:
            runner.close()


async def _announce(server: Server, on_started: Callable[[Server], None]) -> None:
    await server.started.wait()
    on_started(server)


__all__ = ["Server", "SettingsRefused", "identity_of", "install_signals", "loop_factory", "report", "run_worker"]
