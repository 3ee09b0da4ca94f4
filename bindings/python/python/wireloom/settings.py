"""Where settings come from: the command line, the environment, a configuration file, or a caller."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from . import env_file, foreign
from .config import Config, flag_of

#: As Python's `ssl` module numbers them, which is how uvicorn's users write them.
_CERTIFICATES = {"0": "none", "1": "optional", "2": "required"}


def _certificates(value: Any) -> str:
    return _CERTIFICATES.get(str(value), str(value))


def _type_of(annotation: str, name: str = "") -> Any:
    if name == "client_certs":
        return _certificates
    if "int" in annotation:
        return int
    return float if "float" in annotation else str


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="wireloom-asgi",
        description="Serves an ASGI application over HTTP/1.1, HTTP/2, HTTP/3, WebSocket and WebTransport.",
        epilog="Every flag is an environment variable too: --log-level is WIRELOOM_LOG_LEVEL, --no-http1 is "
        "WIRELOOM_HTTP1=false. Lists are separated by commas there. A configuration file (TOML) has the same names with "
        "underscores. WEB_CONCURRENCY and FORWARDED_ALLOW_IPS are what --workers and --forwarded-allow-ips are otherwise.",
        allow_abbrev=False,
    )
    made.add_argument("app", nargs="?", help="the application, as module:attribute", default=argparse.SUPPRESS)
    made.add_argument("--config", help="a configuration file [wireloom.toml if it exists]", default=None)
    from . import __version__

    made.add_argument("--version", action="version", version=f"wireloom {__version__}")
    for entry in fields(Config):
        if entry.name == "app":
            continue
        meta = dict(entry.metadata)
        flags = [flag_of(entry.name), *meta["flags"]]
        common: dict[str, Any] = {"dest": entry.name, "help": meta["help"], "default": argparse.SUPPRESS}
        annotation = str(entry.type)
        if annotation == "bool":
            made.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
        elif meta["many"]:
            made.add_argument(*flags, action="append", metavar="VALUE", **common)
        else:
            extra = {key: meta[key] for key in ("choices", "nargs", "const") if key in meta}
            if "choices" not in extra:
                extra["metavar"] = "VALUE"
            made.add_argument(*flags, type=_type_of(annotation, entry.name), **extra, **common)
    foreign.add_to(made, [option for action in made._actions for option in action.option_strings])
    return made


class BadSetting(ValueError):
    """A setting that does not exist or cannot have this value; the message is for the user."""


def field_names() -> dict[str, str]:
    """From every name of a setting to its field's: a flag's further names are names of the setting, too."""
    found = {}
    for entry in fields(Config):
        for flag in (entry.name, *entry.metadata.get("flags", ())):
            found[flag.removeprefix("--").replace("-", "_")] = entry.name
    return found


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _convert(name: str, value: Any, source: str) -> Any:
    """A value of the environment, a file or a caller as its field has it."""
    entry = next(entry for entry in fields(Config) if entry.name == name)
    annotation = str(entry.type)
    try:
        if entry.metadata.get("many"):
            return list(value)
        if annotation == "bool":
            return _BOOLEANS[value.lower()] if isinstance(value, str) else bool(value)
        value = _type_of(annotation, name)(value)
    except (KeyError, TypeError, ValueError):
        raise BadSetting(f"{source}: {value!r} is no value for {name}") from None
    choices = entry.metadata.get("choices")
    if choices and value not in choices:
        raise BadSetting(f"{source}: {name} is one of {', '.join(choices)}")
    return value


def _listed(name: str, value: Any) -> Any:
    """Text for a list has its parts between commas."""
    is_list = any(entry.name == name and entry.metadata.get("many") for entry in fields(Config))
    if is_list and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def from_settings(app: str, settings: Mapping[str, Any]) -> Config:
    """The settings of a caller, by any of their names. Neither the environment nor a file is read."""
    known = field_names()
    values: dict[str, Any] = {"app": app}
    for given, value in settings.items():
        name = known.get(given)
        if name is None or name == "app":
            instead = foreign.counterpart(given)
            raise TypeError(f"there is no setting named {given!r}" + (f"; use {instead}" if instead else ""))
        if value is None:
            continue
        if isinstance(value, str) and name in ("host", "origins", "headers"):
            value = [value]
        if name == "headers":
            value = [entry if isinstance(entry, str) else ":".join(entry) for entry in value]
        if name == "uds_permissions" and isinstance(value, int):
            value = f"{value:o}"
        values[name] = _convert(name, _listed(name, value), given)
    _read_env_file(values.get("env_file"))
    config = Config(**values)
    problem = config.problems()
    if problem:
        raise BadSetting(problem)
    return config


def _read_env_file(path: str | None) -> None:
    if path is not None:
        try:
            env_file.read(path)
        except (OSError, ValueError) as error:
            raise BadSetting(f"--env-file {path}: {error}") from None


#: Variables that other servers read, too.
FOREIGN_VARIABLES = {"WEB_CONCURRENCY": "workers", "FORWARDED_ALLOW_IPS": "forwarded_allow_ips"}

#: Variables of the project that are no settings: of its tests and examples.
_NO_SETTINGS = {"WIRELOOM_CONFIG", "WIRELOOM_PACKAGE", "WIRELOOM_BLESS", "WIRELOOM_EXAMPLES"}


def _variables() -> dict[str, str]:
    """From each variable to its field, the fields' own names first."""
    return {f"WIRELOOM_{name.upper()}": field for name, field in field_names().items()}


def unknown_variables() -> list[str]:
    """Variables that look like settings and are none."""
    known = _variables().keys() | _NO_SETTINGS
    return sorted(name for name in os.environ if name.startswith("WIRELOOM_") and name not in known)


def _from_surroundings(path: str | None, file_of_variables: str | None) -> dict[str, Any]:
    """What the environment says, and beneath it the file. The file of variables is the environment's, too."""
    values: dict[str, Any] = {}
    if path is not None:
        known = field_names()
        try:
            content = tomllib.loads(Path(path).read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadSetting(f"{path}: {error}") from None
        for given, value in content.items():
            name = known.get(given.replace("-", "_"))
            if name is None:
                raise BadSetting(f"{path}: there is no setting named {given}")
            values[name] = _convert(name, _listed(name, value), path)
    _read_env_file(file_of_variables or os.environ.get("WIRELOOM_ENV_FILE") or values.get("env_file"))
    for variable, name in reversed(_variables().items()):
        # An empty one is none, as where a composition of containers passes on what is not set.
        if os.environ.get(variable):
            values[name] = _convert(name, _listed(name, os.environ[variable]), variable)
    return values


def load(arguments: Sequence[str] | None = None) -> Config:
    """The settings: the command line before the environment, that before the file, that before the defaults."""
    made = parser()
    given = vars(made.parse_args(arguments))
    path = given.pop("config") or os.environ.get("WIRELOOM_CONFIG") or None
    if path is None and Path("wireloom.toml").is_file():
        path = "wireloom.toml"
    try:
        values = {**_from_surroundings(path, given.get("env_file")), **given}
        for variable, name in FOREIGN_VARIABLES.items():
            # A platform sets these for whatever runs there: all else is nearer.
            is_alone = name == "workers" and values.get("reload", False)
            if os.environ.get(variable) and name not in values and not is_alone:
                values[name] = _convert(name, os.environ[variable], variable)
    except BadSetting as error:
        raise SystemExit(str(error)) from None
    config = Config(**values)
    problem = config.problems()
    if problem:
        made.error(problem)
    if not config.app:
        made.error("which application? Name it as module:attribute")
    return config
