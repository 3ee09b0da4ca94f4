"""`AsgiSession`: with an independent client, and with events in an order that no network can be made to keep."""

from __future__ import annotations

import asyncio

import pytest
from conftest import PATIENCE
from session import Reset
from wireloom.session import AsgiSession
from wt_client import dial, soon


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("sessions:app")


def run(main):
    asyncio.run(asyncio.wait_for(main, 2 * PATIENCE))


class Events:
    """The other side of a session, in the hands of the test."""

    def __init__(self):
        self.sent = []
        self._events = asyncio.Queue()
        self.session = AsgiSession(
            {"type": "webtransport", "extensions": {"webtransport": {"max_datagram_size": 1200}}},
            self._events.get,
            self._send,
        )
        self("connect")

    async def _send(self, message):
        self.sent.append({**message, "type": message["type"].removeprefix("webtransport.")})

    def __call__(self, kind, **fields):
        self._events.put_nowait({"type": f"webtransport.{kind}", **fields})

    def receive(self, stream, data=b"", more=False):
        self("stream.receive", stream=stream, data=data, more_data=more)

    async def handled(self):
        """All events so far."""
        self("datagram.receive", data=b"handled")
        await soon(self.session.datagrams.receive())

    def of(self, kind):
        return [message for message in self.sent if message["type"] == kind]


def test_streams_that_nobody_accepts_are_refused(server):
    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/hoarding")
            # Each is finished, so that the client may open the next.
            for number in range(1000):
                session.open(unidirectional=True).write(b"%d" % number, end=True)
            stream = session.open(unidirectional=True)
            stream.write(b"more")
            assert await soon(stream.stopped) == 429
            stream = session.open()
            stream.write(b"more")
            assert await soon(stream.stopped) == 429
            with pytest.raises(Reset) as reset:
                await soon(stream.read_to_end())
            assert reset.value.args == (429,)
            session.send_datagram(b"now")
            assert await soon(session.datagrams.get()) == b"256"
            stream = session.open()
            stream.write(b"and again", end=True)
            assert await soon(stream.read_to_end()) == b"and again"
            session.close(0, "")

    run(main())


def test_refused_streams_are_stopped_and_reset():
    async def main():
        events = Events()
        async with events.session as session:
            await session.accept()
            for number in range(256):
                events.receive(4 * number, b"x" * 1000)
            events.receive(4 * 256, more=True)
            events.receive(4 * 257)
            events.receive(2, b"one way", more=True)
            await events.handled()
            assert [(m["stream"], m["code"]) for m in events.of("stream.stop")] == [(1024, 429), (2, 429)]
            assert [(m["stream"], m["code"]) for m in events.of("stream.reset")] == [(1024, 429), (1028, 429)]
            assert len(session._incoming) == 256

    run(main())


def test_small_pieces_count_as_what_they_take():
    async def main():
        events = Events()
        async with events.session as session:
            await session.accept()
            for _ in range(3000):
                events.receive(0, b"x", more=True)
            await events.handled()
            assert len(events.of("stream.pause")) == 1
            stream = await session.accept_stream()
            for _ in range(3000):
                assert await soon(stream.read()) == b"x"
            assert len(events.of("stream.resume")) == 1

    run(main())
