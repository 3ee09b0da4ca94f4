"""Files that `--reload` watches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fnmatch import fnmatch

from .config import Config

#: Folders that are nobody's own code, and may have many files. So are those whose names begin with a dot.
_IGNORED = {"__pycache__", "node_modules", "venv"}

#: Every virtual environment has this file.
_ENVIRONMENT = "pyvenv.cfg"


class Files:
    """What they were like when they were last looked at."""

    def __init__(self, config: Config) -> None:
        self._folders = config.reload_dirs or [config.app_dir or "."]
        self._suffixes = tuple(config.reload_suffixes or [".py"])
        self._include = config.reload_include
        self._exclude = config.reload_exclude
        self._known = dict(self._look())

    def changed(self) -> list[str]:
        """Those that are other ones than they were."""
        found = dict(self._look())
        changed = {path for path, _ in found.items() ^ self._known.items()}
        self._known = found
        return sorted(changed)

    def _look(self) -> Iterator[tuple[str, float]]:
        for top in self._folders:
            for path, folders, names in os.walk(top):
                if path != top and _ENVIRONMENT in names:
                    folders.clear()
                    continue
                folders[:] = [name for name in folders if self._is_own(top, path, name)]
                for name in names:
                    if self._is_watched(top, path, name):
                        full = os.path.join(path, name)
                        with contextlib.suppress(OSError):
                            yield full, os.stat(full).st_mtime

    def _is_own(self, top: str, path: str, name: str) -> bool:
        return not name.startswith(".") and name not in _IGNORED and not _is_meant(self._exclude, top, path, name)

    def _is_watched(self, top: str, path: str, name: str) -> bool:
        is_included = name.endswith(self._suffixes) or _is_meant(self._include, top, path, name)
        return is_included and not _is_meant(self._exclude, top, path, name)


def _is_meant(patterns: list[str], top: str, path: str, name: str) -> bool:
    """A pattern is that of a name, of a path within the watched folder, or of an absolute one."""
    if not patterns:
        return False
    full = os.path.join(path, name)
    forms = (name, os.path.relpath(full, top), os.path.abspath(full))
    return any(fnmatch(form, pattern.rstrip("/")) for pattern in patterns for form in forms)
