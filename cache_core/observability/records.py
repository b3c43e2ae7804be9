"""Records of finished operations: one type for each kind, handed to every instrument.

An operation fills in its own record while it runs; recorded ones never change. They have no user id
and no key, and no text unless `capture_message_content` is on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias, get_args

from cache_core.model.values import Level

Operation = Literal[
    "lookup",
    "get",
    "embed",
    "search",
    "compute",
    "refresh",
    "put",
    "invalidate",
    "verdict",
    "verify",
    "approve",
    "label",
    "change",
    "tune",
]


@dataclass(slots=True, kw_only=True)
class TimedRecord:
    """Common part of the records of calls that take time and may fail.

    Attributes:
        operation: Name of the kind of call.
        outcome: Outcome; `error` after an exception, `cancelled` if it was cancelled.
        reason: Reason of the outcome, from the closed sets in `model.values`; else empty.
        error_type: Name of the exception's type, after an error.
        seconds: Duration.
        detailed: Whether the calls within are surrounded by scopes, too: see `Scope`.
    """

    operation: ClassVar[Operation]

    outcome: str = "ok"
    reason: str = ""
    error_type: str = ""
    seconds: float = 0.0
    detailed: bool = False


@dataclass(slots=True)
class TierRecord(TimedRecord):
    """Part that one tier had in a lookup: `hit`, `miss` or `error`.

    Attributes:
        level: The tier.
        similarity: Similarity of the nearest question, 0..1; of L2 only.
        threshold: The threshold of L2.
        guard: Name of the guard that vetoed the nearest question; else empty.
        age_seconds: Age of the entry served.
        stale: Whether that is more than its TTL.
        ttl_seconds: The tier's TTL in force; for a hit whose entry has its own, that one.
        saved_usd: Saved by this hit.
        other_intent: Intent of the answer that another user has, for the reason `other_scope`.
    """

    operation: ClassVar[Operation] = "get"

    level: Level
    similarity: float | None = None
    threshold: float | None = None
    guard: str = ""
    age_seconds: float | None = None
    stale: bool = False
    ttl_seconds: float | None = None
    saved_usd: float = 0.0
    other_intent: str = ""


@dataclass(slots=True)
class LookupRecord(TimedRecord):
    """A lookup: `hit`, `partial`, `miss`, `error` or `bypass`.

    Attributes:
        lookup_id: As in the `LookupResult`.
        tuning_version: Version of the tuning that was used.
        level: The tier that gave the response; of a cancelled lookup the tier that it waited for.
        similarity: Similarity of the question whose answer was served, 0..1.
        age_seconds: Age of the response.
        stale: Whether that is more than its TTL.
        saved_usd: Saved by all its tiers.
        calls: The tiers that were needed, in their order.
        intent: Intent label of what was found; empty for none, and for free text.
        message_text: The message; only while `capture_message_content` is on, like the next.
        response_text: The response that was served; without a hit the nearest one.
    """

    operation: ClassVar[Operation] = "lookup"

    lookup_id: str
    tuning_version: int
    level: Level | None = None
    similarity: float | None = None
    age_seconds: float | None = None
    stale: bool = False
    saved_usd: float = 0.0
    calls: Sequence[TierRecord] = ()
    intent: str = ""
    message_text: str = ""
    response_text: str = ""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """Part of a put that was offered to one tier.

    Attributes:
        level: The tier.
        outcome: `stored`, `queued`, `dropped` or `bypass`.
        reason: Reason why it was not stored, or not unchanged; else empty.
    """

    level: Level
    outcome: str
    reason: str = ""


@dataclass(slots=True)
class PutRecord(TimedRecord):
    """A put: one of `PUT_OUTCOMES`.

    Attributes:
        tuning_version: Version of the tuning that was used.
        calls: Its parts, one per tier.
        intent: Intent label of the answer that the agent computed; empty for none, for free text,
            and for what an operator stored.
    """

    operation: ClassVar[Operation] = "put"

    tuning_version: int = 0
    calls: Sequence[PartRecord] = ()
    intent: str = ""


@dataclass(slots=True)
class EmbedRecord(TimedRecord):
    """An embedding of one text: `ok` or `error`.

    Attributes:
        spent_usd: Cost of it; where the model is metered, of all texts that it was sent since the
            last record.
        tokens: Tokens of those, as a metered model reports them.
    """

    operation: ClassVar[Operation] = "embed"

    spent_usd: float = 0.0
    tokens: int = 0


@dataclass(slots=True)
class SearchRecord(TimedRecord):
    """A search in the vector index: `ok` or `error`."""

    operation: ClassVar[Operation] = "search"


@dataclass(slots=True)
class ComputeRecord(TimedRecord):
    """A call of the agent's function: `ok`, `error`, or `joined` if another one spared it.

    One that waits for another process without getting an answer is `unanswered`.

    Attributes:
        saved_usd: By tier, saved by what the function was given: intent and documents.
        is_own: Whether this caller ran the function; False for one that waits for another's.
        waited_for: The computation that was waited for, if it is of this process.
        waited_elsewhere: The trace of the one that was waited for in another: see `traced_by`.
        scopes: What the instruments opened around it, for those that wait to refer to.
    """

    operation: ClassVar[Operation] = "compute"

    saved_usd: Mapping[Level, float] = field(default_factory=dict)
    is_own: bool = True
    waited_for: ComputeRecord | None = None
    waited_elsewhere: str = ""
    scopes: Sequence[object] = ()


@dataclass(slots=True)
class RefreshRecord(TimedRecord):
    """An answer recomputed in the background: `stored`, `error` or `skipped`."""

    operation: ClassVar[Operation] = "refresh"


@dataclass(slots=True)
class InvalidationRecord(TimedRecord):
    """An invalidation: `ok`, or `error` while some backend has not confirmed it.

    Attributes:
        kind: `message`, `document`, `tag`, `answer`, `user` or `writer`.
        count: Entries that were invalidated.
    """

    operation: ClassVar[Operation] = "invalidate"

    kind: str
    count: int = 0


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """A verdict on a hit.

    Attributes:
        verdict: `correct` or `wrong`.
        source: `feedback`, `review` or `verify`.
        intent: Intent label of the answer judged; empty for none, and for free text.
    """

    operation: ClassVar[Operation] = "verdict"

    verdict: str
    source: str
    intent: str = ""


@dataclass(frozen=True, slots=True)
class VerificationRecord:
    """A background check of a semantic hit, whatever its verdict: `ok`, `error` or `timeout`.

    Attributes:
        spent_usd: Cost of it; 0 without a verdict.
        outcome: Outcome.
        seconds: Duration.
    """

    operation: ClassVar[Operation] = "verify"

    spent_usd: float
    outcome: Literal["ok", "error", "timeout"] = "ok"
    seconds: float = 0.0


ApprovalVerdict = Literal["approved", "rejected", "failed", "timed_out", "over_budget"]
"""Verdict on an answer in doubt."""

APPROVAL_VERDICTS: tuple[ApprovalVerdict, ...] = get_args(ApprovalVerdict)


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """An answer in doubt that was to be put to the approver.

    Attributes:
        verdict: The verdict; `over_budget` without a call.
        spent_usd: Cost of the call.
        seconds: Its duration; `None` if none was made.
    """

    operation: ClassVar[Operation] = "approve"

    verdict: ApprovalVerdict
    spent_usd: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """A miss whose fresh answer was compared with that of the nearest stored question.

    Attributes:
        verdict: `right` if that answer would have been right, `wrong` if not, `unknown` if nothing
            tells whether the two are the same.
    """

    operation: ClassVar[Operation] = "label"

    verdict: Literal["right", "wrong", "unknown"]


ChangeVerdict = Literal["changed", "unchanged_at_expiry", "unchanged_before", "unknown", "failed"]
CHANGE_VERDICTS: tuple[ChangeVerdict, ...] = get_args(ChangeVerdict)


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A fresh answer that was compared with the stored one that it replaces.

    Attributes:
        changed: Whether they differ.
        unknown: Whether nothing told; the copies of the old one were withdrawn, in case they do.
        expired: Whether the stored one had expired.
        age: Its age in seconds.
        intent: Its intent label; empty for none, and for free text.
        failed: Whether the store failed, or was too slow: then nothing else is known, or not all
            copies of an answer that changed were withdrawn.
    """

    operation: ClassVar[Operation] = "change"

    changed: bool = False
    unknown: bool = False
    expired: bool = False
    age: float = 0.0
    intent: str = ""
    failed: bool = False

    @property
    def verdict(self) -> ChangeVerdict:
        """Result of the comparison."""
        if self.failed or self.unknown:
            return "failed" if self.failed else "unknown"
        if self.changed:
            return "changed"
        return "unchanged_at_expiry" if self.expired else "unchanged_before"


@dataclass(frozen=True, slots=True)
class TuneRecord:
    """A change of the tuning.

    Attributes:
        outcome: `applied` or `rejected`.
        tuning_version: Version in force after it.
    """

    operation: ClassVar[Operation] = "tune"

    outcome: Literal["applied", "rejected"]
    tuning_version: int


ScopedRecord: TypeAlias = (
    LookupRecord
    | PutRecord
    | EmbedRecord
    | SearchRecord
    | ComputeRecord
    | RefreshRecord
    | InvalidationRecord
)
"""An operation with a scope around it."""

Record: TypeAlias = (
    ScopedRecord
    | VerdictRecord
    | VerificationRecord
    | ApprovalRecord
    | LabelRecord
    | ChangeRecord
    | TuneRecord
)
"""A finished operation: see `Instrument.record`."""
