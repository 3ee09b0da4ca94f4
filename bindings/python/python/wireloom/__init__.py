"""WebTransport for Python: an ASGI server with HTTP/1.1, HTTP/2, HTTP/3 and WebSocket beside it, and clients for asyncio."""

from ._wireloom import (
    Client,
    ClientDisconnected,
    ConnectError,
    DatagramTooLarge,
    Identity,
    IdentityError,
    RecvStream,
    SendStream,
    ServeError,
    Server,
    Session,
    SessionClosed,
    SessionRequest,
    StreamReset,
    StreamStopped,
    WireloomError,
    __version__,
)
from .embed import Running, serve, serving
from .event_loop import EventLoop, new_event_loop, run
from .router import Router

__all__ = [
    "Client",
    "ClientDisconnected",
    "ConnectError",
    "DatagramTooLarge",
    "EventLoop",
    "Identity",
    "IdentityError",
    "RecvStream",
    "Router",
    "Running",
    "SendStream",
    "ServeError",
    "Server",
    "Session",
    "SessionClosed",
    "SessionRequest",
    "StreamReset",
    "StreamStopped",
    "WireloomError",
    "__version__",
    "new_event_loop",
    "run",
    "serve",
    "serving",
]
