"""What was invalidated here while a backend was away: not served by this process meanwhile."""

from __future__ import annotations

from cache_core.models import Scope


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
    """

    __slots__ = ("messages", "own", "rows", "unlisted", "unsure", "users")

    def __init__(self) -> None:
        self.messages: frozenset[str] = frozenset()
        self.own: frozenset[tuple[str, str]] = frozenset()
        self.users: frozenset[str] = frozenset()
        self.rows: frozenset[str] = frozenset()
        self.unsure: frozenset[Scope] = frozenset()
        self.unlisted = False

    def forbid(self, tag: str, scope: Scope, user: str | None) -> bool:
        """Whether an answer to a message must not be served, in a scope of *user*."""
        if tag in self.messages:
            return True
        if scope == "shared" or user is None:
            return False
        return user in self.users or (tag, user) in self.own
