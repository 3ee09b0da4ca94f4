"""The `websocket` scope by independent clients: `websockets`, and over HTTP/2 `h2`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import ssl
import time

import httpx
import pytest
from conftest import eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PATIENCE = 60


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("plain:app", "--ws-max-size", "2000000")


def insecure():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def dial(server, path, **settings):
    url = f"wss://127.0.0.1:{server.port}{path}"
    return connect(url, ssl=insecure(), open_timeout=PATIENCE, max_size=None, **settings)


def run(main):
    asyncio.run(asyncio.wait_for(main(), 120))


def test_messages(server):
    async def main():
        async with dial(server, "/echo", subprotocols=["one", "two"]) as socket:
            assert socket.subprotocol == "one"
            assert socket.response.headers["x-extra"] == "1"
            for message in ["", "text", "ü" * 1000, b"", b"bytes", bytes(1_000_000)]:
                await socket.send(message)
                assert await socket.recv() == message
            for number in range(500):
                await socket.send(str(number))
            assert [await socket.recv() for _ in range(500)] == [str(number) for number in range(500)]
            await (await socket.ping())

    run(main)


def test_the_ends(server):
    async def main():
        async with dial(server, "/echo") as socket:
            await socket.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")
        async with dial(server, "/leave") as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == 1000
        async with dial(server, "/raise-late") as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == 1011
        async with dial(server, "/echo") as socket:
            await socket.close(3456, "bye")

    run(main)
    events = eventually(
        lambda: [
            event
            for event in httpx.get(f"{server.url}/journal?websocket", verify=False, timeout=60).json()["events"]
            if event["code"] == 3456
        ]
    )
    assert events == [{"type": "websocket.disconnect", "code": 3456, "reason": "bye"}]


@pytest.mark.parametrize(("path", "status"), [("/refuse", 403), ("/raise", 500), ("/return", 500), ("/deny", 418)])
def test_refusals(server, path, status):
    async def main():
        with pytest.raises(InvalidStatus) as refused:
            async with dial(server, path):
                pass
        assert refused.value.response.status_code == status
        if path == "/deny":
            assert refused.value.response.body == b"no tea"
            assert refused.value.response.headers["x-why"] == "denied"

    run(main)


def test_a_deaf_application_answers_pings(server):
    async def main():
        async with dial(server, "/deaf") as socket:
            for _ in range(3):
                await (await socket.ping())

    run(main)


def test_messages_that_are_too_large(server):
    async def main():
        async with dial(server, "/echo") as socket:
            await socket.send(bytes(2_000_001))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == 1009

    run(main)


def test_over_http2(server):
    run(lambda: over_http2(server, "/echo", "200"))


def test_no_denial_over_http2_is_an_acceptance(server):
    run(lambda: over_http2(server, "/deny?303", "303"))
    # Where that is the acceptance it is the application's fault.
    run(lambda: over_http2(server, "/deny?200", "500"))


async def over_http2(server, path, status):
    """RFC 8441, by hand on h2."""
    import h2.config
    import h2.connection
    import h2.events
    import h2.settings

    context = insecure()
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    writer.write(connection.data_to_send())

    async def events():
        while True:
            got = connection.receive_data(await reader.read(65536))
            writer.write(connection.data_to_send())
            for event in got:
                yield event

    stream = events()
    async for event in stream:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            break
    assert connection.remote_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
    headers = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", f"127.0.0.1:{server.port}"),
        (":path", path),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "two"),
    ]
    connection.send_headers(1, headers)
    writer.write(connection.data_to_send())
    async for event in stream:
        if isinstance(event, h2.events.ResponseReceived):
            break
    answer = dict(event.headers)
    assert answer[":status"] == status
    if path == "/echo":
        assert answer["sec-websocket-protocol"] == "two"
        connection.send_data(1, bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")
        writer.write(connection.data_to_send())
        content = b""
        async for event in stream:
            if isinstance(event, h2.events.DataReceived):
                content += event.data
                if len(content) >= 4:
                    break
        assert content == b"\x81\x02hi"
    writer.close()


def test_the_scope_and_foreign_origins(server):
    async def main():
        with pytest.raises(InvalidStatus) as refused:
            async with dial(server, "/echo", origin="https://evil.test"):
                pass
        assert refused.value.response.status_code == 403
        async with dial(server, "/echo", origin=f"https://127.0.0.1:{server.port}") as socket:
            await socket.send(json.dumps("x"))
            assert await socket.recv() == '"x"'

    run(main)


def test_a_shutdown_closes_them(serve):
    server = serve("plain:app", "--graceful-timeout", "600")

    async def main():
        async with dial(server, "/farewell") as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == 1012

    run(main)
    assert server.ended() == 0
    assert "websocket.disconnect: 1012" in server.output
    assert "Traceback" not in server.output, server.output


def test_back_pressure_is_not_silence(serve):
    """Pings go on while the application takes nothing; who does not read cannot see their answers."""
    server = serve("plain:app", "--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.2")

    async def main():
        async with dial(server, "/late", ping_interval=None) as socket:
            for _ in range(4):
                await socket.send(bytes(100_000))
            for _ in range(4):
                assert len(await socket.recv()) == 100_000

    run(main)


def raw(server, path="/echo"):
    """A connection after its handshake."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    sock.sendall(
        b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return sock


def test_a_slow_message_is_not_silence_and_silence_is_the_end(serve):
    server = serve("plain:app", "--ws-ping-interval", "0.5", "--ws-ping-timeout", "0.5", tls=False)
    with raw(server) as sock:
        frame = b"\x82\xa8" + bytes(4) + bytes(40)
        for byte in frame:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)
        echoed = b""
        while len(echoed) < 42:
            # Pings are two bytes, whose answers are never sent.
            echoed = (echoed + sock.recv(4096)).replace(b"\x89\x00", b"")
        assert echoed == b"\x82\x28" + bytes(40)
        rest = b""
        while data := sock.recv(4096):
            rest += data
    assert rest.replace(b"\x89\x00", b"") == b""


@pytest.mark.parametrize("leaves", [False, True])
def test_all_who_wait_to_send_go_on(serve, leaves):
    server = serve("plain:app", tls=False)
    with raw(server, "/crowd") as sock:
        server.wait_for("^sending")
        size = 0
        while not leaves and size < 3 * (8 << 20):
            size += len(sock.recv(1 << 20))
    server.wait_for(re.escape(f"sent: {[leaves] * 3}"))


def test_who_gives_up_waiting_takes_nobody_s_news(server):
    async def main():
        async with dial(server, "/watched") as socket:
            await asyncio.to_thread(server.wait_for, "^watching")
            await socket.send("news")
            await asyncio.to_thread(server.wait_for, "^watched: websocket.receive")

    run(main)


def test_origins_without_a_certificate(serve):
    def status(server, origin):
        async def main():
            try:
                async with connect(f"ws://127.0.0.1:{server.port}/echo", origin=origin, open_timeout=PATIENCE):
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        return asyncio.run(main())

    open_to_all = serve("plain:app", tls=False)
    assert status(open_to_all, "https://evil.test") == 101
    server = serve("plain:app", "--origin", "https://friend.test", tls=False)
    assert status(server, "https://evil.test") == 403
    for origin in ["https://friend.test", f"http://127.0.0.1:{server.port}", f"https://127.0.0.1:{server.port}", None]:
        assert status(server, origin) == 101, origin
