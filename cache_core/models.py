"""The values that flow through a lookup: all frozen, none knows a backend.

Those that every lookup makes are tuples: a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from cache_core.exceptions import ErrorReason

Level = Literal["l1", "l2", "l3", "l4"]
LEVELS: tuple[Level, ...] = ("l1", "l2", "l3", "l4")

Outcome = Literal["hit", "partial", "miss", "error", "bypass"]
"""How a lookup ended: with a response, with only intent or documents, with nothing, with nothing
because a tier failed, or not asked at all."""
OUTCOMES: tuple[Outcome, ...] = ("hit", "partial", "miss", "error", "bypass")

MissReason = Literal[
    "cold",  # nothing was ever stored here, or it is physically gone
    "expired",  # stored, but older than its TTL
    "invalidated",  # stored before somebody invalidated it, or its generation was evicted
    "other_scope",  # somebody else has an answer that this user may not see
    "below_threshold",  # a neighbour exists, but it is not similar enough
    "guard_veto",  # similar enough, but a guard says that it asks something else
    "has_history",  # a follow-up means nothing without its history: not searched by similarity
    "truncated",  # longer than the embedding model reads
    "unreadable",  # parts of it are unknown to the embedding model, which cannot tell them apart
    "context_limit",  # more distinct contexts than a namespace may have vector indexes
    "warming",  # the model is still loading
    "corrupt",  # what was stored could not be read, and was deleted
]
BypassReason = Literal["empty", "too_large", "disabled", "no_user"]
NotStored = Literal[
    "", "queued", "has_history", "truncated", "unreadable", "context_limit", "overloaded"
]
"""Why a tier did not store what it was offered; empty when it did."""

PUT_REASONS: tuple[str, ...] = (
    "queued", "has_history", "truncated", "unreadable", "context_limit", "overloaded",
    "invalidated",  # computed before its message was invalidated
    "rate_limited",  # its user wrote too much
    "personal",  # stored, but private: it looks personal, and only the tuning would share it
    "promoted",  # stored for everybody: enough users got the same
    "timeout", "backend_error", "breaker_open", "isolation",
)  # fmt: skip
"""What there is to say of a tier's part of a put."""

Source = Literal["put", "warm", "promotion"]
"""How an answer came to be stored: by the agent, by an operator, or shared by enough users."""

Reason: TypeAlias = MissReason | ErrorReason | BypassReason | Literal["", "unconfirmed"]

MISS_REASONS: tuple[MissReason, ...] = (
    "cold", "expired", "invalidated", "other_scope", "below_threshold", "guard_veto",
    "has_history", "truncated", "unreadable", "context_limit", "warming", "corrupt",
)  # fmt: skip
ERROR_REASONS: tuple[ErrorReason, ...] = (
    "timeout", "backend_error", "breaker_open", "overloaded", "isolation",
)  # fmt: skip

Scope = Literal["user", "shared"]
"""Who may read an entry: its own user, or everybody in the namespace."""

Turn: TypeAlias = str | Mapping[str, Any]
"""One earlier turn of a conversation: its text, or `{"role": ..., "content": ...}`."""

Context: TypeAlias = str | Mapping[str, Any] | None
"""What else shaped the answer and rarely changes: system prompt, model, tools, locale."""

Documents: TypeAlias = Sequence[Any]
"""What retrieval returned for a message: any JSON values."""


class Where(NamedTuple):
    """What a message belongs to besides its user, as callers give it."""

    context: Context = None
    history: Sequence[Turn] | None = None
    standalone: str | None = None


class Query(NamedTuple):
    """A message with everything that decides which entries answer it, as digests.

    Attributes:
        text: What is embedded: the message, or its standalone form.
        tag: Digest of namespace and normalised message; names the message's generation.
        user: Digest of the user's scope; `None` without a user.
        shared: Digest of the shared scope.
        context: Digest of the context.
        history: Digest of the earlier turns; empty without any.
        grace: Seconds past its TTL that a response may be and still answer it.
    """

    text: str
    tag: str
    user: str | None
    shared: str
    context: str
    history: str
    grace: float = 0.0

    def scope(self, scope: Scope) -> str:
        """Return the digest of *scope*; raise `ValueError` for a user's scope without a user."""
        if scope == "shared":
            return self.shared
        if self.user is None:
            msg = "a query without a user has no user scope"
            raise ValueError(msg)
        return self.user

    @property
    def readable(self) -> tuple[str, ...]:
        """The digests of the scopes that this query may read, its own first."""
        return (self.shared,) if self.user is None else (self.user, self.shared)


