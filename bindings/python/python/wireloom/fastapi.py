"""WebTransport for FastAPI, with its path parameters, ``Query``, ``Header`` and ``Depends``.

::

    @webtransport(api, "/live/{room}")
    async def live(wt: WebTransport, room: str, user: Annotated[User, Depends(user)]) -> None:
        await wt.accept()

    app = with_webtransport(api)

The routes are FastAPI's own, with the method CONNECT, so that routers include them as they include others.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, params
from fastapi.dependencies.utils import solve_dependencies
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.websockets import WebSocket

from .starlette import Found, SessionEndpoint, WebTransport, run, with_webtransport

logger = logging.getLogger("wireloom")

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Awaitable[None]])


def webtransport(
    router: FastAPI | APIRouter,
    path: str,
    *,
    name: str | None = None,
    dependencies: Sequence[params.Depends] | None = None,
) -> Callable[[_Endpoint], _Endpoint]:
    """A decorator: sessions of the path are the endpoint's, a coroutine function that has one parameter annotated with
    `WebTransport`. Paths have the router's prefix before them, as those of its other decorators.

    Dependencies are solved before the endpoint is called: an `HTTPException` refuses the session with its status, parameters
    that are not valid refuse it with 403.
    """

    def add(endpoint: _Endpoint) -> _Endpoint:
        is_coroutine = inspect.iscoroutinefunction(endpoint)
        if not is_coroutine:
            raise TypeError(f"{endpoint!r} is no coroutine function")
        target = router.router if isinstance(router, FastAPI) else router
        target.add_api_route(
            path,
            _Solved(endpoint),
            methods=["CONNECT"],
            name=name or endpoint.__name__,
            dependencies=dependencies,
            response_model=None,
            include_in_schema=False,
        )
        route = target.routes[-1]
        if not isinstance(route, APIRoute) or not route.dependant.http_connection_param_name:
            raise TypeError(f"{endpoint!r} has no parameter that is annotated with wireloom.fastapi.WebTransport")
        if route.body_field is not None:
            raise TypeError(f"{endpoint!r} or a dependency wants a body, which sessions have not")
        return endpoint

    return add


class _Session(WebTransport, Request, WebSocket):  # type: ignore[misc]
    """A session as dependencies get it, whether they were written for requests, for WebSockets or for both."""

    #: A request that has been read.
    _body = b""


class _Solved(SessionEndpoint):
    """An endpoint whose parameters FastAPI finds."""

    def __init__(self, endpoint: Callable[..., Awaitable[None]]) -> None:
        super().__init__(endpoint)
        # With its signature.
        functools.update_wrapper(self, endpoint)

    async def __call__(self, **_: Any) -> None:
        raise HTTPException(405)

    async def run_session(self, found: Found, receive: Any, send: Any) -> None:
        # It has the dependencies of all routers that it came through.
        session = _Session(found.scope, receive, send)
        route = found.route
        provider = route.dependency_overrides_provider
        await run(session, lambda: _solve(session, route, provider, lambda values: self.endpoint(**values)))


async def run_guarded(found: Found, receive: Any, send: Any) -> None:
    """A `WebTransportRoute` below routers that have dependencies."""
    session = _Session(found.scope, receive, send)
    provider = found.scope.get("app")
    route = APIRoute(found.route.path_format, _nothing, methods=["CONNECT"], dependencies=found.guards)
    await run(session, lambda: _solve(session, route, provider, lambda _: found.endpoint.endpoint(session)))


async def _nothing() -> None:
    pass


async def _solve(
    session: _Session, route: Any, provider: Any, endpoint: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """Calls the endpoint with what the dependencies answer, which those that are generators outlive."""
    async with AsyncExitStack() as request, AsyncExitStack() as function:
        session.scope["fastapi_inner_astack"] = request
        session.scope["fastapi_function_astack"] = function
        solved = await solve_dependencies(
            request=session,
            dependant=route.dependant,
            dependency_overrides_provider=provider if hasattr(provider, "dependency_overrides") else None,
            async_exit_stack=request,
            embed_body_fields=False,
        )
        if solved.errors:
            # Without what the client sent, which may be a secret.
            errors = ", ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in solved.errors)
            logger.info("a session of %s is refused: %s", route.path_format, errors)
            raise HTTPException(403)
        await endpoint(solved.values)


__all__ = ["WebTransport", "webtransport", "with_webtransport"]
