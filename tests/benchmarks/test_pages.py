"""The benchmark of the dashboard's pages."""

from __future__ import annotations

import pytest

from benchmarks.pages import LAST_PART
from tests.support.paths import ROOT


@pytest.mark.parametrize("text", LAST_PART.values(), ids=LAST_PART)
def test_it_waits_for_what_a_page_draws(text: str) -> None:
    """The words by which it knows that a page is complete are on one; else it waits in vain."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "dashboard").rglob("*.py"))
    assert any(text in source for source in sources)
