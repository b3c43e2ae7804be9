"""Files that are shipped beside the code: rules, dashboards, runbooks, the stack."""

from __future__ import annotations

from pathlib import Path

from cache_core.model.exceptions import ConfigurationError

_PACKAGE = Path(__file__).parents[1]

_IN_PROJECT = {"runbooks": "docs/runbooks"}
"""Folders in the project of parts that have another name there."""


def shipped(part: str) -> Path:
    """Return the path of a part: in the installed package, or in the project's folder.

    Raises:
        ConfigurationError: If it is in neither.
    """
    for path in (_PACKAGE / "shipped" / part, _PACKAGE.parent / _IN_PROJECT.get(part, part)):
        if path.exists():
            return path
    raise ConfigurationError(f"{part} is not here: neither the package nor the project has it")
