"""The exercise of src/peers/exercise.rs on aioquic. Exits 0 if the server did all of it."""

import argparse
import asyncio
import hashlib
import ssl
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aioquic.asyncio import connect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from cryptography.hazmat.primitives.serialization import Encoding

from session import Peer, Reset, Session

CLOSE = (4_000_000_000, "done, says the client")
ASKED = (0xFFFFFFFF, "so long, ü")
RESET = 4242


def equal(got, expected):
    if got != expected:
        raise AssertionError(f"got {got!r}, expected {expected!r}")


class Client(Peer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bodies = {}

    def request(self, headers, end):
        stream_id = self._quic.get_next_available_stream_id()
        self.responses[stream_id] = asyncio.get_running_loop().create_future()
        if not end:  # a stream of the server may overtake its response
            self.sessions[stream_id] = Session(self, stream_id)
        self.http.send_headers(stream_id, headers, end_stream=end)
        self.transmit()
        return stream_id

    async def session(self, authority, path):
        stream_id = self.request(
            [
                (b":method", b"CONNECT"),
                (b":scheme", b"https"),
                (b":authority", authority),
                (b":path", path.encode()),
                (b":protocol", b"webtransport"),
                (b"sec-webtransport-http3-draft02", b"1"),
                (b"wt-available-protocols", b'"other", "echo.v2"'),
            ],
            end=False,
        )
        return self.sessions[stream_id], await self.responses[stream_id]

    async def get(self, authority, path):
        stream_id = self.request(
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", authority), (b":path", path.encode())],
            end=True,
        )
        headers = await self.responses[stream_id]
        body = b""
        while data := await self.bodies.setdefault(stream_id, asyncio.Queue()).get():
            body += data
        return headers, body

    def headers_received(self, stream_id, headers, ended):
        if not self.responses[stream_id].done():
            self.responses[stream_id].set_result(headers)
        if ended:
            self.body_received(stream_id, b"", True)

    def body_received(self, stream_id, data, ended):
        queue = self.bodies.setdefault(stream_id, asyncio.Queue())
        if data:
            queue.put_nowait(data)
        if ended:
            queue.put_nowait(b"")


class Dialer:
    """Dials the server; every session of the exercise has a connection of its own."""

    def __init__(self, arguments):
        self.url = urlsplit(arguments.url)
        self.hash = arguments.hash
        self.authority = self.url.netloc.encode()

    @asynccontextmanager
    async def connection(self):
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, is_client=True, max_datagram_frame_size=65536, verify_mode=ssl.CERT_NONE
        )
        async with connect(
            self.url.hostname, self.url.port, configuration=configuration, create_protocol=Client
        ) as client:
            certificate = client._quic.tls._peer_certificate.public_bytes(Encoding.DER)
            equal(hashlib.sha256(certificate).hexdigest(), self.hash)
            yield client

    @asynccontextmanager
    async def session(self, path, close=(0, "")):
        """A session, closed by the client at the end if `close`; then the server ends its half too."""
        async with self.connection() as client:
            session, headers = await client.session(self.authority, path)
            equal(headers[b":status"], b"200")
            yield session, headers
            if close:
                session.close(*close)
                await session.gone


async def exercise(dialer, name, can):
    async with dialer.session(f"/echo?id={name}", CLOSE) as (session, headers):
        if "protocols" in can:
            equal(headers.get(b"wt-protocol"), b'"echo.v2"')
        if "http" in can:  # an ordinary request beside the session, on its connection
            headers, body = await session.peer.get(dialer.authority, "/")
            equal((headers[b":status"], body), (b"200", b"hello from the laboratory\n"))
        for content in [b"bidi", bytes(i * 131 % 251 for i in range(1 << 20))]:
            stream = session.open()
            stream.write(content, end=True)
            if await stream.read_to_end() != content:
                raise AssertionError(f"{len(content)} bytes came back as others")
        session.open(unidirectional=True).write(b"uni", end=True)
        equal(await (await session.uni.get()).read_to_end(), b"uni")
        answer = asyncio.ensure_future(session.datagrams.get())
        while not answer.done():  # datagrams may be lost: send until one comes back
            session.send_datagram(b"datagram")
            await asyncio.wait([answer], timeout=0.05)
        equal(answer.result(), b"datagram")

    async with dialer.session(f"/server-opens?id={name}-opens") as (session, _):
        equal(await (await session.uni.get()).read_to_end(), b"uni of the server")
        bidi = await session.bidi.get()
        equal(await bidi.read_to_end(), b"bidi of the server")
        bidi.write(b"answer of the client", end=True)
        echo = session.open()
        echo.write(b"read?", end=True)
        await echo.read_to_end()

    if "close" in can:
        path = f"/close?id={name}-close&code={ASKED[0]}&reason=so%20long,%20%C3%BC"
        async with dialer.session(path, close=None) as (session, _):
            equal(await session.closed, ("closed", *ASKED))

    async with dialer.session(f"/resets?id={name}-resets&code={RESET}") as (session, _):
        uni = await session.uni.get()
        await uni.read()
        bidi = session.open()
        bidi.write(b"reset", end=True)
        for stream in (uni, bidi):
            try:
                await stream.read_to_end()
            except Reset as reset:
                equal(reset.args[0], RESET)
            else:
                raise AssertionError("the stream was not reset")
        stopped = session.open(unidirectional=True)
        stopped.write(b"stop")
        equal(await stopped.stopped, RESET)

    async with dialer.connection() as client:
        _, headers = await client.session(dialer.authority, "/nowhere")
        equal(headers[b":status"], b"404")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="https://127.0.0.1:PORT")
    parser.add_argument("--hash", required=True, help="the SHA-256 of the certificate")
    parser.add_argument("--id", required=True, help="under which the server notes what it sees")
    parser.add_argument("--can", action="append", default=[], choices=["protocols", "close", "http"])
    arguments = parser.parse_args()
    asyncio.run(exercise(Dialer(arguments), arguments.id, arguments.can))


if __name__ == "__main__":
    main()
