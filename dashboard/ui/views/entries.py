"""Page *Entries*: each tier's answer to a message, and invalidation."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from cache_core.model.reasons import short
from cache_core.model.values import LEVELS, Level, TierExplanation
from cache_core.operations.explain import duration
from cache_core.operations.inspect import StoredEntry
from cache_core.operations.invalidate.outbox import RequestKind
from dashboard.data.figures import TIER_NAMES
from dashboard.data.questions import ORDERS, csv, questions
from dashboard.data.words import plain
from dashboard.ui.shell import Page, empty, open_page, quiet, telling

_COLOURS = {"hit": "green", "miss": "gray", "error": "red", "off": "gray"}
_KINDS: dict[RequestKind, tuple[str, str]] = {
    "message": (
        "Message",
        "This message's answers for every user and context, plus close matches.",
    ),
    "document": ("Document id", "Every answer made from this document."),
    "tag": ("Tag", "Every answer put with this tag."),
    "writer": ("Writer", "Everything that this user's lookups stored, private or shared."),
    "user": ("User id", "Everything of this user, erased permanently."),
}


def entries(page: Page) -> None:
    """Draw the page."""
    with telling():
        _find(page)
    with telling():
        _top(page)
    st.header("Invalidate answers", anchor=False)
    with telling():
        _invalidate(page)


def _find(page: Page) -> None:
    with st.form("find"):
        message = st.text_input("Message", placeholder="What the user says", max_chars=2_000)
        left, right = st.columns(2)
        user = left.text_input("User id", help="Empty: only shared answers.")
        context = right.text_input("Context", help="The agent's context: text or JSON.")
        sent = st.form_submit_button("Explain", type="primary")
    if sent:
        st.session_state["asked"] = (message, user, context)
    asked = st.session_state.get("asked")
    if not asked or not asked[0].strip():
        empty(
            "What would the cache say?",
            "Enter a message to see what each tier would answer, and why. Nothing is counted. The "
            "first time takes a few seconds: the embedding model is loaded.",
        )
        return
    message, user, context = asked
    try:
        given = _context(context)
    except ValueError as error:
        st.error(plain(f"The context looks like JSON but is not: {error}"), icon=":material/error:")
        return
    st.markdown(f"**{plain(message)}**")
    with st.spinner("asking every tier"):
        found = page.source.explain(message, user or None, given)
        counted = page.source.count("message", message)
        stored = page.source.entries(message)
    answering = next((item.level for item in found[:2] if item.outcome == "hit"), None)
    for row in (found[:2], found[2:]):
        for item, column in zip(row, st.columns(2), strict=True):
            with column:
                _tier(item, answering)
    if answering is None:
        quiet("No tier answers: the agent would compute the answer.")
    where = "no entry" if not counted.removed else f"**{counted.removed:,} entries**"
    st.markdown(
        f"Stored for this message, or for one that means the same: {where}, of all users and tiers."
    )
    if not counted.complete:
        st.warning(
            "Not all of it could be counted: a backend is unavailable.", icon=":material/warning:"
        )
    if stored:
        _stored(page, stored)


def _stored(page: Page, found: list[StoredEntry]) -> None:
    """List the entries of this message and its variants in case, space and final signs."""
    quiet("Of these, the entries for this message, in any letter case and with any final sign:")
    rows = [
        {
            "tier": TIER_NAMES[item.level],
            "for": item.scope + (", a follow-up" if item.follow_up else ""),
            "intent": "cannot be read" if item.locked else item.intent,
            "age": duration(item.age_seconds),
            "expires": _expiry(item),
            **({"holds": item.text} if page.source.captures else {}),
        }
        for item in found
    ]
    st.dataframe(
        rows,
        hide_index=True,
        alt="Entries for this message: tier, for whom, intent, age and expiry",
        column_config={"holds": st.column_config.TextColumn(width="large")},
    )
    if locked := sum(item.locked for item in found):
        named = "1 entry" if locked == 1 else f"{locked:,} entries"
        st.warning(
            f"{named} cannot be read with the encryption keys of this app. Start it with the "
            "`CACHE_ENCRYPTION_KEYS` of your agent.",
            icon=":material/lock:",
        )
    if not page.source.captures:
        quiet(
            "What the entries hold is not shown: this app was started without "
            "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`."
        )


def _expiry(item: StoredEntry) -> str:
    if item.ttl_seconds is None:
        return "not known"
    return "expired" if item.expired else f"in {duration(item.ttl_seconds - item.age_seconds)}"


def _tier(item: TierExplanation, answering: Level | None) -> None:
    """Draw one tier.

    Args:
        item: What it would say.
        answering: The tier that answers; those after it are not asked. `None` if none does.
    """
    answers = item.level == answering
    spared = answering is not None and LEVELS.index(item.level) > LEVELS.index(answering)
    with st.container(border=True, height="stretch"):
        why = f": {short(item.reason)}" if item.reason else ""
        what = "answers" if answers else f"{item.outcome}{why}"
        colour = "gray" if spared else _COLOURS[item.outcome]
        badges = f":{colour}-badge[{what}]" + (" :gray-badge[not asked]" if spared else "")
        st.markdown(f"**{TIER_NAMES[item.level]}** {badges}")
        st.text(item.detail[:1].upper() + item.detail[1:] + ".")


def _top(page: Page) -> None:
    """List the most frequent questions; a chosen one is explained above."""
    st.header("Most frequent questions", anchor=False)
    if not page.source.captures:
        quiet(
            "Which they are is not shown: this app was started without "
            "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`."
        )
        return
    order = st.segmented_control(
        "Sort by", ORDERS, default=ORDERS[0], required=True, key="questions", bind="query-params",
        format_func=lambda name: name.capitalize(),
    )  # fmt: skip
    found = questions(page.source.recorded().decisions, order or ORDERS[0])
    if found.empty:
        empty(
            "No recorded lookup has a text, or none fits.",
            "Texts are private unless your agent captures them: start it with "
            "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`.",
        )
        return
    quiet(
        "Of the lookups in the log. What is often asked and unanswered is worth warming "
        "(`glasscache warm`), or an entry in your FAQ. Choose a row to explain it above."
    )
    chosen = st.dataframe(
        found,
        hide_index=True,
        height=320,
        on_select="rerun",
        selection_mode="single-row",
        key=f"top_{order}",
        alt="Most frequent questions: how often asked, answered and unanswered, money saved, users",
        column_config={
            "question": st.column_config.TextColumn(width="medium"),
            "saved_usd": st.column_config.NumberColumn("saved", format="%.2f USD"),
        },
    )
    rows = chosen["selection"]["rows"]
    picked = str(found["question"].iloc[rows[0]]) if rows else None
    if picked and st.session_state.get("picked") != picked:
        st.session_state["picked"] = picked
        st.session_state["asked"] = (picked, "", "")
        st.rerun()
    st.download_button(
        "Export as CSV", csv(found), "questions.csv", "text/csv", icon=":material/download:"
    )


def _context(text: str) -> Any:
    if not text.strip():
        return None
    return json.loads(text) if text.lstrip().startswith("{") else text


def _invalidate(page: Page) -> None:
    done = st.session_state.pop("invalidated", None)
    if done:
        st.success(done, icon=":material/check_circle:")
    kind: RequestKind = st.segmented_control(
        "By", list(_KINDS), default="message", required=True,
        format_func=lambda name: _KINDS[name][0], key="kind",
    ) or "message"  # fmt: skip
    label, about = _KINDS[kind]
    with st.form("count"):
        value = st.text_input(label, key=f"value_{kind}", max_chars=2_000)
        user = None
        if kind == "message":
            user = st.text_input("Only of this user id", help="Empty: of all users.") or None
        quiet(about)
        counted = st.form_submit_button("Count matching entries")
    if counted and not value.strip():
        st.error(f"{label}: this is needed.", icon=":material/block:")
    elif counted:
        with st.spinner("counting"):
            found = page.source.count(kind, value, user)
        st.session_state["counted"] = (kind, value, user, found.removed, found.complete)
    known = st.session_state.get("counted")
    if known is None or known[:3] != (kind, value, user):
        return
    removed, complete = known[3:]
    with st.container(border=True):
        if removed:
            st.markdown(f"Would invalidate **{removed:,} entries**.")
        else:
            st.markdown(
                "**Nothing is stored** for it. Answers being computed are invalidated anyway."
            )
        if not complete:
            st.warning("A backend is unavailable: there may be more.", icon=":material/warning:")
        note = st.text_input("Why", key="invalidate_note", max_chars=200)
        pressed = st.button(
            ("Erase" if kind == "user" else "Invalidate")
            + (f" {removed:,} entries" if removed else ""),
            type="primary",
            disabled=not page.visitor.may_write,
            help=page.visitor.why_not or None,
        )
        if page.visitor.why_not:
            quiet(page.visitor.why_not)
    if pressed and page.visitor.may_write:
        with st.spinner("invalidating"):
            result = page.source.invalidate(
                kind, value, user=user, author=page.visitor.name, note=note
            )
        st.session_state.pop("counted", None)
        text = f"{result.removed:,} entries are invalidated on every replica."
        erased = ", ".join(f"{count:,} {what}" for what, count in result.counts.items() if count)
        if erased:
            text += f" Erased: {erased}."
        if not result.complete:
            text += (
                " Not complete: a backend is unavailable; it is tried again while this app runs."
            )
        st.session_state["invalidated"] = text
        st.rerun()


entries(open_page("Entries", "What is stored for a message, and why it is served or not."))
