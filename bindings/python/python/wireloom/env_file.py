"""A file of variables for the application: ``--env-file``."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")

_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_SINGLE = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def parse(content: str) -> dict[str, str]:
    """``NAME=value`` in each line, as shells and Docker Compose have it. References to other variables are not resolved."""
    found = {}
    for number, line in enumerate(content.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = None if match is None else _value(match["value"])
        if match is None or value is None:
            raise ValueError(f"line {number} is not NAME=value")
        found[match["name"]] = value
    return found


def _value(text: str) -> str | None:
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        return match and re.sub(r"\\(.)", lambda escaped: _ESCAPES.get(escaped[1], escaped[1]), match["text"])
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        return match and match["text"]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()


def read(path: str) -> None:
    """Into the environment. What is set already stays."""
    for name, value in parse(Path(path).read_text()).items():
        os.environ.setdefault(name, value)
