"""An endpoint of the QUIC Interop Runner's WebTransport cases on aioquic."""

import asyncio
import ssl

from aioquic.asyncio import connect, serve
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration

from exchange import CERTS, ENV, PROTOCOLS, Exchange, negotiated, play, requests
from session import Peer, Session


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
        negotiated(answer.get(b"wt-protocol", b"").decode().strip('"'))
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
        negotiated(chosen[0].decode().strip('"') if chosen else "")
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
    play(client, server)
