"""The library for asyncio: client and server of one program, on every kind of event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys

import pytest
import uvloop
import wireloom
from conftest import PATIENCE
from wt_client import dial, soon

LOOPS = {"wireloom": wireloom.new_event_loop, "asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(main(), 120))

    return run


async def echo(session):
    async def stream(send, recv):
        # A session that ends in the middle is how some of the tests end.
        with contextlib.suppress(wireloom.SessionClosed):
            async with send:
                async for chunk in recv:
                    await send.write(chunk)

    async def datagrams():
        async for data in session.datagrams():
            session.send_datagram(data)

    async with asyncio.TaskGroup() as group:
        group.create_task(datagrams())
        async for send, recv in session.bi_streams():
            group.create_task(stream(send, recv))


class Echo:
    """A server of this package in the same event loop."""

    def __init__(self, handler=echo, **settings):
        self.handler = handler
        self.settings = settings
        self.requests = []

    async def __aenter__(self):
        identity = wireloom.Identity.self_signed(["localhost"])
        self.hash = identity.certificate_hash
        self.server = await wireloom.Server.listen("127.0.0.1:0", identity, **self.settings)
        self.port = self.server.addresses[0][1]
        self.url = f"https://127.0.0.1:{self.port}/echo"
        self.task = asyncio.create_task(self._serve())
        return self

    async def _serve(self):
        async with asyncio.TaskGroup() as group:
            async for request in self.server:
                self.requests.append(request)
                if request.path == "/refused":
                    request.reject(429)
                elif request.path != "/unanswered":
                    session = await request.accept(request.protocols[0] if request.protocols else None)
                    group.create_task(self.handler(session))
                # The loop's variable must not keep it.
                del request

    async def __aexit__(self, *_):
        await self.server.close()
        await asyncio.wait_for(self.task, 60)

    def client(self):
        return wireloom.Client(certificate_hashes=[self.hash])


def test_streams_and_datagrams(run):
    async def main():
        async with Echo() as server, server.client() as client:
            async with await client.connect(server.url, protocols=["one", "two"], headers=[("x-a", "b")]) as session:
                assert session.protocol == "one"
                assert session.response["status"] == 200
                send, recv = await session.open_bi()
                await send.write(b"hello")
                assert await recv.read() == b"hello"
                await send.finish()
                assert await recv.read() == b""
                content = bytes(range(256)) * 8000
                send, recv = await session.open_bi()
                async with asyncio.TaskGroup() as group:
                    echoed = group.create_task(recv.read_to_end(4 << 20))
                    async with send:
                        for start in range(0, len(content), 100_000):
                            await send.write(memoryview(content)[start : start + 100_000])
                assert echoed.result() == content
                session.send_datagram(b"datagram")
                assert await session.recv_datagram() == b"datagram"
                with pytest.raises(wireloom.DatagramTooLarge) as raised:
                    session.send_datagram(bytes(100_000))
                assert raised.value.max_size == session.max_datagram_size
            assert session.is_closed
            assert dict(server.requests[0].headers)["x-a"] == b"b"
            assert server.requests[0].path == "/echo"

    run(main)


def test_many_streams_at_once(run):
    async def main():
        async with Echo() as server, server.client() as client, await client.connect(server.url) as session:

            async def one(number):
                send, recv = await session.open_bi()
                async with send:
                    await send.write(b"%d" % number)
                return await recv.read_to_end()

            assert await asyncio.gather(*(one(n) for n in range(300))) == [b"%d" % n for n in range(300)]

    run(main)


def test_ends_and_errors(run):
    async def closing(session):
        send, recv = await session.accept_bi()
        await recv.read()
        await send.reset(4242)
        send, recv = await session.accept_bi()
        await recv.stop(2121)
        session.close(7, "enough")

    async def main():
        async with Echo(closing) as server, server.client() as client:
            session = await client.connect(server.url)
            send, recv = await session.open_bi()
            await send.write(b"x")
            with pytest.raises(wireloom.StreamReset) as reset:
                await recv.read()
            assert reset.value.code == 4242
            send, recv = await session.open_bi()
            await send.write(b"x")
            with pytest.raises((wireloom.StreamStopped, wireloom.SessionClosed)):
                while True:
                    await send.write(bytes(1000))
                    await asyncio.sleep(0)
            closed = await session.closed()
            assert (closed.code, closed.reason, closed.by_peer) == (7, "enough", True)
            with pytest.raises(wireloom.SessionClosed):
                await session.open_bi()
            assert [stream async for stream in session.bi_streams()] == []
            with pytest.raises(wireloom.ConnectError) as refused:
                await client.connect(server.url.replace("/echo", "/refused"))
            assert refused.value.status == 429
            with pytest.raises(ValueError):
                await client.connect("ftp://x")
            with pytest.raises(wireloom.ConnectError):
                await wireloom.Client(certificate_hashes=["00" * 32]).connect(server.url)

    run(main)


def test_cancelling_loses_nothing(run):
    async def main():
        async with Echo() as server, server.client() as client, await client.connect(server.url) as session:
            send, recv = await session.open_bi()
            for number in range(50):
                reading = asyncio.create_task(recv.read())
                await asyncio.sleep(0)
                if number % 2:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    reading = asyncio.create_task(recv.read())
                await send.write(b"%d" % number)
                assert await reading == b"%d" % number
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.accept_uni(), 0.05)
            # In the very moment in which something arrives.
            for number in range(50):
                reading = asyncio.create_task(session.recv_datagram())
                session.send_datagram(b"%d" % number)
                while not reading.done():
                    await asyncio.sleep(0)
                    if number % 3 == 0 and not reading.done():
                        reading.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await reading
                        reading = asyncio.create_task(session.recv_datagram())
                assert await reading == b"%d" % number

    run(main)


def test_dropped_objects_end_things(run):
    async def main():
        ended = asyncio.get_running_loop().create_future()
        received = asyncio.Event()

        async def watching(session):
            try:
                send, recv = await session.accept_bi()
                assert await recv.read() == b"half"
                received.set()
                await recv.read_to_end()
            except wireloom.StreamReset as reset:
                ended.set_result(reset.code)

        async with Echo(watching) as server, server.client() as client:
            session = await client.connect(server.url)
            send, recv = await session.open_bi()
            await send.write(b"half")
            # A stream that is reset before anything of it has arrived is nobody's.
            await received.wait()
            del send
            gc.collect()
            assert await ended == 0
            with pytest.raises(wireloom.ConnectError):
                # The request is dropped with the list, which rejects it.
                connecting = asyncio.create_task(client.connect(server.url.replace("/echo", "/unanswered")))
                while len(server.requests) < 2:
                    await asyncio.sleep(0.01)
                server.requests.clear()
                gc.collect()
                await connecting
            session.close()

    run(main)


def test_asyncio_goes_on_beside_it(run):
    """Timers, threads, subprocesses and sockets work as ever."""

    async def main():
        loop = asyncio.get_running_loop()
        async with Echo() as server, server.client() as client, await client.connect(server.url) as session:
            called = []
            loop.call_later(0.02, called.append, "timer")
            loop.call_soon_threadsafe(called.append, "soon")
            assert await asyncio.to_thread(lambda: 1) == 1
            process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
            assert (await process.communicate())[0] == b"hi\n"
            reader = asyncio.Event()
            tcp = await asyncio.start_server(lambda r, w: (reader.set(), w.close()), "127.0.0.1", 0)
            _, writer = await asyncio.open_connection(*tcp.sockets[0].getsockname())
            await reader.wait()
            writer.close()
            tcp.close()
            session.send_datagram(b"x")
            assert await session.recv_datagram() == b"x"
            while "timer" not in called:
                await asyncio.sleep(0.01)
            assert "soon" in called

    run(main)


def test_an_independent_client():
    async def main():
        async with Echo() as server, dial(server) as client:
            session, headers = await client.session("/echo")
            stream = session.open()
            stream.write(b"from aioquic", end=True)
            assert await soon(stream.read_to_end()) == b"from aioquic"
            session.close(0, "")

    asyncio.run(asyncio.wait_for(main(), 120))


def test_misuse_is_told():
    with pytest.raises(RuntimeError):
        wireloom.Client(verify=False).connect("https://localhost/")  # no event loop runs
    with pytest.raises(ValueError):
        wireloom.Client(certificate_hashes=["zz"])
    with pytest.raises(wireloom.IdentityError):
        wireloom.Identity.pem("nonsense", "nonsense")

    async def main():
        client = wireloom.Client(verify=False)
        closing = client.close()
        await closing
        with pytest.raises(RuntimeError):
            await closing

    wireloom.run(main())


def test_giving_up_does_not_wait(run):
    async def mute(session):
        # Neither reads nor writes.
        with contextlib.suppress(wireloom.SessionClosed):
            streams = [await session.accept_bi()]
            await session.closed()
            del streams

    async def main():
        async with Echo(mute) as server, server.client() as client, await client.connect(server.url) as session:
            send, recv = await session.open_bi()

            async def fill():
                while True:
                    await send.write(bytes(1 << 20))

            reading, writing = asyncio.create_task(recv.read()), asyncio.create_task(fill())
            second = asyncio.create_task(recv.read_to_end())
            for _ in range(100):
                await asyncio.sleep(0)
            send.set_send_order(5)
            await recv.stop(7)
            await send.reset(8)
            for task in [reading, second, writing]:
                with pytest.raises(ValueError):
                    await task
            with pytest.raises(ValueError):
                await send.finish()

    run(main)


def test_finished_within_its_block(run):
    async def main():
        async with Echo() as server, server.client() as client, await client.connect(server.url) as session:
            send, recv = await session.open_bi()
            async with send:
                await send.write(b"all")
                await send.finish()
            assert await recv.read_to_end() == b"all"
            send, recv = await session.open_bi()
            async with send:
                await send.write(b"x")
                await send.reset(3)

    run(main)


INTERRUPTED = """
import asyncio, signal, wireloom

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert loop.remove_signal_handler(signal.SIGUSR1)
    print("ready", flush=True)
    await asyncio.Event().wait()

# Programs that a shell has put into the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    wireloom.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interrupt_after_the_last_signal_handler_is_removed():
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(wireloom.__file__))}
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE)[0] == "interrupted\n"
        finally:
            process.kill()


def test_awaits_that_are_always_ready_let_others_run(run):
    async def main():
        async with Echo() as server, server.client() as client, await client.connect(server.url) as session:
            send, recv = await session.open_bi()
            turned = asyncio.Event()
            asyncio.get_running_loop().call_soon(turned.set)
            for _ in range(1000):
                await send.reset()
                if turned.is_set():
                    break
            assert turned.is_set()

    run(main)


def test_a_descriptor_that_stays_readable_does_not_keep_the_network_waiting(run):
    async def main():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            # Which takes nothing of it.
            asyncio.get_running_loop().add_reader(ours, lambda: None)
            try:
                async with Echo() as server, server.client() as client, await client.connect(server.url) as session:
                    send, recv = await session.open_bi()
                    async with send:
                        await send.write(b"hello")
                    assert await recv.read_to_end() == b"hello"
            finally:
                asyncio.get_running_loop().remove_reader(ours)

    run(main)
