"""Places in the project."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Root of the project: the folder of `pyproject.toml`."""
