"""Garbage in what is stored beside the entries: indexes, logs, records, marks, tokens.

`FUZZ_CASES=5000 pytest tests/faults/test_fuzz_records.py` tries that many on each store.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite, Write
from cache_core.config.trail import TUNING
from cache_core.model.exceptions import ConfigurationError, TuningConflict
from cache_core.model.keys import PARTITIONS
from cache_core.model.values import Generation
from cache_core.observability.audit import AUDIT, AuditLog
from cache_core.observability.fleet import REPLICAS
from cache_core.observability.verdicts import LOG
from cache_core.operations.put.limits import WriteLimits
from tests.faults.test_fuzz_entries import JSON, KEY, LARGE, MUTATIONS, USERS, Mutation
from tests.security.test_encryption import encrypted
from tests.support import servers
from tests.support.caches import CacheFactory, check_balance
from tests.support.inside import inside
from tests.support.patience import PATIENT
from tests.support.votes import vote

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("FUZZ_CASES", "60"))
MESSAGES = ("alpha one", "beta two")
COMMON = "gamma three"
"""Messages to which several users get the same answer."""

ANY: list[Any] = [*JSON, -1e300, 2**63, 10**18, "nan", "9" * 30, "9-9-9", [[]], {"a": {}}]


def _inside(dice: random.Random, value: str, others: list[str]) -> str:
    """Any value in the place of any part of a JSON list or object."""
    try:
        found = json.loads(value)
    except ValueError:
        return json.dumps(dice.choice(ANY))
    part = found
    while isinstance(part, (dict, list)) and part:
        place = dice.choice(list(part) if isinstance(part, dict) else range(len(part)))
        if not isinstance(part[place], (dict, list)) or not part[place] or dice.random() < 0.5:
            part[place] = dice.choice(ANY)
            break
        part = part[place]
    return json.dumps(found)


HERE: list[Mutation] = [*MUTATIONS, _inside, _inside, _inside, _inside]


class Beside:
    """A cache, and all that its store holds beside the entries."""

    def __init__(self, cache: MultiLevelCache, url: str | None) -> None:
        self.cache = cache
        self.url = url
        self.parts = cache._parts
        self.computed = (MESSAGES[0], USERS[0])
        self.promoted = 0
        keys, query = self.parts.keys, self.parts.keys.query
        asked = [query(message, user) for message in MESSAGES for user in USERS]
        users = [item.user or "" for item in asked]
        tags = [item.tag for item in asked]
        labels = [keys.index(kind, keys.label(kind, "x")) for kind in ("document", "tag")]
        self.values = {
            "tokens": [name for item in asked for name in keys.generations(item)],
            "markers": [keys.marker(item) for item in asked],
            "leases": [""],  # of what is being computed: see `_names`
            "heartbeats": [keys.own(f"replica-{name}") for name in ("other", cache.replica)],
        }
        self.hashes = {
            "message index": [keys.index("message", tag) for tag in tags],
            "user index": [keys.index("user", user) for user in users],
            "writer index": [keys.index("writer", user) for user in users],
            "label index": labels,
            "votes": [keys.votes(query(COMMON, None))],
            "vectors": [keys.vectors(user, keys.no_context) for user in users],
            "partitions": [keys.own(PARTITIONS + keys.model)],
            "arriving": [keys.own("arriving" + keys.model)],
            "applied": [keys.own("applied")],
            "replicas": [keys.own(REPLICAS)],
            "tuning": [keys.own(TUNING)],
        }
        self.logs = {
            name: [keys.own(key)]
            for name, key in (
                ("invalidations", "invalidations"), ("feed", f"feed{keys.model}"),
                ("decisions", "decisions"), ("verdicts", LOG), ("audit", AUDIT),
            )
        }  # fmt: skip
        self.kinds = [*self.values, *self.hashes, *self.logs]

    async def break_one(self, kind: str, dice: random.Random) -> str:
        """Put something into what is of *kind*; return its key."""
        name = await self._name(kind, dice)
        mutate = dice.choice(LARGE if dice.random() < 0.03 else HERE)
        if self.url is not None and dice.random() < 0.2:
            self._other_type(name, dice)
            return name
        if kind in self.values:
            known = [value or "" for value in await self.parts.store.read([name])]
            value = mutate(dice, dice.choice(known), await self._others(dice))
            await self._write(name, _text(value), None)
        elif kind in self.hashes:
            known_rows = await self.parts.store.rows(name) or {"x": ""}
            row, value = dice.choice(list(known_rows.items()))
            made = _text(mutate(dice, value, await self._others(dice)))
            if dice.random() < 0.3:
                row = dice.choice([_text(mutate(dice, row, await self._others(dice))), "7", made])
            await self._write(name, made, row)
        else:
            texts = [text for _, text in await self.parts.store.last(name, 50)] or ["{}"]
            made = _text(mutate(dice, dice.choice(texts), await self._others(dice)))
            await self._append(name, made)
        return name

    async def _name(self, kind: str, dice: random.Random) -> str:
        """Return the key of something of *kind*, that is there, or is about to be read."""
        if kind == "leases":
            message, user = self.computed = dice.choice(MESSAGES), dice.choice(USERS)
            await self.cache.invalidate(message)
            query = self.parts.keys.query(message, user)
            tokens = await self.parts.store.read(self.parts.keys.generations(query))
            return self.parts.keys.lease(query, Generation(*tokens).invalidated)
        if kind == "votes":
            await self.cache.invalidate(COMMON)
            await self.cache.put(COMMON, "cyd", f"{COMMON} for all")
        return dice.choice((self.values | self.hashes | self.logs)[kind])

    async def meet(self, kind: str) -> None:
        """Do what reads what was broken, where hardly anything else does."""
        if kind == "leases":
            message, user = self.computed
            right = f"{message} for {user}"
            assert await self.cache.get_or_compute(message, user, lambda: right) == right
        if kind == "votes":
            await vote(self.cache, COMMON, "dee fay", f"{COMMON} for all")
            found = (await self.cache.lookup(COMMON, "eve")).response
            assert found in {None, f"{COMMON} for all"}
            self.promoted += found is not None

    async def _others(self, dice: random.Random) -> list[str]:
        """Values of another key."""
        every = [*self.logs.values()]
        name = dice.choice(dice.choice(every))
        return [text for _, text in await self.parts.store.last(name, 5)] or ["x"]

    async def _write(self, name: str, value: str, row: str | None) -> None:
        if self.url is None:
            if row is None:
                await self.parts.store.write([Write(name, value, 600.0)])
            else:
                await self.parts.store.put_rows([RowWrite(name, {row: value}, 600.0)])
            return
        with servers.admin(self.url) as client:
            if row is None:
                client.set(name, _bytes(value))
            else:
                client.hset(name, _bytes(row), _bytes(value))

    async def _append(self, name: str, value: str) -> None:
        if self.url is None:
            await self.parts.store.append(name, [value], keep=20_000)
            return
        with servers.admin(self.url) as client:
            fields = random.Random(value).choice([{"v": value}, {"v": value}, {"other": value}])
            client.xadd(name, {key: _bytes(text) for key, text in fields.items()})

    def _other_type(self, name: str, dice: random.Random) -> None:
        with servers.admin(self.url or "") as client:
            client.delete(name)
            kind = dice.randrange(6)
            if kind == 0:
                client.set(name, b"\xff\x00")
            elif kind == 1:
                client.rpush(name, "a", "b")
            elif kind == 2:
                client.hset(name, "a", "b")
            elif kind == 3:
                client.zadd(name, {"a": 1.0})
            elif kind == 4:
                client.sadd(name, "a")
            else:
                client.xadd(name, {"a": "b"})

    async def clean(self, name: str) -> None:
        """Take the garbage away, with what was there."""
        store = self.parts.store
        if self.url is not None:
            with servers.admin(self.url) as client:
                client.delete(name)
            return
        await store.delete([name])
        await store.remove(name, [at for at, _ in await store.last(name, 20_000)])

    # ------------------------------------------------------------------------- what is called

    async def fill(self, message: str, user: str) -> None:
        await self.cache.lookup(message, user)
        await self.cache.put(
            message, user, f"{message} for {user}", intent="order.status", tags=("x",),
            rag_results=[{"id": "x", "text": message}],
        )  # fmt: skip

    async def check(self, message: str, user: str) -> str:
        result = await self.cache.lookup(message, user)
        assert result.response in {None, f"{message} for {user}"}, (message, user, result)
        return result.outcome

    async def call(self, dice: random.Random) -> None:
        """Call one thing, and read what it returns."""
        cache, message, user = self.cache, dice.choice(MESSAGES), dice.choice(USERS)
        right = f"{message} for {user}"

        async def compute() -> str:
            return right

        async def tune() -> None:
            with contextlib.suppress(TuningConflict, ConfigurationError):
                await cache.tune({"l2_ttl": dice.randrange(3_600, 86_400)}, author="ann")

        async def compare() -> None:
            assert await cache.get_or_compute(message, user, compute) == right

        async def stand_in() -> None:
            with contextlib.suppress(ConfigurationError):
                await cache.stand_in()

        async def see() -> None:
            decisions = await cache.decisions()
            sum(item.seconds + item.at for item in decisions)
            Counter((item.outcome, item.intent, *item.reasons) for item in decisions)
            sum(item.at for item in await cache.verdicts())
            json.dumps(cache.get_metrics())
            audit = AuditLog(self.parts.store, self.parts.keys.own(AUDIT))
            await audit.begin("ann", "look", "x")
            Counter(item.author for item in await audit.last(50))
            [item.name.upper() for item in await cache.operator.replicas()]
            [change.author.upper() for change in await cache.tuning_history()]

        async def judge() -> None:
            result = await cache.lookup(message, user)
            await cache.feedback(result.lookup_id, correct=True)
            await cache.feedback("gone", correct=True)

        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: self.fill(message, user),
            lambda: cache.invalidate(message),
            lambda: cache.invalidate(message, dry_run=True),
            lambda: cache.invalidate(message, user_id=user),
            lambda: cache.invalidate_document("x"),
            lambda: cache.invalidate_tag("x"),
            lambda: cache.invalidate_writer(user),
            lambda: cache.forget_user(user),
            lambda: cache.explain(message, user),
            compare,
            tune,
            stand_in,
            see,
            judge,
        ]
        await dice.choice(calls)()


def _text(value: str | bytes) -> str:
    # Lone surrogates come in as escapes of JSON; no client of a store can send them.
    text = value if isinstance(value, str) else value.decode("latin-1")
    return text.encode("utf-8", "replace").decode("utf-8")


def _bytes(text: str) -> bytes:
    with contextlib.suppress(UnicodeEncodeError):
        return text.encode("latin-1")
    return text.encode("utf-8", "replace")


@pytest.mark.parametrize("sealed", [False, True], ids=["readable", "sealed"])
@pytest.mark.timeout(7_200)
async def test_garbage_beside_the_entries_reaches_nobody(
    make_cache: CacheFactory,
    store_kind: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    sealed: bool,
) -> None:
    """No exception, nothing of another user, every duty lives on, and all works once it is gone."""
    url = request.getfixturevalue("empty_redis") if store_kind == "redis" else None
    monkeypatch.setattr(WriteLimits, "take", lambda *_, **__: True)
    caplog.set_level(logging.INFO, "glasscache")
    settings = encrypted(KEY) if sealed else PATIENT
    cache: MultiLevelCache = await make_cache(
        settings={**settings, "capture_message_content": True, "compute_wait": 0.2}
    )
    await cache.ready()
    await cache.tune({"sharing": "auto", "promote_after": 2}, author="ann")
    beside = Beside(cache, url)
    running = inside(cache)
    dice = random.Random(f"{store_kind} {sealed}")
    for case in range(CASES):
        kind = beside.kinds[case % len(beside.kinds)]
        for message in MESSAGES:
            for user in USERS:
                await beside.fill(message, user)
        name = await beside.break_one(kind, dice)
        try:
            await beside.meet(kind)
            for _ in range(3):
                await beside.call(dice)
                await beside.check(dice.choice(MESSAGES), dice.choice(USERS))
            for duty in (
                running.parts.journal.catch_up, running.housekeeper._apply_feed,
                running.housekeeper._follow_invalidations, running.housekeeper._beat,
                cache._engine.live.refresh, running.parts.decisions.flush,
            ):  # fmt: skip
                await duty()
        except BaseException as error:
            error.add_note(f"case {case}: {kind}, {name}")
            raise
        await beside.clean(name)
        await running.invalidator.steps.retry()
        assert running.invalidator.steps.pending == 0, (case, kind, caplog.messages[-5:])
        message, user = dice.choice(MESSAGES), dice.choice(USERS)
        await beside.fill(message, user)
        assert await beside.check(message, user) == "hit", (case, kind)
        await running.housekeeper._apply_feed()
        check_balance(cache.metrics)
    for tasks in (running.housekeeper._tasks, cache._engine.live._tasks):
        assert not [task for task in tasks if task.done()]
    surprises = [text for text in caplog.messages if "unexpected" in text]
    assert not surprises, surprises[:5]
    assert beside.promoted, "votes are not read"
    await cache.tune({"l2_ttl": 4_321}, author="ann")
    assert cache.tuning.l2_ttl == 4_321
