"""Protocols of the backends: the keyed store in parts, the vector index and the embedder.

Redis and the embedded store pass one contract suite, Chroma and Redis' vector sets another. A
function names the part of the store that it needs, so that a fake has only that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

from cache_core.backends.breaker import Breaker

if TYPE_CHECKING:  # numpy comes with the `semantic` extra; the other tiers work without it
    import numpy as np
    import numpy.typing as npt


Vector: TypeAlias = "npt.NDArray[np.float32]"
"""A unit vector, shape (dimension,)."""


@dataclass(frozen=True, slots=True)
class Write:
    """One value to store.

    Attributes:
        key: Its name.
        value: ASCII text.
        ttl: Seconds until the store may drop it; `None` keeps it.
    """

    key: str
    value: str
    ttl: float | None


@dataclass(frozen=True, slots=True)
class RowWrite:
    """Rows to add to a hash, replacing those of the same name.

    Attributes:
        key: The hash.
        rows: Name to value, ASCII.
        ttl: Seconds until the store may drop the rows; `None` keeps them. The hash lives as long as
            its longest-lived row.
        newest: Number of rows to keep; the others may be dropped. `None` keeps all.
        longest: Whether a row keeps a later expiry that it already has: for shared rows.
    """

    key: str
    rows: Mapping[str, str]
    ttl: float | None
    newest: int | None = None
    longest: bool = False


class Timed(Protocol):
    """Clock that all processes on one store share."""

    def now(self) -> float:
        """Return the store's time in seconds since the epoch."""
        ...


class Values(Timed, Protocol):
    """Values by key, with the clock by which they age."""

    def read(self, keys: Sequence[str], *, beside: bool = False) -> Awaitable[Sequence[str | None]]:
        """Return the values of *keys* in order, in one round trip.

        With *beside* other reads begin in the same turn of the event loop: they share the trip.
        """
        ...

    async def write(self, writes: Sequence[Write]) -> None:
        """Store all *writes*, in order, in one round trip."""
        ...

    async def write_new(self, write: Write) -> str:
        """Store *write* unless its key exists; return the value in force.

        Renews the TTL, which is never shortened.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values and hashes; return how many there were."""
        ...


class Hashes(Protocol):
    """Small hashes: rows by name."""

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, at most the *newest* ones.

        With *hurry* a lookup waits for them: it has the time limit of `read`.
        """
        ...

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return the rows of these *names*, in order."""
        ...

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the names of the rows of a hash, in no order."""
        ...

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Add rows to hashes, in one round trip."""
        ...

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Remove rows of a hash; return how many there were."""
        ...

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Add a row that never expires unless it exists; return whether it was added.

        One of several concurrent claims succeeds: with a row per version this is a compare-and-set.
        """
        ...

    async def hashes(self, begin: str, end: str, cursor: str = "") -> tuple[Sequence[str], str]:
        """Return some hashes whose names begin and end so, and a cursor for more; `""` at the end.

        One that is there all the time is returned at least once. Only an operator's tool asks: a
        server may forbid it to the agents.
        """
        ...


class Logs(Timed, Protocol):
    """Logs of values in order of appending, with the clock that dates them."""

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Append to a log that keeps about the last *keep* values."""
        ...

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Return up to *count* (position, value) pairs after *position*; `""` is the start."""
        ...

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Return the newest (position, value) pairs of a log, oldest first."""
        ...

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Remove values of a log."""
        ...


class Leases(Protocol):
    """Rights that one holder has for a time."""

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Make *key* a lease of *token* for *seconds* unless it is held; return its holder's token.

        One of several concurrent attempts succeeds. A token is used once. An empty result means
        that another holder's lease has just ended.
        """
        ...

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Extend *token*'s lease to *seconds* from now; return False if it is not *token*'s."""
        ...

    async def release_lease(self, key: str, token: str) -> bool:
        """End *token*'s lease; return False if it was not *token*'s."""
        ...


class Notices(Protocol):
    """Wakes other processes that use the store."""

    async def publish(self, channel: str) -> None:
        """Wake all listeners of *channel*, in any process."""
        ...

    def listen(self, channel: str) -> AsyncIterator[None]:
        """Yield once when listening has begun, and whenever something may have been published.

        Raises `BackendError` when the connection is lost.
        """
        ...


class Backend(Protocol):
    """Connection to a store or an index, with its breaker."""

    @property
    def breaker(self) -> Breaker:
        """The breaker of the backend."""
        ...

    async def open(self) -> None:
        """Connect. Never raises: an unreachable backend is tried again by `tend`."""
        ...

    async def close(self) -> None:
        """Write pending data and release all resources; idempotent."""
        ...

    def abandon(self) -> None:
        """Release all resources after the event loop has ended, losing pending data; idempotent."""
        ...


class Keyed(Values, Hashes, Protocol):
    """Values and hashes: enough of a store for most of the cache."""


class KeyValueStore(Keyed, Logs, Leases, Notices, Backend, Protocol):
    """Store that several processes share.

    Every coroutine raises only `BackendError`, within the store's own time limits.
    """

    async def tend(self) -> None:
        """Do the work of every second: check the connection, correct the clock, sweep."""
        ...


