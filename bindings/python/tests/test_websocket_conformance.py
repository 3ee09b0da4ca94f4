"""RFC 6455 frame by frame, after the cases of Autobahn's suite: lengths, pings, bits, opcodes, fragments, UTF-8, closing."""

from __future__ import annotations

import os
import socket
import struct

import pytest

TEXT, BINARY, CLOSE, PING, PONG, CONTINUE = 1, 2, 8, 9, 10, 0


def frame(opcode, payload=b"", *, fin=True, rsv=0, masked=True, length=None):
    """A client's frame; `length` chooses among the encodings of the length."""
    head = bytes([(fin << 7) | (rsv << 4) | opcode])
    size = len(payload)
    bit = 0x80 if masked else 0
    if length == 8 or size > 0xFFFF:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    elif length == 2 or size > 125:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | size])
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close(code, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


class Peer:
    """A client that sends exact bytes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.sendall(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.buffer = b""
        head = self.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert b"s3pplmbitxaq9kygzzhzrbk+xoo=" in head.lower()

    def more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, end):
        while end not in self.buffer:
            assert self.more()
        head, _, self.buffer = self.buffer.partition(end)
        return head

    def take(self, size):
        while len(self.buffer) < size:
            if not self.more():
                return None
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def receive(self):
        """Opcode and payload of the next frame; None at the end of the connection."""
        head = self.take(2)
        if head is None:
            return None
        assert head[0] & 0x70 == 0 and head[1] & 0x80 == 0, "reserved bits or a mask from the server"
        size = head[1]
        if size == 126:
            size = struct.unpack(">H", self.take(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.take(8))[0]
        assert head[0] & 0x80, "the server does not fragment"
        return head[0] & 0x0F, self.take(size)

    def ends_with(self, code):
        """The server closes with this code and then the connection."""
        got = self.receive()
        while got is not None and got[0] != CLOSE:
            got = self.receive()
        assert got is not None, "the connection ended without a close"
        assert struct.unpack(">H", got[1][:2])[0] == code
        try:
            while self.more():
                pass
        except ConnectionResetError:
            pass


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("plain:app", "--no-access-log", tls=False)


@pytest.fixture
def peer(server):
    peer = Peer(server.port)
    yield peer
    peer.socket.close()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20])
def test_sizes(peer, opcode, size):
    payload = b"*" * size
    peer.socket.sendall(frame(opcode, payload))
    assert peer.receive() == (opcode, payload)


@pytest.mark.parametrize("length", [2, 8])
def test_lengths_that_are_longer_than_they_need_be(peer, length):
    # "the minimal number of bytes MUST be used" binds the sender; a receiver may take it or fail the connection.
    peer.socket.sendall(frame(TEXT, b"short", length=length))
    got = peer.receive()
    assert got is None or got == (TEXT, b"short") or got[0] == CLOSE


def test_byte_by_byte(peer):
    peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for sent, received in [(frame(TEXT, b"slowly"), (TEXT, b"slowly")), (frame(PING, b"p"), (PONG, b"p"))]:
        for byte in sent:
            peer.socket.sendall(bytes([byte]))
        assert peer.receive() == received


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(range(125))])
def test_pings(peer, payload):
    peer.socket.sendall(frame(PING, payload))
    assert peer.receive() == (PONG, payload)


def test_many_pings(peer):
    peer.socket.sendall(b"".join(frame(PING, b"%d" % number) for number in range(10)))
    # "it MAY elect to send a Pong frame for only the most recently processed Ping frame"
    while (got := peer.receive()) != (PONG, b"9"):
        assert got[0] == PONG


def test_pongs_that_nobody_asked_for(peer):
    peer.socket.sendall(frame(PONG, b"x") + frame(PING, b"y"))
    assert peer.receive() == (PONG, b"y")


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frames_that_are_too_long_or_in_pieces(server, opcode):
    for bad in [frame(opcode, bytes(126)), frame(opcode, b"", fin=False)]:
        peer = Peer(server.port)
        peer.socket.sendall(bad)
        peer.ends_with(1002)


@pytest.mark.parametrize("rsv", range(1, 8))
def test_reserved_bits(peer, rsv):
    peer.socket.sendall(frame(TEXT, b"x", rsv=rsv))
    peer.ends_with(1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes(peer, opcode):
    peer.socket.sendall(frame(opcode, b"x"))
    peer.ends_with(1002)


def test_frames_without_a_mask(peer):
    peer.socket.sendall(frame(TEXT, b"x", masked=False))
    peer.ends_with(1002)


def test_fragments(peer):
    peer.socket.sendall(
        frame(TEXT, b"one ", fin=False)
        + frame(PING, b"between")
        + frame(CONTINUE, b"", fin=False)
        + frame(CONTINUE, b"two", fin=True)
    )
    assert [peer.receive(), peer.receive()] == [(PONG, b"between"), (TEXT, b"one two")]


@pytest.mark.parametrize(
    "frames",
    [
        frame(CONTINUE, b"x"),
        frame(CONTINUE, b"x", fin=False),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
        frame(TEXT, b"x", fin=False) + frame(BINARY, b"y"),
        frame(TEXT, b"x") + frame(CONTINUE, b"y"),
    ],
)
def test_fragments_out_of_order(peer, frames):
    peer.socket.sendall(frames)
    peer.ends_with(1002)


@pytest.mark.parametrize("text", ["κόσμε", "\ufffd", "\U0010ffff", "\x00", "ﷺ", "👨‍👩‍👧"])
def test_text(peer, text):
    data = text.encode()
    peer.socket.sendall(frame(TEXT, data))
    assert peer.receive() == (TEXT, data)
    # Cut anywhere, also within a character.
    for cut in range(len(data)):
        peer.socket.sendall(frame(TEXT, data[:cut], fin=False) + frame(CONTINUE, data[cut:]))
        assert peer.receive() == (TEXT, data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\xc3",
        b"\xce\xba\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"a\x80",
        b"\xfe\xfe\xff\xff",
    ],
)
def test_what_is_no_utf8(server, data):
    for frames in [frame(TEXT, data), frame(TEXT, data[:1], fin=False) + frame(CONTINUE, data[1:])]:
        peer = Peer(server.port)
        peer.socket.sendall(frames)
        peer.ends_with(1007)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_close_codes(peer, code):
    peer.socket.sendall(close(code, b"reason"))
    peer.ends_with(code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent(peer, code):
    peer.socket.sendall(close(code))
    peer.ends_with(1002)


def test_closing_without_a_code(peer):
    peer.socket.sendall(frame(CLOSE))
    assert peer.receive() == (CLOSE, b"")


def test_a_close_of_one_byte(peer):
    peer.socket.sendall(frame(CLOSE, b"\x03"))
    peer.ends_with(1002)


def test_a_close_with_a_reason_that_is_no_text(peer):
    peer.socket.sendall(close(1000, b"\xff\xff"))
    got = peer.receive()
    assert got is None or struct.unpack(">H", got[1][:2])[0] in (1007, 1002)


def test_what_comes_after_the_close_is_ignored(peer):
    peer.socket.sendall(close(1000) + frame(PING, b"x") + frame(TEXT, b"x"))
    peer.ends_with(1000)


def test_a_connection_that_vanishes(server):
    peer = Peer(server.port)
    peer.socket.sendall(frame(TEXT, b"half")[:4])
    peer.socket.close()
    other = Peer(server.port)
    other.socket.sendall(frame(TEXT, b"x"))
    assert other.receive() == (TEXT, b"x")