class Entry(NamedTuple):
    """What one tier stores for one message.

    Attributes:
        response: What the agent said.
        intent: The label of the message.
        rag_results: The retrieved documents.
        message: The message itself; only L2 keeps it, because guards compare texts.
        cost_usd: What computing this answer cost, in USD; `None` for the tuning's price.
        created: The store's clock, in seconds, when it was put.
        ttl: The entry's own TTL in seconds; `None` for the tuning's.
        generation: The message's generation token that it was computed under.
        scope: Digest of the scope that may read it.
        writer: Digest of the user who wrote it; empty when nobody in particular did.
        by_policy: Whether it is shared only because the tuning said so when it was put: others get
            it only while the tuning still does.
        source: How it came to be stored.
        replica: Name of the process that stored it; empty in entries of older versions.
        known: Up to where the log of invalidations was known when it was put.
        labels: Digests of the documents, tags and writer that it goes with: one that was
            invalidated since takes it along, even if the index of its messages was lost.
        writer_token: Token of everything that is its writer's, when it was put: another one since
            shows that they were forgotten. On the way to a store only; no store keeps it.
    """

    response: str | None = None
    intent: str | None = None
    rag_results: Documents | None = None
    message: str | None = None
    cost_usd: float | None = None
    created: float = 0.0
    ttl: float | None = None
    generation: str = ""
    scope: str = ""
    writer: str = ""
    by_policy: bool = False
    source: Source = "put"
    replica: str = ""
    known: str = ""
    labels: tuple[str, ...] = ()
    writer_token: str | None = None

    def withheld(self, user: str | None, *, shares: bool, promotes: bool) -> bool:
        """Whether *user* must not get it, as the policy that shared it is no longer in force.

        Args:
            user: Who asks.
            shares: Whether the tuning shares such an answer.
            promotes: Whether it still shares what enough users got.
        """
        if not self.by_policy or shares or (promotes and self.source == "promotion"):
            return False
        return user is None or user != self.writer


class Generation(NamedTuple):
    """The tokens under which something is stored, or read, for a message and a user.

    Replacing one takes everything out of service that was stored, or is being computed, under it.

    Attributes:
        message: Of the message, everybody's; `None` before its first put.
        own: Of this user's answers to this message; `None` unless they were invalidated.
        user: Of everything that is this user's; `None` unless they were forgotten.
    """

    message: str | None
    own: str | None = None
    user: str | None = None

    def stamp(self, scope: Scope) -> str | None:
        """Return what an entry of *scope* must carry to be served; `None` if nothing can."""
        if self.message is None or scope == "shared" or (self.own is None and self.user is None):
            return self.message
        return f"{self.message}/{self.own or ''}/{self.user or ''}"

    @property
    def invalidated(self) -> str:
        """Return the tokens that invalidations gave; empty when there was none."""
        message = self.message if self.message and self.message.startswith("i") else ""
        return f"{message}/{self.own or ''}/{self.user or ''}"


class Hit(NamedTuple):
    """A tier's answer.

    Attributes:
        entry: What was stored.
        scope: Whose it was.
        age: Seconds since it was put.
        ttl: In force for it, in seconds: its own, or the tier's.
        similarity: 0..1 for L2, else `None`.
        matched: Tag of the message it was stored for.
        confirmed: False when its generation could not be read.
        generation: In force for the message that was asked, where the tier read it.
    """

    entry: Entry
    scope: Scope
    age: float
    ttl: float
    similarity: float | None = None
    matched: str = ""
    confirmed: bool = True
    generation: Generation | None = None


