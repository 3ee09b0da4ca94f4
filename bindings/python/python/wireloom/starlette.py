"""WebTransport for Starlette and FastAPI, which know no such scope.

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

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match
from starlette.routing import Route as _Route

from .session import AsgiSession

Endpoint = Callable[["WebTransport"], Awaitable[None]]


class WebTransport(HTTPConnection, AsgiSession):  # type: ignore[misc]
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


class _Sessions:
    """The ASGI application that a route for sessions leads to.

    A route is told by it, and not by its class: FastAPI's `include_router` makes a plain route of every route that it does not
    know, with the endpoint and the methods of the original.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "webtransport":
            raise HTTPException(405)
        session = WebTransport(scope, receive, send)
        async with session:
            try:
                await self.endpoint(session)
            except HTTPException as refused:
                if session.is_accepted:
                    raise
                headers = (refused.headers or {}).items()
                await session.reject(
                    refused.status_code, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
                )


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
        found = _find(routes, scope)
        if found is not None:
            sessions, scope = found
            await sessions(scope, receive, send)
            return
        await receive()
        await send({"type": "webtransport.close", "status": 404})


def _find(routes: Iterable[Any], scope: dict[str, Any]) -> tuple[_Sessions, dict[str, Any]] | None:
    """The endpoint of a session and its scope, also below a `Mount`, a `Host` and an included `APIRouter`."""
    # Routes know HTTP and WebSocket only.
    request = {**scope, "type": "http", "method": "CONNECT"}
    for route in routes:
        endpoint = getattr(route, "endpoint", None)
        if isinstance(endpoint, _Sessions):
            match, child = route.matches(request)
            if match is Match.FULL:
                return endpoint, {**scope, **child, "endpoint": endpoint.endpoint}
        elif included := getattr(route, "effective_route_contexts", None):
            # FastAPI of 2026 keeps an included router as it is; its contexts have the routes below the prefix.
            effective = (context.starlette_route or context.original_route for context in included())
            if (found := _find(effective, scope)) is not None:
                return found
        elif below := getattr(route, "routes", None):
            match, child = route.matches(request)
            if match is Match.FULL and (found := _find(below, {**scope, **child})) is not None:
                return found
    return None


__all__ = ["WebTransport", "WebTransportRoute", "with_webtransport"]
