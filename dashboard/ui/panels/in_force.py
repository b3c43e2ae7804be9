"""Version in force: the change that was just applied, with its undo, and a staged one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import streamlit as st

from cache_core.config.live import TuningChange
from cache_core.config.looser import loosened_by_undoing
from cache_core.model.exceptions import GlasscacheError
from cache_core.observability.staged import StageEvidence
from dashboard.data.words import described, plain, title, undone
from dashboard.ui.shell import Page, quiet

_LOOKED_AT = 20

APPLIED = "tuning_applied"
"""Version that this visitor applied last, in the session."""


def in_force(page: Page) -> None:
    """Draw the panel: nothing, unless a change was just applied or is staged."""
    changes = page.source.changes(_LOOKED_AT)
    if not changes:
        return
    change = changes[0]
    earlier = [*(item.version for item in changes[1:]), 0]
    # a confirmation changes no value: going back to before it would not either
    before = next((version for version in earlier if undone(changes, version)), 0)
    if change.stage is not None:
        _staged(page, change, before, page.source.stage_evidence(change.version))
    elif change.version == st.session_state.get(APPLIED):
        with st.container(border=True):
            st.success(
                f"Version {change.version} is in force on every replica within a second.",
                icon=":material/check_circle:",
            )
            quiet(f"Undo changes {plain('; '.join(undone(changes, before)))}.")
            _button(page, "Undo", change.version, lambda: _revert(page, before))


def _staged(page: Page, change: TuningChange, before: int, seen: StageEvidence) -> None:
    stage, until = change.stage, change.until
    if stage is None or until is None:
        return
    end = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"
    with st.container(border=True):
        st.info(f"Version {change.version} is staged until {end}.", icon=":material/visibility:")
        quiet(plain(described(change)))
        most = f" (at most {seen.most_wrong():.1%} of all hits)" if seen.judged else ""
        looser = loosened_by_undoing(change, page.source.tuning())
        then = (
            f"It is not taken back by itself, as that would loosen: "
            f"{plain(', '.join(map(title, looser)))}."
            if looser
            else f"It is taken back by itself if more than {stage.max_wrong:.1%} are wrong or "
            f"{stage.max_errors:.1%} fail, else confirmed."
        )
        st.markdown(f"So far: {plain(str(seen))}{most}. {then}")
        with st.container(horizontal=True):
            _button(page, "Keep now", change.version, lambda: _confirm(page, change.version))
            _button(page, "Take back", change.version, lambda: _revert(page, before))


def _button(page: Page, label: str, version: int, act: Callable[[], None]) -> None:
    may = page.visitor.may_write
    # by version: a button that was drawn for another one does nothing
    key = f"{label}@{version}"
    pressed = st.button(label, disabled=not may, help=page.visitor.why_not or None, key=key)
    if not (pressed and may):
        return
    try:
        act()
    except GlasscacheError as error:
        st.error(plain(str(error)), icon=":material/block:")
        return
    st.rerun()


def _revert(page: Page, version: int) -> None:
    done = page.source.revert(version, author=page.visitor.name, note="")
    st.session_state[APPLIED] = done.version


def _confirm(page: Page, version: int) -> None:
    done = page.source.confirm(author=page.visitor.name, note="", expected_version=version)
    st.session_state[APPLIED] = done.version
