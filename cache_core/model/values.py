"""Values that flow through a lookup: all frozen, none knows a backend.

Those that every lookup makes are tuples: a frozen dataclass takes four times as long to create.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from cache_core.model.exceptions import ErrorReason
from cache_core.model.question.contexts import FixedContext
from cache_core.model.question.histories import History

Level = Literal["l1", "l2", "l3", "l4"]
LEVELS: tuple[Level, ...] = ("l1", "l2", "l3", "l4")

Outcome = Literal["hit", "partial", "miss", "error", "bypass"]
"""Outcome of a lookup: a response; only intent or documents; nothing; nothing because a tier
failed; or not asked at all."""
OUTCOMES: tuple[Outcome, ...] = ("hit", "partial", "miss", "error", "bypass")

MissReason = Literal[
    "cold", "expired", "invalidated", "other_scope", "below_threshold", "unsure",
    "guard_veto",
    "has_history", "truncated", "unreadable", "context_limit", "warming", "corrupt", "day_over",
    "too_old", "left_out",
    "not_approved", "approval_failed", "approval_late", "approval_budget",
]  # fmt: skip
"""Reasons why a tier had nothing to serve; `reasons.REASONS` has each in words."""
BypassReason = Literal[
    "empty", "too_large", "disabled", "no_user",
    # Of a request to a model, see `glasscache.integrations.contract`.
    "not_users_turn", "not_text", "stateful", "several_answers", "opaque", "declined",
]  # fmt: skip
"""Reasons why a lookup was not made; each is counted."""
BYPASS_REASONS: tuple[BypassReason, ...] = get_args(BypassReason)

WithheldReason = Literal[
    "tool_calls", "refused", "cut_short", "failed", "not_text", "stateful", "several_answers",
    "empty", "not_cacheable", "rule_failed",
]  # fmt: skip
"""Reasons why a model's reply is not stored."""

NotStored = Literal[
    "", "queued", "has_history", "truncated", "unreadable", "context_limit", "overloaded"
]
"""Reasons why a tier did not store its part of a put; empty if it did."""

PUT_REASONS: tuple[str, ...] = (
    "queued", "has_history", "truncated", "unreadable", "context_limit", "overloaded",
    "invalidated",  # computed before its message was invalidated
    "rate_limited",  # its user wrote too much
    "fenced",  # another process took over the computation; its answer stays
    "empty", "no_user", "disabled",  # as for a lookup
    "too_large",  # the message, or this part of the answer
    "unsupported",  # documents that cannot be restored, or a response that is no text
    "invalid",  # `compute` returned an `Answer` with a field that is rejected
    "closed",  # the cache was closed while the answer was computed
    "declined",  # the caller asked for it not to be stored
    "no_ids",  # stored, but no document has an id: only its message or a tag can invalidate it
    "personal",  # stored, but private: it looks personal, and only the tuning would share it
    "promoted",  # stored for everybody: enough users got the same answer
    "withdrawn",  # stored for its user: it took back another answer that was promoted
    "tool_calls", "refused", "cut_short", "not_text", "stateful", "several_answers",  # a reply
    "failed",  # the response is an error
    "not_cacheable",  # the application's `cacheable=` said so
    "rule_failed",  # that raised, or returned neither True, False nor None
    "timeout", "backend_error", "breaker_open", "isolation",
)  # fmt: skip
"""Reasons that a put may report for a tier."""

PUT_OUTCOMES: tuple[str, ...] = (
    "stored",  # in every tier that takes it
    "queued",  # L2's part waits for the model
    "partial",  # part of it is stored
    "dropped",  # nothing is stored, because a backend is unavailable or too slow
    "bypass",  # nothing was to be stored
    "error", "cancelled",
)  # fmt: skip
"""Outcome of a whole put, counted once."""

Source = Literal["put", "warm", "promotion"]
"""Origin of an answer: stored by the agent, by an operator, or shared by enough users."""

Reason: TypeAlias = MissReason | ErrorReason | BypassReason | Literal["", "unconfirmed", "approved"]

