"""A worker, as the supervisor sees it: a process that is told things, and whose signs of life are watched."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time

#: Bytes for a worker on the board, as src/asgi/metrics.rs has it: its counters, and at the end how often its event loop has
#: turned.
PLACE = 128
BEAT = PLACE - 8

#: How much a worker's silence grows between two looks at most: the machine may have slept.
_LONGEST_SILENCE = 1.0

#: How long workers have that were told to end at once.
_FORCED = 10.0

#: How long a worker has to show where it hangs.
_ABORTED = 5.0


class Worker:
    """One process."""

    def __init__(self, index: int, process: subprocess.Popen[bytes], began: float, news: int) -> None:
        self.index = index
        self.process = process
        self.began = began
        #: Its application has started.
        self.serves = False
        #: For how many seconds its event loop has not turned, and how often it had before.
        self.silence = 0.0
        self._beats = b""
        # To its other end the worker writes when it serves.
        self._news = news
        #: When it is killed, if it was told to stop.
        self.deadline: float | None = None

    def stop(self, grace: float) -> None:
        if self.deadline is None:
            self.deadline = time.monotonic() + grace
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)

    def stop_at_once(self) -> None:
        self.deadline = min(self.deadline or math.inf, time.monotonic() + _FORCED)
        # Two of one kind may arrive as one.
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def hear(self) -> None:
        """Looks whether it serves."""
        if not self.serves:
            with contextlib.suppress(BlockingIOError):
                self.serves = bool(os.read(self._news, 1))

    def listen(self, board: int, seconds: float) -> None:
        """Looks whether its event loop turns. The start may block: only one that serves is expected to."""
        beats = os.pread(board, 8, self.index * PLACE + BEAT)
        if beats != self._beats or not self.serves:
            self._beats = beats
            self.silence = 0.0
        else:
            self.silence += min(seconds, _LONGEST_SILENCE)

    def abort(self) -> None:
        """It shows where it hangs, and ends; if it cannot even do that it is killed."""
        self.deadline = time.monotonic() + _ABORTED
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGABRT)

    def close(self) -> None:
        os.close(self._news)
