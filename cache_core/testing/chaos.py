"""Keyed store and vector index that fail on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from cache_core.backends.base import Backend, KeyValueStore, Neighbour, VectorIndex
from cache_core.backends.breaker import Breaker
from cache_core.model.exceptions import BackendError
from cache_core.testing.faults import Faults

_Inner = TypeVar("_Inner", bound=Backend)
_P = ParamSpec("_P")
_T = TypeVar("_T")

Garble = Callable[[str], str]
"""Returns a text, intact or corrupted."""


class _Chaos(Generic[_Inner]):
    """Wrapper of a backend: see `ChaosStore` and `ChaosVectors`."""

    def __init__(self, inner: _Inner, faults: Faults, hurried: float, timeout: float) -> None:
        self.inner = inner
        self.faults = faults
        self._hurried = hurried
        self._timeout = timeout
        self._seen: list[str] = []

    @property
    def breaker(self) -> Breaker:
        """The inner breaker."""
        return self.inner.breaker

    async def open(self) -> None:
        """Open the inner backend."""
        await self.inner.open()

    async def close(self) -> None:
        """Close the inner backend."""
        await self.inner.close()

    def abandon(self) -> None:
        """Abandon the inner backend."""
        self.inner.abandon()


def _faulty(
    method: Callable[Concatenate[Any, _P], Awaitable[_T]],
    *,
    writes: bool = False,
    hurried: bool = False,
    garbled: Callable[[_T, Garble], _T] | None = None,
) -> Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]]:
    """Return *method* of a protocol as a method of a double.

    Args:
        method: Gives name and signature.
        writes: Whether a reply can be lost.
        hurried: Whether a lookup always waits for it; else its argument `hurry` decides.
        garbled: Applies a function to the texts in a result.
    """
    name = method.__name__

    @wraps(method)
    async def call(self: Any, /, *args: _P.args, **named: _P.kwargs) -> _T:
        async def work() -> _T:
            return await getattr(self.inner, name)(*args, **named)  # type: ignore[no-any-return]

        timeout = self._hurried if hurried or named.get("hurry") else self._timeout
        found: _T = await self.faults.around(name, work, self.breaker, timeout, writes=writes)
        if garbled is None:
            return found
        return garbled(found, lambda text: self.faults.garbled(text, name, self._seen))

    return call


def _texts(found: Sequence[str | None], garble: Garble) -> Sequence[str | None]:
    return [text if text is None else garble(text) for text in found]


def _rows(found: Mapping[str, str], garble: Garble) -> Mapping[str, str]:
    return {name: garble(text) for name, text in found.items()}


def _log(found: list[tuple[str, str]], garble: Garble) -> list[tuple[str, str]]:
    return [(position, garble(text)) for position, text in found]


def _neighbours(found: list[Neighbour], garble: Garble) -> list[Neighbour]:
    return [near if near.text is None else replace(near, text=garble(near.text)) for near in found]


class ChaosStore(_Chaos[KeyValueStore]):
    """Keyed store around another one, to whose calls *faults* are applied.

    Give it to a cache with `MultiLevelCache(wrap_store=lambda store: ChaosStore(store, faults))`.
    It keeps the contract of `KeyValueStore`: calls raise only `BackendError`, within the time
    limits, and the breaker counts the faults. `open`, `close` and `now` never fail.

    Args:
        inner: The store that does the work.
        faults: The faults to apply.
        read_timeout: Seconds after which a lookup's read that hangs fails.
        write_timeout: The same for all other calls.
    """

    def __init__(
        self,
        inner: KeyValueStore,
        faults: Faults,
        *,
        read_timeout: float = 0.05,
        write_timeout: float = 0.5,
    ) -> None:
        super().__init__(inner, faults, read_timeout, write_timeout)

    @property
    def client(self) -> Any:
        """The inner store's client, if it has one."""
        return getattr(self.inner, "client", None)

    def now(self) -> float:
        """Return the inner store's time."""
        return self.inner.now()

    async def listen(self, channel: str) -> AsyncIterator[None]:
        """Yield as the inner store does, until it is lost."""
        async for _ in self.inner.listen(channel):
            self.faults.calls["listen"] += 1
            if self.faults.happens("throw", "listen"):
                raise BackendError("backend_error", "ChaosError")
            if not self.faults.happens("hang", "listen"):
                yield

    tend = _faulty(KeyValueStore.tend)
    read = _faulty(KeyValueStore.read, hurried=True, garbled=_texts)
    write = _faulty(KeyValueStore.write, writes=True)
    write_new = _faulty(KeyValueStore.write_new, writes=True)
    delete = _faulty(KeyValueStore.delete, writes=True)
    rows = _faulty(KeyValueStore.rows, garbled=_rows)
    some_rows = _faulty(KeyValueStore.some_rows, garbled=_texts)
    row_names = _faulty(KeyValueStore.row_names)
    hashes = _faulty(KeyValueStore.hashes)
    put_rows = _faulty(KeyValueStore.put_rows, writes=True)
    delete_rows = _faulty(KeyValueStore.delete_rows, writes=True)
    claim_row = _faulty(KeyValueStore.claim_row, writes=True)
    append = _faulty(KeyValueStore.append, writes=True)
    after = _faulty(KeyValueStore.after, garbled=_log)
    last = _faulty(KeyValueStore.last, garbled=_log)
    remove = _faulty(KeyValueStore.remove, writes=True)
    take_lease = _faulty(KeyValueStore.take_lease, writes=True)
    renew_lease = _faulty(KeyValueStore.renew_lease, writes=True)
    release_lease = _faulty(KeyValueStore.release_lease, writes=True)
    publish = _faulty(KeyValueStore.publish, writes=True)


class ChaosVectors(_Chaos[VectorIndex]):
    """Vector index around another one, to whose calls *faults* are applied.

    Give it to a cache with `MultiLevelCache(wrap_index=lambda index: ChaosVectors(index, faults))`.
    It keeps the contract of `VectorIndex`. `corrupt` changes a row's text, never its similarity: no
    cache could detect a wrong one.

    Args:
        inner: The index that does the work.
        faults: The faults to apply.
        search_timeout: Seconds after which a search that hangs fails.
        write_timeout: The same for all other calls.
    """

    def __init__(
        self,
        inner: VectorIndex,
        faults: Faults,
        *,
        search_timeout: float = 0.15,
        write_timeout: float = 2.0,
    ) -> None:
        super().__init__(inner, faults, search_timeout, write_timeout)

    def accepts(self, context: str) -> bool:
        """Return whether the inner index takes rows of a context."""
        return self.inner.accepts(context)

    tend = _faulty(VectorIndex.tend)
    search = _faulty(VectorIndex.search, hurried=True, garbled=_neighbours)
    add = _faulty(VectorIndex.add, writes=True)
    remove = _faulty(VectorIndex.remove, writes=True)
    purge = _faulty(VectorIndex.purge, writes=True)
    texts = _faulty(VectorIndex.texts)
    contexts = _faulty(VectorIndex.contexts)
    count = _faulty(VectorIndex.count)
