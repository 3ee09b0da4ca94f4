"""The log of the server, by Python's logging: the logger is named ``wireloom``."""

from __future__ import annotations

import json
import logging
import logging.config
import tomllib
from pathlib import Path

from .config import Config


def configure(config: Config) -> None:
    """As the settings say. Other loggers are left as they are."""
    path = config.log_config
    if path is None:
        logger = logging.getLogger("wireloom")
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(message)s"))
            logger.addHandler(handler)
            logger.propagate = False
        logger.setLevel(config.log_level.upper())
    elif path.endswith(".json"):
        logging.config.dictConfig(json.loads(Path(path).read_text()))
    elif path.endswith(".toml"):
        logging.config.dictConfig(tomllib.loads(Path(path).read_text()))
    else:
        logging.config.fileConfig(path, disable_existing_loggers=False)
