"""Contract of a tier: scopes, expiry, invalidation and isolation of its entries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from cache_core.backends.base import Keyed, Write
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.model.keys import Keys
from cache_core.model.values import Entry, Hit, Level, Miss, Query, Scope
from cache_core.tiers.base import Tier

Pass = Callable[[float], Awaitable[None]]
"""Coroutine function that lets so many seconds of the store's time pass."""

LASTING = Tuning()
PART: dict[Level, Literal["response", "intent", "rag_results"]] = {
    "l1": "response", "l2": "response", "l3": "intent", "l4": "rag_results",
}  # fmt: skip


class TierBench:
    """One tier, with the steps of the tests.

    Args:
        tier: The tier under test.
        store: Store of its entries and of the generations of messages.
        keys: Digests and names.
    """

    def __init__(self, tier: Tier, store: Keyed, keys: Keys) -> None:
        self.tier = tier
        self.store = store
        self.keys = keys

    def query(
        self, message: str = "how do I return a parcel", user: str | None = "ann", **more: Any
    ) -> Query:
        """Return ann's question, or another one."""
        return self.keys.query(message, user, **more)

    def value(self, text: str) -> Any:
        """Return what a hit on *text* has in the tier's part."""
        return [{"id": text}] if self.level == "l4" else text

    def entry(self, text: str, generation: str = "p1", ttl: float | None = None) -> Entry:
        """Return an answer of now with *text* in every part."""
        return Entry(
            response=text, intent=text, rag_results=[{"id": text}],
            created=self.store.now(), ttl=ttl, generation=generation, writer="w",
        )  # fmt: skip

    async def put(
        self, query: Query, text: str, scope: Scope = "user", tuning: Tuning = LASTING,
        ttl: float | None = None,
    ) -> None:  # fmt: skip
        """Store an answer for *scope*, as a put does: the generation first."""
        await self.store.write_new(Write(self.keys.generation(query.tag), "p1", 600.0))
        await self.tier.put(query, self.entry(text, ttl=ttl), scope, tuning)

    async def get(self, query: Query, tuning: Tuning = LASTING) -> Hit | Miss:
        """Ask the tier."""
        return await self.tier.get(query, tuning)

    async def served(self, query: Query, tuning: Tuning = LASTING) -> Any:
        """Return what is served of the tier's part; `None` for a miss."""
        answer = await self.get(query, tuning)
        return getattr(answer.entry, PART[self.level]) if isinstance(answer, Hit) else None

    async def reason(self, query: Query, tuning: Tuning = LASTING) -> str:
        """Return the reason of a miss; fails for a hit."""
        answer = await self.get(query, tuning)
        assert isinstance(answer, Miss), answer
        return answer.reason

    def with_ttl(self, seconds: float) -> Tuning:
        """Return a tuning with a TTL of so many *seconds* for the tier."""
        return Tuning(**{f"{self.level}_ttl": seconds})  # type: ignore[arg-type]

    def key(self, query: Query, scope: Scope = "user") -> str:
        """Return the name under which the tier keeps its entry."""
        return self.keys.entry(self.level, query, query.scope(scope))

    @property
    def level(self) -> Level:
        """Level of the tier."""
        return self.tier.level

    async def misplace(self, query: Query, text: str) -> None:
        """Put a stored *text* of others where the shared answer to *query* is."""
        await self.store.write([Write(self.key(query, "shared"), text, 60.0)])


def _other_version(envelope: str) -> str:
    return json.dumps({**json.loads(envelope), "v": 999})


def _wrong_type(envelope: str) -> str:
    body = {"response": 5, "intent": 5, "rag_results": 5}
    return json.dumps({**json.loads(envelope), "b": body})


def _empty_body(envelope: str) -> str:
    return json.dumps({**json.loads(envelope), "b": {}})


