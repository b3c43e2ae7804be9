"""Steps of an invalidation, as data. Each succeeds, fails and is retried by itself.

Two steps with the same effect are equal, even of different jobs. Printed, a step shows no text and
no id: tags, users and indexes are digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from cache_core.config.tuning import Tuning
from cache_core.model.generations import token
from cache_core.model.values import Query, Scope
from cache_core.tiers.journal import Broad

if TYPE_CHECKING:  # it needs the `semantic` extra
    from cache_core.tiers.semantic.similar import OwnVector


@dataclass(slots=True, eq=False)
class Job:
    """One running invalidation.

    Attributes:
        token: Token that it gives to all that it invalidates.
        unlogged: Records to append to the journal before the first token is given and before any
            search: a put that follows a forgotten lookup searches it for the token.
    """

    token: str = field(default_factory=lambda: token("i"))
    unlogged: list[Broad] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Sought:
    """A message, with the similarity above which L2 serves its answer for another.

    Attributes:
        tag: Digest of the message.
        text: The message.
        threshold: Least similarity, 0..1.
        tuning: Guards, and thresholds of intents.
    """

    tag: str
    text: str = field(repr=False)
    threshold: float
    tuning: Tuning = field(repr=False, compare=False)

    @classmethod
    def of(cls, query: Query, tuning: Tuning) -> Sought:
        """Return the message of *query* with the threshold of *tuning*."""
        return cls(query.tag, query.text, tuning.semantic_threshold, tuning)


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a job.

    Common fields of several kinds:

    - `tags`: the messages concerned;
    - `user`: the user whose own answers are concerned, empty for everybody's;
    - `index`: the name of an index of a document, tag or writer;
    - `like`: a message whose similar ones are concerned;
    - `erased`: only messages whose entry no longer exists.

    Attributes:
        job: The invalidation that it belongs to.
        needs: The backend needed besides the store; a search also needs the embedder.
        waits_for: Parts of the same job that must be done before.
    """

    job: Job = field(repr=False, compare=False)

    needs: ClassVar[Literal["store", "index", "search"]] = "store"
    waits_for: ClassVar[tuple[type[Part], ...]] = ()


@dataclass(frozen=True, slots=True)
class GiveTokens(Part):
    """Replace the tokens of messages, or without *tags* a user's: older answers are rejected."""

    tags: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class DeleteEntries(Part):
    """Delete the entries of messages."""

    tags: tuple[str, ...]
    user: str = ""


@dataclass(frozen=True, slots=True)
class RemoveRows(Part):
    """Remove messages from the vector index of this process; with *writer* only that user's."""

    tags: tuple[str, ...]
    writer: str = ""

    needs: ClassVar[Literal["store", "index", "search"]] = "index"


@dataclass(frozen=True, slots=True)
class RemoveSimilar(RemoveRows):
    """Remove messages found there by a search: nothing else lists them until then."""

    waits_for: ClassVar[tuple[type[Part], ...]] = (GiveTokens,)


@dataclass(frozen=True, slots=True)
class RemoveVectors(Part):
    """Remove users' own vectors that a search found: until then nothing else names their messages.

    One that stayed would be found by every later search, without a text that a guard can veto.
    """

    vectors: tuple[OwnVector, ...]

    waits_for: ClassVar[tuple[type[Part], ...]] = (GiveTokens, DeleteEntries)


@dataclass(frozen=True, slots=True)
class AnnounceRows(Part):
    """Make other processes remove messages, and those similar to *like*, from their indexes."""

    tags: tuple[str, ...]
    like: Sought | None = None
    erased: bool = False


@dataclass(frozen=True, slots=True)
class FindSimilar(Part):
    """Invalidate similar questions that L2 would have served, shared or users' own."""

    like: Sought
    scope: Scope
    user: str = ""

    needs: ClassVar[Literal["store", "index", "search"]] = "search"


@dataclass(frozen=True, slots=True)
class AwaitSearch(Part):
    """Wait until another process has searched for similar messages: this one has no L2."""

    tag: str
    threshold: float
    user: str = ""


@dataclass(frozen=True, slots=True)
class ConfirmSearch(Part):
    """Log that this process has searched for similar messages, as the record *asked*."""

    token: str
    asked: Broad = field(repr=False, compare=False)

    waits_for: ClassVar[tuple[type[Part], ...]] = (
        GiveTokens, DeleteEntries, RemoveRows, RemoveVectors, AnnounceRows, FindSimilar,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FindListed(Part):
    """Invalidate the messages that an index lists; until then none with *label* is served."""

    index: str
    label: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Erase(Part):
    """Erase a user's entries, with the lists of them, and with *traces* also log records."""

    user: str
    traces: bool

    waits_for: ClassVar[tuple[type[Part], ...]] = (FindListed,)


@dataclass(frozen=True, slots=True)
class DropListed(Part):
    """Remove the *rows* of messages from the index: nothing else lists them until then."""

    index: str
    tags: tuple[str, ...]
    rows: Sequence[str] = field(repr=False, compare=False)

    waits_for: ClassVar[tuple[type[Part], ...]] = (
        GiveTokens, DeleteEntries, RemoveRows, AnnounceRows, Erase,
    )  # fmt: skip


Step: TypeAlias = (
    GiveTokens
    | DeleteEntries
    | RemoveRows
    | RemoveVectors
    | AnnounceRows
    | FindSimilar
    | AwaitSearch
    | ConfirmSearch
    | FindListed
    | DropListed
    | Erase
)


def of_messages(job: Job, tags: Iterable[str], like: Sought | None = None) -> list[Step]:
    """Return the steps that invalidate messages for everybody; none for no messages."""
    names = tuple(tags)
    if not names:
        return []
    return [
        GiveTokens(job, names),
        DeleteEntries(job, names),
        RemoveRows(job, names),
        AnnounceRows(job, names, like),
    ]


def of_similar(job: Job, tags: Iterable[str]) -> list[Step]:
    """Return the steps that invalidate messages found by a search; none for no messages."""
    names = tuple(tags)
    if not names:
        return []
    return [
        GiveTokens(job, names),
        DeleteEntries(job, names),
        RemoveSimilar(job, names),
        AnnounceRows(job, names),
    ]


def of_own(job: Job, tags: Iterable[str], user: str) -> list[Step]:
    """Return the steps that invalidate a user's own answers to messages; none for no messages."""
    names = tuple(tags)
    return [GiveTokens(job, names, user), DeleteEntries(job, names, user)] if names else []
