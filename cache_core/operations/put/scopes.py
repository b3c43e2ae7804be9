"""Scopes of an answer: from the caller's arguments, the tuning and the check for personal data."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache_core.config.intents import INTENT_PATTERN
from cache_core.config.tuning import Tuning
from cache_core.model.logs import RateLimited
from cache_core.model.question.users import without_spelling
from cache_core.model.tasks import off_loop
from cache_core.model.values import Entry, Level, Query, Scope
from cache_core.operations.answers import How
from cache_core.operations.put.personal import Kind, numbering, personal

_AT_ONCE = 1_000
"""Characters checked on the event loop: 1 ms, and 3 for each telephone number."""

_NAME = 60
"""Characters kept of a value's path of names."""

_STRICTER = (
    ". All that looks like a phone number counts as a person's, because phonenumbers is not "
    "installed: pip install 'glasscache[personal]'"
)

log = RateLimited(logging.getLogger("glasscache"))


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """Answer to put.

    Attributes:
        entry: Its parts; scope, generation and time are filled in later.
        scopes: Scope of each tier's part; an absent tier gets none.
        documents: Ids of the documents that the answer came from.
        tags: The caller's tags.
        by_policy: Tiers whose part is shared only by the tuning.
        withheld: Tiers whose part is private although the tuning would share it: it looks personal.
        votes: Whether it counts for, or against, an answer that enough users got.
        candidate: Whether it becomes shared once enough users got the same.
        withdrew: Whether it took another answer back from everybody.
        left_out: Reasons of the tiers whose part cannot be stored and is not in the entry.
        voter: The user's id, in the form in which each has one vote.
        labels: Kind and digest of more documents and tags, whose names are unknown.
        restored: Whether it is an older answer from elsewhere: its entry keeps its time, and
            replaces nothing of its user.
    """

    entry: Entry
    scopes: Mapping[Level, Scope]
    documents: Sequence[str] = field(default=())
    tags: Sequence[str] = field(default=())
    by_policy: Collection[Level] = field(default=())
    withheld: Collection[Level] = field(default=())
    votes: bool = False
    candidate: bool = False
    left_out: Mapping[Level, str] = field(default_factory=dict)
    voter: str = field(default="", repr=False)
    labels: Sequence[tuple[str, str]] = field(default=())
    restored: bool = False
    withdrew: bool = False

    @property
    def for_everybody(self) -> bool:
        """True if every user may read more of it than an intent label."""
        return any(scope == "shared" and level != "l3" for level, scope in self.scopes.items())


async def admit(
    query: Query,
    entry: Entry,
    tuning: Tuning,
    how: How,
    *,
    user_id: str | None,
    documents: Sequence[str],
    left_out: Mapping[Level, str],
) -> NewAnswer:
    """Return *entry* with the scope of each part.

    An answer that looks personal is neither shared by policy nor a candidate: it stays its user's.
    The caller's own `shared=True` is obeyed; but an answer that renews a shared one was computed
    for a user who did not allow sharing, and stays theirs if it looks personal.

    Args:
        query: The message that it answers.
        entry: The answer.
        tuning: The tuning in force.
        how: The caller's arguments about the answer.
        user_id: The user's id; with the names in *how* it shows that a text is about its user.
        documents: Ids by which it is found again, besides the tags in *how*.
        left_out: Tiers whose part cannot be stored; it is empty in *entry*.
    """
    shared, share_documents, names = how.shared, how.share_documents, how.personal
    scopes = choose_scopes(query, entry, tuning, shared, share_documents)
    said = None if how.renewed else shared
    by_policy: Collection[Level] = shared_by_policy(entry, scopes, said, share_documents)
    # An answer within a conversation belongs to it.
    votes = (
        tuning.votes and query.user is not None and not query.history
        and entry.response is not None and scopes.get("l1") == "user" and "l1" not in left_out
    )  # fmt: skip
    candidate = votes and shared is None and tuning.promotes(entry.intent)
    withheld: Collection[Level] = ()
    if (by_policy or candidate) and tuning.personal == "refuse":
        kind = await looks_personal(query.text, entry, user_id, names)
        if kind is not None:
            log.limited(
                f"personal {kind}",
                "an answer stays private, because it or its question looks personal (%s). "
                "put(shared=True) shares it anyway; the tuning personal='share' ends this "
                "check%s",
                kind,
                _STRICTER if kind == "phone" and not numbering.is_installed() else "",
            )
            candidate, withheld, by_policy = False, by_policy, ()
            scopes = {
                level: "user" if level in withheld else scope for level, scope in scopes.items()
            }
            if query.user is None:
                scopes = {level: scope for level, scope in scopes.items() if scope == "shared"}
    if how.renewed:
        by_policy = ()
    voter = without_spelling(user_id or "")
    return NewAnswer(
        entry, scopes, documents, how.tags, by_policy, withheld, votes, candidate, left_out, voter
    )


