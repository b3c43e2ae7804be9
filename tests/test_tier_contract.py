"""One suite for every tier on every store: what is served to whom, until when, and what never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from cache_core.exceptions import BackendError
from cache_core.keys import Keys
from cache_core.models import LEVELS, Entry, Hit, Level, Miss, Query, Scope
from cache_core.stores.base import KeyValueStore, Write
from cache_core.testing import ManualClock
from cache_core.tiers.base import Tier
from cache_core.tuning import Tuning
from tests.conftest import CacheFactory
from tests.patient import PATIENT

Pass = Callable[[float], Awaitable[None]]

LASTING = Tuning()
PART: dict[Level, Literal["response", "intent", "rag_results"]] = {
    "l1": "response", "l2": "response", "l3": "intent", "l4": "rag_results",
}  # fmt: skip


class Bench:
    """One tier, and the few steps that the tests are made of."""

    def __init__(self, level: Level, tier: Tier, store: KeyValueStore, keys: Keys) -> None:
        self.level = level
        self.tier = tier
        self.store = store
        self.keys = keys

    def query(
        self, message: str = "how do I return a parcel", user: str | None = "ann", **more: Any
    ) -> Query:
        return self.keys.query(message, user, **more)

    def value(self, text: str) -> Any:
        return [{"id": text}] if self.level == "l4" else text

    def entry(self, text: str, generation: str = "p1", ttl: float | None = None) -> Entry:
        return Entry(
            response=text, intent=text, rag_results=[{"id": text}],
            created=self.store.now(), ttl=ttl, generation=generation, writer="w",
        )  # fmt: skip

    async def put(
        self, query: Query, text: str, scope: Scope = "user", tuning: Tuning = LASTING,
        ttl: float | None = None,
    ) -> None:  # fmt: skip
        await self.store.write_new(Write(self.keys.generation(query.tag), "p1", 600.0))
        await self.tier.put(query, self.entry(text, ttl=ttl), scope, tuning)

    async def get(self, query: Query, tuning: Tuning = LASTING) -> Hit | Miss:
        return await self.tier.get(query, tuning)

    async def served(self, query: Query, tuning: Tuning = LASTING) -> Any:
        answer = await self.get(query, tuning)
        return getattr(answer.entry, PART[self.level]) if isinstance(answer, Hit) else None

    async def reason(self, query: Query, tuning: Tuning = LASTING) -> str:
        answer = await self.get(query, tuning)
        assert isinstance(answer, Miss), answer
        return answer.reason

    def with_ttl(self, seconds: float) -> Tuning:
        return Tuning(**{f"{self.level}_ttl": seconds})  # type: ignore[arg-type]

    def key(self, query: Query, scope: Scope = "user") -> str:
        history = "" if self.level == "l2" else query.history
        return self.keys.entry(self.level, query.tag, query.scope(scope), query.context, history)


@pytest.fixture(params=LEVELS)
async def bench(
    request: pytest.FixtureRequest, make_cache: CacheFactory, clock: ManualClock
) -> Bench:
    cache = await make_cache(settings=PATIENT, clock=clock)
    parts = cache.parts
    running = cache._engine.running
    assert running is not None
    # In the background it removes what these tests still want to find.
    await running.housekeeper.close()
    return Bench(request.param, parts.tiers[request.param], parts.store, parts.keys)


@pytest.fixture
def passes(store_kind: str, clock: ManualClock) -> Pass:
    """Let time pass: at once for the embedded store, really for Redis."""

    async def wait(seconds: float) -> None:
        if store_kind == "embedded":
            clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    return wait


async def test_one_reads_ones_own_put(bench: Bench) -> None:
    """What was put for a user is served to that user as soon as the put returns."""
    await bench.put(bench.query(), "mine")
    answer = await bench.get(bench.query())
    assert isinstance(answer, Hit)
    assert getattr(answer.entry, PART[bench.level]) == bench.value("mine")
    assert (answer.scope, answer.confirmed, answer.matched) == ("user", True, bench.query().tag)


async def test_nothing_put_is_cold(bench: Bench) -> None:
    """A message that nobody asked before is a miss for the reason `cold`."""
    assert await bench.reason(bench.query()) == "cold"


async def test_another_user_gets_nothing(bench: Bench) -> None:
    """A private entry is served neither to another user nor to nobody."""
    await bench.put(bench.query(), "mine")
    assert await bench.served(bench.query(user="bob")) is None
    assert await bench.served(bench.query(user=None)) is None


async def test_a_shared_entry_is_everybodys(bench: Bench) -> None:
    """A shared entry is served to every user, and to nobody in particular."""
    await bench.put(bench.query(), "everybody's", "shared")
    for user in ("ann", "bob", None):
        assert await bench.served(bench.query(user=user)) == bench.value("everybody's")


async def test_ones_own_comes_before_the_shared(bench: Bench) -> None:
    """A user who has an entry of their own gets that one and not the shared one."""
    await bench.put(bench.query(), "everybody's", "shared")
    await bench.put(bench.query(), "mine")
    assert await bench.served(bench.query()) == bench.value("mine")
    assert await bench.served(bench.query(user="bob")) == bench.value("everybody's")


async def test_a_later_put_replaces(bench: Bench) -> None:
    """The last put for a message and scope is the one that is served."""
    for scope in ("user", "shared"):
        await bench.put(bench.query(), f"old {scope}", scope)  # type: ignore[arg-type]
        await bench.put(bench.query(), f"new {scope}", scope)  # type: ignore[arg-type]
    assert await bench.served(bench.query()) == bench.value("new user")
    assert await bench.served(bench.query(user="bob")) == bench.value("new shared")


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_contexts_are_kept_apart(bench: Bench, scope: Scope) -> None:
    """An entry of one context is served in no other, and not without a context."""
    await bench.put(bench.query(context={"locale": "de"}), "german", scope)
    assert await bench.served(bench.query(context={"locale": "de"})) == bench.value("german")
    for context in ({"locale": "en"}, "de", None):
        assert await bench.served(bench.query(context=context)) is None


async def test_histories_are_kept_apart(bench: Bench) -> None:
    """An entry made after some turns is served after no others; L2 leaves follow-ups alone."""
    asked = bench.query("yes", history=["shall I cancel it?"])
    await bench.put(asked, "cancelled", "shared")
    expected = None if bench.level == "l2" else bench.value("cancelled")
    assert await bench.served(asked) == expected
    for history in (["shall I keep it?"], ["shall I cancel it?", "sure?"], None):
        assert await bench.served(bench.query("yes", history=history)) is None


async def test_namespaces_share_nothing(
    bench: Bench, make_cache: CacheFactory, clock: ManualClock
) -> None:
    """A cache of another namespace on the same store finds nothing."""
    await bench.put(bench.query(), "here", "shared")
    other = await make_cache(namespace="other", settings=PATIENT, clock=clock)
    elsewhere = Bench(
        bench.level, other.parts.tiers[bench.level], other.parts.store, other.parts.keys
    )
    assert await elsewhere.reason(elsewhere.query()) == "cold"


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_an_old_entry_is_expired(bench: Bench, passes: Pass, scope: Scope) -> None:
    """After the tier's TTL an entry is a miss for the reason `expired`."""
    tuning = bench.with_ttl(0.5)
    await bench.put(bench.query(), "mine", scope, tuning)
    assert await bench.served(bench.query(), tuning) == bench.value("mine")
    await passes(0.7)
    assert await bench.reason(bench.query(), tuning) == "expired"


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_after_twice_its_ttl_an_entry_was_never_there(
    bench: Bench, passes: Pass, scope: Scope
) -> None:
    """An entry is kept for two TTLs; then its message is cold again."""
    tuning = bench.with_ttl(0.2)
    await bench.put(bench.query(), "mine", scope, tuning)
    await passes(0.5)
    assert await bench.reason(bench.query(), tuning) == "cold"


