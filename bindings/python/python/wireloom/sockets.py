"""The sockets of a server, bound once: workers that are replaced find them as they were; over TCP no client is refused then."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from .config import Config

logger = logging.getLogger("wireloom")

#: asm-generic/socket.h: a program that chooses among the sockets of a port.
SO_ATTACH_REUSEPORT_CBPF = 51

_PORT_ATTEMPTS = 16


@dataclass
class Address:
    """The sockets of one address: TCP for all workers, UDP for each of them."""

    tcp: socket.socket | None = None
    udp: list[socket.socket] = field(default_factory=list)
    unix: socket.socket | None = None
    #: What is served there: "site", "metrics", or "redirect", which leads to HTTPS.
    role: str = "site"
    #: The path of a Unix socket that was made here, and which file that was.
    path: str | None = None
    file: tuple[int, int] | None = None

    def all(self) -> list[socket.socket]:
        return [sock for sock in (self.tcp, self.unix, *self.udp) if sock is not None]


def bind(config: Config) -> list[Address]:
    """Binds everything. The socket of a Unix path is made anew; a port 0 becomes the same free one for all hosts."""
    addresses: list[Address] = []
    try:
        if config.fd is not None:
            listening = socket.socket(fileno=config.fd)
            is_unix = listening.family == socket.AF_UNIX
            addresses.append(Address(unix=listening) if is_unix else Address(tcp=listening))
        if config.uds is not None:
            addresses.append(Address(unix=_unix(config.uds, config), path=config.uds, file=_file(config.uds)))
        if config.fd is None and config.uds is None:
            port = config.port
            hosts = [_resolve(host, port) for host in config.hosts()]
            # Every IPv4 address is among those of "::", unless some are asked for by themselves.
            is_dual = all(family != socket.AF_INET for host in hosts for family, _ in host)
            for host in hosts:
                before, refused = len(addresses), None
                for family, location in host:
                    try:
                        address = _bind(family, (location[0], port, *location[2:]), config, is_dual)
                    except OSError as error:
                        # One of several addresses of a name, as that of localhost where IPv6 is switched off.
                        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                            raise
                        refused = error
                        logger.warning("not listening on %s: %s", location[0], error.strerror)
                    else:
                        addresses.append(address)
                        port = port or address.all()[0].getsockname()[1]
                if refused is not None and len(addresses) == before:
                    raise refused
        if config.metrics_port is not None:
            addresses += _bind_beside([config.metrics_host], config.metrics_port, config, "metrics")
        if config.redirect_port is not None:
            addresses += _bind_beside(config.hosts(), config.redirect_port, config, "redirect")
    except BaseException:
        close(addresses)
        raise
    return addresses


def _bind_beside(hosts: list[str], port: int, config: Config, role: str) -> list[Address]:
    """Plain TCP, for something else than the site."""
    found = [entry for host in hosts for entry in _resolve(host, port)]
    is_dual = all(family != socket.AF_INET for family, _ in found)
    addresses: list[Address] = []
    try:
        for family, location in found:
            sock = _socket(family, socket.SOCK_STREAM, is_dual)
            addresses.append(Address(tcp=sock, role=role))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((location[0], port, *location[2:]))
            sock.listen(config.backlog)
            port = port or sock.getsockname()[1]
    except BaseException:
        close(addresses)
        raise
    return addresses


def beside(addresses: list[Address]) -> list[tuple[str, str]]:
    """What there is besides the site, and where."""
    found = []
    for address in addresses:
        if address.role != "site" and address.tcp is not None:
            host, port = address.tcp.getsockname()[:2]
            found.append((address.role, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    return found


def close(addresses: list[Address]) -> None:
    for address in addresses:
        for sock in address.all():
            sock.close()
        # It may be another server's by now.
        if address.path is not None and address.file is not None and _file(address.path) == address.file:
            os.unlink(address.path)


def _file(path: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((socket.AddressFamily(family), location) for family, _, _, _, location in found))


def _bind(family: socket.AddressFamily, location: Any, config: Config, is_dual: bool) -> Address:
    wants_udp = config.http3 and config.is_secure
    for attempt in range(_PORT_ATTEMPTS):
        address = Address()
        try:
            if config.tcp:
                address.tcp = _socket(family, socket.SOCK_STREAM, is_dual)
                address.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                address.tcp.bind(location)
                address.tcp.listen(config.backlog)
            if wants_udp:
                location_of_udp = location if address.tcp is None else address.tcp.getsockname()
                for _ in range(config.workers):
                    udp = _socket(family, socket.SOCK_DGRAM, is_dual)
                    address.udp.append(udp)
                    if config.workers > 1:
                        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    udp.bind(location_of_udp)
                    location_of_udp = udp.getsockname()
                if config.workers > 1:
                    route_by_connection_id(address.udp[0], config.workers)
            return address
        except OSError:
            for sock in address.all():
                sock.close()
            # Another program may have the UDP port of a TCP port that was free.
            if location[1] != 0 or attempt + 1 == _PORT_ATTEMPTS:
                raise
    raise OSError("no port is free for both TCP and UDP")


def _socket(family: socket.AddressFamily, kind: socket.SocketKind, is_dual: bool) -> socket.socket:
    made = socket.socket(family, kind)
    if family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
    made.setblocking(False)
    return made


def _unix(path: str, config: Config) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        import stat

        # Only a socket is removed: a mistyped path must not cost a file.
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(path)
    # By default for a proxy that runs as somebody else, as with uvicorn; the folder says who may. Nobody connects before.
    os.chmod(path, int(config.uds_permissions, 8))
    made.listen(config.backlog)
    made.setblocking(False)
    return made


def route_by_connection_id(sock: socket.socket, workers: int) -> None:
    """Distributes the packets of a UDP port among the workers' sockets by the first byte of their connection ids.

    That byte is at offset 1 of short headers and at offset 6 of long ones (RFC 9000 section 17). The ids of worker ``k`` of
    ``n`` begin with a byte that leaves ``k`` when divided by ``n``, so a client stays with its worker when its address changes.
    """
    load_byte_absolute, load_byte_indirect = 0x30, 0x50
    jump_if_set, modulo, give, load_index = 0x45, 0x94, 0x16, 0x01
    program = [
        (load_byte_absolute, 0, 0, 0),  # a = packet[0]
        (jump_if_set, 0, 2, 0x80),  # a long header?
        (load_index, 0, 0, 6),  # x = 6
        (0x05, 0, 0, 1),  # skip one
        (load_index, 0, 0, 1),  # x = 1
        (load_byte_indirect, 0, 0, 0),  # a = packet[x]
        (modulo, 0, 0, workers),
        (give, 0, 0, 0),  # the socket's number in the order of binding
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("HL", len(program), ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, pointer)
