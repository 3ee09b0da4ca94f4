"""A worker process: ``python -m wireloom.worker``, started by the supervisor and by nobody else."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import select
import socket
import struct
import sys
from typing import Any

from . import logs
from ._wireloom import IdentityError, ServeError
from .asgi import Server, SettingsRefused, identity_of, run_worker
from .config import Config
from .importer import Application, ImportFailed, load_application
from .process import BEAT, PLACE
from .sockets import Address
from .supervisor import FAILED_TO_START, VARIABLE, start_message

logger = logging.getLogger("wireloom")


def _address(entry: dict[str, Any]) -> Address:
    def inherited(number: int | None) -> socket.socket | None:
        return None if number is None else socket.socket(fileno=number)

    udp = [socket.socket(fileno=number) for number in entry["udp"]]
    address = Address(tcp=inherited(entry["tcp"]), udp=udp, unix=inherited(entry["unix"]), role=entry["role"])
    for sock in address.all():
        # Not by what the application starts, too: that would keep the port.
        sock.set_inheritable(False)
    return address


def main() -> int:
    description = json.loads(os.environ.pop(VARIABLE))
    config = Config(**description["config"])
    logs.configure(config)
    addresses = [_address(entry) for entry in description["addresses"]]
    parent, news, board = description["alive"], description["news"], description["board"]
    for number in (parent, news, board):
        os.set_inheritable(number, False)

    # The server closes its own.
    beating, beats = os.dup(board), 0
    if config.worker_timeout > 0:
        # The parent ends a worker that hangs with SIGABRT: this shows where it does.
        faulthandler.enable()

    def look_at_parent() -> bool:
        nonlocal beats
        beats += 1
        os.pwrite(beating, struct.pack("<Q", beats), description["worker"] * PLACE + BEAT)
        # It never writes; its end closes the pipe.
        readable, _, _ = select.select([parent], [], [], 0)
        return not readable

    def started(server: Server) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(news, b"\n")
        logger.info(start_message(config, server.addresses))

    def app() -> Application:
        return load_application(config.app, factory=config.factory, app_dir=config.app_dir)

    try:
        return run_worker(
            app,
            config,
            addresses,
            identity=identity_of(config),
            worker=description["worker"],
            board=board,
            on_started=started,
            watch=look_at_parent,
        )
    except (ImportFailed, IdentityError, ServeError, SettingsRefused) as error:
        logger.error("%s", error)
    except Exception:
        logger.exception("the worker failed")
    return FAILED_TO_START


if __name__ == "__main__":
    sys.exit(main())
