"""WebTransport for Starlette and FastAPI, which know no such scope. FastAPI has more in ``wireloom.fastapi``.

::

    async def live(wt: WebTransport) -> None:
        await wt.accept()
        async for stream in wt.streams():
            await stream.write(await stream.read())

    api = FastAPI()
    api.routes.append(WebTransportRoute("/live/{room}", live))
    app = with_webtransport(api)

The application is wrapped because the frameworks refuse the scope before they look at their routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import URL
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.routing import Match
from starlette.routing import Route as _Route

from .session import AsgiSession

Endpoint = Callable[["WebTransport"], Awaitable[None]]


class WebTransport(AsgiSession, HTTPConnection):  # type: ignore[misc]
    """A session as an endpoint has it: headers, path parameters, state, and streams and datagrams."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        # Its checks know HTTP and WebSocket only.
        HTTPConnection.__init__(self, {**scope, "type": "http"})
        self.scope = scope
        AsgiSession.__init__(self, scope, receive, send)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def url(self) -> URL:
        return URL(scope={**self.scope, "type": "http"})


class WebTransportRoute(_Route):
    """A route for sessions: ``WebTransportRoute("/live/{room}", endpoint)``. An `HTTPException` before the acceptance refuses the
    session with its status and headers. Other requests of the path go to the other routes; where there is none they get 405.
    """

    def __init__(self, path: str, endpoint: Endpoint, *, name: str | None = None) -> None:
        name = name or str(getattr(endpoint, "__name__", type(endpoint).__name__))
        super().__init__(path, _Sessions(endpoint), methods=["CONNECT"], name=name, include_in_schema=False)


class SessionEndpoint:
    """What a route for sessions leads to.

    A route is told by it, and not by its class: FastAPI's `include_router` makes routes of its own of those that it includes,
    with the endpoint and the methods of the original.
    """

    def __init__(self, endpoint: Callable[..., Awaitable[None]]) -> None:
        self.endpoint = endpoint

    async def run_session(self, found: Found, receive: Any, send: Any) -> None:
        raise NotImplementedError


@dataclass
class Found:
    """A session's route."""

    endpoint: SessionEndpoint
    route: Any
    scope: dict[str, Any]
    #: The dependencies of FastAPI's routers that the route itself does not know.
    guards: Sequence[Any]


class _Sessions(SessionEndpoint):
    """The ASGI application of a `WebTransportRoute`."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        raise HTTPException(405)

    async def run_session(self, found: Found, receive: Any, send: Any) -> None:
        if found.guards:
            from .fastapi import run_guarded

            await run_guarded(found, receive, send)
        else:
            session = WebTransport(found.scope, receive, send)
            await run(session, lambda: self.endpoint(session))


async def run(session: WebTransport, endpoint: Callable[[], Awaitable[None]]) -> None:
    """The session's life, with the refusals of both frameworks."""
    async with session:
        try:
            await endpoint()
        except (HTTPException, WebSocketException) as refused:
            if session.is_accepted:
                raise
            if isinstance(refused, HTTPException):
                headers = (refused.headers or {}).items()
                fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
                await session.reject(refused.status_code, fields)
            else:
                await session.reject(403)


class with_webtransport:
    """The application with its `WebTransportRoute`s at work. It can be used as the application and as a middleware."""

    def __init__(self, app: Any, routes: Any = None) -> None:
        self.app = app
        self._routes = routes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "webtransport":
            await self.app(scope, receive, send)
            return
        # As a middleware it has only what is below it; the framework is in the scope then.
        app = scope.setdefault("app", self.app)
        routes = app.routes if self._routes is None else self._routes
        found = _find(routes, scope, _dependencies(app))
        if found is not None:
            await found.endpoint.run_session(found, receive, send)
            return
        await receive()
        await send({"type": "webtransport.close", "status": 404})


def _dependencies(app: Any) -> Sequence[Any]:
    """Those of a FastAPI application."""
    found: Sequence[Any] = getattr(getattr(app, "router", None), "dependencies", ())
    return found


def _find(routes: Iterable[Any], scope: dict[str, Any], guards: Sequence[Any]) -> Found | None:
    """The route of a session, also below a `Mount`, a `Host` and an included `APIRouter`."""
    # Routes know HTTP and WebSocket only.
    request = {**scope, "type": "http", "method": "CONNECT"}
    for route in routes:
        endpoint = getattr(route, "endpoint", None)
        if isinstance(endpoint, SessionEndpoint):
            match, child = route.matches(request)
            if match is Match.FULL:
                return Found(endpoint, route, {**scope, **child, "endpoint": endpoint.endpoint}, guards)
        elif included := getattr(route, "effective_candidates", None):
            # FastAPI of 2026 keeps an included router as it is; the candidates are the routes below the prefix. A plain route
            # among them knows no dependencies.
            effective = (getattr(candidate, "starlette_route", None) or candidate for candidate in included())
            inner = [*route.include_context.dependencies, *route.original_router.dependencies]
            if (found := _find(effective, scope, inner)) is not None:
                return found
        elif below := getattr(route, "routes", None):
            match, child = route.matches(request)
            app = getattr(route, "app", None)
            inside = {**scope, **child, **({"app": app} if isinstance(app, Starlette) else {})}
            if match is Match.FULL and (found := _find(below, inside, _dependencies(app))) is not None:
                return found
    return None


__all__ = ["WebTransport", "WebTransportRoute", "with_webtransport"]
