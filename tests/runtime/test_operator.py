"""Operator of a cache: entries, replicas and the tuning in force, the audit trail, problems."""

from __future__ import annotations

import base64

import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import RowWrite
from cache_core.model.exceptions import BackendError
from cache_core.observability.audit import AuditRecord
from cache_core.observability.decisions import Decision
from tests.support.caches import CacheFactory
from tests.support.inside import inside
from tests.support.patience import PATIENT

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(2)]
EXACT = {**PATIENT, "tiers": frozenset({"l1", "l3", "l4"})}


async def put_all(cache: MultiLevelCache) -> None:
    """Put a private answer, a shared one, and one with documents and a history."""
    await cache.put("alpha beta", "ann", "anns answer", "billing")
    await cache.put("Alpha beta?", "bob", "shared answer", shared=True)
    await cache.put("alpha beta", "ann", "later", None, [{"id": "kb/1"}], history=["before"])


async def test_entries_are_those_of_all_users_and_variants(make_cache: CacheFactory) -> None:
    """Private and shared ones, follow-ups, and each tier; other messages have their own."""
    cache = await make_cache(settings={**EXACT, "capture_message_content": True})
    await put_all(cache)
    found = await cache.operator.entries("ALPHA BETA")
    told = {(item.level, item.scope.split()[0], item.follow_up, item.text) for item in found}
    assert told >= {
        ("l1", "user", False, "anns answer"),
        ("l1", "shared", False, "shared answer"),
        ("l1", "user", True, "later"),
        ("l4", "user", True, "1 document"),
    }
    assert not any(item.locked or item.expired for item in found)
    assert await cache.operator.entries("gamma") == []
    await cache.invalidate("alpha beta")
    assert await cache.operator.entries("alpha beta") == []


async def test_entries_show_no_text_unless_capture_is_on(make_cache: CacheFactory) -> None:
    """Neither answers nor the number of documents; labels of intents are shown."""
    cache = await make_cache(settings=EXACT)
    await put_all(cache)
    found = await cache.operator.entries("alpha beta")
    assert {item.text for item in found} == {""}
    assert "billing" in {item.intent for item in found}


@pytest.mark.parametrize("key", [KEYS[1], ""], ids=["another key", "no key"])
async def test_entries_of_an_unknown_key_are_locked(make_cache: CacheFactory, key: str) -> None:
    """Each is listed with its tier, scope and age; with the key they are all readable."""
    settings = {**EXACT, "capture_message_content": True}
    cache = await make_cache(settings={**settings, "encryption_keys": KEYS[0]})
    await put_all(cache)
    readable = await cache.operator.entries("alpha beta")
    assert readable
    assert not any(item.locked for item in readable)
    assert {"anns answer", "shared answer"} <= {item.text for item in readable}

    tool = await make_cache(settings={**settings, "encryption_keys": key})
    locked = await tool.operator.entries("alpha beta")
    assert [(item.level, item.scope) for item in locked] == [
        (item.level, item.scope) for item in readable
    ]
    assert all(item.locked and item.ttl_seconds is None for item in locked)
    assert {(item.text, item.intent) for item in locked} == {("", "")}
    assert all(item.age_seconds < 60 for item in locked)


async def test_what_the_index_names_is_not_read_unless_it_is_an_entry(
    make_cache: CacheFactory,
) -> None:
    """Anybody who can write to the store can list any key as an entry of a message."""
    cache = await make_cache(settings=EXACT)
    await cache.put("alpha beta", "ann", "anns answer")
    parts = inside(cache).parts
    index = parts.keys.index("message", parts.keys.tag("alpha beta"))
    rows = dict.fromkeys((parts.keys.own("secret"), "somebody's: own", "x}:l1:a:b:c:"), "user")
    await parts.store.put_rows([RowWrite(index, rows, 60.0)])
    assert [item.level for item in await cache.operator.entries("alpha beta")] == ["l1"]


async def test_the_tuning_in_force_is_that_of_the_replicas(make_cache: CacheFactory) -> None:
    """A tool has other values than the agents; where agents differ, that is said."""
    agents = [await make_cache(settings=EXACT, semantic_threshold=at) for at in (0.8, 0.8, 0.9)]
    for agent in agents:
        await agent.lookup("alpha", "ann")
        await inside(agent).housekeeper._beat()
    tool = await make_cache(settings={**EXACT, "heartbeat": False})
    names = {item.name for item in await tool.operator.replicas()}
    assert names == {agent.replica for agent in agents}
    assert agents[0].replica not in {item.name for item in await agents[0].operator.replicas()}

    found = await tool.operator.in_force()
    assert "semantic_threshold" in found.differing
    assert found.origins["semantic_threshold"] == "the constructor"
    assert found.tuning.semantic_threshold in {0.8, 0.9}

    # What was tuned holds before the replicas report it, and for all of them.
    await tool.tune({"l1_ttl": 60.0}, author="ana")
    found = await tool.operator.in_force()
    assert (found.tuning.version, found.tuning.l1_ttl) == (1, 60.0)
    assert found.origins["l1_ttl"] == "tuned"
    assert "l1_ttl" not in found.differing
    for agent in agents[:2]:
        await agent.close()
    found = await tool.operator.in_force()
    assert found.differing == frozenset()
    assert found.tuning.semantic_threshold == 0.9


