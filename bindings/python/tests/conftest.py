"""Servers as processes, the way users start them, and an independent client for WebTransport."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, os.environ.get("WIRELOOM_PACKAGE", str(HERE.parent / "python")))
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[2] / "interop" / "aioquic"))

#: How long a test waits for what must happen: far more than any healthy run takes on a busy machine.
PATIENCE = 60.0


class Process:
    """A running ``python -m wireloom``, or another program."""

    def __init__(
        self,
        arguments: list[str],
        *,
        cwd: Path,
        env: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "wireloom"),
    ) -> None:
        # The package as it is in the checkout, unless another is asked for.
        package = os.environ.get("WIRELOOM_PACKAGE", str(HERE.parent / "python"))
        environment = {**os.environ, "PYTHONPATH": package, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._news.put(line)
        self._news.put(None)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, *, count: int = 1) -> list[re.Match[str]]:
        """Until so many lines match."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            if len(found) >= count:
                return found
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not printed {count} times:\n{self.output}"
            try:
                if self._news.get(timeout=left) is None:
                    found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
                    assert len(found) >= count, f"the server has ended before {pattern!r}:\n{self.output}"
                    return found
            except queue.Empty:
                pass

    def started(self, count: int = 1) -> None:
        where = self.wait_for(r"serving \S+ on (https?)://(\S+):(\d+)", count=count)[0]
        self.scheme, self.host, self.port = where[1], where[2].split("//")[-1], int(where[3])
        self.url = f"{self.scheme}://{self.host}:{self.port}"
        hashes = [re.search(r"SHA-256\): ([0-9a-f]{64})", line) for line in list(self.lines)]
        self.hash = next((match[1] for match in hashes if match), None)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end:\n{self.output}") from None


Serve = Callable[..., Process]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers, which end with the test."""
    with _serving() as start:
        yield start


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Serve]:
    """The same for all tests of a module."""
    with _serving() as start:
        yield start


class _serving:
    def __enter__(self) -> Serve:
        self.started: list[Process] = []
        return self.start

    def start(
        self,
        app: str,
        *arguments: str,
        tls: bool = True,
        cwd: Path | None = None,
        wait: int = 1,
        env: dict[str, str] | None = None,
    ) -> Process:
        given = [app, "--port", "0", *arguments]
        if tls:
            given.append("--self-signed")
        process = Process(given, cwd=cwd or HERE / "apps", env=env)
        self.started.append(process)
        if wait:
            process.started(wait)
        return process

    def __exit__(self, *_: Any) -> None:
        for process in self.started:
            if process.process.poll() is None:
                process.process.kill()
            process.process.wait()


def eventually(check: Callable[[], Any], what: str = "it") -> Any:
    """Until `check` answers something true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := check()):
        assert time.monotonic() < deadline, f"{what} has not come about"
        time.sleep(0.02)
    return value
