"""Serving from a program of one's own: ``wireloom.serve(app)``, and ``async with wireloom.serving(app)`` within an event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The server is imported when it is wanted: what only connects does without.
if TYPE_CHECKING:
    from .asgi import Server
    from .importer import Application


def serve(app: Application | str, **settings: Any) -> None:
    """Serves until SIGINT or SIGTERM. The settings are the flags of ``wireloom-asgi``, with underscores.

    ``workers``, ``reload`` and ``worker_timeout`` start processes that import the application: they need it as
    ``"module:app"``. A server that cannot start ends the program (`SystemExit`), as ``wireloom-asgi`` does.
    """
    from . import cli
    from .settings import from_settings

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("an event loop runs here already: use `async with wireloom.serving(app)`")
    if isinstance(app, str):
        settings.setdefault("app_dir", _folder_of_the_program())
        status = cli.serve(from_settings(app, settings))
    else:
        config = from_settings(_name(app), settings)
        if config.has_supervisor:
            raise ValueError(
                "workers, reload and worker_timeout need the application as 'module:app', which other processes can import"
            )
        status = cli.serve(config, lambda: _made(app, config.factory))
    if status:
        sys.exit(status)


class Running:
    """A server within this event loop."""

    def __init__(self, server: Server, task: asyncio.Task[None]) -> None:
        self._server = server
        self._task = task

    @property
    def addresses(self) -> list[str]:
        """As ``127.0.0.1:8000``."""
        return list(dict.fromkeys(self._server.addresses))

    @property
    def url(self) -> str:
        """That of the first address; a Unix socket has none."""
        if not self.addresses:
            raise RuntimeError("a Unix socket has no URL")
        return f"{'https' if self._server.config.is_secure else 'http'}://{self.addresses[0]}"

    @property
    def certificate_hash(self) -> bytes | None:
        """For ``wireloom.Client(certificate_hashes=[...])``; `None` without a certificate."""
        identity = self._server.identity
        return None if identity is None else identity.certificate_hash

    def stop(self, *, force: bool = False) -> None:
        """Ends it in good order, or at once when `force` is set or this is the second time."""
        self._server.stop(force=force)

    async def wait(self) -> None:
        """Until it is over: somebody has stopped it, or it has served its limit of requests."""
        await asyncio.shield(self._task)


@asynccontextmanager
async def serving(app: Application | str, **settings: Any) -> AsyncIterator[Running]:
    """Serves in this event loop, whichever it is, while the block runs: clients are answered when it begins, and when it ends so
    does the server, in good order.

    The settings are those of `serve`, less what concerns processes. Signals and logging stay the program's own, and there is no
    access log unless ``access_log=True`` or ``access_log_logger=True``.
    """
    from . import sockets
    from .asgi import Server, identity_of
    from .importer import load_application
    from .settings import from_settings

    settings = {"access_log": settings.get("access_log_logger", False), **settings}
    config = from_settings(app if isinstance(app, str) else _name(app), settings)
    if config.has_supervisor:
        raise ValueError("workers, reload and worker_timeout are for wireloom.serve: this server is in your event loop")
    if isinstance(app, str):
        made = load_application(app, factory=config.factory, app_dir=config.app_dir)
    else:
        made = _made(app, config.factory)
    identity = identity_of(config)
    addresses = sockets.bind(config)
    try:
        server = Server(made, config, addresses, identity=identity)
        task = asyncio.ensure_future(server.serve())
        started = asyncio.ensure_future(server.started.wait())
        try:
            try:
                await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                # A start that hangs would not end otherwise. That it then fails is no news.
                server.stop(force=True)
                await asyncio.gather(task, return_exceptions=True)
                raise
            if task.done():
                # With the reason why it did not start.
                await task
            yield Running(server, task)
        finally:
            started.cancel()
            await _end(server, task)
    finally:
        sockets.close(addresses)


async def _end(server: Server, task: asyncio.Task[None]) -> None:
    if task.done():
        return
    server.stop()
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        server.stop(force=True)
        await asyncio.wait({task})
        raise


def _made(app: Any, is_factory: bool) -> Application:
    application: Application = app() if is_factory else app
    if not callable(application):
        raise TypeError(f"{application!r} is no application: it cannot be called")
    return application


def _name(app: Any) -> str:
    """For the log."""
    return str(getattr(app, "__qualname__", None) or type(app).__qualname__)


def _folder_of_the_program() -> str:
    """That of the script, in which ``import`` looks for modules; workers look there, too."""
    program = sys.modules.get("__main__")
    file = getattr(program, "__file__", None)
    return str(Path(file).parent) if file and getattr(program, "__spec__", None) is None else ""
