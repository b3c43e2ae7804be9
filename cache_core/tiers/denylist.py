"""Denylist of entries whose invalidation is not confirmed yet."""

from __future__ import annotations

import re
from typing import TypeAlias

from cache_core.model.values import Entry, Scope

_PLACE = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?", re.ASCII)

Place: TypeAlias = tuple[int, ...]
"""Position in a log, comparable."""


class Denylist:
    """Messages and users whose invalidation is pending in this process.

    Attributes:
        is_pending: Whether any invalidation is.
        messages: Tags of messages, for everybody.
        own: (message's tag, user) for one user's answers to a message.
        users: Users who are being erased.
        rows: Tags of messages whose rows may still be in the vector index: not served without their
            generation.
        unsure: Scopes in which a search for similar questions is pending: any may be one of them.
        unlisted: True while the messages of a document or a tag are unknown: an answer that the
            store cannot confirm may belong to one of them.
        pending_labels: Digests of documents and tags whose invalidation no log holds yet.
        labels: Digests of documents, tags and writers that any process invalidated recently, with
            the invalidation's position in the journal, see `place`.
    """

    __slots__ = (
        "is_pending", "labels", "messages", "own", "pending_labels", "rows", "unlisted", "unsure",
        "users",
    )  # fmt: skip

    def __init__(self) -> None:
        self.is_pending = False
        self.messages: frozenset[str] = frozenset()
        self.own: frozenset[tuple[str, str]] = frozenset()
        self.users: frozenset[str] = frozenset()
        self.rows: frozenset[str] = frozenset()
        self.unsure: frozenset[Scope] = frozenset()
        self.unlisted = False
        self.pending_labels: frozenset[str] = frozenset()
        self.labels: dict[str, Place] = {}

    def held(self) -> Denylist | None:
        """Return what is denied now, for an answer that is read from here on; `None` for nothing.

        A step may be confirmed between the read of an old generation and its judgement, which then
        finds nothing denied any more: both must allow an answer.
        """
        if not self.is_pending:
            return None
        now = Denylist()
        now.is_pending = True
        now.messages, now.own, now.users = self.messages, self.own, self.users
        now.rows, now.unsure, now.unlisted = self.rows, self.unsure, self.unlisted
        now.pending_labels = self.pending_labels
        return now

    def denies(self, entry: Entry, tag: str, scope: Scope, user: str | None) -> bool:
        """Return whether *entry* must not be served.

        Args:
            entry: The entry, in a scope of *user*.
            tag: Its message's.
            scope: Its scope.
            user: Digest of the reader's scope.
        """
        if not (self.is_pending or self.labels):
            return False
        if tag in self.messages:
            return True
        if scope == "user" and (user in self.users or (tag, user) in self.own):
            return True
        return self.outdated(entry)

    def outdated(self, entry: Entry) -> bool:
        """Return whether a label of *entry* was invalidated, or its writer is being erased."""
        if self.users and entry.writer in self.users:
            return True
        labels = self.labels
        if not entry.labels or not (labels or self.pending_labels):
            return False
        if not self.pending_labels.isdisjoint(entry.labels):
            return True
        known = place(entry.known)
        return any(labels.get(label, ()) > known for label in entry.labels)


def place(position: str) -> Place:
    """Return a store's log position as a value that grows with later ones."""
    try:
        return tuple(int(part) for part in position.split("-")) if position else ()
    except ValueError:
        return ()


def is_place(position: str) -> bool:
    """Return whether *position* is a valid log position in any store."""
    return _PLACE.fullmatch(position) is not None