class TierContract:
    """Tests of one implementation of `Tier`.

    A subclass has a fixture `bench`: a `TierBench` of an empty tier. Where the store's time is a
    clock that the test moves, it has a fixture `passes`, too.
    """

    @pytest.fixture
    def passes(self) -> Pass:
        """Let real time pass."""
        return asyncio.sleep

    async def test_one_reads_ones_own_put(self, bench: TierBench) -> None:
        """A user's answer is served to that user as soon as the put returns."""
        await bench.put(bench.query(), "mine")
        answer = await bench.get(bench.query())
        assert isinstance(answer, Hit)
        assert getattr(answer.entry, PART[bench.level]) == bench.value("mine")
        assert (answer.scope, answer.confirmed, answer.matched) == ("user", True, bench.query().tag)

    async def test_nothing_put_is_cold(self, bench: TierBench) -> None:
        """A message that no user asked before is a miss for the reason `cold`."""
        assert await bench.reason(bench.query()) == "cold"

    async def test_another_user_gets_nothing(self, bench: TierBench) -> None:
        """A private entry is served neither to another user nor without a user."""
        await bench.put(bench.query(), "mine")
        assert await bench.served(bench.query(user="bob")) is None
        assert await bench.served(bench.query(user=None)) is None

    async def test_a_shared_entry_is_everybodys(self, bench: TierBench) -> None:
        """A shared entry is served to every user, and without a user."""
        await bench.put(bench.query(), "everybody's", "shared")
        for user in ("ann", "bob", None):
            assert await bench.served(bench.query(user=user)) == bench.value("everybody's")

    async def test_ones_own_comes_before_the_shared(self, bench: TierBench) -> None:
        """A user who has an entry of their own gets that one and not the shared one."""
        await bench.put(bench.query(), "everybody's", "shared")
        await bench.put(bench.query(), "mine")
        assert await bench.served(bench.query()) == bench.value("mine")
        assert await bench.served(bench.query(user="bob")) == bench.value("everybody's")

    async def test_a_later_put_replaces(self, bench: TierBench) -> None:
        """The last put for a message and scope is the one that is served."""
        for scope in ("user", "shared"):
            await bench.put(bench.query(), f"old {scope}", scope)
            await bench.put(bench.query(), f"new {scope}", scope)
        assert await bench.served(bench.query()) == bench.value("new user")
        assert await bench.served(bench.query(user="bob")) == bench.value("new shared")

    @pytest.mark.parametrize("scope", ["user", "shared"])
    async def test_contexts_are_kept_apart(self, bench: TierBench, scope: Scope) -> None:
        """An entry of one context is served in no other, and not without a context."""
        await bench.put(bench.query(context={"locale": "de"}), "german", scope)
        assert await bench.served(bench.query(context={"locale": "de"})) == bench.value("german")
        for context in ({"locale": "en"}, "de", None):
            assert await bench.served(bench.query(context=context)) is None

    async def test_histories_are_kept_apart(self, bench: TierBench) -> None:
        """An entry made after some turns is served after no others; L2 leaves follow-ups alone."""
        asked = bench.query("yes", history=["shall I cancel it?"])
        await bench.put(asked, "cancelled", "shared")
        expected = None if bench.level == "l2" else bench.value("cancelled")
        assert await bench.served(asked) == expected
        for history in (["shall I keep it?"], ["shall I cancel it?", "sure?"], None):
            assert await bench.served(bench.query("yes", history=history)) is None

    @pytest.mark.parametrize("scope", ["user", "shared"])
    async def test_an_old_entry_is_expired(
        self, bench: TierBench, passes: Pass, scope: Scope
    ) -> None:
        """After the tier's TTL an entry is a miss for the reason `expired`."""
        tuning = bench.with_ttl(2.0)
        await bench.put(bench.query(), "mine", scope, tuning)
        assert await bench.served(bench.query(), tuning) == bench.value("mine")
        await passes(2.1)
        assert await bench.reason(bench.query(), tuning) == "expired"

    @pytest.mark.parametrize("scope", ["user", "shared"])
    async def test_after_twice_its_ttl_an_entry_was_never_there(
        self, bench: TierBench, passes: Pass, scope: Scope
    ) -> None:
        """An entry is kept for two TTLs; then its message is cold again."""
        tuning = bench.with_ttl(0.2)
        await bench.put(bench.query(), "mine", scope, tuning)
        await passes(0.5)
        assert await bench.reason(bench.query(), tuning) == "cold"

    async def test_raising_the_ttl_revives(self, bench: TierBench, passes: Pass) -> None:
        """TTLs are judged when reading: raising one serves again what had expired."""
        await bench.put(bench.query(), "mine", "user", bench.with_ttl(5.0))
        await passes(0.5)
        assert await bench.reason(bench.query(), bench.with_ttl(0.3)) == "expired"
        assert await bench.served(bench.query(), bench.with_ttl(60.0)) == bench.value("mine")

    async def test_the_entrys_own_ttl_wins(self, bench: TierBench, passes: Pass) -> None:
        """An entry's own TTL beats the tier's, whether it is shorter or longer."""
        short, long = bench.query("a short lived question"), bench.query("the long living topic")
        await bench.put(short, "short", ttl=2.0)
        await bench.put(long, "long", ttl=60.0)
        await passes(2.1)
        assert await bench.reason(short) == "expired"
        assert await bench.served(long, bench.with_ttl(0.1)) == bench.value("long")

    async def test_a_hit_never_extends_a_life(self, bench: TierBench, passes: Pass) -> None:
        """An entry that is read again and again expires anyway."""
        tuning = bench.with_ttl(3.0)
        await bench.put(bench.query(), "mine", "user", tuning)
        for _ in range(2):
            await passes(0.8)
            assert await bench.served(bench.query(), tuning) == bench.value("mine")
        await passes(1.6)
        assert await bench.reason(bench.query(), tuning) == "expired"

    async def test_an_entry_from_the_future_is_not_served(self, bench: TierBench) -> None:
        """An entry that a clock stamped far in the future does not live forever: it is expired."""
        await bench.put(bench.query(), "now")
        entry = bench.entry("tomorrow")._replace(created=bench.store.now() + 86_400)
        await bench.tier.put(bench.query(), entry, "user", LASTING)
        assert await bench.reason(bench.query()) == "expired"

    @pytest.mark.parametrize("scope", ["user", "shared"])
    async def test_a_replaced_generation_invalidates(self, bench: TierBench, scope: Scope) -> None:
        """After a message's token was replaced its entries are misses with reason `invalidated`."""
        await bench.put(bench.query(), "mine", scope)
        await bench.store.write([Write(bench.keys.generation(bench.query().tag), "i2", 600.0)])
        assert await bench.reason(bench.query()) == "invalidated"

    @pytest.mark.parametrize("scope", ["user", "shared"])
    async def test_a_missing_generation_fails_closed(self, bench: TierBench, scope: Scope) -> None:
        """An entry whose message's token was evicted is not served."""
        await bench.put(bench.query(), "mine", scope)
        await bench.store.delete([bench.keys.generation(bench.query().tag)])
        assert await bench.reason(bench.query()) == "invalidated"

    @pytest.mark.parametrize(
        "spoil",
        [lambda _: "garbage", lambda _: "", lambda _: "null", lambda _: "[" * 100_000,
         lambda text: text[: len(text) // 2], _other_version, _wrong_type, _empty_body],
        ids=["garbage", "empty", "null", "deep", "torn", "version", "types", "no-body"],
    )  # fmt: skip
    async def test_what_cannot_be_read_is_corrupt(
        self, bench: TierBench, spoil: Callable[[str], str]
    ) -> None:
        """A value that is no envelope of this version is a miss for the reason `corrupt`."""
        await bench.put(bench.query(), "mine")
        key = bench.key(bench.query())
        envelope = (await bench.store.read([key]))[0]
        assert envelope is not None
        await bench.store.write([Write(key, spoil(envelope), 60.0)])
        assert await bench.reason(bench.query()) == "corrupt"

    async def test_what_was_corrupt_is_deleted(self, bench: TierBench) -> None:
        """An unreadable value is deleted once it was found."""
        await bench.put(bench.query(), "mine")
        key = bench.key(bench.query())
        await bench.store.write([Write(key, "garbage", 60.0)])
        await bench.reason(bench.query())
        assert list(await bench.store.read([key])) == [None]

    async def test_an_envelope_belongs_to_its_key(self, bench: TierBench) -> None:
        """My own answer to another question, moved to this question's key, is never served."""
        one, other = (
            bench.query("how do I return a parcel"),
            bench.query("where is the nearest shop"),
        )
        await bench.put(one, "return")
        await bench.put(other, "shop")
        moved = (await bench.store.read([bench.key(other)]))[0]
        assert moved is not None
        await bench.store.write([Write(bench.key(one), moved, 60.0)])
        assert await bench.reason(one) == "corrupt"
        assert await bench.served(other) == bench.value("shop")

    async def test_a_foreign_envelope_is_an_isolation_error(self, bench: TierBench) -> None:
        """Another user's answer, moved to my key, is rejected as `isolation` and then deleted."""
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

    async def test_a_foreign_envelope_among_the_shared(self, bench: TierBench) -> None:
        """A private answer moved to the shared scope's place is rejected and deleted."""
        asked = bench.query(user="ann")
        theirs = bench.query(user="bob")
        await bench.put(theirs, "bob's")
        await bench.put(asked, "everybody's", "shared")
        moved = (await bench.store.read([bench.key(theirs)]))[0]
        assert moved is not None
        await bench.misplace(asked, moved)
        with pytest.raises(BackendError) as refused:
            await bench.get(asked)
        assert refused.value.reason == "isolation"
        assert await bench.served(asked) is None

    async def test_without_a_user_there_is_no_user_scope(self, bench: TierBench) -> None:
        """A put for the user scope without a user is rejected instead of stored somewhere."""
        with pytest.raises(ValueError, match="without a user"):
            await bench.put(bench.query(user=None), "whose?")

    async def test_concurrent_gets_of_many_users(self, bench: TierBench) -> None:
        """Fifty users who ask the same concurrently each get their own."""
        users = [f"user {number}" for number in range(50)]
        for user in users:
            await bench.put(bench.query(user=user), f"of-{user.replace(' ', '-')}")
        found = await asyncio.gather(*(bench.served(bench.query(user=user)) for user in users))
        assert found == [bench.value(f"of-{user.replace(' ', '-')}") for user in users]
