"""Page *Review*: pairs of questions, each judged by one key press."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from cache_core.observability.decisions import Decision
from cache_core.observability.verdicts import Verdict
from cache_core.whatif.threshold import needed
from dashboard import charts
from dashboard.data import queue
from dashboard.data.words import SourceUnavailableError, ago, plain
from dashboard.data.worth import in_words, worth
from dashboard.ui.access import has_left
from dashboard.ui.shell import Page, empty, open_page, quiet, read_first, show, telling

_LIMIT = 0.01
# characters of an answer that scrolls, so that the buttons stay on the screen
_LONG = 900
_TALLEST = 200
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true"


class Given(NamedTuple):
    """Verdict that the visitor gave.

    Attributes:
        item: The lookup judged.
        recorded: Whether it was recorded; not if it was undecided.
    """

    item: Decision
    recorded: bool


def review(page: Page) -> None:
    """Draw the page; a key press redraws only its fragment, so the next pair comes immediately."""
    chosen = st.segmented_control(
        "Pairs", queue.ORDERS, default=queue.ORDERS[0], required=True,
        format_func=lambda name: name.capitalize(), key="order", bind="query-params",
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
        quiet(in_words(worth(decisions, verdicts, readable[0]), _LIMIT))
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
    if not readable and _last():
        _take_back(page)
    _evidence(page, verdicts, threshold)


def _evidence(page: Page, verdicts: Sequence[Verdict], threshold: float) -> None:
    """Show the amount of evidence."""
    judged = [item for item in verdicts if item.similarity is not None]
    st.header("Evidence so far", anchor=False)
    if not judged:
        empty("No verdict yet.", "Each verdict on a pair, by a user or here, counts.")
        return
    mine = sum(item.recorded for item in st.session_state.get("given", ()))
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
            quiet("The answer")
            with st.container(height=_TALLEST if len(item.response_text) > _LONG else "content"):
                st.text(item.response_text)
        st.markdown("**Would this answer be right for what was asked?**")
        may = page.visitor.may_write
        with st.container(horizontal=True):
            # a key per pair, so that a press never judges the next pair; all look alike: a coloured
            # one would ask for its verdict
            for label, key, verdict in (
                ("Same question", "S", True),
                ("Different", "D", False),
                ("Undecided", "U", None),
            ):
                st.button(
                    label,
                    key=f"{key}{item.lookup_id}",
                    shortcut=key,
                    disabled=not may and verdict is not None,
                    on_click=_judge,
                    args=(page, item, verdict),
                )
            if _last():
                _take_back(page)
        pairs = "This is the last pair" if left == 1 else f"{left:,} pairs left"
        quiet(f"{pairs}. Keys: S, D, U; Z takes the last verdict back.")
        if not may:
            quiet(page.visitor.why_not)


def _last() -> Given | None:
    """Return the visitor's last verdict that was not taken back."""
    given: list[Given] = st.session_state.setdefault("given", [])
    return given[-1] if given else None


def _take_back(page: Page) -> None:
    # a key per verdict, so that one press takes back one
    number = len(st.session_state["given"])
    st.button("Take back", key=f"Z{number}", shortcut="Z", on_click=_undo, args=(page, number))


def _judge(page: Page, item: Decision, correct: bool | None) -> None:
    skipped: set[tuple[str, str]] = st.session_state.setdefault("skipped", set())
    # the pair, not the lookup: another lookup of it must not bring it back
    pair = (item.message, item.matched)
    if pair in skipped:
        # Streamlit repeats a press that interrupts a run: one press is one verdict
        return
    if has_left(page.visitor):
        return
    recorded = correct is not None and page.visitor.may_write
    if recorded:
        try:
            page.source.judge(item, correct=bool(correct), author=page.visitor.name)
        except SourceUnavailableError as error:
            st.session_state["review_problem"] = str(error)
            return
    skipped.add(pair)
    st.session_state["given"].append(Given(item, recorded))


def _undo(page: Page, number: int) -> None:
    given: list[Given] = st.session_state["given"]
    if len(given) != number or has_left(page.visitor):
        return
    last = given[-1]
    if last.recorded:
        try:
            page.source.withdraw(last.item, author=page.visitor.name)
        except SourceUnavailableError as error:
            st.session_state["review_problem"] = str(error)
            return
    given.pop()
    st.session_state["skipped"].discard((last.item.message, last.item.matched))


review(open_page("Review", "The same question or not? Your verdicts show which threshold is safe."))