class Miss(NamedTuple):
    """A tier that has no answer, and why.

    Attributes:
        reason: The one reason that is counted.
        similarity: Of the nearest entry this user may read, whatever the threshold; 0..1.
        unvetoed: Of the nearest entry that no guard vetoed.
        guard: The guard that vetoed the nearest entry above the threshold.
        other_intent: For `other_scope`: the intent of the answer that somebody else has.
        generation: In force for the message that was asked, where the tier read it.
        matched: Tag of the nearest entry that no guard vetoed.
        scope: Whose that entry is; empty without one.
        expired_age: Seconds since the entry was put that would have answered, had it not expired.
        nearest: The entry that a person would compare with the message: the one above the
            threshold that a guard vetoed, else the nearest that none vetoed, else the nearest.
    """

    reason: MissReason
    similarity: float | None = None
    unvetoed: float | None = None
    guard: str = ""
    other_intent: str = ""
    generation: Generation | None = None
    matched: str = ""
    scope: Scope | Literal[""] = ""
    expired_age: float | None = None
    nearest: Entry | None = None


class Sighting(NamedTuple):
    """What a lookup saw: its message's generation, and which invalidations were known.

    Attributes:
        tag, user: Of the query.
        generation: `None` when it could not be read: no invalidation forgives that.
        position: Up to where the log of broad invalidations was known before the lookup; empty when
            that was forgotten, or the store not reached: then all of them hold against the put.
        known: Tokens of the invalidations that the task of the put made itself, after the lookup
            or before it.
    """

    tag: str
    user: str | None
    generation: Generation | None
    position: str = ""
    known: tuple[str, ...] = ()


class LookupResult(NamedTuple):
    """What a lookup found.

    Attributes:
        response: The cached response; `None` unless *outcome* is `hit`.
        intent: The cached intent label, when one is known.
        rag_results: The cached documents; `None` when the agent has to retrieve.
        outcome: `hit`, `partial`, `miss`, `error` or `bypass`.
        tier: The tier that gave the response.
        similarity: Of the question that was answered, 0..1; 1.0 for an exact one.
        age_seconds: Age of the response.
        stale: True when the response is older than its TTL: only when that was allowed.
        lookup_id: Names this lookup in the decision log.
        reasons: Why the tiers that were asked did not answer, in tier order, each once;
            `unconfirmed` when a similar answer was served without its generation.
        sighting: What `put(lookup=...)` has to know of this lookup.
        own_ttl: Seconds that this response lives, where it was put with a TTL of its own.
    """

    response: str | None
    intent: str | None
    rag_results: list[Any] | None
    outcome: Outcome
    tier: Level | None = None
    similarity: float | None = None
    age_seconds: float | None = None
    stale: bool = False
    lookup_id: str = ""
    reasons: tuple[str, ...] = ()
    sighting: Sighting | None = None
    own_ttl: float | None = None

    def __repr__(self) -> str:
        """Return it without the sighting, which is of use to `put` alone."""
        shown = (f"{name}={getattr(self, name)!r}" for name in self._fields if name != "sighting")
        return f"LookupResult({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What an invalidation removed.

    Attributes:
        removed: Number of entries that were, or in a dry run would be, taken out of service.
        complete: False while some backend has not confirmed it.
        pending: What is still to be done, and is retried: names of backends.
        counts: After `forget_user` and `invalidate_writer`, how much was erased of each kind:
            `private entries`, `shared entries`, `vectors`, `votes`, `decisions`, `verdicts`.
    """

    removed: int
    complete: bool
    pending: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TierExplanation:
    """What one tier would answer, and why.

    Attributes:
        level: The tier.
        outcome: `hit`, `miss`, `error`, or `off`.
        reason: Why not, else empty.
        similarity: Of the nearest question, 0..1.
        threshold: What L2 asks for.
        age_seconds, ttl_seconds: Of the entry it would serve.
        scope: Whose entry it would serve.
        detail: One sentence for a person.
    """

    level: Level
    outcome: Literal["hit", "miss", "error", "off"]
    reason: str = ""
    similarity: float | None = None
    threshold: float | None = None
    age_seconds: float | None = None
    ttl_seconds: float | None = None
    scope: Scope | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a `compute` function may return to `get_or_compute` instead of a plain string."""

    response: str
    intent: str | None = None
    rag_results: Documents | None = None
    shared: bool | None = None
    share_documents: bool | None = None
    ttl: float | None = None
    tags: Sequence[str] = field(default=())
    cost_usd: float | None = None
