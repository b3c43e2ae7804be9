"""The page about the architecture names what exists, and every folder."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CORE = ROOT / "cache_core"


def _rows() -> dict[str, str]:
    """Return the tables' rows by the path in their first column."""
    return dict(re.findall(r"^\| `([\w/.*]+)` \| (.*) \|$", PAGE, re.MULTILINE))


def test_every_path_exists() -> None:
    """A folder, or a file with its folder, is at the place that the page gives."""
    for path in re.findall(r"`([\w/]+/(?:\w+\.py)?)`", PAGE):
        assert any(found.exists() for found in (CORE / path, ROOT / path, *_inside(path))), path


def _inside(path: str) -> list[Path]:
    """Return where a path is if it is given from its row's folder on."""
    return [base / folder / path for folder in _rows() for base in (CORE, ROOT)]


def test_every_file_of_a_row_exists() -> None:
    """A row names files of its own folder."""
    for path, text in _rows().items():
        folder = path.rpartition("/")[0] if path.endswith(("*.py", ".py")) else path
        for name in re.findall(r"`(\w+\.py)`", text):
            found = [base / folder / name for base in (CORE, ROOT)]
            assert any(file.exists() for file in found), f"{path}: {name}"


def test_every_folder_is_described() -> None:
    """No folder of the core is missing in the table."""
    rows = _rows()
    for folder in CORE.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert any(path.startswith(f"{folder.name}/") for path in rows), folder.name
