"""Where the access log goes: a file, standard output, or Python's logging."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from ._wireloom import AsgiServer
from .config import Config

#: To which `--access-log-logger` hands requests, and what its records have besides the line.
logger = logging.getLogger("wireloom.access")
_KNOWN = ("client", "method", "path", "query", "status", "bytes", "ms")

#: How often it does.
_PAUSE = 0.1


def destination(config: Config) -> tuple[str, int | None] | None:
    """The format, and a descriptor for the native server to own unless Python's logging gets the lines. `None` for no log."""
    if config.access_log_file is not None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return config.access_log_format, os.open(config.access_log_file, flags, 0o644)
    if not config.access_log:
        return None
    if config.access_log_logger:
        return config.access_log_format, None
    sys.stdout.flush()
    return config.access_log_format, os.dup(1)


async def hand_over(native: AsgiServer) -> None:
    """To Python's logging, until it is cancelled."""
    while True:
        await asyncio.sleep(_PAUSE)
        hand_over_now(native)


def hand_over_now(native: AsgiServer) -> None:
    """What waits."""
    lines = native.access_lines()
    if logger.isEnabledFor(logging.INFO):
        for line, *known in lines:
            logger.info("%s", line, extra=dict(zip(_KNOWN, known, strict=True)))
