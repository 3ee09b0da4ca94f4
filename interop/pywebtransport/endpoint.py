"""An endpoint of the QUIC Interop Runner's WebTransport cases on pywebtransport, which needs Python 3.12."""

import asyncio
import socket
import ssl
import sys
from pathlib import Path

from pywebtransport import ClientConfig, ServerConfig, WebTransportClient, WebTransportServer
from pywebtransport.exceptions import WebTransportError

sys.path.append(str(Path(__file__).parent.parent / "aioquic"))

from exchange import CERTS, ENV, PROTOCOLS, Exchange, negotiated, play, requests  # noqa: E402


class Stream:
    """Written at once and read to the end, as the exchange has it, where the library has coroutines."""

    def __init__(self, session, stream):
        self.session = session
        self.stream = stream  # a future of one that we opened

    def write(self, data, end):
        async def write():
            await (await self.stream).write_all(data=data, end_stream=end)

        self.session.spawn(write())

    async def read_to_end(self):
        return await (await self.stream).read_all()


async def ready(value):
    return value


class Session:
    """With the names of aioquic/session.py."""

    def __init__(self, session):
        self.session = session
        self.bidi, self.uni, self.datagrams = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        self.closed = asyncio.get_running_loop().create_future()
        self.gone = asyncio.get_running_loop().create_future()
        self.tasks = set()
        self.spawn(self.accept(session.incoming_bidirectional_streams(), self.bidi))
        self.spawn(self.accept(session.incoming_unidirectional_streams(), self.uni))
        self.spawn(self.receive())

    def spawn(self, work):
        async def run():
            try:
                return await work
            except WebTransportError as error:
                print(error, file=sys.stderr)

        task = asyncio.ensure_future(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def accept(self, streams, queue):
        async for stream in streams:
            queue.put_nowait(Stream(self, asyncio.ensure_future(ready(stream))))
        # They end with the session.
        for end in (self.closed, self.gone):
            if not end.done():
                end.set_result(None)

    async def receive(self):
        while True:
            self.datagrams.put_nowait(await self.session.read_datagram())

    def open(self, unidirectional=False):
        create = self.session.create_unidirectional_stream if unidirectional else self.session.create_bidirectional_stream
        return Stream(self, asyncio.ensure_future(create()))

    def send_datagram(self, data):
        self.spawn(self.session.send_datagram(data=data))

    def close(self, code, reason):
        self.spawn(self.session.close(error_code=code, reason=reason))


async def client():
    found, server = requests()
    async with WebTransportClient(config=ClientConfig(verify_mode=ssl.CERT_NONE)) as client:

        async def open(endpoint, connection):
            if connection is None:
                url = f"https://{server.netloc}/{endpoint}"
                return await client.connect(url=url, wt_available_protocols=PROTOCOLS or None)
            return await connection.create_session(
                authority=server.netloc, path=f"/{endpoint}", wt_available_protocols=PROTOCOLS or None
            )

        sessions, connection = [], None
        for endpoint in found:  # the first one brings the connection, the others are opened on it
            sessions.append(await open(endpoint, connection))
            connection = sessions[0].connection
        for session in sessions:
            negotiated(session.wt_protocol)
        work = zip(sessions, found.items(), strict=True)
        await asyncio.gather(*(Exchange(Session(session), *item).run() for session, item in work))


async def serve(session):
    endpoint = session.path.strip("/")
    offered = session.wt_available_protocols or []
    protocol = next((name for name in offered if name in PROTOCOLS), None)
    await session.accept(wt_protocol=protocol)
    negotiated(protocol)
    await Exchange(Session(session), endpoint, requests()[0].get(endpoint, [])).run()


def free_port():
    """It refuses port 0."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


async def server():
    port = int(ENV.get("PORT", "443")) or free_port()
    config = ServerConfig(
        bind_host="::", bind_port=port, certfile=str(CERTS / "cert.pem"), keyfile=str(CERTS / "priv.key")
    )
    tasks = set()

    def spawn(work):
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def connection(connection):
        async for session in connection.incoming_sessions():
            spawn(serve(session))

    async with WebTransportServer(config=config) as server:
        await server.listen()
        print("listening", port, flush=True)
        async for accepted in server.incoming_connections():
            spawn(connection(accepted))


if __name__ == "__main__":
    play(client, server)
