"""A keyed store that fails when it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from cache_core.breaker import Breaker
from cache_core.exceptions import BackendError
from cache_core.stores.base import KeyValueStore, RowWrite, Write
from cache_core.testing.faults import Faults, kept

_T = TypeVar("_T")


class ChaosStore:
    """A keyed store around another one: what *faults* says happens to its calls.

    Give it to a cache with `MultiLevelCache(wrap_store=lambda store: ChaosStore(store, faults))`.
    It keeps the contract of `KeyValueStore`: calls raise `BackendError` and nothing else, within
    the time limits, and the breaker counts what happened. `open`, `close` and `now` never fail.

    Args:
        inner: Does the work.
        faults: What happens.
        read_timeout: Seconds after which a read that hangs fails; the reads of a lookup.
        write_timeout: The same for everything else.
    """

    def __init__(
        self,
        inner: KeyValueStore,
        faults: Faults,
        *,
        read_timeout: float = 0.05,
        write_timeout: float = 0.5,
    ) -> None:
        self.inner = inner
        self.faults = faults
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._seen: list[str] = []

    @property
    def breaker(self) -> Breaker:
        """The inner store's breaker."""
        return self.inner.breaker

    @property
    def client(self) -> Any:
        """The inner store's client, if it has one."""
        return getattr(self.inner, "client", None)

    async def open(self) -> None:
        """Open the inner store."""
        await self.inner.open()

    async def close(self) -> None:
        """Close the inner store."""
        await self.inner.close()

    def abandon(self) -> None:
        """Abandon the inner store."""
        self.inner.abandon()

    def now(self) -> float:
        """Return the inner store's time."""
        return self.inner.now()

    async def _read(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        return await self.faults.around(name, work, self.breaker, self._read_timeout)

    async def _ask(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        return await self.faults.around(name, work, self.breaker, self._write_timeout)

    async def _change(self, name: str, work: Callable[[], Awaitable[_T]]) -> _T:
        return await self.faults.around(name, work, self.breaker, self._write_timeout, writes=True)

    def _garbled(self, text: str, name: str) -> str:
        kept(self._seen, text)
        return self.faults.garbled(text, name, self._seen)

    def _maybe(self, text: str | None, name: str) -> str | None:
        return None if text is None else self._garbled(text, name)

    async def tend(self) -> None:
        """Ask for a sign of life."""
        await self._ask("tend", self.inner.tend)

    async def read(self, keys: Sequence[str]) -> Sequence[str | None]:
        """Return the values of *keys*, some perhaps corrupt."""
        found = await self._read("read", lambda: self.inner.read(keys))
        return [self._maybe(text, "read") for text in found]

    async def write(self, writes: Sequence[Write]) -> None:
        """Store *writes*."""
        await self._change("write", lambda: self.inner.write(writes))

    async def write_new(self, write: Write) -> str:
        """Store *write* unless its key exists; return the value in force, never corrupt."""
        return await self._change("write_new", lambda: self.inner.write_new(write))

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values and hashes."""
        return await self._change("delete", lambda: self.inner.delete(keys))

    async def rows(
        self, key: str, newest: int | None = None, *, hurry: bool = False
    ) -> Mapping[str, str]:
        """Return the rows of a hash, some perhaps corrupt."""
        ask = self._read if hurry else self._ask
        found = await ask("rows", lambda: self.inner.rows(key, newest, hurry=hurry))
        return {name: self._garbled(text, "rows") for name, text in found.items()}

    async def put_rows(self, writes: Sequence[RowWrite]) -> None:
        """Add rows to hashes."""
        await self._change("put_rows", lambda: self.inner.put_rows(writes))

    async def delete_rows(self, key: str, names: Sequence[str]) -> int:
        """Remove rows of a hash."""
        return await self._change("delete_rows", lambda: self.inner.delete_rows(key, names))

    async def claim_row(self, key: str, name: str, value: str) -> bool:
        """Add a row unless it is there."""
        return await self._change("claim_row", lambda: self.inner.claim_row(key, name, value))

    async def take_lease(self, key: str, token: str, seconds: float) -> str:
        """Take a lease unless it is somebody's; return whose it is."""
        return await self._change("take_lease", lambda: self.inner.take_lease(key, token, seconds))

    async def renew_lease(self, key: str, token: str, seconds: float) -> bool:
        """Let a lease last, if it is *token*'s."""
        return await self._change(
            "renew_lease", lambda: self.inner.renew_lease(key, token, seconds)
        )

    async def release_lease(self, key: str, token: str) -> bool:
        """End a lease, if it is *token*'s."""
        return await self._change("release_lease", lambda: self.inner.release_lease(key, token))

    async def row_names(self, key: str) -> Sequence[str]:
        """Return the names of the rows of a hash."""
        return await self._ask("row_names", lambda: self.inner.row_names(key))

    async def some_rows(self, key: str, names: Sequence[str]) -> Sequence[str | None]:
        """Return the rows of these *names*, some perhaps corrupt."""
        found = await self._ask("some_rows", lambda: self.inner.some_rows(key, names))
        return [self._maybe(text, "some_rows") for text in found]

    async def publish(self, channel: str) -> None:
        """Wake everybody who listens, unless it is lost."""
        await self._change("publish", lambda: self.inner.publish(channel))

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Yield as the inner store does, until it is lost."""
        async for _ in self.inner.listen(channel):
            self.faults.calls["listen"] += 1
            if self.faults.happens("throw", "listen"):
                raise BackendError("backend_error", "ChaosError")
            if not self.faults.happens("hang", "listen"):
                yield

    async def append(self, log: str, values: Sequence[str], *, keep: int) -> None:
        """Append to a log."""
        await self._change("append", lambda: self.inner.append(log, values, keep=keep))

    async def after(self, log: str, position: str, count: int) -> list[tuple[str, str]]:
        """Return values of a log, some perhaps corrupt."""
        found = await self._ask("after", lambda: self.inner.after(log, position, count))
        return [(place, self._garbled(text, "after")) for place, text in found]

    async def remove(self, log: str, positions: Sequence[str]) -> None:
        """Remove values of a log."""
        await self._change("remove", lambda: self.inner.remove(log, positions))

    async def last(self, log: str, count: int) -> list[tuple[str, str]]:
        """Return the newest values of a log, some perhaps corrupt."""
        found = await self._ask("last", lambda: self.inner.last(log, count))
        return [(place, self._garbled(text, "last")) for place, text in found]
