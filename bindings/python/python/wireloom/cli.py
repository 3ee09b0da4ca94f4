"""The command ``wireloom-asgi``, which is ``python -m wireloom`` too."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import logs, sockets
from ._wireloom import IdentityError, ServeError
from .asgi import Server, SettingsRefused, identity_of, run_worker
from .config import Config
from .importer import Application, ImportFailed, load_application
from .settings import load, unknown_variables
from .supervisor import Supervisor, print_hash, start_message

logger = logging.getLogger("wireloom")


def serve(config: Config, application: Callable[[], Application] | None = None) -> int:
    """Serves as the settings say, or this application, until a signal. The exit status."""
    try:
        logs.configure(config)
    except Exception as error:
        raise SystemExit(f"--log-config {config.log_config}: {error!r}") from error
    try:
        addresses = sockets.bind(config)
    except OSError as error:
        logger.error("cannot listen: %s", error)
        return 1
    try:
        if config.pid_file is not None:
            Path(config.pid_file).write_text(f"{os.getpid()}\n")
        for role, address in sockets.beside(addresses):
            what = (
                f"metrics on http://{address}{config.metrics}"
                if role == "metrics"
                else f"leading http://{address} to HTTPS"
            )
            logger.info(what)
        if config.has_supervisor:
            return Supervisor(config, addresses).run()
        identity = identity_of(config)
        if identity is not None and config.self_signed:
            print_hash(identity)

        def app() -> Application:
            return load_application(config.app, factory=config.factory, app_dir=config.app_dir)

        def started(server: Server) -> None:
            logger.info(start_message(config, server.addresses))

        return run_worker(application or app, config, addresses, identity=identity, on_started=started)
    except (ImportFailed, IdentityError, ServeError, SettingsRefused) as error:
        logger.error("%s", error)
        return 1
    except OSError as error:
        if config.pid_file is None or error.filename != config.pid_file:
            raise
        logger.error("--pid-file: %s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        sockets.close(addresses)
        if config.pid_file is not None:
            _forget(config.pid_file)


def _forget(pid_file: str) -> None:
    """Removes it, unless it is another server's by now."""
    path = Path(pid_file)
    with contextlib.suppress(OSError):
        if path.read_text().strip() == str(os.getpid()):
            path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    config = load(arguments)
    for name in unknown_variables():
        # Not more than that: Kubernetes makes such variables of a service that is named so.
        print(f"wireloom-asgi: warning: {name} is no setting, and ignored", file=sys.stderr)
    return serve(config)


if __name__ == "__main__":
    sys.exit(main())
