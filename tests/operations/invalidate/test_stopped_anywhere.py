"""An invalidation that fails, is cancelled or dies at any of its calls ends as one that did not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from cache_core.backends.memory_index import MemoryIndex
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.operations.invalidate.outbox import Outbox, Request, StoreName
from tests.support.bench import Bench

pytestmark = pytest.mark.slow

How = Literal["fails", "loses a reply", "loses the store", "is cancelled"]
TUNING = Tuning(semantic_threshold=0.9)
REQUESTS = [
    Request("message", "alpha beta"),
    Request("message", "alpha beta", "ann"),
    Request("document", "d"),
    Request("tag", "t"),
    Request("writer", "ann"),
    Request("user", "ann"),
]
ANSWERS = [
    ("alpha beta", "user", "ann"),
    ("alpha beta", "user", "bob"),
    ("alpha beta", "shared", "ann"),
    ("beta alpha", "user", "ann"),
    ("beta alpha", "shared", "bob"),
    ("gamma", "user", "bob"),
]


class Cut:
    """A backend that stops at one of its calls, and then answers no more until it is mended."""

    def __init__(self, name: str, inner: Any, calls: Calls) -> None:
        self.name = name
        self.inner = inner
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **more: Any) -> Any:
            return await self.calls.make(self.name, lambda: found(*args, **more))

        return call


class Calls:
    """Counts the calls of all backends."""

    def __init__(self) -> None:
        self.made = 0
        self.stop_at: int | None = None
        self.how: How = "fails"

    async def make(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.made += 1
        if self.stop_at is None or self.made < self.stop_at:
            return await call()
        if self.how == "loses the store" and name == "index":
            return await call()
        if self.how == "is cancelled":
            task = asyncio.current_task()
            assert task is not None
            self.stop_at = None
            task.cancel()
            await asyncio.sleep(0)
        if self.how == "loses a reply" and self.made == self.stop_at:
            await call()
        raise BackendError("timeout", "TimeoutError")


class World:
    """Stored data, and one process."""

    def __init__(self, directory: Path, store: EmbeddedStore) -> None:
        self.directory = directory
        self.calls = Calls()
        self.index = Cut("index", MemoryIndex(), self.calls)
        self.store = Cut("store", store, self.calls)
        self.names: dict[tuple[str, str, str], str] = {}
        self.start("one")

    def start(self, replica: str) -> None:
        """Begin as another process: nothing is known that is not stored."""
        self.bench = Bench(self.store, index=self.index)
        self.outbox = Outbox(self.directory / "outbox", "a", replica, StoreName("here"))
        self.invalidator = self.bench.invalidator(self.outbox)

    async def fill(self) -> None:
        for message, scope, user in ANSWERS:
            self.names[message, scope, user] = await self.bench.fill(message, scope, user)  # type: ignore[arg-type]

    async def ask(self, request: Request) -> bool:
        """Invalidate as a cache does; return whether it was complete."""
        complete = False
        try:
            complete = (await self.invalidator.make(request, TUNING)).complete
        finally:
            if not complete:
                self.outbox.add(request)
        return complete

    async def left(self) -> set[tuple[str, str, str]]:
        """Return the answers that are stored, and would be served."""
        found = set()
        for (message, scope, user), name in self.names.items():
            tag, digest = self.bench.query(message).tag, self.bench.keys.user(user)
            tokens = [self.bench.token(message)]
            if scope == "user":
                tokens += [
                    self.bench.keys.own_generation(tag, digest),
                    self.bench.keys.user_generation(digest),
                ]
            values = await self.bench.store.read(tokens)
            rows = await self.bench.index.texts(self.bench.query(message).context, [tag])
            here = bool(rows) if scope == "shared" else await self.bench.value(name) is not None
            if here:
                found.add((message, scope, user))
                # Else it would be served by none, and only lie there.
                assert values == ["p1", None, None][: len(tokens)], (message, scope, user)
        return found


async def world(tmp_path: Path, name: str) -> World:
    directory = tmp_path / name
    store = EmbeddedStore(None)
    await store.open()
    found = World(directory, store)
    await found.fill()
    return found


@pytest.mark.parametrize("then", ["retried", "left to another process"])
@pytest.mark.parametrize("how", get_args(How))
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda item: f"{item.kind} {item.user or ''}")
async def test_stopped_at_any_call(tmp_path: Path, request_: Request, how: How, then: str) -> None:
    """Nothing of it is left, nothing else is removed, and nothing is pending for ever."""
    whole = await world(tmp_path, "whole")
    before, whole.calls.made = await whole.left(), 0
    assert len(before) == len(ANSWERS)
    assert await whole.ask(request_)
    calls, expected = whole.calls.made, await whole.left()
    assert expected < before
    await whole.store.inner.close()
    for number in range(1, calls + 1):
        cut = await world(tmp_path, f"{number}")
        cut.calls.made, cut.calls.stop_at, cut.calls.how = 0, number, how
        try:
            complete = await cut.ask(request_)
        except asyncio.CancelledError:
            complete = False
        assert not complete, number
        cut.calls.stop_at = None
        if then == "retried":
            assert cut.outbox.requests == (request_,)
        else:
            cut.start("two")
            await cut.outbox.adopt(cut.ask)
            assert list((cut.directory / "outbox").iterdir()) == []
        for _ in range(3):
            await cut.invalidator.steps.retry()
        assert cut.invalidator.steps.waiting == [], number
        assert await cut.left() == expected, number
        assert cut.outbox.requests == ()
        await cut.store.inner.close()
