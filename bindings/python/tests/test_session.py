"""`AsgiSession`: with an independent client, and with events in an order that no network can be made to keep."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from conftest import PATIENCE
from session import Reset
from wireloom import StreamStopped
from wireloom.session import AsgiSession, SessionOver, Stream
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
        self.blocked = asyncio.Event()
        self._events = asyncio.Queue()
        self.session = AsgiSession(
            {"type": "webtransport", "extensions": {"webtransport": {"max_datagram_size": 1200}}},
            self._events.get,
            self._send,
        )
        self("connect")

    async def _send(self, message):
        self.sent.append({**message, "type": message["type"].removeprefix("webtransport.")})

    async def fail(self, message):
        raise RuntimeError("refused")

    async def block(self, message):
        self.blocked.set()
        await asyncio.Event().wait()

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


@contextlib.asynccontextmanager
async def accepted():
    """A session after its acceptance."""
    events = Events()
    async with events.session as session:
        await session.accept()
        yield events, session


async def cancelled_while_it_sends(events, session, coroutine):
    send, session._asgi_send = session._asgi_send, events.block
    task = asyncio.ensure_future(coroutine)
    await soon(events.blocked.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    session._asgi_send = send


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
        async with accepted() as (events, session):
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
        async with accepted() as (events, session):
            for _ in range(3000):
                events.receive(0, b"x", more=True)
            await events.handled()
            assert len(events.of("stream.pause")) == 1
            stream = await session.accept_stream()
            for _ in range(3000):
                assert await soon(stream.read()) == b"x"
            assert len(events.of("stream.resume")) == 1

    run(main())


def test_a_cancelled_open_does_not_give_its_stream_to_the_next(server):
    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/impatient")
            stream = await soon(session.uni.get())
            assert await soon(stream.read_to_end()) == b"%d 1" % stream.id, "only this one is kept"
            session.close(0, "")

    run(main())


def test_a_stream_that_arrives_after_its_asker_was_cancelled_is_reset():
    async def main():
        async with accepted() as (events, session):
            first, second = asyncio.ensure_future(session.open_stream()), asyncio.ensure_future(session.open_stream())
            await events.handled()
            first.cancel()
            events("stream.opened", stream=1, bidirectional=True)
            events("stream.opened", stream=5, bidirectional=True)
            assert (await soon(second)).id == 5
            assert [m["stream"] for m in events.of("stream.reset")] == [1]
            assert [m["stream"] for m in events.of("stream.stop")] == [1]
            assert list(session._streams) == [5]

    run(main())


def test_a_stream_that_arrives_as_its_asker_is_cancelled_is_reset():
    async def main():
        async with accepted() as (events, session):
            asking = asyncio.ensure_future(session.open_stream(bidirectional=False))
            await events.handled()
            events("stream.opened", stream=3, bidirectional=False)
            # It has the stream, and has not run since.
            opened = session._opened[0]
            while not opened.done():
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(asking)
            await events.handled()
            assert [m["stream"] for m in events.of("stream.reset")] == [3]
            assert not events.of("stream.stop") and not session._streams

    run(main())


def test_an_open_that_fails_takes_no_turn():
    async def main():
        async with accepted() as (events, session):
            send, session._asgi_send = session._asgi_send, events.fail
            with pytest.raises(RuntimeError):
                await session.open_stream()
            session._asgi_send = send
            asking = asyncio.ensure_future(session.open_stream())
            await events.handled()
            events("stream.opened", stream=1, bidirectional=True)
            assert (await soon(asking)).id == 1

    run(main())


def test_stopped_streams_of_one_direction_raise(server):
    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/stopped")
            finished = session.open()
            finished.write(b"all", end=True)
            uni = await soon(session.uni.get())
            told = asyncio.ensure_future(session.datagrams.get())
            uni.stop(7)
            finished.stop(8)
            # Each lets the application try once more.
            for _ in range(400):
                session.send_datagram(b"again")
                if (await asyncio.wait({told}, timeout=0.05))[0]:
                    break
            assert json.loads(await soon(told)) == [[7, 8], []], "and nothing is kept"
            session.close(0, "")

    run(main())


@pytest.mark.parametrize("sending_first", [True, False])
@pytest.mark.parametrize("received", ["finished", "reset", "stopped by us"])
@pytest.mark.parametrize("sent", ["finished", "reset", "stopped by the client"])
def test_a_stream_is_kept_until_both_halves_are_over(sending_first, received, sent):
    async def main():
        async with accepted() as (events, session):
            events.receive(0, b"x", more=True)
            stream = await soon(session.accept_stream())

            async def end_sending():
                if sent == "finished":
                    await stream.finish()
                elif sent == "reset":
                    await stream.reset(1)
                else:
                    events("stream.stopped", stream=0, code=5)
                    await events.handled()

            async def end_receiving():
                if received == "finished":
                    events.receive(0)
                elif received == "reset":
                    events("stream.reset", stream=0, code=6)
                else:
                    await stream.stop(2)
                await events.handled()

            first, second = (end_sending, end_receiving) if sending_first else (end_receiving, end_sending)
            await first()
            assert list(session._streams) == [0]
            await second()
            assert not session._streams
            if sent == "stopped by the client":
                with pytest.raises(StreamStopped) as stopped:
                    await stream.write(b"more")
                assert stopped.value.code == 5
            # What is over is not given up again: the server does not know it any more.
            before = list(events.sent)
            await stream.reset()
            await stream.stop()
            assert events.sent == before

    run(main())


def test_a_write_that_is_cancelled_has_ended_its_stream_all_the_same():
    async def main():
        async with accepted() as (events, session):
            asking = asyncio.ensure_future(session.open_stream(bidirectional=False))
            await events.handled()
            events("stream.opened", stream=3, bidirectional=False)
            stream = await soon(asking)
            await cancelled_while_it_sends(events, session, stream.finish())
            assert not session._streams

    run(main())


def test_stopping_a_stream_ends_a_read_of_it():
    async def main():
        async with accepted() as (events, session):
            events.receive(0, more=True)
            stream = await soon(session.accept_stream())
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0)
            await stream.stop()
            assert await soon(reading) == b""

    run(main())


def test_leaving_a_session_ends_what_others_wait_for():
    async def main():
        async with accepted() as (events, session):
            waiting = [
                asyncio.ensure_future(w)
                for w in [session.accept_stream(), session.datagrams.receive(), session.open_stream(), session.closed()]
            ]
            await asyncio.sleep(0)
        assert events.of("close") == [{"type": "close", "code": 0, "reason": ""}]
        *raised, over = await soon(asyncio.gather(*waiting, return_exceptions=True))
        assert [type(error) for error in raised] == [SessionOver] * 3
        assert isinstance(over, SessionOver)
        await soon(session.draining())

    run(main())


def test_an_acceptance_may_be_tried_again():
    async def main():
        events = Events()
        async with events.session as session:
            send, session._asgi_send = session._asgi_send, events.fail
            with pytest.raises(RuntimeError):
                await session.accept("not-offered")
            session._asgi_send = send
            await soon(session.reject(404))
        assert [m["type"] for m in events.sent] == ["close"], "and is not closed once more"

    run(main())


def test_a_read_that_is_cancelled_while_it_resumes_takes_nothing():
    async def main():
        async with accepted() as (events, session):
            events.receive(0, b"x" * 70_000, more=True)
            await events.handled()
            assert len(events.of("stream.pause")) == 1
            stream = await soon(session.accept_stream())
            await cancelled_while_it_sends(events, session, stream.read())
            assert await soon(stream.read()) == b"x" * 70_000

    run(main())


def test_events_wake_those_whom_they_concern(monkeypatch):
    looks = 0

    def has_news(stream, has_news=Stream._has_news):
        nonlocal looks
        looks += 1
        return has_news(stream)

    monkeypatch.setattr(Stream, "_has_news", has_news)

    async def main():
        async with accepted() as (events, session):
            for number in range(200):
                events.receive(4 * number, more=True)
            streams = [await soon(session.accept_stream()) for _ in range(200)]
            reading = [asyncio.ensure_future(stream.read()) for stream in streams]
            for _ in range(100):
                await events.handled()
            for stream in streams:
                events.receive(stream.id, b"%d" % stream.id, more=True)
            assert await soon(asyncio.gather(*reading)) == [b"%d" % stream.id for stream in streams]

    run(main())
    assert looks < 1000
