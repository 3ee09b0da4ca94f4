"""Flags of uvicorn, hypercorn, granian and gunicorn: those that change nothing here are let through with a note, those that have
a counterpart under another name are refused with that name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

#: Flags with a value that changes nothing, and why.
IGNORED_VALUES = {
    "--http": "HTTP has one implementation here; --no-http2 and --no-http3 choose versions",
    "--ws": "WebSocket has one implementation here",
    "--ws-max-queue": "a WebSocket whose application does not receive holds its client up",
    "--ws-per-message-deflate": "WebSockets are not compressed here",
    "--reload-delay": "files are looked at every 0.4 seconds",
    "--ssl-version": "TLS has the versions 1.2 and 1.3 here, HTTP/3 1.3",
    "--runtime-mode": "asyncio and Tokio share a thread",
    "--runtime-threads": "asyncio and Tokio share a thread",
    "--blocking-threads": "asyncio and Tokio share a thread",
    "--worker-class": "there is one kind of worker",
    "-k": "there is one kind of worker",
}

#: The same of flags without a value.
IGNORED_SWITCHES = {
    "--use-colors": "the log has no colours",
    "--no-use-colors": "the log has no colours",
    "--server-header": "there is none; --header adds one",
    "--no-server-header": "there is none",
    "--date-header": "responses always have one",
    "--no-date-header": "responses always have one",
    "--reset-contextvars": "requests do not see what the lifespan sets",
    "--http2": "it is on with a certificate",
    "--respawn-failed-workers": "workers that end are replaced",
}

#: Values of `--interface` that are served; it is a flag of uvicorn and granian.
_INTERFACES = ("auto", "asgi", "asgi3")

#: What to write instead.
COUNTERPARTS = {
    "--bind": "--host and --port, --uds or --fd",
    "-b": "--host and --port, --uds or --fd",
    "--quic-bind": "--host and --port, which are those of UDP, too",
    "--insecure-bind": "--redirect-port, for a port that leads to HTTPS",
    "-w": "--workers",
    "-c": "--config",
    "--ssl-certificate": "--certfile",
    "--ca-certs": "--client-ca",
    "--ssl-ca": "--client-ca",
    "--verify-mode": "--client-certs",
    "--ssl-client-verify": "--client-certs required",
    "--ssl-keyfile-password": "a key without a password: openssl pkey -in key.pem -out plain.pem",
    "--keyfile-password": "a key without a password: openssl pkey -in key.pem -out plain.pem",
    "--ssl-ciphers": "nothing: rustls has no weak ones",
    "--ciphers": "nothing: rustls has no weak ones",
    "--access-logfile": "--access-log-file",
    "--access-logformat": "--access-log-format",
    "--access-log-fmt": "--access-log-format",
    "--log-access-format": "--access-log-format",
    "--no-log-access": "--no-access-log",
    "--error-logfile": "--log-config",
    "--log-file": "--log-config",
    "--max-requests": "--limit-max-requests",
    "--max-requests-jitter": "--limit-max-requests-jitter",
    "--timeout-worker-healthcheck": "--worker-timeout",
    "--timeout": "--worker-timeout",
    "--backpressure": "--limit-concurrency",
    "--url-path-prefix": "--root-path",
    "--working-dir": "--app-dir",
    "--chdir": "--app-dir",
    "--pid": "--pid-file",
    "--pidfile": "--pid-file",
    "--env-files": "--env-file",
    "--reload-paths": "--reload-dir",
    "--reload-ignore-patterns": "--reload-exclude",
    "--static-path-mount": "--static path=folder",
    "--static-path-route": "--static path=folder",
    "--no-ws": "nothing: an application that knows no WebSockets refuses them",
}

_WSGI = "a2wsgi, which makes an ASGI application of it: app = a2wsgi.WSGIMiddleware(wsgi_app)"


class _Ignored(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        print(f"{parser.prog}: note: {option} is ignored: {self.const}", file=sys.stderr)


class _Refused(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        parser.error(f"{option} is not a flag here; use {self.const}")


class _Interface(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if values not in _INTERFACES:
            parser.error(f"{option} {values} is not served here; use {_WSGI if values == 'wsgi' else 'ASGI 3'}")


def add_to(parser: argparse.ArgumentParser, known: Sequence[str]) -> None:
    """Those that `known` has not."""
    hidden: dict[str, Any] = {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument("--interface", action=_Interface, **hidden)
    for flags, action, nargs in ((IGNORED_VALUES, _Ignored, None), (IGNORED_SWITCHES, _Ignored, 0)):
        for flag, why in flags.items():
            if flag not in known:
                parser.add_argument(flag, action=action, nargs=nargs, const=why, **hidden)
    for flag, instead in COUNTERPARTS.items():
        if flag not in known:
            parser.add_argument(flag, action=_Refused, nargs="?", const=instead, **hidden)


def counterpart(name: str) -> str | None:
    """What there is instead of a setting of that name, for callers."""
    flag = "--" + name.replace("_", "-")
    if flag == "--interface":
        return f"ASGI 3, or {_WSGI}"
    if flag in IGNORED_VALUES or flag in IGNORED_SWITCHES:
        return f"nothing: {({**IGNORED_VALUES, **IGNORED_SWITCHES})[flag]}"
    return COUNTERPARTS.get(flag)
