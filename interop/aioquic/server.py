"""The laboratory's paths (the table is in src/peers.rs) on aioquic.

Prints one line of JSON when it listens, then one for each thing that a session's handler saw.
"""

import argparse
import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

from aioquic.asyncio import serve
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration

from session import Peer, Reset, Session


def tell(**what):
    print(json.dumps(what), flush=True)


class Server(Peer):
    def headers_received(self, stream_id, headers, ended):
        url = urlsplit(headers.get(b":path", b"").decode())
        behaviour = BEHAVIOURS.get(url.path)
        if headers.get(b":protocol") != b"webtransport" or behaviour is None:
            self.http.send_headers(stream_id, [(b":status", b"404")], end_stream=True)
            return self.transmit()
        self.sessions[stream_id] = session = Session(self, stream_id)
        response = [(b":status", b"200"), (b"sec-webtransport-http3-draft", b"draft02")]
        offered = [name.strip() for name in headers.get(b"wt-available-protocols", b"").split(b",")]
        response += [(b"wt-protocol", name) for name in offered if name in (b'"echo.v1"', b'"echo.v2"')][:1]
        self.http.send_headers(stream_id, response)
        self.transmit()
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        asyncio.ensure_future(self.run(session, behaviour, query))

    async def run(self, session, behaviour, query):
        name = query.get("id", "")
        tell(id=name, event="accepted")
        task = asyncio.ensure_future(behaviour(session, query))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        how, code, reason = await session.closed
        task.cancel()
        tell(id=name, event="closed" if how == "closed" else "lost", code=code, reason=reason)


async def echo(session, query):
    async def bidi():
        while stream := await session.bidi.get():
            asyncio.ensure_future(echo_stream(stream))

    async def uni():
        while stream := await session.uni.get():
            session.open(unidirectional=True).write(await stream.read_to_end(), end=True)

    async def datagrams():
        while True:
            session.send_datagram(await session.datagrams.get())

    await asyncio.gather(bidi(), uni(), datagrams())


async def echo_stream(stream):
    while data := await stream.read():
        stream.write(data)
    stream.write(b"", end=True)


async def server_opens(session, query):
    session.open(unidirectional=True).write(b"uni of the server", end=True)
    stream = session.open()
    stream.write(b"bidi of the server", end=True)
    answer = await stream.read_to_end()
    tell(id=query["id"], event="finished", text=answer.decode())
    await echo(session, query)


async def close(session, query):
    session.close(int(query["code"]), query["reason"])


async def resets(session, query):
    code = int(query["code"])
    uni = session.open(unidirectional=True)
    uni.write(b"x")
    bidi = await session.bidi.get()
    await bidi.read_to_end()
    uni.reset(code)
    bidi.reset(code)
    (await session.uni.get()).stop(code)


async def observe(session, query):
    async def one(stream):
        first = await stream.read()
        stream.write(first)
        if first != b"observe":
            return await echo_stream(stream)
        try:
            rest = await stream.read_to_end()
            tell(id=query["id"], event="finished", text=rest.decode())
        except Reset as reset:
            tell(id=query["id"], event="reset", code=reset.args[0])
        tell(id=query["id"], event="stopped", code=await stream.stopped)

    while stream := await session.bidi.get():
        asyncio.ensure_future(one(stream))


BEHAVIOURS = {
    "/echo": echo,
    "/server-opens": server_opens,
    "/close": close,
    "/resets": resets,
    "/observe": observe,
}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    arguments = parser.parse_args()
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False, max_datagram_frame_size=65536)
    configuration.load_cert_chain(arguments.certificate, arguments.key)
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Server)
    port = server._transport.get_extra_info("sockname")[1]
    tell(event="listening", url=f"https://127.0.0.1:{port}")
    # Ends with the test: its end closes this process's standard input.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
