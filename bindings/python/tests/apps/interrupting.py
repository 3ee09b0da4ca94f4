"""Something asks the event loop for a callback, and for a task, in the middle of the making of each request's task: as what the
garbage collector finalises may."""

from __future__ import annotations

import asyncio
import json
import sys

asked = 0
ran = 0
busy = False
tasks = set()


async def task():
    global ran
    ran += 1


def callback(by: int):
    global ran
    ran += by


def interrupt(frame, event, _):
    global asked, busy
    # asyncio enters every task into a WeakSet.
    if busy or event != "call" or frame.f_code.co_name != "add" or "_weakrefset" not in frame.f_code.co_filename:
        return
    busy = True
    asked += 2
    loop = asyncio.get_running_loop()
    handle = loop.call_soon(callback, 1)
    assert not handle.cancelled()
    made = loop.create_task(task())
    tasks.add(made)
    made.add_done_callback(tasks.discard)
    busy = False


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        sys.setprofile(interrupt)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    before = asked
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    body = json.dumps({"asked": before, "ran": ran}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
