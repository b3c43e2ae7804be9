"""Chroma's settings, isolated from the environment."""

from __future__ import annotations

import functools
from typing import Any

from chromadb.config import Settings

_NOBODYS = "glasscache chroma "
"""Prefix of no environment variable."""


def own_settings(**values: Any) -> Settings:
    """Return Chroma's settings without its environment variables and its `.env` file.

    Those are other programs': PERSIST_DIRECTORY, ALLOW_RESET, CHROMA_SERVER_HOST and more.
    """
    return _defaults().model_copy(update=values)


@functools.cache
def _defaults() -> Settings:
    # Looking for the variables of a hundred fields takes 5 ms.
    apart: dict[str, Any] = {"_env_file": None, "_env_prefix": _NOBODYS}
    return Settings(anonymized_telemetry=False, **apart)