async def test_raising_the_ttl_revives(bench: Bench, passes: Pass) -> None:
    """TTLs are judged when reading: raising one serves again what had expired."""
    await bench.put(bench.query(), "mine", "user", bench.with_ttl(5.0))
    await passes(0.5)
    assert await bench.reason(bench.query(), bench.with_ttl(0.3)) == "expired"
    assert await bench.served(bench.query(), bench.with_ttl(60.0)) == bench.value("mine")


async def test_the_entrys_own_ttl_wins(bench: Bench, passes: Pass) -> None:
    """An entry's own TTL beats the tier's, whether it is shorter or longer."""
    short, long = bench.query("a short lived question"), bench.query("the long living topic")
    await bench.put(short, "short", ttl=0.3)
    await bench.put(long, "long", ttl=60.0)
    await passes(0.4)
    assert await bench.reason(short) == "expired"
    assert await bench.served(long, bench.with_ttl(0.1)) == bench.value("long")


async def test_a_hit_never_extends_a_life(bench: Bench, passes: Pass) -> None:
    """An entry that is asked for again and again expires all the same."""
    tuning = bench.with_ttl(0.6)
    await bench.put(bench.query(), "mine", "user", tuning)
    for _ in range(2):
        await passes(0.2)
        assert await bench.served(bench.query(), tuning) == bench.value("mine")
    await passes(0.4)
    assert await bench.reason(bench.query(), tuning) == "expired"


async def test_an_entry_from_the_future_is_not_served(bench: Bench) -> None:
    """An entry that a clock stamped far in the future does not live for ever: it is expired."""
    await bench.put(bench.query(), "now")
    entry = bench.entry("tomorrow")._replace(created=bench.store.now() + 86_400)
    await bench.tier.put(bench.query(), entry, "user", LASTING)
    assert await bench.reason(bench.query()) == "expired"


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_a_replaced_generation_invalidates(bench: Bench, scope: Scope) -> None:
    """When a message's token was replaced its entries are a miss for the reason `invalidated`."""
    await bench.put(bench.query(), "mine", scope)
    await bench.store.write([Write(bench.keys.generation(bench.query().tag), "i2", 600.0)])
    assert await bench.reason(bench.query()) == "invalidated"


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_a_missing_generation_fails_closed(bench: Bench, scope: Scope) -> None:
    """An entry whose message's token was evicted is not served."""
    await bench.put(bench.query(), "mine", scope)
    await bench.store.delete([bench.keys.generation(bench.query().tag)])
    assert await bench.reason(bench.query()) == "invalidated"


