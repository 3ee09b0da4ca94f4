"""Misses a module whose name this one begins with."""

import missing  # noqa: F401
