"""Who may read an answer: what the caller said, what the tuning says, and what forbids it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache_core.intent_tuning import INTENT_PATTERN
from cache_core.logs import RateLimited
from cache_core.models import Documents, Entry, Level, Query, Scope
from cache_core.personal import personal
from cache_core.tuning import Tuning

log = RateLimited(logging.getLogger("glasscache"))


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """What is to be put.

    Attributes:
        entry: Its parts; scope, generation and time are filled in on the way.
        scopes: Where each tier's part goes; a tier that is absent gets none.
        documents: Ids of the documents that the answer came from.
        tags: The caller's tags.
        by_policy: Tiers whose part is shared only because the tuning says so.
        withheld: Tiers whose part is private although the tuning would share it: it looks personal.
        candidate: Whether it becomes shared once enough users got the same.
    """

    entry: Entry
    scopes: Mapping[Level, Scope]
    documents: Sequence[str] = field(default=())
    tags: Sequence[str] = field(default=())
    by_policy: Collection[Level] = field(default=())
    withheld: Collection[Level] = field(default=())
    candidate: bool = False

    @property
    def for_everybody(self) -> bool:
        """Whether every user may read more of it than an intent label."""
        return any(scope == "shared" and level != "l3" for level, scope in self.scopes.items())


def admit(
    query: Query,
    entry: Entry,
    tuning: Tuning,
    *,
    shared: bool | None,
    share_documents: bool | None,
    user_id: str | None = None,
    names: Sequence[str] = (),
    documents: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> NewAnswer:
    """Return *entry* with who may read each part of it.

    What looks personal is not shared by policy, nor a candidate for it: it stays its user's. The
    caller's own `shared=True` is obeyed.

    Args:
        query: The message that it answers.
        entry: The answer.
        tuning: In force.
        shared, share_documents: What the caller said.
        user_id, names: By which a text is known to be about its user.
        documents, tags: By which it is to be found again.
    """
    scopes = choose_scopes(query, entry, tuning, shared, share_documents)
    by_policy: Collection[Level] = shared_by_policy(entry, scopes, shared, share_documents)
    candidate = (
        tuning.promote_after > 0 and shared is None and entry.response is not None
        and scopes.get("l1") == "user"
    )  # fmt: skip
    withheld: Collection[Level] = ()
    if (by_policy or candidate) and tuning.personal == "refuse":
        kind = personal(query.text, _texts(entry), user_id, names)
        if kind is not None:
            log.limited(
                f"personal {kind}",
                "an answer stays private, because it or its question looks personal (%s). "
                "put(shared=True) shares it all the same; the tuning personal='share' ends this "
                "check",
                kind,
            )
            candidate, withheld, by_policy = False, by_policy, ()
            scopes = {
                level: "user" if level in withheld else scope for level, scope in scopes.items()
            }
            if query.user is None:
                scopes = {level: scope for level, scope in scopes.items() if scope == "shared"}
    return NewAnswer(entry, scopes, documents, tags, by_policy, withheld, candidate)


def _texts(entry: Entry) -> list[str]:
    """Return every text that would be shared: response, free intent, and all in the documents."""
    texts = [] if entry.response is None else [entry.response]
    if entry.intent is not None and INTENT_PATTERN.fullmatch(entry.intent) is None:
        texts.append(entry.intent)
    waiting: list[Any] = [entry.rag_results or ()]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Mapping):
            # With its name before it: {"order": 48213} says what is a number of what.
            named = [(str(name), value) for name, value in item.items()]
            texts += [name.replace("_", " ") + ": " + str(value) for name, value in named
                      if isinstance(value, (str, int, float))]  # fmt: skip
            waiting += [value for _, value in named if not isinstance(value, (str, int, float))]
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif item is not None:
            texts.append(str(item))
    return texts


def choose_scopes(
    query: Query,
    entry: Entry,
    tuning: Tuning,
    shared: bool | None,
    share_documents: bool | None,
) -> dict[Level, Scope]:
    """Return who may read each part of *entry*.

    A response is private to its user unless somebody said that it may be shared; documents follow
    it; an intent label is shared, because it says nothing about anybody - if it looks like a label.
    Without a user only what is shared can be kept.
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
    """Return the tiers whose part is shared only because the tuning says so, not the caller.

    An intent that looks like a label is not among them: it is shared whatever the tuning says.
    """
    if shared is not None:
        return frozenset()
    label = entry.intent is not None and INTENT_PATTERN.fullmatch(entry.intent) is not None
    asked: dict[Level, bool] = {"l3": label, "l4": bool(share_documents)}
    return frozenset(
        level for level, scope in scopes.items() if scope == "shared" and not asked.get(level)
    )


def document_ids(documents: Documents | None) -> list[str]:
    """Return the ids that *documents* name: `id`, `source` or `metadata.source` of each."""
    found: dict[str, None] = {}
    for item in documents or ():
        if not isinstance(item, Mapping):
            continue
        metadata = item.get("metadata")
        nested = metadata.get("source") if isinstance(metadata, Mapping) else None
        for value in (item.get("id"), item.get("source"), nested):
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                found[str(value)] = None
    return list(found)
