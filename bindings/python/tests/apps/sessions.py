"""`AsgiSession`: what it does with clients that want too much, or no more. Ends are told by datagrams."""

import asyncio
import json

from wireloom import StreamStopped
from wireloom.session import AsgiSession


async def hoarding(session):
    """Accepts no stream before it is told to; then tells how many there were."""
    await session.accept()
    await session.datagrams.receive()
    taken = 0
    while session._incoming:
        await session.accept_stream()
        taken += 1
    await session.datagrams.send(b"%d" % taken)
    # Room again.
    stream = await session.accept_stream()
    await stream.write(await stream.read_to_end(), end=True)
    await session.closed()


async def stopped(session):
    """Writes on a stream of its own, and on one whose receiving half has ended, until the client wants no more."""
    await session.accept()
    finished = await session.accept_stream()
    await finished.read_to_end()
    codes = []
    for stream in [await session.open_stream(bidirectional=False), finished]:
        try:
            while True:
                await stream.write(b"more")
                await session.datagrams.receive()
        except StreamStopped as error:
            codes.append(error.code)
    await session.datagrams.send(json.dumps([codes, list(session._streams)]).encode())
    await session.closed()


async def impatient(session):
    """Asks for a stream, thinks better of it, and asks for another."""
    await session.accept()
    asking = asyncio.ensure_future(session.open_stream())
    await asyncio.sleep(0)
    asking.cancel()
    stream = await session.open_stream(bidirectional=False)
    await stream.write(b"%d %d" % (stream.id, len(session._streams)), end=True)
    await session.closed()


CASES = {"/hoarding": hoarding, "/stopped": stopped, "/impatient": impatient}


async def app(scope, receive, send):
    if scope["type"] != "webtransport":
        raise NotImplementedError
    async with AsgiSession(scope, receive, send) as session:
        await CASES[scope["path"]](session)
