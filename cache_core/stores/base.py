"""What a keyed store can do. Redis and the embedded store pass one contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cache_core.breaker import Breaker


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
        ttl: Seconds until the store may drop the hash, renewed by every put; `None` keeps it.
        newest: How many rows to keep; the others may be dropped. `None` keeps all.
    """

    key: str
    rows: Mapping[str, str]
    ttl: float | None
    newest: int | None = None


class KeyValueStore(Protocol):
    """Values, small hashes and logs, shared by everybody who opens the same store.

    Every coroutine raises `BackendError` and nothing else, within the store's own time limits.
    """

    @property
    def breaker(self) -> Breaker:
        """The breaker of the backend behind this store."""
        ...

    async def open(self) -> None:
        """Connect. Never raises: an unreachable backend is tried again by `tend`."""
        ...

    async def close(self) -> None:
        """Give everything back; idempotent."""
        ...

    def abandon(self) -> None:
        """Give back what can be given back without the event loop, which has ended."""
        ...

    async def tend(self) -> None:
        """Do what is due every second: ask for a sign of life, correct the clock, sweep."""
        ...

    def now(self) -> float:
        """Return the store's time in seconds since the epoch."""
        ...

    def read(self, keys: Sequence[str]) -> Awaitable[Sequence[str | None]]:
        """Return the values of *keys* in order, in one round trip."""
        ...

    async def write(self, writes: Sequence[Write]) -> None:
        """Store all *writes*, in order, in one round trip."""
        ...

    async def write_new(self, write: Write) -> str:
        """Store *write* unless its key exists; return the value in force. Renews the TTL."""
        ...

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values and hashes; return how many there were."""
        ...

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, at most the *newest* ones.

        With *hurry* a lookup waits for them: it has the time limit of `read`.
        """
        ...

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Add rows to hashes, in one round trip."""
        ...

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Remove rows of a hash; return how many there were."""
        ...

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Add a row to a hash that is kept, unless it is there; return whether it was added.

        Of several who claim the same row one succeeds: with a row per version this is a
        compare-and-set.
        """
        ...

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Make *key* a lease of *token* for *seconds*, unless it is somebody's; return whose it is.

        Of several who take the same lease one succeeds. A token is used once. Empty: it was
        somebody else's, and ended just now.
        """
        ...

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Let a lease last *seconds* from now, if it is *token*'s; return whether it is."""
        ...

    async def release_lease(self, key: str, token: str) -> bool:
        """End a lease, if it is *token*'s; return whether it was."""
        ...

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the names of the rows of a hash, in no order."""
        ...

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return the rows of these *names*, in order."""
        ...

    async def publish(self, channel: str) -> None:
        """Wake everybody who listens to *channel*, in any process."""
        ...

    def listen(self, channel: str) -> AsyncIterator[None]:
        """Yield once when listening has begun, and whenever something may have been published.

        What was published before is not told. Ends with `BackendError` when the store is lost.
        """
        ...

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Append to a log that keeps about the last *keep* values."""
        ...

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Return up to *count* (position, value) pairs after *position*; `""` is the start."""
        ...

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Remove values of a log."""
        ...

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Return the newest (position, value) pairs of a log, oldest first."""
        ...


WrapStore: TypeAlias = Callable[[KeyValueStore], KeyValueStore]
"""Returns what is to be used in the place of a store: something around it."""
