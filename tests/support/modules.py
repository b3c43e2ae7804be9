"""Packages that some tests compare with, and that an install need not have."""

from __future__ import annotations

import importlib.util
import os

import pytest


def require(name: str) -> None:
    """Skip the test without the package *name*; fail it in CI."""
    if importlib.util.find_spec(name) is not None:
        return
    reason = f"{name} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