async def looks_personal(
    question: str, entry: Entry, user_id: str | None = None, names: Sequence[str] = ()
) -> Kind | None:
    """Return the kind of personal data found; long texts are checked in a thread."""
    answers = _texts(entry)
    if numbering.are_loaded() and len(question) + sum(map(len, answers)) <= _AT_ONCE:
        return personal(question, answers, user_id, names)
    return await off_loop(personal, question, answers, user_id, names)


def _texts(entry: Entry) -> list[str]:
    """Return all texts that would be shared: response, free intent, and those in the documents."""
    texts = [] if entry.response is None else [entry.response]
    if entry.intent is not None and INTENT_PATTERN.fullmatch(entry.intent) is None:
        texts.append(entry.intent)
    waiting: list[tuple[str, Any]] = [("", entry.rag_results or ())]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, Mapping):
            # With its path of names: {"order": {"id": 48213}} shows that the number is an order's.
            waiting += [(f"{name} {part}"[-_NAME:], value) for part, value in item.items()]
        elif isinstance(item, (list, tuple)):
            waiting += [(name, value) for value in item]
        elif item is not None:
            texts.append(f"{name}: {item}" if name else str(item))
    return texts


def choose_scopes(
    query: Query,
    entry: Entry,
    tuning: Tuning,
    shared: bool | None,
    share_documents: bool | None,
) -> dict[Level, Scope]:
    """Return the scope of each part of *entry*.

    A response is private to its user unless the caller or the tuning shares it; documents follow
    it; an intent is shared if it looks like a label, because that says nothing about a user.
    Without a user only shared parts are kept.
    """
    sharing = tuning.shares(entry.intent) if shared is None else shared
    answer: Scope = "shared" if sharing else "user"
    scopes: dict[Level, Scope] = {}
    if entry.response is not None:
        scopes["l1"] = scopes["l2"] = answer
    if entry.intent is not None:
        label = INTENT_PATTERN.fullmatch(entry.intent) is not None and shared is not False
        scopes["l3"] = "shared" if label or sharing else "user"
    if entry.rag_results is not None:
        scopes["l4"] = "shared" if share_documents else answer
        if share_documents is False:
            scopes["l4"] = "user"
    if query.user is None:
        return {level: scope for level, scope in scopes.items() if scope == "shared"}
    return scopes


def shared_by_policy(
    entry: Entry,
    scopes: Mapping[Level, Scope],
    shared: bool | None,
    share_documents: bool | None,
) -> frozenset[Level]:
    """Return the tiers whose part is shared by the tuning, not by the caller.

    An intent that looks like a label is not among them: it is always shared.
    """
    if shared is not None:
        return frozenset()
    label = entry.intent is not None and INTENT_PATTERN.fullmatch(entry.intent) is not None
    asked: dict[Level, bool] = {"l3": label, "l4": bool(share_documents)}
    return frozenset(
        level for level, scope in scopes.items() if scope == "shared" and not asked.get(level)
    )
