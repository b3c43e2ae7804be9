"""Chroma's settings, isolated from the environment."""

from __future__ import annotations

from typing import Any

from chromadb.config import Settings

_NOBODYS = "glasscache chroma "
"""Prefix of no environment variable."""


def own_settings(**values: Any) -> Settings:
    """Return Chroma's settings without its environment variables and its `.env` file.

    Those are other programs': PERSIST_DIRECTORY, ALLOW_RESET, CHROMA_SERVER_HOST and more.
    """
    apart: dict[str, Any] = {"_env_file": None, "_env_prefix": _NOBODYS}
    return Settings(anonymized_telemetry=False, **apart, **values)
