"""What an endpoint of the QUIC Interop Runner's WebTransport cases does, on any implementation in Python whose sessions look like those of
session.py. src/endpoint/mod.rs says what the environment means."""

import asyncio
import os
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

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


def negotiated(protocol):
    if protocol:
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        (DOWNLOADS / "negotiated_protocol.txt").write_text(protocol)


def play(client, server):
    """Runs the coroutine of the role."""
    if TESTCASE not in ("handshake", "transfer") and not CARRIER:
        sys.exit(127)
    asyncio.run(server() if ROLE == "server" else client())
