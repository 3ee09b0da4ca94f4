"""WebTransport beside a framework that refuses its scope."""

from __future__ import annotations

from typing import Any

from .importer import Application


def path_below_root(scope: dict[str, Any]) -> str:
    """The path as routes have it: without the root path, if it is below that."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if path.startswith(f"{root}/") else path


class Router:
    """Gives sessions to the application of their path, and everything else to the framework.

    ::

        app = Router(FastAPI(), {"/live": live})

    Paths are those below the root path. One that ends with ``/`` takes everything below it. Sessions of other paths are refused
    with 404.
    """

    def __init__(self, app: Application, sessions: dict[str, Application] | None = None) -> None:
        self.app = app
        self.sessions = dict(sessions or {})

    def session(self, path: str) -> Any:
        """A decorator: ``@app.session("/live")``."""

        def add(application: Application) -> Application:
            self.sessions[path] = application
            return application

        return add

    def _find(self, path: str) -> Application | None:
        exact = self.sessions.get(path)
        if exact is not None:
            return exact
        below = [prefix for prefix in self.sessions if prefix.endswith("/") and path.startswith(prefix)]
        return self.sessions[max(below, key=len)] if below else None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "webtransport":
            await self.app(scope, receive, send)
            return
        application = self._find(path_below_root(scope))
        if application is not None:
            await application(scope, receive, send)
            return
        await receive()
        await send({"type": "webtransport.close", "status": 404})
