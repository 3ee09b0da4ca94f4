"""An independent WebTransport client: aioquic, with the sessions of interop/aioquic."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aioquic.asyncio import connect
from aioquic.h3.connection import H3_ALPN
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from session import Peer, Session

PATIENCE = 60.0


class Client(Peer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bodies: dict[int, asyncio.Queue[bytes]] = {}
        self.interim: list[list[tuple[bytes, bytes]]] = []

    def request(self, headers: list[tuple[bytes, bytes]], end: bool) -> int:
        stream_id = self._quic.get_next_available_stream_id()
        self.responses[stream_id] = asyncio.get_running_loop().create_future()
        if not end:
            self.sessions[stream_id] = Session(self, stream_id)
        self.http.send_headers(stream_id, headers, end_stream=end)
        self.transmit()
        return stream_id

    async def session(self, path: str, *extra: tuple[bytes, bytes]) -> tuple[Session, dict[bytes, bytes]]:
        """The session and the head of the response, whatever its status."""
        stream_id = self.request(
            [
                (b":method", b"CONNECT"),
                (b":scheme", b"https"),
                (b":authority", self.authority),
                (b":path", path.encode()),
                (b":protocol", b"webtransport"),
                (b"sec-webtransport-http3-draft02", b"1"),
                *extra,
            ],
            end=False,
        )
        return self.sessions[stream_id], await asyncio.wait_for(self.responses[stream_id], PATIENCE)

    async def fetch(
        self, path: str, method: str = "GET", body: bytes = b"", *extra: tuple[bytes, bytes]
    ) -> tuple[dict[bytes, bytes], bytes]:
        stream_id = self.request(
            [
                (b":method", method.encode()),
                (b":scheme", b"https"),
                (b":authority", self.authority),
                (b":path", path.encode()),
                *extra,
            ],
            end=not body,
        )
        self.sessions.pop(stream_id, None)
        if body:
            self.http.send_data(stream_id, body, end_stream=True)
            self.transmit()
        headers = await asyncio.wait_for(self.responses[stream_id], PATIENCE)
        content = b""
        queue = self.bodies.setdefault(stream_id, asyncio.Queue())
        while data := await asyncio.wait_for(queue.get(), PATIENCE):
            content += data
        return headers, content

    def http_event(self, event: Any) -> None:
        if isinstance(event, HeadersReceived) and dict(event.headers).get(b":status", b"").startswith(b"1"):
            self.interim.append(event.headers)
        else:
            super().http_event(event)

    def headers_received(self, stream_id: int, headers: dict[bytes, bytes], ended: bool) -> None:
        if stream_id in self.responses and not self.responses[stream_id].done():
            self.responses[stream_id].set_result(headers)
        if ended:
            self.body_received(stream_id, b"", True)

    def body_received(self, stream_id: int, data: bytes, ended: bool) -> None:
        queue = self.bodies.setdefault(stream_id, asyncio.Queue())
        if data:
            queue.put_nowait(data)
        if ended:
            queue.put_nowait(b"")


@asynccontextmanager
async def dial(
    server: Any, configure: Callable[[QuicConfiguration], None] = lambda configuration: None, **settings: Any
) -> AsyncIterator[Client]:
    """A connection."""
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, is_client=True, max_datagram_frame_size=65536, verify_mode=ssl.CERT_NONE, **settings
    )
    configure(configuration)
    async with connect("127.0.0.1", server.port, configuration=configuration, create_protocol=Client) as client:
        client.authority = f"127.0.0.1:{server.port}".encode()
        yield client


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)
