"""The `websocket` scope over HTTP/3 (RFC 9220): aioquic, with the frames of `websockets`."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri
from wt_client import Client, dial, soon


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("plain:app", "--ws-max-size", "2000000")


def run(main):
    asyncio.run(asyncio.wait_for(main(), 120))


class WebSocket:
    """One WebSocket on a connection of aioquic."""

    def __init__(self, client: Client, stream_id: int) -> None:
        self.client = client
        self.stream_id = stream_id
        self.protocol = ClientProtocol(parse_uri("wss://localhost/"), state=State.OPEN, max_size=None)

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            # Empty is the end of the stream.
            self.client.http.send_data(self.stream_id, data, end_stream=not data)
        self.client.transmit()

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self.flush()

    async def frame(self) -> Frame | None:
        """The next frame; None at the end."""
        queue = self.client.bodies.setdefault(self.stream_id, asyncio.Queue())
        while not (events := self.protocol.events_received()):
            data = await soon(queue.get())
            if not data:
                return None
            self.protocol.receive_data(data)
            self.flush()
        assert len(events) == 1
        return events[0]

    async def message(self) -> str | bytes:
        frame = await self.frame()
        assert frame is not None and frame.fin
        return frame.data.decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)


async def handshake(client: Client, path: str, *extra: tuple[bytes, bytes]) -> tuple[WebSocket, dict[bytes, bytes]]:
    head = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":authority", client.authority),
        (b":path", path.encode()),
        (b"sec-websocket-version", b"13"),
        *extra,
    ]
    stream_id = client.request(head, end=False)
    client.sessions.pop(stream_id)
    return WebSocket(client, stream_id), await soon(client.responses[stream_id])


def test_messages(server):
    async def main():
        async with dial(server) as client:
            socket, answer = await handshake(client, "/echo", (b"sec-websocket-protocol", b"one, two"))
            assert client.http.received_settings[0x08] == 1
            assert (answer[b":status"], answer[b"sec-websocket-protocol"], answer[b"x-extra"]) == (b"200", b"one", b"1")
            for message in ["", "text", "ü" * 1000, b"", b"bytes", bytes(1_000_000)]:
                socket.send(message)
                assert await socket.message() == message
            # Beside it, on the same connection, another one and a request.
            other, _ = await handshake(client, "/echo")
            other.send("other")
            assert (await client.fetch("/echo", "POST", b"body"))[1] == b"body"
            assert await other.message() == "other"
            other.protocol.send_ping(b"there?")
            other.flush()
            pong = await other.frame()
            assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"there?")

    run(main)


def test_the_ends(server):
    async def main():
        async with dial(server) as client:
            for path, close in [("/echo", (4321, "as you wish")), ("/leave", (1000, "")), ("/raise-late", (1011, ""))]:
                socket, _ = await handshake(client, path)
                if path == "/echo":
                    socket.send("close")
                frame = await socket.frame()
                assert frame.opcode is Opcode.CLOSE
                received = socket.protocol.close_rcvd
                assert (received.code, received.reason) == close
                # Answered, and the stream ends.
                assert await socket.frame() is None
            socket, _ = await handshake(client, "/echo")
            socket.protocol.send_close(3457, "bye")
            socket.flush()
            assert (await socket.frame()).opcode is Opcode.CLOSE
            assert await socket.frame() is None
            # Without a word.
            socket, _ = await handshake(client, "/echo?reset")
            client._quic.reset_stream(socket.stream_id, 0x10C)
            client.transmit()
            assert await socket.frame() is None
            events = []
            while {event["code"] for event in events} < {1006, 3457}:
                _, body = await client.fetch("/journal?websocket")
                events = [e for e in json.loads(body)["events"] if e["code"] in (1006, 3457)]

    run(main)


@pytest.mark.parametrize(("path", "status"), [("/refuse", 403), ("/raise", 500), ("/return", 500), ("/deny", 418)])
def test_refusals(server, path, status):
    async def main():
        async with dial(server) as client:
            socket, answer = await handshake(client, path)
            assert answer[b":status"] == b"%d" % status
            if path == "/deny":
                assert answer[b"x-why"] == b"denied"
                assert await soon(client.bodies[socket.stream_id].get()) == b"no tea"

    run(main)


def test_the_scope_and_foreign_origins(server):
    async def main():
        async with dial(server) as client:
            _, answer = await handshake(client, "/echo", (b"origin", b"https://evil.test"))
            assert answer[b":status"] == b"403"
            socket, _ = await handshake(client, "/scope?a=1")
            scope = json.loads(await socket.message())
            assert (scope["type"], scope["http_version"]) == ("websocket", "3")
            assert (scope["scheme"], scope["path"], scope["query_string"]) == ("wss", "/scope", "a=1")

    run(main)
