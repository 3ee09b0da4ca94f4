"""The server of WORKLOADS.md on aioquic, in its event handlers, with uvloop; `wireloom bench client` drives it."""

import asyncio

import bench
import uvloop
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import (
    DatagramReceived,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated
from bench import Counters


class Session(QuicConnectionProtocol):
    """A connection with one session."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.control = None
        self.line = b""
        self.workload = ""
        self.downloads = {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic, enable_webtransport=True)
        if self.http is not None:
            for http_event in self.http.handle_event(event):
                self.http_event_received(http_event)

    def http_event_received(self, event):
        if isinstance(event, DatagramReceived):
            Counters.datagrams += 1
        elif isinstance(event, WebTransportStreamDataReceived):
            self.stream_data_received(event.stream_id, event.data, event.stream_ended)
        elif isinstance(event, HeadersReceived):
            # The token of draft 02 makes the browsers' dialect of it.
            headers = [
                (b":status", b"200"),
                (b"sec-webtransport-http3-draft", b"draft02"),
            ]
            self.http.send_headers(event.stream_id, headers)

    def stream_data_received(self, stream_id, data, ended):
        if self.control is None:
            self.control = stream_id
        if stream_id == self.control:
            *lines, self.line = (self.line + data).split(b"\n")
            for line in lines:
                self._quic.send_stream_data(stream_id, bench.answer(line, self.begin))
            return
        Counters.bytes += len(data)
        Counters.streams += ended
        if self.workload.startswith("echo"):
            self._quic.send_stream_data(stream_id, data, ended)
        elif self.workload.startswith("download") and stream_id not in self.downloads:
            self._quic.send_stream_data(stream_id, bench.CHUNK)
            self.downloads[stream_id] = self._quic._streams[stream_id].sender

    def begin(self, workload):
        self.workload = workload

    def transmit(self):
        # It buffers without bound, so that a writer has to look at what is left.
        for stream_id, sender in self.downloads.items():
            if sender._buffer_stop - sender._buffer_start < len(bench.CHUNK):
                self._quic.send_stream_data(stream_id, bench.CHUNK)
        super().transmit()


async def main():
    arguments = bench.arguments()
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=False,
        max_datagram_frame_size=65536,
        max_data=16 << 20,
        max_stream_data=4 << 20,
    )
    configuration.load_cert_chain(arguments.certificate, arguments.key)
    server = await serve(
        "127.0.0.1", 0, configuration=configuration, create_protocol=Session
    )
    bench.listening(server._transport.get_extra_info("sockname")[1])
    await asyncio.Event().wait()


uvloop.run(main())
