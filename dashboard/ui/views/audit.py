"""Page *Audit*: every change with author, time and reason; and reverting one."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby

import streamlit as st

from cache_core.config.live import TuningChange
from cache_core.model.exceptions import GlasscacheError
from dashboard.data.words import described, plain, undone
from dashboard.ui.shell import Page, empty, open_page, quiet, telling


def audit(page: Page) -> None:
    """Draw the page."""
    with telling():
        said = st.session_state.pop("audit_done", None)
        if said:
            st.success(said, icon=":material/undo:")
        quiet("All times are UTC.")
        changes = page.source.changes(200)
        st.header("Tuning", anchor=False)
        if changes:
            _changes(page, changes)
        else:
            empty(
                "Nobody changed the tuning.",
                "The values in force come from the agent's code and environment. Changes on the "
                "page *Tuning*, or by `glasscache tune`, appear here and can be reverted.",
            )
        st.header("Invalidations and reviews", anchor=False)
        _records(page)


def _changes(page: Page, changes: list[TuningChange]) -> None:
    st.dataframe(
        [
            {
                # a narrow screen shows the first two columns
                "version": change.version,
                "what": described(change),
                "when": datetime.fromtimestamp(change.at, UTC),
                "who": change.author,
                "why": change.note,
            }
            for change in changes
        ],
        hide_index=True,
        alt="Changes of the tuning: version, what, when, who and why, newest first",
        column_config={
            "version": st.column_config.NumberColumn(width="small"),
            "when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
            "what": st.column_config.TextColumn(width="large"),
        },
    )
    _reverting(page, changes)


def _reverting(page: Page, changes: list[TuningChange]) -> None:
    """Let the visitor restore an earlier version."""
    by_version = {change.version: change for change in changes}
    earlier = [*(number for number in by_version if undone(changes, number)), 0]
    with st.container(border=True):
        which, why, act = st.columns([5, 5, 1], vertical_alignment="bottom")
        version = which.selectbox(
            "Go back to",
            earlier,
            format_func=lambda number: (
                f"version {number}, by {by_version[number].author}"
                if number
                else "version 0: as the agents were started, nothing tuned"
            ),
            disabled=not page.visitor.may_write,
        )
        note = why.text_input(
            "Why", max_chars=200, disabled=not page.visitor.may_write, key="revert_note"
        )
        pressed = act.button(
            "Revert",
            disabled=not page.visitor.may_write,
            help=page.visitor.why_not or "Restores exactly that, as a new version.",
        )
        if page.visitor.why_not:
            quiet(page.visitor.why_not)
        lines = undone(changes, version)
        st.markdown("\n".join(f"- {plain(line)}" for line in lines) or "It changes no value.")
    if not (pressed and page.visitor.may_write):
        return
    try:
        done = page.source.revert(version, author=page.visitor.name, note=note)
    except GlasscacheError as error:
        st.error(plain(str(error)), icon=":material/block:")
        return
    st.session_state["audit_done"] = (
        f"Reverted to version {version}, saved as version {done.version}. All replicas follow "
        "within a second."
        if done.after
        else f"Nothing to revert: the values are those of version {version} already."
    )
    st.rerun()


def _records(page: Page) -> None:
    records = page.source.audit(500)
    if not records:
        empty(
            "Nothing was invalidated or reviewed.",
            "Actions on these pages or by `glasscache invalidate` appear here.",
        )
        return
    rows = []
    # reviews come in runs: one line for each run
    for (author, action), group in groupby(records, key=lambda item: (item.author, item.action)):
        if action == "review":
            run = list(group)
            first = {
                "what": "reviewed 1 pair" if len(run) == 1 else f"reviewed {len(run)} pairs",
                "removed": "",
            }
            rows.append({**first, "when": _moment(run[0].at), "who": author, "why": ""})
            continue
        for item in group:
            ended = "" if item.complete else " (not confirmed by every backend)"
            rows.append(
                {
                    "what": f"{action}: {item.target}{ended}",
                    "removed": "" if item.removed is None else f"{item.removed:,}",
                    "when": _moment(item.at),
                    "who": author,
                    "why": item.note,
                }
            )
    st.dataframe(
        rows,
        hide_index=True,
        alt="Invalidations and reviews: what, entries removed, when, who and why, newest first",
        column_config={
            "when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
            "what": st.column_config.TextColumn(width="medium"),
            "removed": st.column_config.TextColumn("entries"),
        },
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


audit(open_page("Audit", "All changes, with author, time and reason."))
