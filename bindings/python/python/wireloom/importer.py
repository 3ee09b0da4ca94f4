"""From ``module:attribute`` to an application."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]],
    Awaitable[None],
]


class ImportFailed(Exception):
    """The application cannot be imported; the message is for the user."""


def import_from_string(name: str, app_dir: str = "") -> Any:
    """The attribute, which may have dots: ``package.module:object.attribute``."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ImportFailed(f"{name!r} is not of the form module:attribute")
    folder = app_dir or "."
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the application itself misses is the application's error.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ImportFailed(f"there is no module {module_name!r} in {folder!r} or on the path") from None
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise ImportFailed(f"{module_name!r} has no attribute {attribute!r}") from None
    return value


def load_application(name: str, *, factory: bool = False, app_dir: str = "") -> Application:
    """The application, made by its factory if it has one."""
    value = import_from_string(name, app_dir)
    if factory:
        try:
            value = value()
        except TypeError as error:
            # One of the factory's own has its place in there.
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise
            raise ImportFailed(f"the factory {name!r} cannot be called without arguments: {error}") from error
    if not callable(value):
        raise ImportFailed(f"{name!r} is no application: it cannot be called")
    application: Application = value
    return application
