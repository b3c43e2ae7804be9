"""Pace of a page that refreshes itself."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from dashboard.data.pace import pause
from dashboard.ui import shell


@pytest.mark.parametrize(
    ("now", "took", "then"),
    [
        (2, 0.1, 2), (2, 0.5, 2), (2, 0.6, 4), (2, 3, 16), (16, 3, 16), (16, 1.1, 16),
        (16, 0.9, 4), (16, 0.1, 2), (4, 0.1, 4), (2, 500, 60),
    ],
)  # fmt: skip
def test_the_pause_is_four_times_what_drawing_took(now: float, took: float, then: float) -> None:
    """In steps, so that the page is not redrawn for each change, and at most a minute."""
    assert pause(now, took, 2) == then


class _RerunError(Exception):
    """Stands for Streamlit's, which begins the page again."""


def test_a_page_that_is_drawn_slowly_refreshes_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first drawing, which loads what later ones have, changes nothing; the next ones do."""
    intervals: list[float] = []
    left = SimpleNamespace(session_state={"page": None}, fragment=None, rerun=None)

    def fragment(*, run_every: float) -> Callable[[Callable[[], None]], Callable[[], None]]:
        intervals.append(run_every)
        return lambda draw: draw

    def rerun() -> NoReturn:
        raise _RerunError

    left.fragment, left.rerun = fragment, rerun
    monkeypatch.setattr(shell, "st", left)
    monkeypatch.setattr(shell, "telling", lambda **_: _Nothing())
    refreshed: Any = shell.refreshed
    live = refreshed("part", lambda: sleep(0.03), 0.04)
    with pytest.raises(_RerunError):
        live()
    live = refreshed("part", lambda: sleep(0.001), 0.04)
    with pytest.raises(_RerunError):
        live()
    refreshed("part", lambda: None, 0.04)
    assert intervals[0] == intervals[2] == 0.04
    assert intervals[1] >= 0.16


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
