"""An endpoint of the QUIC Interop Runner's WebTransport cases on aioquic. src/endpoint/mod.rs says what the environment means."""

import asyncio
import os
import ssl
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from aioquic.asyncio import connect, serve
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration

from session import Peer, Session

ENV = os.environ
ROLE, TESTCASE = ENV.get("ROLE"), ENV.get("TESTCASE", "")
WWW, DOWNLOADS = Path(ENV.get("WWW", "/www")), Path(ENV.get("DOWNLOADS", "/downloads"))
CERTS = Path(ENV.get("CERTS", "/certs"))
PROTOCOLS = ENV.get("PROTOCOLS", "").split()
CARRIERS = {
    f"transfer-{carrier}-{direction}": carrier
    for carrier in ("unidirectional", "bidirectional", "datagram")
    for direction in ("send", "receive")
}
CARRIER = CARRIERS.get(TESTCASE)


def requests():
    """The files by endpoint, and the server's address."""
    found, server = {}, None
    for request in ENV.get("REQUESTS", "").split():
        path = request
        if ROLE == "client":
            server = urlsplit(request)
            path = server.path
        endpoint, _, file = path.lstrip("/").partition("/")
        found.setdefault(endpoint, []).extend([file] if file else [])
    return found, server


def within(folder, name):
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} leads out of the folder")
    return folder / path


class Exchange:
    def __init__(self, session, endpoint, files):
        self.session, self.endpoint, self.files = session, endpoint, files
        self.arrived = {file: asyncio.Event() for file in files}
        self.tasks = set()

    def asked_for(self, message):
        name = message.decode().strip().removeprefix("GET ")
        return name, within(WWW / self.endpoint, name).read_bytes()

    def keep(self, name, content):
        path = within(DOWNLOADS / self.endpoint, name)
        event = self.arrived[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        event.set()

    def pushed(self, message):
        head, _, content = message.partition(b"\n")
        self.keep(head.decode().removeprefix("PUSH "), content)

    def push(self, message):
        name, content = self.asked_for(message)
        return b"PUSH " + name.encode() + b"\n" + content

    def spawn(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def bidi(self):
        async def answer(stream):
            stream.write(self.asked_for(await stream.read_to_end())[1], end=True)

        while stream := await self.session.bidi.get():
            self.spawn(answer(stream))

    async def uni(self):
        async def answer(stream):
            message = await stream.read_to_end()
            if message.startswith(b"PUSH "):
                self.pushed(message)
            else:
                self.session.open(unidirectional=True).write(self.push(message), end=True)

        while stream := await self.session.uni.get():
            self.spawn(answer(stream))

    async def datagrams(self):
        while True:
            message = await self.session.datagrams.get()
            if message.startswith(b"PUSH "):
                self.pushed(message)
            else:
                self.session.send_datagram(self.push(message))

    async def request(self, file):
        get = b"GET " + file.encode()
        if CARRIER == "bidirectional":
            stream = self.session.open()
            stream.write(get, end=True)
            self.keep(file, await stream.read_to_end())
        elif CARRIER == "unidirectional":
            self.session.open(unidirectional=True).write(get, end=True)
            await self.arrived[file].wait()
        else:
            while not self.arrived[file].is_set():  # datagrams may be lost
                self.session.send_datagram(get)
                try:
                    await asyncio.wait_for(self.arrived[file].wait(), 0.2)
                except asyncio.TimeoutError:
                    pass

    async def run(self):
        for serving in (self.bidi(), self.uni(), self.datagrams()):
            self.spawn(serving)
        if CARRIER and self.files:
            await asyncio.wait_for(asyncio.gather(*map(self.request, self.files)), 60)
            self.session.close(0, "")
        elif ROLE == "client" and TESTCASE != "transfer":
            self.session.close(0, "")
        await self.session.closed
        await asyncio.wait([self.session.gone], timeout=5)


def negotiated(value):
    if value:
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        (DOWNLOADS / "negotiated_protocol.txt").write_text(value.decode().strip('"'))


class Client(Peer):
    async def open(self, server, endpoint):
        stream_id = self._quic.get_next_available_stream_id()
        self.responses[stream_id] = asyncio.get_running_loop().create_future()
        self.sessions[stream_id] = session = Session(self, stream_id)
        headers = [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", server.netloc.encode()),
            (b":path", b"/" + endpoint.encode()),
            (b":protocol", b"webtransport"),
            (b"sec-webtransport-http3-draft02", b"1"),
        ]
        if PROTOCOLS:
            headers.append((b"wt-available-protocols", ", ".join(f'"{name}"' for name in PROTOCOLS).encode()))
        self.http.send_headers(stream_id, headers)
        self.transmit()
        answer = await self.responses[stream_id]
        if answer[b":status"] != b"200":
            raise ConnectionError(f"the server answers {answer[b':status']}")
        negotiated(answer.get(b"wt-protocol"))
        return session

    def headers_received(self, stream_id, headers, ended):
        if not self.responses[stream_id].done():
            self.responses[stream_id].set_result(headers)


class Server(Peer):
    def headers_received(self, stream_id, headers, ended):
        if headers.get(b":protocol") != b"webtransport":
            self.http.send_headers(stream_id, [(b":status", b"404")], end_stream=True)
            return self.transmit()
        endpoint = headers[b":path"].decode().strip("/")
        self.sessions[stream_id] = session = Session(self, stream_id)
        response = [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")]
        offered = [name.strip() for name in headers.get(b"wt-available-protocols", b"").split(b",")]
        chosen = [name for name in offered if name.decode().strip('"') in PROTOCOLS][:1]
        response += [(b"wt-protocol", name) for name in chosen]
        self.http.send_headers(stream_id, response)
        self.transmit()
        negotiated(chosen[0] if chosen else b"")
        self.task = asyncio.ensure_future(Exchange(session, endpoint, requests()[0].get(endpoint, [])).run())


async def client():
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, is_client=True, max_datagram_frame_size=65536, verify_mode=ssl.CERT_NONE
    )
    found, server = requests()
    async with connect(server.hostname, server.port or 443, configuration=configuration, create_protocol=Client) as peer:

        async def one(endpoint, files):
            await Exchange(await peer.open(server, endpoint), endpoint, files).run()

        await asyncio.gather(*(one(*item) for item in found.items()))


async def server():
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False, max_datagram_frame_size=65536)
    configuration.load_cert_chain(CERTS / "cert.pem", CERTS / "priv.key")
    listener = await serve("::", int(ENV.get("PORT", "443")), configuration=configuration, create_protocol=Server)
    print("listening", listener._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if TESTCASE not in ("handshake", "transfer") and not CARRIER:
        sys.exit(127)
    asyncio.run(server() if ROLE == "server" else client())
