"""Every change: who, when, what, why; and taking one back."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby

import streamlit as st

from cache_core.exceptions import GlasscacheError
from cache_core.live_tuning import TuningChange
from dashboard.shell import Page, empty, open_page, telling
from dashboard.words import described


def audit(page: Page) -> None:
    """Draw the page."""
    with telling():
        said = st.session_state.pop("audit_done", None)
        if said:
            st.success(said, icon=":material/undo:")
        changes = page.source.changes(200)
        st.subheader("Tuning", anchor=False)
        if changes:
            _changes(page, changes)
        else:
            empty(
                "Nobody changed the tuning.",
                "What is in force comes from the agent's code and environment. Changes made on the "
                "page *Tuning*, or by `glasscache tune`, appear here and can be taken back.",
            )
        st.subheader("Invalidations and reviews", anchor=False)
        _records(page)


def _changes(page: Page, changes: list[TuningChange]) -> None:
    st.dataframe(
        [
            {
                "version": change.version,
                "when": datetime.fromtimestamp(change.at, UTC),
                "who": change.author,
                "what": described(change),
                "why": change.note,
            }
            for change in changes
        ],
        hide_index=True,
        alt="Changes of the tuning: version, when, who, what and why, newest first",
        column_config={
            "version": st.column_config.NumberColumn(width="small"),
            "when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
            "what": st.column_config.TextColumn(width="large"),
        },
    )
    _reverting(page, changes)


def _reverting(page: Page, changes: list[TuningChange]) -> None:
    """Let the visitor put an earlier version into force again."""
    by_version = {change.version: change for change in changes}
    current = changes[0].version
    earlier = [number for number in by_version if number != current] + [0]
    with st.container(border=True):
        which, why, act = st.columns([5, 5, 1], vertical_alignment="bottom")
        version = which.selectbox(
            "Go back to",
            earlier,
            format_func=lambda number: (
                f"version {number}: as it was after “{described(by_version[number])}”"
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
            help=page.visitor.why_not or "Puts exactly that into force again, as a new version.",
        )
    if not (pressed and page.visitor.may_write):
        return
    try:
        done = page.source.revert(version, author=page.visitor.name, note=note)
    except GlasscacheError as error:
        st.error(str(error), icon=":material/block:")
        return
    st.session_state["audit_done"] = (
        f"As of version {version} again, by version {done.version}, on every replica."
        if done.after
        else f"What is tuned is already as of version {version}."
    )
    st.rerun()


def _records(page: Page) -> None:
    records = page.source.audit(500)
    if not records:
        empty("Nothing was invalidated or reviewed here.", "What is done in this app appears here.")
        return
    rows = []
    # Reviews come in runs: one line for each.
    for (author, action), group in groupby(records, key=lambda item: (item.author, item.action)):
        if action == "review":
            run = list(group)
            first = {
                "what": "reviewed 1 pair" if len(run) == 1 else f"reviewed {len(run)} pairs",
                "removed": "",
                "why": "",
            }
            rows.append({"when": _moment(run[0].at), "who": author, **first})
            continue
        for item in group:
            ended = "" if item.complete else " (not confirmed by every backend)"
            rows.append(
                {
                    "when": _moment(item.at),
                    "who": author,
                    "what": f"{action}: {item.target}{ended}",
                    "removed": "" if item.removed is None else f"{item.removed:,}",
                    "why": item.note,
                }
            )
    st.dataframe(
        rows,
        hide_index=True,
        alt="Invalidations and reviews: when, who, what, entries removed and why, newest first",
        column_config={
            "when": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss", timezone="UTC"),
            "what": st.column_config.TextColumn(width="large"),
            "removed": st.column_config.TextColumn("entries"),
        },
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


audit(open_page("Audit", "Every change: who, when, what and why."))
