"""WebTransport sessions (draft 02) on aioquic, which has the streams and datagrams but no session of its own."""

import asyncio

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived, WebTransportStreamDataReceived
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StopSendingReceived, StreamDataReceived, StreamReset

CLOSE_SESSION = 0x2843
FIRST_CODE = 0x52E4A40FA8DB


def to_wire(code):
    """The HTTP/3 code of a session's error code; every 31st is reserved."""
    return FIRST_CODE + code + code // 0x1E


def from_wire(code):
    """The session's error code, or None if the HTTP/3 code is not one."""
    shifted = code - FIRST_CODE
    if shifted < 0 or shifted % 0x1F == 0x1E or shifted - shifted // 0x1F > 0xFFFFFFFF:
        return None
    return shifted - shifted // 0x1F


class Reset(Exception):
    """The peer reset the stream."""


class Stream:
    def __init__(self, session, stream_id):
        self.session = session
        self.id = stream_id
        self.received = asyncio.Queue()
        self.stopped = asyncio.get_running_loop().create_future()

    async def read(self):
        """The next bytes; b"" at the end."""
        item = await self.received.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def read_to_end(self):
        content = b""
        while data := await self.read():
            content += data
        return content

    def write(self, data, end=False):
        peer = self.session.peer
        peer._quic.send_stream_data(self.id, data, end)
        peer.transmit()

    def reset(self, code):
        self.session.peer._quic.reset_stream(self.id, to_wire(code))
        self.session.peer.transmit()

    def stop(self, code):
        self.session.peer._quic.stop_stream(self.id, to_wire(code))
        self.session.peer.transmit()


class Session:
    def __init__(self, peer, session_id):
        self.peer = peer
        self.id = session_id
        self.streams = {}
        self.bidi = asyncio.Queue()
        self.uni = asyncio.Queue()
        self.datagrams = asyncio.Queue()
        self.capsules = b""
        self.closed = asyncio.get_running_loop().create_future()
        self.gone = asyncio.get_running_loop().create_future()  # the peer's half of the CONNECT stream has ended

    def open(self, unidirectional=False):
        stream_id = self.peer.http.create_webtransport_stream(self.id, is_unidirectional=unidirectional)
        self.streams[stream_id] = stream = Stream(self, stream_id)
        if not unidirectional:
            self.peer.opened[stream_id] = self
        return stream

    def send_datagram(self, data):
        self.peer.http.send_datagram(self.id, data)
        self.peer.transmit()

    def close(self, code, reason):
        text = reason.encode()
        capsule = Buffer(capacity=len(text) + 16)
        capsule.push_uint_var(CLOSE_SESSION)
        capsule.push_uint_var(4 + len(text))
        capsule.push_uint32(code)
        capsule.push_bytes(text)
        self.peer.http.send_data(self.id, capsule.data, end_stream=True)
        self.peer.transmit()
        self.end(("local", code, reason))

    def leave(self):
        if not self.gone.done():
            self.gone.set_result(None)

    def end(self, how):
        if not self.closed.done():
            self.closed.set_result(how)

    def on_control(self, data, ended):
        """Capsules, until WT_CLOSE_SESSION or the end of the stream, which means code 0."""
        self.capsules += data
        while True:
            buffer = Buffer(data=self.capsules)
            try:
                kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
                value = buffer.pull_bytes(length)
            except ValueError:  # incomplete
                break
            self.capsules = self.capsules[buffer.tell():]
            if kind == CLOSE_SESSION:
                self.end(("closed", int.from_bytes(value[:4], "big"), value[4:].decode()))
        if ended:
            self.end(("closed", 0, ""))
            self.leave()
            # The other half of the CONNECT stream ends too, so that the peer need not wait for it.
            if self.id in self.peer.sessions and not self.peer.ended(self.id):
                self.peer.http.send_data(self.id, b"", end_stream=True)
                self.peer.transmit()

    def on_data(self, stream_id, data, ended):
        stream = self.streams.get(stream_id)
        if stream is None:
            self.streams[stream_id] = stream = Stream(self, stream_id)
            (self.uni if stream_id & 2 else self.bidi).put_nowait(stream)
        if data:
            stream.received.put_nowait(data)
        if ended:
            stream.received.put_nowait(b"")


class Peer(QuicConnectionProtocol):
    """One connection, of either side."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.sessions = {}
        self.opened = {}  # the sessions of our bidirectional streams
        self.responses = {}

    def ended(self, stream_id):
        stream = self._quic._streams.get(stream_id)
        return stream is None or stream.sender._buffer_fin is not None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic, enable_webtransport=True)
        elif isinstance(event, ConnectionTerminated):
            for session in self.sessions.values():
                session.end(("lost", event.error_code, event.reason_phrase))
                session.leave()
            for response in self.responses.values():
                if not response.done():
                    response.set_exception(ConnectionError(f"{event.error_code:#x} {event.reason_phrase}"))
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            self.stream_ended(event)
        if isinstance(event, StreamDataReceived) and event.stream_id in self.opened:
            # aioquic would look for HTTP/3 frames in what the peer sends on them.
            self.opened[event.stream_id].on_data(event.stream_id, event.data, event.end_stream)
        elif self.http is not None:
            for http_event in self.http.handle_event(event):
                self.http_event(http_event)

    def stream_ended(self, event):
        for session in self.sessions.values():
            if event.stream_id == session.id:
                session.end(("lost", event.error_code, "the CONNECT stream was reset"))
                session.leave()
            stream = session.streams.get(event.stream_id)
            if stream is None:
                continue
            if isinstance(event, StreamReset):
                stream.received.put_nowait(Reset(from_wire(event.error_code)))
            elif not stream.stopped.done():
                stream.stopped.set_result(from_wire(event.error_code))

    def http_event(self, event):
        if isinstance(event, HeadersReceived):
            self.headers_received(event.stream_id, dict(event.headers), event.stream_ended)
        elif isinstance(event, DataReceived):
            if session := self.sessions.get(event.stream_id):
                session.on_control(event.data, event.stream_ended)
            else:
                self.body_received(event.stream_id, event.data, event.stream_ended)
        elif isinstance(event, WebTransportStreamDataReceived):
            if session := self.sessions.get(event.session_id):
                session.on_data(event.stream_id, event.data, event.stream_ended)
        elif isinstance(event, DatagramReceived):
            if session := self.sessions.get(event.stream_id):
                session.datagrams.put_nowait(event.data)

    def headers_received(self, stream_id, headers, ended):
        raise NotImplementedError

    def body_received(self, stream_id, data, ended):
        pass
