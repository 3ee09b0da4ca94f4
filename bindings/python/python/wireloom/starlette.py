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
from starlette.routing import Match, compile_path
from starlette.routing import Route as _Route

from .router import path_below_root
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
    session with its status and headers.
    """

    def __init__(self, path: str, endpoint: Endpoint, *, name: str | None = None) -> None:
        self.path = path
        self.endpoint = endpoint
        self.name = name or str(getattr(endpoint, "__name__", type(endpoint).__name__))
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.methods = None
        self.include_in_schema = False
        self.app = self._session  # type: ignore[assignment]

    async def _session(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async with WebTransport(scope, receive, send) as session:
            try:
                await self.endpoint(session)
            except HTTPException as refused:
                if session.is_accepted:
                    raise
                headers = (refused.headers or {}).items()
                await session.reject(
                    refused.status_code, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
                )

    def matches(self, scope: Any) -> tuple[Match, Any]:
        if scope["type"] != "webtransport":
            return Match.NONE, {}
        match = self.path_regex.match(path_below_root(scope))
        if match is None:
            return Match.NONE, {}
        parameters = {key: self.param_convertors[key].convert(value) for key, value in match.groupdict().items()}
        parameters = {**scope.get("path_params", {}), **parameters}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": parameters}

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await self._session(scope, receive, send)


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
            route, scope = found
            await route.handle(scope, receive, send)
            return
        await receive()
        await send({"type": "webtransport.close", "status": 404})


def _find(routes: Iterable[Any], scope: dict[str, Any]) -> tuple[WebTransportRoute, dict[str, Any]] | None:
    """The route of a session and its scope, also below a `Mount` or a `Host`."""
    for route in routes:
        if isinstance(route, WebTransportRoute):
            match, child = route.matches(scope)
            if match is Match.FULL:
                return route, {**scope, **child}
        elif below := getattr(route, "routes", None):
            # They know HTTP and WebSocket only.
            match, child = route.matches({**scope, "type": "http"})
            if match is Match.FULL and (found := _find(below, {**scope, **child})) is not None:
                return found
    return None


__all__ = ["WebTransport", "WebTransportRoute", "with_webtransport"]
