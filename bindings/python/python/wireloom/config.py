"""Settings of the server: one table for the command line, the environment, the configuration file, and callers."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any

#: What the access log says of each request.
ACCESS_LOG_FORMAT = '%(client)s "%(method)s %(path)s %(protocol)s" %(status)s %(bytes)s %(ms)sms'


def _option(default: Any, help: str, *flags: str, many: bool = False, **extra: Any) -> Any:
    metadata = {"help": help, "flags": flags, "many": many, **extra}
    if many:
        return field(default_factory=list, metadata=metadata)
    return field(default=default, metadata=metadata)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Config:
    """Everything that can be set. Every field is a flag, `--like-this`, and a variable, `WIRELOOM_LIKE_THIS`; so is
    each further name that it has."""

    app: str = field(default="", metadata={"help": "the application, as module:attribute"})
    factory: bool = _option(False, "the attribute is a function that makes the application")
    env_file: str | None = _option(
        None, "a file of variables, NAME=value in each line, for the application; those that are set stay"
    )
    app_dir: str = _option("", "the folder in which the module is looked for first; the current one by default")

    host: list[str] = _option(None, "an address or name to listen on; may be given again [127.0.0.1]", many=True)
    port: int = _option(8000, "the port, of TCP and of UDP; 0 finds a free one [8000]")
    uds: str | None = _option(None, "a Unix socket to listen on, in plaintext")
    uds_permissions: str = _option("666", "who may connect to it, in octal digits [666]")
    fd: int | None = _option(None, "a descriptor that listens already")

    certfile: str | None = _option(None, "the certificate chain, PEM; read again when it changes", "--ssl-certfile")
    keyfile: str | None = _option(None, "its private key, PEM", "--ssl-keyfile")
    self_signed: bool = _option(False, "a certificate made at the start, for 13 days; its hash is printed")
    self_signed_names: list[str] = _option(
        None, "a name in that certificate [localhost 127.0.0.1 ::1 and the hosts]", many=True
    )
    client_ca: str | None = _option(
        None, "certificates, PEM, at which those of clients must end (mutual TLS)", "--ssl-ca-certs"
    )
    client_certs: str = _option(
        "required",
        "whether clients need one, with --client-ca; 0, 1 and 2 mean the same [required]",
        "--ssl-cert-reqs",
        choices=("none", "optional", "required"),
    )
    http1: bool = _option(True, "HTTP/1.1")
    http2: bool = _option(True, "HTTP/2, with a certificate")
    http3: bool = _option(True, "HTTP/3 and WebTransport, with a certificate")
    alt_svc: bool = _option(True, "tells clients over TCP of HTTP/3")
    redirect_port: int | None = _option(
        None, "a port on which plain HTTP is led to HTTPS: to --alt-svc-port, or else to --port"
    )
    alt_svc_port: int | None = _option(
        None, "the port that they are told, where one outside leads to --port, as of a container [--port]"
    )

    workers: int = _option(1, "processes; 0 for one per processor that they may use [1]")
    worker_timeout: float = _option(
        0.0,
        "seconds after which a worker whose event loop stands still is replaced; no call of the application may block for "
        "longer; 0 for never [0]",
    )
    pid_file: str | None = _option(None, "a file into which the number of the first process is written")
    reload: bool = _option(False, "starts again when a file changes")
    reload_dirs: list[str] = _option(None, "a folder that is watched [the current one]", "--reload-dir", many=True)
    reload_suffixes: list[str] = _option(
        None, "an ending of files that are watched [.py]", "--reload-suffix", many=True
    )
    reload_include: list[str] = _option(
        None, "a name or path, with * and ?, of other files that are watched, as templates/*.html", many=True
    )
    reload_exclude: list[str] = _option(
        None,
        "the same of files and folders that are not; venv, node_modules and virtual environments never are, nor are folders "
        "whose names begin with a dot",
        many=True,
    )
    loop: str = _option(
        "auto", "the event loop: auto and wireloom have Tokio inside", choices=("auto", "wireloom", "asyncio", "uvloop")
    )

    lifespan: str = _option("auto", "the lifespan protocol", choices=("auto", "on", "off"))
    root_path: str = _option("", "the path under which a proxy has the application")
    proxy_headers: bool = _option(True, "believes X-Forwarded-For and X-Forwarded-Proto of trusted addresses")
    forwarded_allow_ips: str = _option(
        "127.0.0.1,::1", "those addresses: with commas, networks as 10.0.0.0/8, * for all"
    )
    origins: list[str] = _option(
        None,
        "an origin whose pages may open sessions and WebSockets besides our own, * for all; without a certificate "
        "nobody is refused until one is given",
        "--origin",
        many=True,
    )
    headers: list[str] = _option(None, "name:value, sent with every response", "--header", many=True)

    access_log: bool = _option(True, "logs requests to standard output")
    access_log_file: str | None = _option(None, "logs them to this file instead")
    access_log_format: str = _option(
        ACCESS_LOG_FORMAT, "what is logged of each request; json for an object of JSON in each line"
    )
    access_log_exclude: list[str] = _option(
        None, "a path, without its query, that is not logged; with * at its end all that begin so", many=True
    )
    access_log_logger: bool = _option(False, "hands the lines to Python's logging, to the logger wireloom.access")
    log_level: str = _option("info", "the level of the log", choices=("critical", "error", "warning", "info", "debug"))
    log_config: str | None = _option(None, "a configuration of Python's logging: .json, .toml or .ini")

    limit_concurrency: int | None = _option(None, "requests, WebSockets and sessions at once; beyond that 503")
    limit_max_requests: int | None = _option(None, "requests after which a worker is replaced")
    limit_max_requests_jitter: int = _option(0, "at most so many more, by chance [0]")
    limit_body_size: int | None = _option(None, "bytes of a request's body; beyond that 413")
    limit_header_size: int = _option(
        65536, "bytes of a request's header; beyond that 431 [65536]", "--h11-max-incomplete-event-size"
    )
    limit_connections: int = _option(100_000, "connections at once [100000]")
    limit_connections_per_address: int = _option(
        1000, "connections of one address, or IPv6 network, at once, proxies excepted [1000]"
    )
    backlog: int = _option(2048, "connections that wait to be accepted [2048]")
    ws_max_size: int = _option(16 * 1024 * 1024, "bytes of a WebSocket message [16777216]")
    ws_ping_interval: float = _option(20.0, "seconds of silence after which a WebSocket is pinged, 0 for never [20]")
    ws_ping_timeout: float = _option(20.0, "seconds that the answer may take, 0 for ever [20]")
    keep_alive: float = _option(
        30.0, "seconds that a kept connection over TCP may be idle, 0 to keep none [30]", "--timeout-keep-alive"
    )
    graceful_timeout: float = _option(
        30.0, "seconds that requests and sessions may go on when the server stops [30]", "--timeout-graceful-shutdown"
    )
    session_grace: float = _option(5.0, "seconds that a session's task may go on after its end [5]")

    static: list[str] = _option(None, "path=folder: files that are served without the application", many=True)
    static_expires: int | None = _option(
        None, "seconds for which clients may keep such files (Cache-Control)", "--static-path-expires"
    )
    health_check_path: str | None = _option(
        None, "answers 200 at this path without the application, whatever limits say"
    )
    metrics: str | None = _option(
        None, "serves the counters of all workers at this path [/metrics if none is given]", nargs="?", const="/metrics"
    )
    metrics_port: int | None = _option(None, "serves them on this port alone, in plain HTTP")
    metrics_host: str = _option("127.0.0.1", "the address of that port [127.0.0.1]")

    def __post_init__(self) -> None:
        if self.metrics_port is not None and self.metrics is None:
            self.metrics = "/metrics"
        if self.workers == 0:
            self.workers = 1 if self.reload else min(_processors(), 200)

    def problems(self) -> str | None:
        """What cannot be, in one sentence."""
        if bool(self.certfile) != bool(self.keyfile):
            return "--certfile and --keyfile go together"
        if self.certfile and self.self_signed:
            return "--self-signed and --certfile exclude each other"
        if self.workers < 1 or self.workers > 200:
            return "--workers is a number up to 200"
        if self.reload and self.workers > 1:
            return "--reload has one worker"
        if 0 < self.worker_timeout < 2:
            return "--worker-timeout is at least 2 seconds, or 0 for never"
        if not re.fullmatch("0?[0-7]{1,3}", self.uds_permissions):
            return f"--uds-permissions are octal digits, as 660, not {self.uds_permissions!r}"
        if not 0 <= self.port < 65536:
            return "--port is a number below 65536"
        if self.static_expires is not None and not 0 <= self.static_expires < 2**31:
            return "--static-expires is a number of seconds below 2147483648"
        if self.redirect_port is not None and not self.is_secure:
            return "--redirect-port leads to HTTPS, which needs a certificate: --certfile or --self-signed"
        for name in ("redirect_port", "metrics_port"):
            if not 0 <= (getattr(self, name) or 0) < 65536:
                return f"{flag_of(name)} is a number below 65536"
        if self.alt_svc_port is not None and not 0 < self.alt_svc_port < 65536:
            return "--alt-svc-port is a number from 1 to 65535"
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                return f"{flag_of(setting.name)} is a number from 0"
        if self.access_log_logger and self.access_log_file is not None:
            return "--access-log-logger and --access-log-file exclude each other"
        if self.metrics is not None and not self.metrics.startswith("/"):
            return f"--metrics is a path, as /metrics, not {self.metrics!r}; what follows it is taken for that"
        if self.health_check_path is not None and not self.health_check_path.startswith("/"):
            return f"--health-check-path is a path, as /health, not {self.health_check_path!r}"
        if self.client_ca and not self.is_secure:
            return "--client-ca needs a certificate of the server: --certfile or --self-signed"
        if not self.is_secure and not self.http1:
            return "without a certificate there is HTTP/1.1 only"
        if not (self.http1 or self.http2 or self.http3):
            return "one version of HTTP has to be on"
        for entry in self.static:
            if "=" not in entry:
                return f"--static is path=folder, not {entry!r}"
        for entry in self.headers:
            if ":" not in entry:
                return f"--header is name:value, not {entry!r}"
        return None

    @property
    def has_supervisor(self) -> bool:
        """A parent process looks after those that serve."""
        return self.workers > 1 or self.reload or self.worker_timeout > 0

    @property
    def is_secure(self) -> bool:
        return self.certfile is not None or self.self_signed

    @property
    def tcp(self) -> bool:
        return self.http1 or (self.http2 and self.is_secure)

    def hosts(self) -> list[str]:
        return self.host or ["127.0.0.1"]

    def names(self) -> list[str]:
        """The names of a self-signed certificate."""
        names = self.self_signed_names or ["localhost", "127.0.0.1", "::1"]
        return names + [host for host in self.hosts() if host not in names and host not in ("0.0.0.0", "::", "*")]

    def native(
        self,
        *,
        worker: int = 0,
        access_log: tuple[str, int | None] | None = None,
        board: int | None = None,
        redirect_to: int | None = None,
    ) -> dict[str, Any]:
        """What the native server wants to know. It takes the descriptors over."""
        max_requests = self.limit_max_requests
        if max_requests is not None and self.limit_max_requests_jitter > 0:
            import random

            max_requests += random.randint(0, self.limit_max_requests_jitter)
        trusted = [entry for entry in self.forwarded_allow_ips.split(",") if entry.strip()]
        return {
            "root_path": self.root_path,
            "limit_concurrency": self.limit_concurrency,
            "limit_max_requests": max_requests,
            "limit_body_size": self.limit_body_size,
            "limit_header_size": self.limit_header_size,
            "limit_connections": self.limit_connections,
            "limit_connections_per_address": self.limit_connections_per_address,
            "ws_max_size": self.ws_max_size,
            "ws_ping_interval": self.ws_ping_interval,
            "ws_ping_timeout": self.ws_ping_timeout,
            "session_grace": self.session_grace,
            "shutdown_deadline": self.graceful_timeout,
            "keep_alive": self.keep_alive,
            "forwarded_allow_ips": trusted if self.proxy_headers else None,
            "headers": [(name.strip(), value.strip()) for name, value in (e.split(":", 1) for e in self.headers)],
            "origins": self.origins,
            "access_log": access_log,
            "access_log_exclude": self.access_log_exclude,
            "static_files": [tuple(entry.split("=", 1)) for entry in self.static],
            "static_expires": self.static_expires,
            "metrics": self.metrics,
            "has_metrics_port": self.metrics_port is not None,
            "redirect_to": self.alt_svc_port or redirect_to or 443,
            "health_check": self.health_check_path,
            "worker": worker,
            "workers": self.workers,
            "alt_svc": self.alt_svc,
            "alt_svc_port": self.alt_svc_port,
            "http1": self.http1,
            "http2": self.http2,
            "client_ca": self.client_ca,
            "client_certs": self.client_certs,
            "board": board,
        }


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")
