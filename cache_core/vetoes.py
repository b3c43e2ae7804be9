"""What this process must not serve, whatever its generation: it was invalidated."""

from __future__ import annotations

import re
from typing import TypeAlias

from cache_core.models import Entry, Scope

_PLACE = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?", re.ASCII)

Place: TypeAlias = tuple[int, ...]
"""A position in a log, in an order."""


class Vetoes:
    """Messages and users whose invalidation is not confirmed yet.

    Attributes:
        messages: Tags of messages, for everybody.
        own: (message's tag, user) for one user's answers to a message.
        users: Users who are being forgotten.
        rows: Tags of messages whose rows may still be in the vector index: not served without their
            generation.
        unsure: Scopes in which similar questions are still to be found: any may be one of them.
        unlisted: Whether it is not known yet which messages a document or a tag has: an answer that
            the store cannot confirm may belong to one of them.
        labels: Of documents, tags and writers that anybody invalidated of late, by their digests:
            where in the log of invalidations, see `place`.
    """

    __slots__ = ("labels", "messages", "own", "rows", "unlisted", "unsure", "users")

    def __init__(self) -> None:
        self.messages: frozenset[str] = frozenset()
        self.own: frozenset[tuple[str, str]] = frozenset()
        self.users: frozenset[str] = frozenset()
        self.rows: frozenset[str] = frozenset()
        self.unsure: frozenset[Scope] = frozenset()
        self.unlisted = False
        self.labels: dict[str, Place] = {}

    def forbid(self, tag: str, scope: Scope, user: str | None) -> bool:
        """Whether an answer to a message must not be served, in a scope of *user*."""
        if tag in self.messages:
            return True
        if scope == "shared" or user is None:
            return False
        return user in self.users or (tag, user) in self.own

    def outdated(self, entry: Entry) -> bool:
        """Whether a label of *entry* was invalidated after it was put."""
        labels = self.labels
        if not labels or not entry.labels:
            return False
        known = place(entry.known)
        return any(labels.get(label, ()) > known for label in entry.labels)


def place(position: str) -> Place:
    """Return a log's position, as stores name them, so that a later one is larger."""
    try:
        return tuple(int(part) for part in position.split("-")) if position else ()
    except ValueError:
        return ()


def is_place(position: str) -> bool:
    """Whether *position* can be one of a log's, in any store."""
    return _PLACE.fullmatch(position) is not None