MISS_REASONS: tuple[MissReason, ...] = get_args(MissReason)
ERROR_REASONS: tuple[ErrorReason, ...] = get_args(ErrorReason)

Scope = Literal["user", "shared"]
"""Readers of an entry: its own user, or everybody in the namespace."""

Turn: TypeAlias = str | Mapping[str, Any] | tuple[str, Any] | Any
"""One earlier turn of a conversation: its text, `{"role": ..., "content": ...}`, a (role, content)
pair, or a message object of an SDK."""

Context: TypeAlias = str | Mapping[str, Any] | None
"""Everything else that shaped the answer and rarely changes: system prompt, model, tools."""

Documents: TypeAlias = Sequence[Any]
"""Documents that retrieval returned. Stored if they can be restored: see `documents`."""


class Where(NamedTuple):
    """Circumstances of a message besides its user, as of the call that passed it.

    Attributes:
        context: See `contexts.read_context`.
        history: See `histories.read_history`.
        after: Fingerprint of the history; empty without one, or until it is computed.
        standalone: The message rewritten to need no history.
        too_large: Whether the context or the history is too large; it is then left out here.
    """

    context: FixedContext | None = None
    history: History | None = None
    after: str = ""
    standalone: str | None = None
    too_large: bool = False


class Query(NamedTuple):
    """A message with everything that decides which entries answer it, as digests.

    Attributes:
        text: The text to embed: the message, or its standalone form.
        tag: Digest of the message's loose form: of all its variants in letter case, spaces and
            final signs, which share a generation and are invalidated together.
        user: Digest of the user's scope; `None` without a user.
        shared: Digest of the shared scope.
        context: Digest of the context.
        history: Digest of the earlier turns; empty without any.
        exact: Digest of the message's exact form, which finds its answer.
        grace: Seconds past its TTL that a response may still be served.
        recorded: Whether instruments see what is asked of backends for it.
        max_age: Greatest age, in seconds, of a response or documents for it; `None` for any.
        max_wrong: Share of such hits that may be wrong, 0 to 0.2; `None` for the tuning's.
        approved: Name of the doubt that was approved for it in this lookup; empty for none.
    """

    text: str
    tag: str
    user: str | None
    shared: str
    context: str
    history: str
    exact: str
    grace: float = 0.0
    recorded: bool = True
    max_age: float | None = None
    max_wrong: float | None = None
    approved: str = ""

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
    """Content that one tier stores for one message.

    Attributes:
        response: The agent's answer.
        intent: The label of the message.
        rag_results: The retrieved documents.
        message: The message itself; only L2 keeps it, because guards compare texts.
        cost_usd: Cost of computing this answer, in USD; `None` for the tuning's price.
        created: The store's time of the put, in seconds.
        ttl: The entry's own TTL in seconds; `None` for the tuning's.
        generation: Generation token of the message under which it was computed.
        scope: Digest of the scope that may read it.
        writer: Digest of the user who wrote it; empty if no particular user did.
        by_policy: Whether only the tuning shares it, as of the put: other users get it only while
            the tuning still shares it.
        source: Origin of the answer.
        replica: Name of the process that stored it; empty in entries of older versions.
        known: Position up to which the log of invalidations was known at the put.
        labels: Digests of its documents, tags and writer: if one was invalidated since, so is this
            entry, even if the index of its messages was lost.
        writer_token: The writer's own token at the put: another one since shows that the writer was
            erased. On the way to a store only; no store keeps it.
        tagged: Whether *rag_results* are tagged values, see `documents.restored`.
        left_out: Reason why this tier's part could not be stored; empty if it was.
        until: The store's time, in seconds, after which it is no longer true; `None` if it does
            not age with the day.
        answer: Name by which the same answer is recognised, as a digest; empty for one that only
            its text identifies. See `cache_core.policy.answers`.
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
    tagged: bool = False
    left_out: str = ""
    until: float | None = None
    answer: str = ""

    def life(self, ttl: float) -> float:
        """Return the seconds for which a tier with *ttl* serves it."""
        own = ttl if self.ttl is None else self.ttl
        return own if self.until is None else min(own, max(0.0, self.until - self.created))

    def withheld(self, user: str | None, *, shares: bool, promotes: bool) -> bool:
        """Return whether *user* must not get it because its policy is no longer in force.

        Args:
            user: The asking user.
            shares: Whether the tuning shares such an answer.
            promotes: Whether it still shares answers that enough users got.
        """
        if not self.by_policy or shares or (promotes and self.source == "promotion"):
            return False
        return user is None or user != self.writer


class Generation(NamedTuple):
    """Tokens under which an entry is stored, or read, for a message and a user.

    Replacing one invalidates everything that was stored, or is being computed, under it.

    Attributes:
        message: The message's token, for everybody; `None` before its first put.
        own: The token of this user's answers to this message; `None` unless they were invalidated.
        user: The token of everything of this user; `None` unless the user was erased.
    """

    message: str | None
    own: str | None = None
    user: str | None = None

    def stamp(self, scope: Scope) -> str | None:
        """Return the stamp that an entry of *scope* needs to be served; `None` if none can be."""
        if self.message is None or scope == "shared" or (self.own is None and self.user is None):
            return self.message
        return f"{self.message}/{self.own or ''}/{self.user or ''}"

    @property
    def invalidated(self) -> str:
        """The tokens set by invalidations; empty if there was none."""
        message = self.message if self.message and self.message.startswith("i") else ""
        return f"{message}/{self.own or ''}/{self.user or ''}"


class Shadow(NamedTuple):
    """Decision that the learned policy would take on the nearest entry, were it asked.

    Attributes:
        least: Least `max_wrong` at which it serves that entry; 1 if none that may be set does.
        chance: Chance, 0 to 1, that the entry's answer is right.
    """

    least: float
    chance: float


class Hit(NamedTuple):
    """A tier's answer.

    Attributes:
        entry: The stored entry.
        scope: The scope of the entry.
        age: Seconds since it was put.
        ttl: The TTL in force for it, in seconds: its own, or the tier's.
        similarity: 0 to 1 for L2, else `None`.
        matched: Tag of the message it was stored for.
        confirmed: False if its generation could not be read.
        generation: The generation in force for the asked message, if the tier read it.
        policy: Returns the policy's decision in one line; `None` without it.
        approved: Whether it is served because it was approved.
        shadow: Returns what the learned policy would do with the nearest entry, by what was known
            of it then; it may take a millisecond. `None` if that is unknown.
    """

    entry: Entry
    scope: Scope
    age: float
    ttl: float
    similarity: float | None = None
    matched: str = ""
    confirmed: bool = True
    generation: Generation | None = None
    policy: Callable[[], str] | None = None
    approved: bool = False
    shadow: Callable[[], Shadow] | None = None

    @property
    def remark(self) -> Literal["", "unconfirmed", "approved"]:
        """The reason that a hit has; one that was approved is confirmed."""
        if self.approved:
            return "approved"
        return "" if self.confirmed else "unconfirmed"


class Doubt(NamedTuple):
    """A stored answer that is served for a message once it is approved.

    Attributes:
        name: Digest of the asked message and the stored entry: an approval holds for these alone.
        key: Key of its approval in the store.
        message: The message that the answer is stored for.
        response: The answer.
        life: Seconds for which the entry may still be served.
        owner: Digest of the user whose entry it is; empty for a shared one.
    """

    name: str
    key: str
    message: str
    response: str
    life: float
    owner: str


class Miss(NamedTuple):
    """A tier that has no answer, and why.

    Attributes:
        reason: The one reason that is counted.
        similarity: Similarity of the nearest entry this user may read, at any threshold; 0 to 1.
        unvetoed: Similarity of the nearest entry that no guard vetoed.
        guard: The guard that vetoed the nearest entry above the threshold.
        other_intent: Intent of another user's answer, for `other_scope`.
        generation: The generation in force for the asked message, if the tier read it.
        matched: Tag of the nearest entry that no guard vetoed.
        scope: Scope of that entry; empty without one.
        expired_age: Age in seconds of the entry that would have answered, had it not expired.
        nearest: The entry that a person would compare with the message: the nearest one above the
            threshold, vetoed by a guard, else the nearest that none vetoed, else the nearest.
        candidate: The nearest shared entry that no guard vetoed, if it is the nearest of all.
        policy: As in a hit.
        doubt: The answer that would be served if it were approved.
        shadow: As in a hit.
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
    candidate: Entry | None = None
    policy: Callable[[], str] | None = None
    doubt: Doubt | None = None
    shadow: Callable[[], Shadow] | None = None