def _other_version(envelope: str) -> str:
    return json.dumps({**json.loads(envelope), "v": 999})


def _wrong_type(envelope: str) -> str:
    body = {"response": 5, "intent": 5, "rag_results": 5}
    return json.dumps({**json.loads(envelope), "b": body})


def _empty_body(envelope: str) -> str:
    return json.dumps({**json.loads(envelope), "b": {}})


@pytest.mark.parametrize(
    "spoil",
    [lambda _: "garbage", lambda _: "", lambda _: "null", lambda _: "[" * 100_000,
     lambda text: text[: len(text) // 2], _other_version, _wrong_type, _empty_body],
    ids=["garbage", "empty", "null", "deep", "torn", "version", "types", "no-body"],
)  # fmt: skip
async def test_what_cannot_be_read_is_corrupt(bench: Bench, spoil: Callable[[str], str]) -> None:
    """A value that is no envelope of this version is a miss for the reason `corrupt`."""
    await bench.put(bench.query(), "mine")
    key = bench.key(bench.query())
    envelope = (await bench.store.read([key]))[0]
    assert envelope is not None
    await bench.store.write([Write(key, spoil(envelope), 60.0)])
    assert await bench.reason(bench.query()) == "corrupt"


async def test_what_was_corrupt_is_deleted(bench: Bench) -> None:
    """A value that could not be read is gone after it was found."""
    await bench.put(bench.query(), "mine")
    key = bench.key(bench.query())
    await bench.store.write([Write(key, "garbage", 60.0)])
    await bench.reason(bench.query())
    assert list(await bench.store.read([key])) == [None]


async def test_an_envelope_belongs_to_its_key(bench: Bench) -> None:
    """My own answer to another question, moved to this question's key, is never served."""
    one, other = bench.query("how do I return a parcel"), bench.query("where is the nearest shop")
    await bench.put(one, "return")
    await bench.put(other, "shop")
    moved = (await bench.store.read([bench.key(other)]))[0]
    assert moved is not None
    await bench.store.write([Write(bench.key(one), moved, 60.0)])
    assert await bench.reason(one) == "corrupt"
    assert await bench.served(other) == bench.value("shop")


async def test_a_foreign_envelope_is_an_isolation_error(bench: Bench) -> None:
    """Another user's answer, moved to my key, is refused as `isolation` and then gone."""
    mine, theirs = bench.query(user="ann"), bench.query(user="bob")
    await bench.put(mine, "ann's")
    await bench.put(theirs, "bob's")
    moved = (await bench.store.read([bench.key(theirs)]))[0]
    assert moved is not None
    await bench.store.write([Write(bench.key(mine), moved, 60.0)])
    with pytest.raises(BackendError) as refused:
        await bench.get(mine)
    assert refused.value.reason == "isolation"
    assert await bench.served(mine) is None
    assert await bench.served(theirs) == bench.value("bob's")


async def test_a_foreign_envelope_among_the_shared(bench: Bench) -> None:
    """A private answer that got to the shared scope's place is refused, and gone."""
    asked = bench.query(user="ann")
    theirs = bench.query(user="bob")
    await bench.put(theirs, "bob's")
    await bench.put(asked, "everybody's", "shared")
    moved = (await bench.store.read([bench.key(theirs)]))[0]
    assert moved is not None
    await bench.store.write([Write(bench.key(asked, "shared"), moved, 60.0)])
    if isinstance(index := getattr(bench.tier, "_index", None), object) and index is not None:
        row = (await index.search(asked.context, await _vector(bench, asked), 1))[0]
        assert "everybody's" in row.text
        from cache_core.stores.vectors import Row

        vector = await _vector(bench, asked)
        await index.add(asked.context, Row(row.id, vector, moved, bench.store.now() + 60))
    with pytest.raises(BackendError) as refused:
        await bench.get(asked)
    assert refused.value.reason == "isolation"
    assert await bench.served(asked) is None


async def _vector(bench: Bench, query: Query) -> Any:
    return await bench.tier._embedder.embed(query.text)  # type: ignore[attr-defined]


async def test_without_a_user_there_is_no_user_scope(bench: Bench) -> None:
    """A put for the user scope of nobody is refused instead of stored somewhere."""
    with pytest.raises(ValueError, match="without a user"):
        await bench.put(bench.query(user=None), "whose?")


async def test_gets_of_many_users_at_once(bench: Bench) -> None:
    """Fifty users who ask the same at once each get their own."""
    users = [f"user {number}" for number in range(50)]
    for user in users:
        await bench.put(bench.query(user=user), f"of-{user.replace(' ', '-')}")
    found = await asyncio.gather(*(bench.served(bench.query(user=user)) for user in users))
    assert found == [bench.value(f"of-{user.replace(' ', '-')}") for user in users]
