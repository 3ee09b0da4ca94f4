"""Several processes, or one that starts again: the parent holds the sockets, so that over TCP no client is refused in between."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import sockets
from ._wireloom import Identity, self_signed_pem
from .changes import Files
from .config import Config
from .process import PLACE, Worker

logger = logging.getLogger("wireloom")

#: How a worker learns what it is.
VARIABLE = "_WIRELOOM_WORKER"

#: A worker that ends sooner than this is not replaced at once, but after a pause that doubles each time, up to a limit.
_SHORT_LIFE = 1.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0

#: How often the parent looks after its workers.
_LOOK = 0.1

#: How often files are looked at.
_LOOK_AT_FILES = 0.4

#: An application that does not start.
FAILED_TO_START = 3


class Supervisor:
    """Starts workers, replaces those that end, and stops them."""

    def __init__(self, config: Config, addresses: list[sockets.Address]) -> None:
        self._config = config
        self._addresses = addresses
        self._workers: dict[int, Worker] = {}
        self._is_stopping = False
        self._wants_restart = False
        # Workers of before are to be replaced.
        self._restart_at = -math.inf
        # Some worker has served: the application can start.
        self._has_served = False
        self._retry_at: dict[int, float] = {}
        # How often in succession a worker's life was short.
        self._short_lives: dict[int, int] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        # It is closed when the parent ends in any way, which its workers notice.
        self._alive, self._life = os.pipe()
        # In which workers tell each other their counters.
        self._board = memory(config.workers * PLACE)
        self._turned_at = time.monotonic()
        self._files: Files | None = None
        self._looked_at_files = 0.0
        self._status = 0

    def run(self) -> int:
        """Until a signal. The exit status."""
        if self._config.self_signed:
            self._share_certificate()
        handlers = {
            signal.SIGINT: self._on_stop,
            signal.SIGTERM: self._on_stop,
            signal.SIGHUP: self._on_restart,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            if self._config.reload:
                self._files = Files(self._config)
            for index in range(self._config.workers):
                self._start(index)
            while self._workers or self._retry_at:
                time.sleep(_LOOK)
                self._turn()
            return self._status
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.wait()
                worker.close()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._alive)
            os.close(self._life)
            os.close(self._board)
            if self._folder is not None:
                self._folder.cleanup()

    def _share_certificate(self) -> None:
        certificate, key = self_signed_pem(self._config.names())
        self._folder = tempfile.TemporaryDirectory(prefix="wireloom-")
        folder = Path(self._folder.name)
        (folder / "certificate.pem").write_text(certificate)
        (folder / "key.pem").touch(mode=0o600)
        (folder / "key.pem").write_text(key)
        self._config.self_signed = False
        self._config.certfile = str(folder / "certificate.pem")
        self._config.keyfile = str(folder / "key.pem")
        print_hash(Identity.pem(certificate, key))

    def _on_stop(self, *_: Any) -> None:
        if self._is_stopping:
            # Twice: at once.
            for worker in self._workers.values():
                worker.stop_at_once()
        self._is_stopping = True

    def _on_restart(self, *_: Any) -> None:
        self._wants_restart = True

    def _start(self, index: int) -> None:
        self._retry_at.pop(index, None)
        try:
            worker = self._workers[index] = self._spawn(index)
        except OSError as error:
            # No memory, or too many processes: the workers that there are go on.
            logger.error("worker %d cannot be started: %s", index, error)
            self._retry(index, is_short=True)
        else:
            logger.info("worker %d is process %d", index, worker.process.pid)

    def _spawn(self, index: int) -> Worker:
        began = time.monotonic()
        news, news_of_worker = os.pipe()
        os.set_blocking(news, False)
        kept = [sock for address in self._addresses for sock in address.all()]
        description = {
            "config": asdict(self._config),
            "worker": index,
            "alive": self._alive,
            "news": news_of_worker,
            "board": self._board,
            "addresses": [
                {
                    "tcp": address.tcp and address.tcp.fileno(),
                    "unix": address.unix and address.unix.fileno(),
                    "udp": [sock.fileno() for sock in address.udp],
                    "role": address.role,
                }
                for address in self._addresses
            ],
        }
        environment = {**os.environ, VARIABLE: json.dumps(description)}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "wireloom.worker"],
                env=environment,
                pass_fds=[*(sock.fileno() for sock in kept), self._alive, self._board, news_of_worker],
                # Signals of the terminal reach the parent, who tells its workers.
                process_group=0,
            )
        except BaseException:
            os.close(news)
            raise
        finally:
            os.close(news_of_worker)
        return Worker(index, process, began, news)

    def _retry(self, index: int, *, is_short: bool) -> None:
        """Another worker is to be started, at once unless the life of the last was short."""
        times = self._short_lives[index] = self._short_lives.get(index, 0) + 1 if is_short else 0
        pause = min(_FIRST_PAUSE * 2 ** (times - 1), _LONGEST_PAUSE) if times else 0.0
        self._retry_at[index] = time.monotonic() + pause

    def _turn(self) -> None:
        grace = self._config.graceful_timeout + 10
        now = time.monotonic()
        elapsed, self._turned_at = now - self._turned_at, now
        timeout = self._config.worker_timeout
        for worker in list(self._workers.values()):
            worker.listen(self._board, elapsed)
            status = worker.process.poll()
            worker.hear()
            self._has_served = self._has_served or worker.serves
            if status is not None:
                del self._workers[worker.index]
                worker.close()
                self._ended(worker, status)
            elif worker.deadline is not None and now > worker.deadline:
                logger.warning("worker %d does not end and is killed", worker.index)
                worker.process.kill()
            elif 0 < timeout < worker.silence and worker.deadline is None:
                logger.warning(
                    "worker %d has done nothing for %g seconds and is replaced", worker.index, worker.silence
                )
                worker.abort()
        if self._is_stopping:
            self._retry_at.clear()
            for worker in self._workers.values():
                worker.stop(grace)
            return
        if self._has_changed():
            self._wants_restart = True
        if self._wants_restart:
            self._wants_restart = False
            self._restart_at = now
            self._short_lives.clear()
            for index in self._retry_at:
                self._retry_at[index] = now
        self._roll(grace)
        for index, at in list(self._retry_at.items()):
            if at <= now:
                self._start(index)

    def _roll(self, grace: float) -> None:
        """Replaces the workers of before the last restart, one by one: the others serve meanwhile. A successor takes over the
        worker's UDP socket, so that it cannot start before its end."""
        old = [worker for worker in self._workers.values() if worker.began < self._restart_at]
        for worker in old:
            if not worker.serves and worker.deadline is None:
                worker.stop_at_once()
        others = [worker for worker in self._workers.values() if worker not in old]
        is_whole = len(self._workers) == self._config.workers and all(worker.serves for worker in others)
        if old and is_whole and all(worker.deadline is None for worker in old):
            min(old, key=lambda worker: worker.index).stop(grace)

    def _ended(self, worker: Worker, status: int) -> None:
        was_told = worker.deadline is not None
        if self._is_stopping:
            if not was_told:
                self._status = self._status or max(status, 1)
            return
        if was_told:
            self._retry(worker.index, is_short=False)
            return
        if status == FAILED_TO_START:
            logger.error("worker %d could not start the application", worker.index)
            if self._config.reload:
                # Until a file changes.
                self._retry_at[worker.index] = math.inf
                return
            if not self._has_served:
                # The others could not start either.
                self._status = status
                self._is_stopping = True
                return
        else:
            logger.warning("worker %d has ended with status %d and is replaced", worker.index, status)
        # With status 0 it has reached its limit of requests, which may be soon.
        is_short = not worker.serves or (status != 0 and time.monotonic() - worker.began < _SHORT_LIFE)
        self._retry(worker.index, is_short=is_short)

    def _has_changed(self) -> bool:
        now = time.monotonic()
        if self._files is None or now - self._looked_at_files < _LOOK_AT_FILES:
            return False
        self._looked_at_files = now
        changed = self._files.changed()
        if changed:
            logger.info("reloading: %s changed", ", ".join(changed[:3]))
        return bool(changed)


def memory(size: int) -> int:
    """A file of zeros without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("wireloom-counters")
    else:
        descriptor, path = tempfile.mkstemp(prefix="wireloom-")
        os.unlink(path)
    os.ftruncate(descriptor, size)
    return descriptor


def print_hash(identity: Identity) -> None:
    """For a page's `serverCertificateHashes`."""
    print(f"certificate hash (SHA-256): {identity.certificate_hash.hex()}", flush=True)


def start_message(config: Config, addresses: list[str]) -> str:
    scheme = "https" if config.is_secure else "http"
    where = ", ".join(f"{scheme}://{address}" for address in dict.fromkeys(addresses)) or config.uds or "a descriptor"
    return f"serving {config.app} on {where}"