class Sighting(NamedTuple):
    """Generation of a message, and the known invalidations, as a lookup read them.

    Attributes:
        tag, user, exact: The query's digests.
        generation: `None` if it could not be read: then no invalidation is excused.
        position: Position up to which the log of invalidations was known before the lookup; empty
            for its beginning.
        known: Tokens of the invalidations that the putting task made itself, before or after the
            lookup.
        forgotten: Whether the generation was read and has been dropped: then only invalidations
            after *position* reject the put.
        until: End of the local day of the lookup, in seconds since the epoch; `None` if unknown.
    """

    tag: str
    user: str | None
    generation: Generation | None
    position: str = ""
    known: tuple[str, ...] = ()
    exact: str = ""
    forgotten: bool = False
    until: float | None = None


class LookupResult(NamedTuple):
    """Result of a lookup.

    Attributes:
        response: The cached response; `None` unless *outcome* is `hit`.
        intent: The cached intent label, if one is known.
        rag_results: The cached documents; `None` if the agent has to retrieve.
        outcome: `hit`, `partial`, `miss`, `error` or `bypass`.
        tier: The tier that gave the response.
        similarity: Similarity of the answered question, 0 to 1; 1.0 for an exact one.
        age_seconds: Age of the response.
        stale: True if the response is older than its TTL, which the caller must have allowed.
        lookup_id: Id of this lookup in the decision log.
        reasons: Reasons why the asked tiers did not answer, in tier order, each once; `unconfirmed`
            if a similar answer was served without its generation, `approved` if it was approved.
        sighting: Data for `put(lookup=...)`.
        own_ttl: TTL in seconds that this response was put with, if any.
        stored_for: Readers of the stored response to this very message: `user`, `shared`, or
            `policy` if the tuning shares it. Empty without one.
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
    stored_for: Literal["", "user", "shared", "policy"] = ""

    def __repr__(self) -> str:
        """Return it without the fields that only `put` and a refresh use."""
        hidden = ("sighting", "stored_for")
        shown = (f"{name}={getattr(self, name)!r}" for name in self._fields if name not in hidden)
        return f"LookupResult({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Result of an invalidation.

    Attributes:
        removed: Number of entries that were, or in a dry run would be, invalidated.
        complete: False while some backend has not confirmed it.
        pending: Names of backends with work left, which is retried.
        counts: Numbers erased by `forget_user` and `invalidate_writer`, by kind:
            `private entries`, `shared entries`, `vectors`, `votes`, `decisions`, `verdicts`.
    """

    removed: int
    complete: bool
    pending: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def found_nothing(self) -> bool:
        """True if nothing was stored: the document, or the tag, may have another name."""
        return self.complete and self.removed == 0


@dataclass(frozen=True, slots=True)
class TierExplanation:
    """Answer that one tier would give, and why.

    Attributes:
        level: The tier.
        outcome: `hit`, `miss`, `error`, or `off`.
        reason: The reason why not, else empty.
        similarity: Similarity of the nearest question, 0 to 1.
        threshold: L2's threshold.
        age_seconds, ttl_seconds: Age and TTL of the entry it would serve.
        scope: Scope of the entry it would serve.
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
    """Result that a `compute` function may return instead of a plain string."""

    response: str
    intent: str | None = None
    rag_results: Documents | None = None
    shared: bool | None = None
    share_documents: bool | None = None
    ttl: float | None = None
    tags: Sequence[str] = field(default=())
    cost_usd: float | None = None
    document_ids: Sequence[str] = field(default=())
    answer_id: str | None = None
    finish_reason: str | None = None
