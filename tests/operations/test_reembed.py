"""Stored answers move to another embedding model, with all that limits them."""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Any

import pytest

from cache_core import MultiLevelCache
from tests.support.caches import CacheFactory
from tests.support.embedding_models import KINDS, answer, cache_of_a_model, closed
from tests.support.votes import vote


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The engine of shared answers: Chroma here, beside SQLite or Redis; vector sets; a server."""
    return str(request.param)


@pytest.fixture
def store_kind(kind: str) -> str:
    return "embedded" if kind == "server" else kind


@pytest.fixture
def with_model(make_cache: CacheFactory, kind: str, request: pytest.FixtureRequest) -> CacheFactory:
    """Make open caches of one namespace, with the model of a name."""
    return cache_of_a_model(make_cache, kind, request)


async def reembed(cache: MultiLevelCache, **options: Any) -> dict[str, int]:
    """Return the fates that some answers had."""
    found = await cache.operator.reembed(author="test", **options)
    return {fate: number for fate, number in found.items() if number}


async def test_answers_move_with_their_owner_context_and_limits(with_model: CacheFactory) -> None:
    """Answers found by similarity before are found again, by the same users, until the same end."""
    old = await with_model("old")
    await old.put("alpha beta gamma", "ann", "for all", shared=True)
    await old.put("delta beta gamma", "ann", "ann's own")
    await old.put("kappa beta gamma", "ann", "in its place", shared=True, context={"shop": 1})
    await old.put("sigma beta gamma", "ann", "of a document", shared=True, document_ids=["doc"])
    await old.put("omega beta gamma", "bob", "bob's own", ttl=60)
    await old.put("theta beta gamma", "ann", "expired", shared=True, ttl=0.001)
    await closed(old)
    new = await with_model("new")
    assert await answer(new, "alpha beta gamma", "ann") is None

    counted = await reembed(new, dry_run=True)
    # What is expired may not be there any more.
    assert counted.pop("moved") == 5
    assert set(counted) <= {"expired", "erased"}
    assert await answer(new, "alpha beta gamma", "cid") is None
    assert (await reembed(new))["moved"] == 5

    assert await answer(new, "alpha beta gamma", "cid") == "for all"
    assert await answer(new, "delta beta gamma", "ann") == "ann's own"
    assert await answer(new, "delta beta gamma", "bob") is None
    assert await answer(new, "kappa beta gamma", "bob") is None
    assert await answer(new, "kappa beta gamma", "bob", context={"shop": 1}) == "in its place"
    assert await answer(new, "omega beta gamma", "bob") == "bob's own"
    again = await reembed(new)
    assert again.pop("present") == 5
    assert set(again) <= {"expired", "erased"}
    (record,) = (await new.operator.audit_trail())[1:]
    assert (record.action, record.author, record.complete) == ("reembed", "test", True)

    await new.invalidate_document("doc")
    assert await answer(new, "sigma beta gamma", "ann") is None
    await new.forget_user("bob")
    assert await answer(new, "omega beta gamma", "bob") is None
    again = await reembed(new)
    assert again["present"] == 3
    assert set(again) <= {"present", "invalidated", "erased", "expired"}


async def test_what_was_invalidated_meanwhile_stays_so(with_model: CacheFactory) -> None:
    """By its message, a similar one, its label, or the erasure of its writer or its user."""
    old = await with_model("old")
    for words in ("alpha red green", "beta red green", "gamma red green", "delta red green"):
        await old.put(
            words, "ann" if words[0] != "d" else "eve", words, shared=True, tags=["t" + words[0]]
        )
        await old.put(f"{words} own", "bob", words)
    await closed(old)
    new = await with_model("new")
    # The vectors of the new model do not have them yet.
    await new.invalidate("alpha red green")
    await new.invalidate("green red beta")
    await new.invalidate("own green red beta", "bob")
    await new.invalidate_tag("tg")
    await new.forget_user("eve")
    found = await reembed(new)
    assert found.pop("moved") == 3
    assert sum(found.values()) == 5
    assert set(found) <= {"invalidated", "uncertain", "erased"}
    for words, user in (("alpha red green", "ann"), ("beta red green", "ann"), ("gamma red green", "ann"),
                        ("delta red green", "ann"), ("beta red green own", "bob")):  # fmt: skip
        assert await answer(new, words, user) is None
    assert await answer(new, "delta red green own", "bob") == "delta red green"


async def test_it_may_be_stopped_and_run_again(with_model: CacheFactory) -> None:
    """Moved answers are recognised, and the rest follows; the rate is a limit."""
    old = await with_model("old")
    for number in range(40):
        await old.put(f"alpha {number} beta gamma", "ann", f"answer {number}", shared=True)
    await closed(old)
    new = await with_model("new")
    some = asyncio.Event()
    running = asyncio.create_task(
        new.operator.reembed(author="test", rate=50, progress=lambda _: some.set())
    )
    await some.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    found = await reembed(new)
    assert found["present"] >= 16
    assert found["present"] + found["moved"] == 40
    for number in range(40):
        assert await answer(new, f"alpha {number} beta gamma", "bob") == f"answer {number}"


async def test_encrypted_answers_move_where_their_key_is(with_model: CacheFactory) -> None:
    """Without the key they are counted, and left where they are."""
    keys = [base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2)]
    old = await with_model("old", encryption_keys=keys[0])
    await old.put("alpha beta gamma", "ann", "sealed", shared=True)
    await old.put("alpha beta delta", "ann", "sealed, too")
    await closed(old)
    other = await with_model("new", encryption_keys=keys[1])
    assert await reembed(other) == {"locked": 2}
    await other.close()
    new = await with_model("new", encryption_keys=",".join(keys[::-1]))
    assert await reembed(new) == {"moved": 2}
    assert await answer(new, "alpha beta gamma", "bob") == "sealed"
    assert await answer(new, "alpha beta delta", "ann") == "sealed, too"


async def test_a_promoted_answer_moves_encrypted_and_can_still_be_taken_back(
    with_model: CacheFactory,
) -> None:
    """An answer that enough users got is everybody's under the new model, until it changes."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    old = await with_model("old", encryption_keys=key)
    await old.tune({"sharing": "auto", "promote_after": 2}, author="test")
    for user in ("ann", "bob"):
        await vote(old, "alpha beta gamma", user, "the same")
    assert await answer(old, "alpha beta gamma", "cid") == "the same"
    await closed(old)
    new = await with_model("new", encryption_keys=key)
    assert await reembed(new) == {"moved": 2}
    assert await answer(new, "gamma beta alpha", "cid") == "the same"
    await new.invalidate("alpha beta gamma")
    for user in ("ann", "bob", "cid"):
        assert await answer(new, "gamma beta alpha", user) is None


async def test_a_model_that_fails_leaves_the_rest_for_the_next_run(
    with_model: CacheFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is tried three times, then counted as failed."""
    monkeypatch.setattr("cache_core.operations.reembed._PAUSE_SECONDS", 0)
    old = await with_model("old")
    await old.put("alpha beta gamma", "ann", "for all", shared=True)
    await old.put("alpha beta delta", "ann", "own")
    await closed(old)
    new = await with_model("new", breaker_failures=100)
    new._given.embedder.failure = RuntimeError("no")
    assert await reembed(new) == {"failed": 2}
    new._given.embedder.failure = None
    assert await reembed(new) == {"moved": 2}