WrapStore: TypeAlias = Callable[[KeyValueStore], KeyValueStore]
"""Returns a wrapper to be used in place of the store."""


@dataclass(frozen=True, slots=True)
class Row:
    """One shared answer in the index.

    Attributes:
        id: Tag of the message; one row per message and context.
        vector: The message's unit vector.
        text: The entry's envelope.
        dropped: The store's time, in seconds, after which the row may be swept.
    """

    id: str
    vector: Vector
    text: str
    dropped: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A row near a vector.

    Attributes:
        id: The row's id.
        similarity: The cosine, clipped to 0..1.
        text: The row's text; `None` if the row was removed during the search.
    """

    id: str
    similarity: float
    text: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an index.

    Attributes:
        search_timeout, write_timeout: Seconds.
        max_contexts: Maximal number of contexts.
        breaker_failures, breaker_probe: See `Breaker`.
    """

    search_timeout: float = 0.15
    write_timeout: float = 2.0
    max_contexts: int = 64
    breaker_failures: int = 5
    breaker_probe: float = 0.25


class VectorIndex(Backend, Protocol):
    """Shared answers by similarity, in one index per context.

    Coroutines raise only `BackendError`.
    """

    async def tend(self, now: float) -> None:
        """Do the work of every second: reconnect, write, sweep the rows dropped by *now*."""
        ...

    async def search(self, context: str, vector: Vector, count: int) -> list[Neighbour]:
        """Return up to *count* rows of a context, nearest first."""
        ...

    async def add(self, context: str, row: Row) -> bool:
        """Store a row; `search` finds it immediately. False if there are too many contexts."""
        ...

    def accepts(self, context: str) -> bool:
        """Return whether a context has an index, or may get one."""
        ...

    async def remove(self, context: str, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were. `search` no longer finds them."""
        ...

    async def purge(self, context: str) -> None:
        """Make removed rows unreadable where the backend keeps a log of its writes."""
        ...

    async def texts(self, context: str, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the texts of those of *ids* that have a row; empty for damaged rows."""
        ...

    async def contexts(self) -> Sequence[str]:
        """Return the contexts that have an index."""
        ...

    async def count(self) -> int:
        """Return the number of rows in all contexts."""
        ...


@dataclass(frozen=True, slots=True)
class FormerRow:
    """One shared answer in the index of another model.

    Attributes:
        context: Its context.
        id: Tag of the message.
        text: The entry's envelope.
        dropped: The store's time, in seconds, after which the row may be swept.
    """

    context: str
    id: str
    text: str
    dropped: float


@runtime_checkable
class KeepsFormer(Protocol):
    """An index that also has rows of other models of the namespace.

    A model is named by the digest and the text of its identity. What it raises is a `BackendError`.
    """

    def rows_of(self, digest: str, identity: str) -> AsyncIterator[Sequence[FormerRow]]:
        """Yield the rows of a model, some at a time; unreadable ones are left out."""
        ...

    async def drop_model(self, digest: str, identity: str) -> None:
        """Remove all rows of a model; idempotent."""
        ...


WrapIndex: TypeAlias = Callable[[VectorIndex], VectorIndex]
"""Returns a wrapper to be used in place of the index."""


class Embedder(Protocol):
    """Turns texts into vectors for the semantic tier."""

    @property
    def model(self) -> str:
        """Name of the model; vectors of different models are never compared."""
        ...

    @property
    def ready(self) -> bool:
        """True once the model is loaded."""
        ...

    @property
    def failed(self) -> bool:
        """True once loading has failed for good."""
        ...

    def start(self) -> None:
        """Start loading in the background; idempotent."""
        ...

    async def wait_ready(self) -> None:
        """Wait until the model is loaded; raises `ConfigurationError` if it cannot be."""
        ...

    async def embed(self, text: str) -> Vector:
        """Return the vector of *text*; raises `BackendError`."""
        ...

    def fits(self, text: str) -> bool:
        """Return whether the model reads the whole *text*."""
        ...

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text*: unknown parts are all alike."""
        ...

    def close(self) -> None:
        """Stop the worker; idempotent."""
        ...


class Usage(NamedTuple):
    """Work of a model that is paid for.

    Attributes:
        texts: Texts whose tokens were not reported.
        tokens: Tokens of the other texts.
    """

    texts: int = 0
    tokens: int = 0


@runtime_checkable
class Metered(Protocol):
    """An embedder that reports its usage."""

    @property
    def is_metered(self) -> bool:
        """False if each vector costs the same, whether it was computed or kept."""
        ...

    def take_usage(self) -> Usage:
        """Return the usage since the last call, of whichever cache."""
        ...


def metered(embedder: Embedder) -> Metered | None:
    """Return *embedder* if it is metered."""
    return embedder if isinstance(embedder, Metered) and embedder.is_metered else None


@runtime_checkable
class Remembering(Protocol):
    """An embedder that keeps texts or their vectors."""

    def forget(self) -> None:
        """Drop them all: a user was erased."""
        ...