async def test_without_a_replica_the_tuning_is_the_tools_own(make_cache: CacheFactory) -> None:
    """There is nobody else to ask."""
    tool = await make_cache(settings={**EXACT, "heartbeat": False}, semantic_threshold=0.7)
    found = await tool.operator.in_force()
    assert (found.tuning, found.replicas) == (tool.tuning, [])


async def test_what_is_done_has_its_line_in_the_audit_trail(make_cache: CacheFactory) -> None:
    """The trail has author, subject, reason and result; counting first changes nothing."""
    cache = await make_cache(settings=EXACT)
    await put_all(cache)
    for kind, value in (("message", "alpha beta"), ("user", "ann"), ("writer", "bob")):
        counted = await cache.operator.count(kind, value)  # type: ignore[arg-type]
        assert counted.complete
        assert counted.removed > 0, kind
    before = await cache.operator.entries("alpha beta")
    assert before
    counted = await cache.operator.count("message", "alpha beta")
    done = await cache.operator.invalidate("message", "alpha beta", author="ana", note="wrong")
    assert done == counted
    assert (await cache.operator.count("user", "ann")).removed == 0
    await cache.operator.invalidate("tag", "prices", author="ben")
    newest, oldest = await cache.operator.audit_trail()
    assert (newest.author, newest.action, newest.target) == ("ben", "invalidate tag", "prices")
    assert (oldest.author, oldest.note, oldest.removed) == ("ana", "wrong", done.removed)
    assert "alpha" not in oldest.target
    assert oldest.complete
    for kind, value in (("message", 5), ("tag", ""), ("user", None)):
        with pytest.raises(TypeError):
            await cache.operator.invalidate(kind, value, author="ana")  # type: ignore[arg-type]
    assert len(await cache.operator.audit_trail()) == 2


async def test_a_verdict_has_its_line_without_any_text(make_cache: CacheFactory) -> None:
    """A review names the lookup that was judged."""
    cache = await make_cache(settings=EXACT)
    await cache.put("alpha beta", "ann", "anns answer")
    await cache.lookup("alpha beta", "ann")
    decision = cache.recent()[-1]
    await cache.operator.judge(decision, correct=False, author="ana")
    (record,) = await cache.operator.audit_trail()
    assert isinstance(record, AuditRecord)
    assert (record.action, record.target) == ("review", f"{decision.lookup_id}: different")
    assert [item.correct for item in await cache.verdicts()] == [False]


async def test_decisions_are_followed_page_by_page(make_cache: CacheFactory) -> None:
    """From the start of the log, then only what is new."""
    cache = await make_cache(settings=EXACT)
    for number in range(5):
        await cache.lookup(f"question {number}", "ann")
    await cache.operator.flush_decisions()
    found: list[Decision] = []
    position, more = "", True
    while more:
        page = await cache.operator.decisions_after(position, 2)
        found += page.decisions
        position, more = page.position, page.more
    assert found == await cache.decisions()
    assert len(found) == 5
    await cache.lookup("another", "ann")
    await cache.operator.flush_decisions()
    page = await cache.operator.decisions_after(position)
    assert [item.lookup_id for item in page.decisions] == [cache.recent()[-1].lookup_id]
    assert not page.more


async def test_a_forgotten_user_is_noticed(make_cache: CacheFactory) -> None:
    """Also by a process that only watches: it drops its copies then."""
    cache, watching = [await make_cache(settings=EXACT) for _ in range(2)]
    before = await watching.operator.users_forgotten()
    await cache.put("alpha beta", "ann", "anns answer")
    await cache.forget_user("ann")
    await inside(watching).parts.journal.catch_up()
    assert await watching.operator.users_forgotten() != before


async def test_contexts_have_the_digests_that_decisions_have(make_cache: CacheFactory) -> None:
    """So that a command can tell whose lookups use which."""
    cache = await make_cache(settings=EXACT)
    await cache.lookup("alpha", "ann", context={"locale": "de"})
    assert await cache.operator.context_digest({"locale": "de"}) == cache.recent()[-1].context
    assert await cache.operator.context_digest(None) != cache.recent()[-1].context


@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_without_a_store_an_invalidation_is_pending(make_cache: CacheFactory) -> None:
    """It is kept, without its line in the trail; whatever reads raises."""
    cache = await make_cache(settings={**EXACT, "redis_url": "redis://127.0.0.1:1/0"})
    assert [problem.backend for problem in cache.problems] == ["redis"]
    assert cache.problems[0].do
    done = await cache.operator.invalidate("message", "alpha", author="ana")
    assert (done.complete, done.pending) == (False, ("store",))
    for reading in (
        cache.operator.entries("alpha"), cache.operator.replicas(), cache.operator.in_force(),
        cache.operator.audit_trail(), cache.operator.decisions_after(),
    ):  # fmt: skip
        with pytest.raises(BackendError):
            await reading
