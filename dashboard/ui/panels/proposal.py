"""Proposed change: old → new with the expected effect, and its application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from cache_core.config.stage import Stage
from cache_core.model.exceptions import GlasscacheError, TuningConflict
from cache_core.whatif import Judged, ShadowEstimate, ThresholdEstimate
from dashboard.data.estimates import Estimates
from dashboard.data.words import plain, title, value
from dashboard.ui.panels.in_force import APPLIED
from dashboard.ui.shell import Page, empty, quiet

_FOR_GOOD = "off"
_WATCHES = (_FOR_GOOD, "30m", "2h", "1d")


def proposal(page: Page, estimates: Estimates, proposed: dict[str, Any]) -> None:
    """Draw the panel, and apply the change on request."""
    if not proposed:
        empty("No change proposed.", "Move a value: its effect, and *Apply*, appear here.")
        return
    flat = estimates.tuning.flat()
    with st.container(border=True):
        st.header("Proposed change", anchor=False)
        lines = [
            f"{plain(title(name))}: {_shown(name, flat.get(name))} → **{_shown(name, chosen)}**"
            for name, chosen in proposed.items()
        ]
        # one text, without the space between paragraphs: *Apply* stays on a small screen
        st.markdown("  \n".join([*lines, *_expectation(estimates, proposed)]))
        unjudged = estimates.unjudged(proposed)
        if unjudged:
            st.warning(
                "Too few such hits were judged: they may be wrong, or meant for another user. "
                "Stage it, or review first.",
                icon=":material/warning:",
            )
        _apply_form(page, estimates, proposed, unjudged=unjudged)


def _shown(name: str, found: Any) -> str:
    text = value(name, found)
    return text if isinstance(found, (int, float)) else plain(text)


def _apply_form(
    page: Page, estimates: Estimates, proposed: Mapping[str, Any], *, unjudged: bool
) -> None:
    may = page.visitor.may_write
    limit = st.session_state.get("limit", 1.0) / 100
    with st.form("apply", border=False):
        note = st.text_input(
            "Why", max_chars=200, placeholder="Why? For the audit trail", disabled=not may,
            label_visibility="collapsed",
        )  # fmt: skip
        with st.container(horizontal=True, vertical_alignment="bottom"):
            watch = st.segmented_control(
                "Watch it for",
                _WATCHES,
                default="30m" if unjudged else _FOR_GOOD,
                required=True,
                disabled=not may,
                help="A staged change is taken back by itself if within that time more than "
                f"{limit:.1%} of the hits are wrong, your limit, or {Stage().max_errors:.1%} of "
                "the lookups fail. Otherwise it is confirmed at the end.",
            )
            sent = st.form_submit_button(
                "Apply to all replicas", type="primary", disabled=not may,
                help=page.visitor.why_not or None,
            )  # fmt: skip
    if page.visitor.why_not:
        quiet(page.visitor.why_not)
    if not (sent and may):
        return
    try:
        stage = None
        if watch not in {None, _FOR_GOOD}:
            stage = Stage.of(str(watch), limit, Stage().max_errors)
        change = page.source.tune(
            proposed, author=page.visitor.name, note=note,
            expected_version=estimates.tuning.version, stage=stage,
        )  # fmt: skip
    except TuningConflict as error:
        st.error(f"{error}. Reload the page.", icon=":material/sync_problem:")
    except GlasscacheError as error:
        st.error(plain(str(error)), icon=":material/block:")
    else:
        st.session_state[APPLIED] = change.version
        st.rerun()


def _expectation(estimates: Estimates, proposed: Mapping[str, Any]) -> list[str]:
    """Return the expected effects, a line each."""
    if not estimates.decisions:
        return []
    predicted = estimates.expected(proposed)
    then = estimates.proposed(proposed)
    now = estimates.at(estimates.tuning.semantic_threshold)
    lines = []
    for name, rate in predicted:
        of = "" if len(predicted) == 1 else f", by “{plain(title(name).partition(',')[0])}” alone"
        # the log may be of several thresholds: one replay is compared with another
        base = now.hit_rate if now and name == "semantic_threshold" else estimates.hit_rate
        if name == "max_wrong":
            base = estimates.shadow(proposed["max_wrong"]).hit_rate_now
        points = 100 * (rate - base)
        lines.append(_figure(f"Hit rate{of}", f"{rate:.1%}", points, "{:+.1f} points", good=1))
    if share := proposed.get("max_wrong"):
        lines += _policy(estimates.shadow(share))
    if unknown := estimates.unknown(proposed):
        names = ", ".join(plain(title(name)) for name in unknown)
        lines.append(f":gray[The effect of these cannot be estimated from past traffic: {names}.]")
    if len(predicted) > 1:
        lines.append(
            ":gray[Each value alone: a replay of this log cannot estimate combined effects.]"
        )
        return lines
    if then is not None and now is not None:
        lines += _threshold(estimates, then, now)
    return lines


def _policy(found: ShadowEstimate) -> list[str]:
    """Return what the learned policy would have done, a line for each part."""
    if not found.searched:
        why = "no recorded lookup says yet what it would have done"
        return [f":gray[The shadow of the policy is not warm: {why}.]"]
    known = f"By {found.searched:,} of {found.searched + found.unknown:,} semantic lookups"
    few = "" if found.enough else ": too few to rely on"
    return [
        _served("Newly served", found.newly),
        _served("Served as today", found.kept),
        f"No longer served: **{found.lost:,}**",
        f":small[:gray[{known}{few}.]]",
    ]


def _served(label: str, found: Judged) -> str:
    judged = f"{found.wrong:,} of {found.judged:,} judged were wrong"
    told = judged if found.judged else "no verdicts"
    return f"{label}: **{found.lookups:,}**" + (f", :gray[{told}]" if found.lookups else "")


def _threshold(estimates: Estimates, then: ThresholdEstimate, now: ThresholdEstimate) -> list[str]:
    share, high = then.wrong_share, then.wrong_high
    most = "no verdicts" if high is None else f"at most {high:.1%}"
    most += "" if then.enough or high is None else " so far"
    wrong = "not known" if share is None else f"{share:.2%}"
    lookups = max(1, then.lookups)
    return [
        _figure("Wrong hits", wrong, 0.0, most),
        _figure(
            "Saved per 1,000 lookups", f"{1000 * then.saved_usd / lookups:,.2f} USD",
            1000 * (then.saved_usd - now.saved_usd) / lookups, "{:+,.2f} USD", good=1,
        ),
        f":small[:gray[{plain(estimates.price)}]]",
        _figure(
            "Mean lookup, the cache alone", f"{then.latency_ms:.1f} ms",
            then.latency_ms - now.latency_ms, "{:+.1f} ms", good=-1,
        ),
    ]  # fmt: skip


def _figure(label: str, shown: str, change: float, form: str, *, good: int = 0) -> str:
    """Return a figure and its change as one line.

    Args:
        label: Its name.
        shown: Its value.
        change: Its change; one that would be shown as 0 is grey.
        form: Text of the change.
        good: Whether more is good (1), bad (-1), or neither (0).
    """
    text = form.format(change)
    is_none = not any(digit in "123456789" for digit in text.split(" ", 1)[0])
    colour = "gray" if not good or is_none else "green" if change * good > 0 else "orange"
    return f"{label}: **{shown}** :{colour}[{plain(text)}]"
