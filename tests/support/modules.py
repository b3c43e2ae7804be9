"""Packages that some tests compare with, and that an install need not have."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

import pytest


def require(name: str) -> None:
    """Skip the test without the package *name*; fail it in CI."""
    if importlib.util.find_spec(name) is not None:
        return
    reason = f"{name} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def import_or_skip(name: str) -> ModuleType:
    """Return a module; without a package that it needs skip the file, in CI fail it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed: pip install --group integrations"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
