"""The server of WORKLOADS.md on pywebtransport with uvloop; `wireloom bench client` drives it."""

import asyncio
import socket

import bench
import uvloop
from bench import Counters
from pywebtransport import ServerConfig, WebTransportServer
from pywebtransport.exceptions import WebTransportError

tasks = set()


def spawn(coroutine):
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def read(stream):
    while data := await stream.read():
        Counters.bytes += len(data)
    Counters.streams += 1


async def echo(stream):
    while data := await stream.read():
        Counters.bytes += len(data)
        await stream.write(data=data)
    Counters.streams += 1
    await stream.write(data=b"", end_stream=True)


async def write_without_end(stream):
    while True:
        await stream.write_all(data=bench.CHUNK)


async def upload(session):
    async for stream in session.incoming_unidirectional_streams():
        spawn(ended(read(stream)))


async def uni_streams(session):
    async for stream in session.incoming_unidirectional_streams():
        await read(stream)


async def download(session):
    async for stream in session.incoming_bidirectional_streams():
        spawn(ended(write_without_end(stream)))


async def echoes(session):
    async for stream in session.incoming_bidirectional_streams():
        spawn(ended(echo(stream)))


async def datagrams(session):
    while True:
        await session.read_datagram()
        Counters.datagrams += 1


WORKLOADS = {
    "upload-1": upload,
    "upload-16": upload,
    "uni-streams": uni_streams,
    "download-1": download,
    "download-16": download,
    "echo-latency": echoes,
    "echo-streams": echoes,
    "datagrams-64": datagrams,
    "datagrams-1150": datagrams,
}


async def ended(work):
    """A client that leaves is the ordinary end of a session."""
    try:
        await work
    except WebTransportError:
        pass


async def serve(session):
    await session.accept()
    async for stream in session.incoming_bidirectional_streams():
        while line := await stream.readline():
            answer = bench.answer(
                line, lambda workload: spawn(ended(WORKLOADS[workload](session)))
            )
            await stream.write(data=answer)
        return


async def connection(connection):
    async for session in connection.incoming_sessions():
        spawn(ended(serve(session)))


def free_port():
    """It refuses port 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main():
    arguments = bench.arguments()
    config = ServerConfig(
        bind_host="127.0.0.1",
        bind_port=free_port(),
        certfile=arguments.certificate,
        keyfile=arguments.key,
        stream_receive_window=4 << 20,
        connection_receive_window=16 << 20,
        session_receive_window=16 << 20,
        initial_max_data=16 << 20,
        initial_max_streams_bidi=arguments.max_streams,
        initial_max_streams_uni=arguments.max_streams,
        max_streams_bidi=arguments.max_streams,
        max_streams_uni=arguments.max_streams,
        max_connections=100_000,
    )
    async with WebTransportServer(config=config) as server:
        await server.listen()
        bench.listening(server.local_addresses[0][1])
        async for accepted in server.incoming_connections():
            spawn(ended(connection(accepted)))


uvloop.run(main())
