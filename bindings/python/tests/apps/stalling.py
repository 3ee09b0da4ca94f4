"""Applications that take too long: to start, to end, and to be cancelled."""

import asyncio
import os
import threading
from pathlib import Path

FILE = Path(os.environ.get("STALLING_FILE", "missing"))


def is_there():
    """The test makes it; who finds "fail" in it does not start."""
    if FILE.exists() and FILE.read_text() == "fail":
        raise RuntimeError("told to fail")
    return FILE.exists()


def say(what):
    # At once with its end: workers share the pipe.
    os.write(1, f"stalling: {what}\n".encode())


def stand_still():
    """With the event loop."""
    say("stands still")
    threading.Event().wait()


async def hang():
    await asyncio.Event().wait()


async def ignore():
    while True:
        try:
            await hang()
        except asyncio.CancelledError:
            say("ignores it")


def lifespan(start=None, end=None):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            if scope["path"] == "/hang":
                stand_still()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
            return
        assert scope["type"] == "lifespan"
        await receive()
        say("starting")
        if start is not None:
            await start()
        await send({"type": "lifespan.startup.complete"})
        say("started")
        await receive()
        say("ending")
        if end is not None:
            await end()
        await send({"type": "lifespan.shutdown.complete"})
        say("ended")

    return app


async def until_a_file_is_there():
    while not is_there():
        await asyncio.sleep(0.02)


plain = lifespan()
slow_start = lifespan(start=until_a_file_is_there)
never_starts = lifespan(start=hang)
never_ends = lifespan(end=hang)
ignores_in_start = lifespan(start=ignore)
ignores_in_end = lifespan(end=ignore)


async def ignores_in_request(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    say("requested")
    await ignore()
