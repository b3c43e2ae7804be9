"""Page *Review*: pairs of questions, each judged by one key press."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from cache_core.whatif.threshold import needed
from dashboard import charts
from dashboard.data import queue
from dashboard.data.words import SourceAwayError, ago, plain
from dashboard.ui.shell import Page, empty, open_page, quiet, read_first, show, telling

_LIMIT = 0.01
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true"


def review(page: Page) -> None:
    """Draw the page; a key press redraws only its fragment, so the next pair comes immediately."""
    chosen = st.segmented_control(
        "Pairs", queue.ORDERS, default=queue.ORDERS[0], required=True,
        format_func=lambda name: name.capitalize(), key="order",
    )  # fmt: skip
    order = chosen or queue.ORDERS[0]
    read_first(page)

    @st.fragment
    def live() -> None:
        with telling():
            _next(page, order)

    live()


def _next(page: Page, order: queue.Order) -> None:
    decisions = page.source.recorded().decisions
    verdicts = page.source.verdicts()
    threshold = page.source.tuning().semantic_threshold
    skipped: set[tuple[str, str]] = st.session_state.setdefault("skipped", set())
    pairs = queue.unjudged(decisions, verdicts, threshold=threshold, order=order, skipped=skipped)
    readable = queue.readable(pairs)
    if problem := st.session_state.pop("review_problem", None):
        st.error(problem, icon=":material/cloud_off:")
    if readable:
        _pair(page, readable[0], len(readable))
    elif pairs:
        empty(
            f"{len(pairs):,} pairs could be judged, but their texts were not recorded.",
            "Texts are private unless you say otherwise. Start your agent with "
            f"`{_CAPTURE}`, and pairs from then on can be read and judged here.",
        )
    else:
        empty(
            "There is nothing to judge.",
            "Pairs appear when L2 serves an answer to another question, or nearly does. "
            f"To read them here, your agent needs `{_CAPTURE}`.",
        )
    _evidence(page, verdicts, threshold)


def _evidence(page: Page, verdicts: Sequence[Verdict], threshold: float) -> None:
    """Show the amount of evidence."""
    judged = [item for item in verdicts if item.similarity is not None]
    st.subheader("Evidence so far", anchor=False)
    if not judged:
        empty("No verdict yet.", "Judge the first pair above.")
        return
    mine = st.session_state.get("reviewed", 0)
    reviews = sum(item.source == "review" for item in verdicts)
    pairs = len({(item.message, item.matched, item.user) for item in judged})
    least = needed(_LIMIT)
    st.progress(
        min(1.0, pairs / least),
        f"{pairs:,} different pairs judged. You need at least {least:,}, spread across the "
        f"similarity range, before a limit of {_LIMIT:.0%} wrong hits can be recommended.",
    )
    quiet(f"Verdicts: {len(verdicts):,}, of them reviews: {reviews:,}, yours just now: {mine:,}.")
    show(charts.evidence(queue.by_similarity(judged), threshold, page.look), "evidence")


def _pair(page: Page, item: Decision, left: int) -> None:
    served = item.outcome == "hit"
    similarity = item.unvetoed or 0.0
    with st.container(border=True, key="pair"):
        state = ":blue-badge[was served]" if served else ":gray-badge[was not served]"
        st.markdown(
            f"Similarity **{similarity:.4f}**, threshold {item.threshold:g} {state} "
            f"· {ago(item.at)}" + (f" · intent {plain(item.intent)}" if item.intent else "")
        )
        one, other = st.columns(2, gap="medium")
        with one:
            quiet("Asked")
            st.text(item.message_text)
        with other:
            quiet("The answer is to")
            st.text(item.matched_text)
        if item.response_text:
            with st.expander("The answer"):
                st.text(item.response_text)
        st.markdown("**Would this answer be right for what was asked?**")
        disabled = not page.visitor.may_write
        why = page.visitor.why_not or None
        with st.container(horizontal=True):
            # a key per pair, so that a press never judges the next pair
            for label, key, verdict in (
                ("Same question", "S", True),
                ("Different", "D", False),
                ("Undecided", "U", None),
            ):
                st.button(
                    label,
                    key=f"{key}{item.lookup_id}",
                    shortcut=key,
                    disabled=disabled and verdict is not None,
                    help=why,
                    type="primary" if verdict else "secondary",
                    on_click=_judge,
                    args=(page, item, verdict),
                )
        quiet(f"{left:,} pairs left. Keys: S, D, U.")


def _judge(page: Page, item: Decision, correct: bool | None) -> None:
    skipped: set[tuple[str, str]] = st.session_state.setdefault("skipped", set())
    # the pair, not the lookup: another lookup of it must not bring it back
    pair = (item.message, item.matched)
    if pair in skipped:
        # Streamlit repeats a press that interrupts a run: one press is one verdict
        return
    skipped.add(pair)
    if correct is None or not page.visitor.may_write:
        return
    try:
        page.source.judge(item, correct=correct, author=page.visitor.name)
        st.session_state["reviewed"] = st.session_state.get("reviewed", 0) + 1
    except SourceAwayError as error:
        st.session_state["review_problem"] = str(error)


review(open_page("Review", "The same question or not? Your verdicts show which threshold is safe."))
