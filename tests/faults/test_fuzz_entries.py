"""Stores full of what they should not hold: never a wrong answer, never an exception.

`FUZZ_CASES=100000 pytest tests/faults/test_fuzz_entries.py` tries that many on each store and each way of storing.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import Row, RowWrite, Write
from tests.security.test_encryption import encrypted
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("FUZZ_CASES", "500"))
USERS = ("ann", "bob")
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
MESSAGES = [
    f"{first} {second}" for first in ("alpha", "beta", "gamma") for second in ("one", "two")
]
JSON: list[Any] = [None, True, 0, -1, 1e308, 10**400, "", "x", [], {}, [1], {"a": 1}, "\ud800"]

Mutation = Callable[[random.Random, str, list[str]], str | bytes]


def _garbage(dice: random.Random, value: str, others: list[str]) -> bytes:
    return dice.randbytes(dice.randrange(200))


def _any_json(dice: random.Random, value: str, others: list[str]) -> str:
    return json.dumps(dice.choice(JSON))


def _swapped(dice: random.Random, value: str, others: list[str]) -> str:
    return dice.choice(others)


def _truncated(dice: random.Random, value: str, others: list[str]) -> str:
    return value[: dice.randrange(max(1, len(value)))]


def _nested(dice: random.Random, value: str, others: list[str]) -> str:
    depth = dice.choice([150, 1_500, 60_000])
    inside = "[" * depth + "]" * depth
    return inside if dice.random() < 0.5 else value.replace('"b":', f'"z":{inside},"b":', 1)


def _huge(dice: random.Random, value: str, others: list[str]) -> str:
    return dice.choice(['"', "[", "x", '{"v":1,"k":"']) + "y" * dice.choice([70_000, 700_000])


def _field(dice: random.Random, value: str, others: list[str]) -> str:
    """Another version, or any value in the place of any field of the envelope."""
    try:
        envelope = json.loads(value)
    except ValueError:
        return "{}"
    if not isinstance(envelope, dict) or not envelope:
        return "{}"
    name = dice.choice(list(envelope))
    if name == "b" and isinstance(envelope["b"], dict) and envelope["b"]:
        # A response that is a str is an answer: only who has no key can be kept from writing it.
        place = dice.choice(list(envelope["b"]))
        envelope["b"][place] = dice.choice([item for item in JSON if not isinstance(item, str)])
        return json.dumps(envelope)
    if dice.random() < 0.2:
        del envelope[name]
    else:
        envelope[name] = dice.choice([*JSON, 99])
    return json.dumps(envelope)


def _flipped(dice: random.Random, value: str, others: list[str]) -> bytes:
    data = bytearray(value.encode())
    for _ in range(dice.randrange(1, 4)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


MUTATIONS: list[Mutation] = [_garbage, _any_json, _swapped, _truncated, _field]
LARGE: list[Mutation] = [_nested, _huge]
"""Slow to write: one case in twenty."""


class Fuzzed:
    """A cache whose right answers are known, and a way to put anything into its stores."""

    def __init__(self, cache: MultiLevelCache, url: str | None, *, sealed: bool) -> None:
        self.cache = cache
        self.url = url
        self.mutations = [*MUTATIONS, _flipped] if sealed else MUTATIONS
        self.values: dict[str, str] = {}
        self.asks: dict[str, tuple[str, str]] = {}

    async def fill(self) -> None:
        for message in MESSAGES:
            for user in USERS:
                await self.cache.put(message, user, f"{message} for {user}")
            await self.cache.put(f"shared {message}", "ann", f"shared {message} for all",
                                 shared=True)  # fmt: skip
        parts = self.cache._parts
        names: list[str] = []
        for message in [*MESSAGES, *(f"shared {message}" for message in MESSAGES)]:
            for user in USERS:
                query = parts.keys.query(message, user)
                own = [*parts.keys.generations(query), parts.keys.marker(query)]
                own += [
                    parts.keys.entry(level, query, scope)
                    for level in ("l1", "l2")
                    for scope in query.readable
                ]
                self.asks.update(dict.fromkeys(own, (message, user)))
                names += own
        names = list(dict.fromkeys(names))
        found = await parts.store.read(names)
        self.values = {
            name: value for name, value in zip(names, found, strict=True) if value is not None
        }

    async def put_raw(self, name: str, value: str | bytes) -> None:
        if self.url is None:
            text = value if isinstance(value, str) else value.decode("latin-1")
            await self.cache._parts.store.write([Write(name, text, 600.0)])
            return
        with servers.admin(self.url) as client:
            client.set(
                name, value if isinstance(value, bytes) else value.encode("utf-8", "replace")
            )

    async def restore(self, name: str) -> None:
        await self.cache._parts.store.write([Write(name, self.values[name], 600.0)])

    async def break_one(self, dice: random.Random) -> tuple[list[str], tuple[str, str]]:
        """Break one value, row or vector; return what to restore, and which lookup meets it."""
        parts = self.cache._parts
        others = list(self.values.values())
        mutate = dice.choice(LARGE if dice.random() < 0.05 else self.mutations)
        kind = dice.random()
        if kind < 0.8:
            name = dice.choice(list(self.values))
            await self.put_raw(name, mutate(dice, self.values[name], others))
            return [name], self.asks[name]
        made = mutate(dice, dice.choice(others), others)
        text = made if isinstance(made, str) else made.decode("latin-1")
        if kind < 0.9:
            message, user = dice.choice(MESSAGES), dice.choice(USERS)
            query = parts.keys.query(message, user)
            row = {dice.choice([query.tag, "x"]): text}
            name = parts.keys.vectors(query.scope("user"), query.context)
            await parts.store.put_rows([RowWrite(name, row, 600.0)])
            return [], (message, user)
        semantic = parts.semantic
        assert semantic is not None
        message = f"shared {dice.choice(MESSAGES)}"
        query = parts.keys.query(message, None)
        vector = await semantic.embedder.embed(message)
        text = text.encode("utf-8", "replace").decode("utf-8")
        await semantic.index.add(query.context, Row(query.tag, vector, text, 1e12))
        return [], (message, dice.choice(USERS))


@pytest.mark.parametrize("sealed", [False, True], ids=["readable", "sealed"])
@pytest.mark.timeout(7_200)
async def test_a_broken_store_gives_no_wrong_answer(
    make_cache: CacheFactory,
    store_kind: str,
    request: pytest.FixtureRequest,
    *,
    sealed: bool,
) -> None:
    """An answer served was stored for this message and user; else nothing is served."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    settings = encrypted(KEY) if sealed else PATIENT
    cache: MultiLevelCache = await make_cache(settings=settings)
    await cache.ready()
    fuzzed = Fuzzed(cache, url, sealed=sealed)
    dice = random.Random(f"{store_kind} {sealed}")
    seen: Counter[str] = Counter()
    for case in range(CASES):
        if case % 200 == 0:
            await fuzzed.fill()
        broken, (message, user) = await fuzzed.break_one(dice)
        right = f"{message} for {'all' if message.startswith('shared') else user}"
        if dice.random() < 0.3:
            message = ", ".join(message.split())
        result = await cache.lookup(message, user)
        assert result.response in {None, right}, (message, user, result)
        seen[result.outcome] += 1
        for name in broken:
            await fuzzed.restore(name)
    assert sum(seen.values()) == CASES
    assert seen["hit"] > CASES // 10, seen
    assert cache.metrics.miss_reasons["l1", "corrupt"] > 0
