"""The messaging client against `wireloom serve`, whose demo has handlers: over WebTransport, and WebSocket."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import pytest
import wireloom
from conftest import HERE
from wireloom import messaging


@pytest.fixture(scope="module")
def server():
    program = os.environ.get("WIRELOOM", str(HERE.parents[2] / "target/debug/wireloom"))
    with subprocess.Popen(
        [program, "serve", "--bind", "127.0.0.1:0", "--page-bind", "127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("scheme", ["https", "wss"])
@pytest.mark.parametrize("factory", [wireloom.new_event_loop, asyncio.new_event_loop])
def test_requests_and_signals(server, scheme, factory):
    url = server["webtransport"].replace("https", scheme) + "/messages"

    async def main():
        client = await messaging.Client.connect(url, certificate_hashes=[server["certificate_sha256"]])
        async with client:
            assert await client.request("upper", "hello") == "HELLO"
            assert await client.request("echo", b"\x00\xff") == b"\x00\xff"
            many = await asyncio.gather(*(client.request("echo", str(n)) for n in range(100)))
            assert many == [str(n) for n in range(100)]
            with pytest.raises(messaging.RequestFailed) as failed:
                await client.request("fail", "on purpose")
            assert failed.value.code == "FAIL" and not failed.value.is_retryable
            with pytest.raises(TimeoutError):
                await client.request("sleep", "60000", timeout=0.05)
            waiting = asyncio.create_task(client.request("sleep", "60000"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await client.signal("news", "one")
            await client.signal("news", b"two")
            signals = client.signals()
            first, second = await anext(signals), await anext(signals)
            assert [(first.name, first.data), (second.name, second.data)] == [("news", "one"), ("news", b"two")]
        assert [signal async for signal in client.signals()] == []

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main(), 120))


def test_a_server_that_is_not_there():
    async def main():
        with pytest.raises(wireloom.ConnectError):
            await messaging.Client.connect("ftp://nowhere")

    wireloom.run(main())


def test_a_failed_connection_has_a_status():
    async def main():
        with pytest.raises(wireloom.ConnectError) as failed:
            await messaging.Client.connect("ws://127.0.0.1:1/messages", connect_timeout=5.0)
        assert failed.value.status is None

    asyncio.run(main())
