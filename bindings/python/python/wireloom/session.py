"""A session of the ``webtransport`` scope as an object: streams to iterate over instead of events to tell apart."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

from ._wireloom import ClientDisconnected, StreamReset, StreamStopped

#: Bytes of one stream that wait to be read, as Python keeps them; beyond that the stream is paused, and so the client held up.
_READ_AHEAD = 64 * 1024

#: Streams of the client that wait to be accepted. More are refused, because finished ones do not count against what it may
#: open. Receiving goes on: the application may wait for something else.
_INCOMING = 256

#: The code with which those are stopped and reset: HTTP's "too many requests".
TOO_MANY_STREAMS = 429

#: Datagrams that wait to be received; beyond that the oldest are dropped.
_DATAGRAMS = 256


class SessionOver(ClientDisconnected):
    """The session is over. `code` and `reason` are those of its end; `clean` says whether it was closed in good order."""

    def __init__(self, code: int = 0, reason: str = "", clean: bool = False) -> None:
        super().__init__(f"the session is over: code {code} {reason}".rstrip())
        self.code = code
        self.reason = reason
        self.clean = clean


class _News(asyncio.Event):
    """What some wait for: each event of a session is news to few of those who wait in it."""

    def tell(self) -> None:
        # Those who wait now.
        self.set()
        self.clear()


class Datagrams:
    """Datagrams of a session, both ways."""

    def __init__(self, session: AsgiSession) -> None:
        self._session = session
        self._waiting: deque[bytes] = deque(maxlen=_DATAGRAMS)
        self._news = _News()

    @property
    def max_size(self) -> int:
        """What fit into one when the session began, in bytes."""
        size: int = self._session.scope["extensions"]["webtransport"]["max_datagram_size"]
        return size

    async def send(self, data: bytes) -> None:
        """Unreliably. It does not wait: where too many do, the oldest are dropped."""
        await self._session._send({"type": "webtransport.datagram.send", "data": data})

    async def receive(self) -> bytes:
        await self._session._until(lambda: bool(self._waiting), self._news)
        return self._waiting.popleft()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        while True:
            try:
                yield await self.receive()
            except SessionOver:
                return


class Stream:
    """A stream of a session. One that goes one way has only half of this."""

    def __init__(self, session: AsgiSession, stream_id: int) -> None:
        self.id = stream_id
        self._session = session
        self._news = _News()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._is_finished = False
        self._reset: tuple[int | None] | None = None
        self._stopped: tuple[int | None] | None = None
        # The halves that are not over.
        self._receives = stream_id % 4 != 3
        self._sends = stream_id % 4 != 2

    @property
    def is_bidirectional(self) -> bool:
        return self.id % 4 < 2

    def _has_news(self) -> bool:
        return bool(self._chunks) or self._is_finished or self._reset is not None

    async def read(self) -> bytes:
        """The next bytes; ``b""`` at the end. Raises `StreamReset` if the client gave up, `SessionOver` at the session's end."""
        await self._session._until(self._has_news, self._news)
        while self._is_paused and self._chunks and self._size - sys.getsizeof(self._chunks[0]) < _READ_AHEAD // 2:
            self._is_paused = False
            # Before anything is taken: cancelled here, it would be lost.
            await self._session._quietly({"type": "webtransport.stream.resume", "stream": self.id})
            # Another may have taken it meanwhile.
            await self._session._until(self._has_news, self._news)
        if self._chunks:
            data = self._chunks.popleft()
            self._size -= sys.getsizeof(data)
            return data
        if self._reset is not None:
            error = StreamReset(f"the client reset stream {self.id}")
            error.code = self._reset[0]
            raise error
        return b""

    async def read_to_end(self, limit: int = 1 << 20) -> bytes:
        """Everything up to the end; `ValueError` if that is more than `limit` bytes."""
        content = bytearray()
        while data := await self.read():
            content += data
            if len(content) > limit:
                raise ValueError(f"the stream is longer than {limit} bytes")
        return bytes(content)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Sends, waiting while the client takes no more. Raises `StreamStopped` if it wants no more."""
        self._raise_if_stopped()
        message = {"type": "webtransport.stream.send", "stream": self.id, "data": data, "end_stream": end}
        try:
            await self._session._send(message)
        except asyncio.CancelledError:
            # It was taken: only the wait is over.
            self._over(sending=end)
            raise
        self._over(sending=end)
        # While this waited.
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            error = StreamStopped(f"the client stopped stream {self.id}")
            error.code = self._stopped[0]
            raise error

    async def finish(self) -> None:
        """Ends the stream in good order."""
        await self.write(b"", end=True)

    async def reset(self, code: int = 0) -> None:
        """Gives up sending. Does nothing where that is over."""
        if self._sends or self.id % 4 == 2:
            await self._session._send({"type": "webtransport.stream.reset", "stream": self.id, "code": code})
            self._over(sending=True)

    async def stop(self, code: int = 0) -> None:
        """Asks the client to send no more. Does nothing where it has ended."""
        if self._receives or self.id % 4 == 3:
            await self._session._send({"type": "webtransport.stream.stop", "stream": self.id, "code": code})
            self._is_finished = True
            self._over(receiving=True)
            self._news.tell()

    async def _refuse(self, code: int = 0) -> None:
        """Wants nothing of it, either way."""
        if self._receives:
            await self._session._quietly({"type": "webtransport.stream.stop", "stream": self.id, "code": code})
        if self._sends:
            await self._session._quietly({"type": "webtransport.stream.reset", "stream": self.id, "code": code})
        self._over(receiving=True, sending=True)

    def _over(self, *, receiving: bool = False, sending: bool = False) -> None:
        """Notes the end of halves. With that of both the session has no more events for it."""
        self._receives = self._receives and not receiving
        self._sends = self._sends and not sending
        if not self._receives and not self._sends:
            self._session._streams.pop(self.id, None)


class AsgiSession:
    """A session of an ASGI application. ``async with`` closes it at the end; an exception in it resets it."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        self._asgi_receive = receive
        self._asgi_send = send
        self._pump: asyncio.Task[None] | None = None
        # Those that events may be about.
        self._streams: dict[int, Stream] = {}
        self._incoming: deque[Stream] = deque()
        # In the order in which they were asked for, which is that of the answers.
        self._opened: deque[asyncio.Future[Stream | None]] = deque()
        # Of streams that wait to be accepted.
        self._news = _News()
        self._over: SessionOver | None = None
        self._ended = asyncio.Event()
        self._draining = asyncio.Event()
        self._is_connected = False
        self.datagrams = Datagrams(self)

    @property
    def subprotocols(self) -> list[str]:
        """What the client offered."""
        offered: list[str] = self.scope["subprotocols"]
        return offered

    @property
    def is_accepted(self) -> bool:
        return self._pump is not None

    async def accept(self, subprotocol: str | None = None, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        await self._connected()
        await self._send({"type": "webtransport.accept", "subprotocol": subprotocol, "headers": headers or []})
        self._pump = asyncio.create_task(self._receive_all())

    async def reject(self, status: int = 403, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        await self._connected()
        await self._send({"type": "webtransport.close", "status": status, "headers": headers or []})

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Closes the session. Once it is over this does nothing."""
        await self._quietly({"type": "webtransport.close", "code": code, "reason": reason})

    async def streams(self) -> AsyncIterator[Stream]:
        """The streams that the client opens, until the session is over."""
        while True:
            try:
                yield await self.accept_stream()
            except SessionOver:
                return

    async def accept_stream(self) -> Stream:
        """The next stream that the client opens. While 256 wait for this, others are refused with the code 429."""
        await self._until(lambda: bool(self._incoming), self._news)
        return self._incoming.popleft()

    async def open_stream(self, *, bidirectional: bool = True) -> Stream:
        """A new stream, when the client allows another."""
        future: asyncio.Future[Stream | None] = asyncio.get_running_loop().create_future()
        self._opened.append(future)
        try:
            await self._send({"type": "webtransport.stream.open", "bidirectional": bidirectional})
            stream = await future
        except asyncio.CancelledError:
            # It comes all the same, if it has not come in this very turn.
            future.cancel()
            if not future.cancelled() and (stream := future.result()) is not None:
                await stream._refuse()
            raise
        except BaseException:
            if future in self._opened:
                self._opened.remove(future)
            raise
        if stream is None:
            raise self._over or SessionOver()
        return stream

    async def closed(self) -> SessionOver:
        """Waits for the end, and says how it was."""
        await self._ended.wait()
        return self._over or SessionOver()

    async def draining(self) -> None:
        """Waits until the client or the server wants the session to end soon, or it is over."""
        await self._draining.wait()

    async def __aenter__(self) -> AsgiSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._pump is not None:
            if error is None:
                await self.close()
            self._pump.cancel()
        # Tasks of the application may still wait for something.
        self._end(SessionOver(clean=error is None))
        # The end of the session is how most endpoints end.
        return isinstance(error, SessionOver)

    async def _connected(self) -> None:
        if self._is_connected:
            # An answer that was wrong, as with a subprotocol that was not offered, may be followed by another.
            return
        message = await self._asgi_receive()
        if message["type"] != "webtransport.connect":
            raise SessionOver(reason="the client gave up")
        self._is_connected = True

    async def _send(self, message: dict[str, Any]) -> None:
        if self._over is not None:
            raise self._over
        try:
            await self._asgi_send(message)
        except ClientDisconnected:
            raise self._over or SessionOver() from None

    async def _quietly(self, message: dict[str, Any]) -> None:
        try:
            await self._asgi_send(message)
        except (OSError, ValueError, RuntimeError):
            # It is over already.
            return

    async def _until(self, check: Callable[[], bool], news: _News) -> None:
        while not check():
            if self._over is not None:
                raise self._over
            await news.wait()

    def _end(self, over: SessionOver) -> None:
        if self._over is None:
            self._over = over
        self._draining.set()
        self._ended.set()
        while self._opened:
            future = self._opened.popleft()
            if not future.done():
                future.set_result(None)
        # Streams that are not listed any more have told their end.
        for news in [self._news, self.datagrams._news, *(stream._news for stream in self._streams.values())]:
            news.tell()

    async def _receive_all(self) -> None:
        try:
            while self._over is None:
                await self._handle(await self._asgi_receive())
        finally:
            # However this ends, nothing is received any more.
            self._end(SessionOver())

    async def _handle(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "webtransport.stream.receive":
            stream = self._streams.get(message["stream"])
            if stream is None:
                stream = Stream(self, message["stream"])
                if len(self._incoming) >= _INCOMING:
                    stream._over(receiving=not message["more_data"])
                    await stream._refuse(TOO_MANY_STREAMS)
                    return
                self._streams[stream.id] = stream
                self._incoming.append(stream)
                self._news.tell()
            stream._news.tell()
            if message["data"]:
                stream._chunks.append(message["data"])
                stream._size += sys.getsizeof(message["data"])
            if not message["more_data"]:
                stream._is_finished = True
                stream._over(receiving=True)
            elif stream._size > _READ_AHEAD and not stream._is_paused:
                stream._is_paused = True
                await self._quietly({"type": "webtransport.stream.pause", "stream": stream.id})
        elif kind == "webtransport.stream.opened":
            stream = Stream(self, message["stream"])
            future = self._opened.popleft() if self._opened else None
            if future is None or future.done():
                # Whoever asked for it was cancelled.
                await stream._refuse()
            else:
                self._streams[stream.id] = stream
                future.set_result(stream)
        elif kind == "webtransport.stream.reset":
            reset = self._streams.get(message["stream"])
            if reset is not None:
                reset._reset = (message["code"],)
                reset._over(receiving=True)
                reset._news.tell()
        elif kind == "webtransport.stream.stopped":
            stopped = self._streams.get(message["stream"])
            if stopped is not None:
                stopped._stopped = (message["code"],)
                stopped._over(sending=True)
        elif kind == "webtransport.datagram.receive":
            self.datagrams._waiting.append(message["data"])
            self.datagrams._news.tell()
        elif kind == "webtransport.drain":
            self._draining.set()
        elif kind == "webtransport.disconnect":
            self._end(SessionOver(message["code"], message["reason"], message["clean"]))


__all__ = ["TOO_MANY_STREAMS", "AsgiSession", "Datagrams", "SessionOver", "Stream"]
