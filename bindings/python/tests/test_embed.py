"""Servers that a program starts itself."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import pytest
import wireloom
from apps.embedding import app, make
from conftest import HERE, PATIENCE, Process, eventually
from wireloom.lifespan import LifespanFailed


@pytest.fixture
def program():
    """Runs the program with these settings, from another folder."""
    processes = []

    def start(wait=1, **settings):
        script = str(HERE / "apps" / "embedding.py")
        process = Process([json.dumps(settings)], cwd=HERE, program=(script,))
        processes.append(process)
        if wait:
            process.started(wait)
        return process

    yield start
    for process in processes:
        process.process.kill()
        process.process.wait()


def get(url):
    return httpx.get(url, verify=False, timeout=PATIENCE)


@pytest.mark.parametrize("settings", [{}, {"factory": True, "self_signed": True}, {"app": "embedding:app"}])
def test_serve(program, settings):
    process = program(**settings)
    assert get(process.url).text == str(process.process.pid)
    assert process.stop() == 0
    assert "serve has returned" in process.output
    assert "Traceback" not in process.output, process.output


def test_serve_with_workers(program):
    """They find the module in the folder of the program."""
    process = program(app="embedding:app", workers=2, wait=2)
    assert get(process.url).text != str(process.process.pid)
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 2}, "'module:app'"),
        ({"reload": True}, "'module:app'"),
        ({"worker_timeout": 5}, "'module:app'"),
        ({"nonsense": 1}, "no setting named 'nonsense'"),
        ({"log_level": "loud"}, "log_level is one of"),
        ({"keyfile": "x"}, "go together"),
        ({"app": "embedding:nothing"}, "no attribute"),
    ],
)
def test_mistakes(program, settings, says):
    process = program(wait=0, **settings)
    assert process.ended() not in (0, -9)
    eventually(lambda: says in process.output, says)
    assert "serve has returned" not in process.output


def test_serve_in_a_thread():
    """Nothing but the main thread hears signals; the rest works."""
    failed = []

    def serve():
        try:
            wireloom.serve(app, port=0, limit_max_requests=1, log_level="error", access_log_file="/dev/null", uds=path)
        except BaseException as error:
            failed.append(error)

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        thread = threading.Thread(target=serve)
        thread.start()

        def is_answered():
            with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=PATIENCE) as client:
                try:
                    return client.get("http://example.test/").status_code == 200
                except httpx.TransportError:
                    return failed

        eventually(is_answered, "an answer")
        thread.join(PATIENCE)
        assert not thread.is_alive() and not failed, failed


@pytest.mark.parametrize("factory", [wireloom.new_event_loop, asyncio.new_event_loop])
def test_serving(factory):
    lived = []

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                lived.append(message["type"])
                await send({"type": "lifespan.startup.complete"})
            lived.append(message["type"])
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "webtransport":
            await receive()
            await send({"type": "webtransport.accept"})
            await send({"type": "webtransport.datagram.send", "data": b"hello"})
            while (await receive())["type"] != "webtransport.disconnect":
                pass
        else:
            await app(scope, receive, send)

    async def main():
        async with wireloom.serving(application, port=0, self_signed=True) as server:
            assert lived == ["lifespan.startup"]
            assert server.addresses[0].startswith("127.0.0.1:")
            async with httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
                assert (await client.get(server.url)).status_code == 200
            hashes = [server.certificate_hash]
            async with (
                wireloom.Client(certificate_hashes=hashes) as client,
                await client.connect(server.url) as session,
            ):
                assert await session.recv_datagram() == b"hello"
            # Another one beside it.
            async with wireloom.serving("embedding:make", port=0, factory=True, app_dir=str(HERE / "apps")) as other:
                assert other.certificate_hash is None
                async with httpx.AsyncClient(timeout=PATIENCE) as client:
                    assert (await client.get(other.url)).status_code == 200
        assert lived[-1] == "lifespan.shutdown"
        async with httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(server.url)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE))


def test_serving_until_it_is_stopped():
    async def main():
        async with wireloom.serving(make, factory=True, port=0) as server:
            asyncio.get_running_loop().call_soon(server.stop)
            await server.wait()

    wireloom.run(asyncio.wait_for(main(), PATIENCE))


def test_serving_that_cannot_start():
    async def refuses(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main():
        with pytest.raises(LifespanFailed, match="no database"):
            async with wireloom.serving(refuses, port=0):
                raise AssertionError("it has started")
        with pytest.raises(ValueError, match="in your event loop"):
            async with wireloom.serving("plain:app", port=0, workers=2):
                raise AssertionError("it has started")
        async with wireloom.serving(app, port=0) as server:
            port = int(server.url.rpartition(":")[2])
            with pytest.raises(OSError, match="in use"):
                async with wireloom.serving(app, port=port):
                    raise AssertionError("it has started")

    wireloom.run(asyncio.wait_for(main(), PATIENCE))


def test_a_start_that_hangs_can_be_cancelled():
    async def main():
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def hangs(scope, receive, send):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async def start():
            async with wireloom.serving(hangs, port=0):
                raise AssertionError("it has started")

        task = asyncio.create_task(start())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled.is_set()

    wireloom.run(asyncio.wait_for(main(), PATIENCE))


def test_what_ends_the_block_passes():
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with wireloom.serving(app, port=0):
                raise ZeroDivisionError
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), wireloom.serving(app, port=0) as server:
                await server.wait()

    wireloom.run(asyncio.wait_for(main(), PATIENCE))


def test_serve_in_an_event_loop_and_run_of_an_application():
    async def main():
        with pytest.raises(RuntimeError, match=r"wireloom\.serving"):
            wireloom.serve(app)

    wireloom.run(main())
    for given in (app, "plain:app"):
        with pytest.raises(TypeError, match=r"wireloom\.serve\(app\)"):
            wireloom.run(given)
