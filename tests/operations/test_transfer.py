"""Answers move between caches by a dump, with their owner, context, age and limits."""

from __future__ import annotations

import dataclasses
import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.model.exceptions import BackendError
from cache_core.operations.transfer import lines as format_
from cache_core.operations.transfer.dump import Known
from cache_core.testing import HashEmbedder
from tests.formats import worlds
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.embedding_models import KINDS, closed
from tests.support.paths import ROOT
from tests.support.patience import PATIENT
from tests.support.votes import vote

KEY = {**PATIENT, "key": "the same in both caches"}
SEALED = [secrets.token_urlsafe(32) + "="]
DOCUMENT = {"id": "doc", "text": "Nine to five", "when": (1, 2)}
CHECKED = ("message", "scope", "level", "response", "intent", "documents", "context", "user",
           "exact", "history", "ttl", "life", "created", "cost_usd", "source", "by_policy",
           "document_ids", "labels", "answer", "tagged")  # fmt: skip
"""Fields of a line that a move leaves as they are."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The engine of shared answers: Chroma here, beside SQLite or Redis; vector sets; a server."""
    return str(request.param)


@pytest.fixture
def store_kind(kind: str) -> str:
    return "embedded" if kind == "server" else kind


@pytest.fixture
def cache_of(
    make_cache: CacheFactory,
    kind: str,
    store_kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> CacheFactory:
    """Make an open cache of a name: another name is another store."""
    more = {"chroma_url": request.getfixturevalue("chroma_url")} if kind == "server" else {}
    run = secrets.token_hex(4)

    async def make(name: str, **settings: Any) -> MultiLevelCache:
        place: dict[str, Any] = {"dir": tmp_path / name, "prefix": f"{name}{run}"}
        if store_kind in servers.EMPTY:
            url = request.getfixturevalue(servers.EMPTY[store_kind])
            # An agent's user may not list keys.
            place["redis_url"] = servers.redis_url(servers.port_of(url), "operator")
        namespace = f"n{run}" if kind != "server" else f"n{run}{name}"
        made: MultiLevelCache = await make_cache(
            namespace=namespace, settings={**PATIENT, **more, **place, **settings}
        )
        await made.ready()
        return made

    return make


async def dumped(cache: MultiLevelCache, **options: Any) -> list[str]:
    found: list[str] = []
    await cache.operator.dump(found.append, author="test", **options)
    return found


async def loaded(cache: MultiLevelCache, text: list[str], **options: Any) -> dict[str, int]:
    done = await cache.operator.load(text, author="test", **options)
    return {fate: number for fate, number in done.fates.items() if number}


def checked(text: list[str]) -> list[dict[str, Any]]:
    """Return what must be equal on either side, in an order of its own."""
    entries = [json.loads(line) for line in text[1:-1]]
    return sorted(({name: entry[name] for name in CHECKED} for entry in entries), key=str)


async def fill(cache: MultiLevelCache) -> None:
    """Put answers of every kind."""
    await cache.put("alpha beta gamma", "ann", "for all", "hours", [DOCUMENT], shared=True)
    await cache.put("delta beta gamma", "ann", "ann's own", ttl=600, cost_usd=0.5)
    await cache.put("kappa beta gamma", "bob", "in its place", shared=True, context={"shop": 1})
    await cache.put("and then?", "ann", "a follow-up", history=["alpha beta gamma"])
    await cache.warm_cache([("theta beta gamma", None, "by an operator")], tags=["faq"])


async def test_a_round_trip_changes_nothing(cache_of: CacheFactory, kind: str) -> None:
    """With the same key all entries arrive as they were, and are served to the same users."""
    if kind == "server":
        pytest.skip("two caches of one server cannot have one namespace")
    old = await cache_of("old", **KEY)
    await fill(old)
    text = await dumped(old, private=True)
    assert format_.header(text[0], None).private
    await closed(old)

    new = await cache_of("new", **KEY)
    count = len(text) - 2
    assert await loaded(new, text, dry_run=True) == {"loaded": count}
    assert (await new.lookup("alpha beta gamma", "ann")).response is None
    assert await loaded(new, text) == {"loaded": count}
    assert await loaded(new, text) == {"present": count}
    assert checked(await dumped(new, private=True)) == checked(text)

    found = await new.lookup("alpha beta gamma", "cid")
    assert (found.response, found.tier) == ("for all", "l1")
    assert (await new.lookup("delta beta gamma", "ann")).response == "ann's own"
    assert (await new.lookup("delta beta gamma", "cid")).response is None
    assert (await new.lookup("kappa beta gamma", "cid")).response is None
    assert (await new.lookup("kappa beta gamma", "cid", context={"shop": 1})).response
    follow = await new.lookup("and then?", "ann", history=["alpha beta gamma"])
    assert follow.response == "a follow-up"
    actions = [record.action for record in await new.operator.audit_trail()]
    assert actions == ["dump", "load", "load"]

    await new.invalidate_document("doc")
    assert (await new.lookup("alpha beta gamma", "cid")).response is None
    await new.invalidate_tag("faq")
    assert (await new.lookup("theta beta gamma", "cid")).response is None
    await new.forget_user("ann")
    assert (await new.lookup("delta beta gamma", "ann")).response is None


async def test_similar_questions_are_found_with_the_model_here(
    make_cache: CacheFactory, tmp_path: Path
) -> None:
    """An answer is embedded anew; its documents come back as they were put."""
    old = await make_cache(settings={**KEY, "dir": tmp_path / "a", "redis_url": None})
    await fill(old)
    text = await dumped(old)
    new = await make_cache(
        settings={**KEY, "dir": tmp_path / "b", "redis_url": None},
        embedding_model=HashEmbedder("another"),
    )
    await new.ready()
    await new.tune({"guards": ["numbers"]}, author="test")
    assert "loaded" in await loaded(new, text)
    found = await new.lookup("beta gamma theta", "cid")
    assert (found.response, found.tier) == ("by an operator", "l2")
    await new.invalidate("alpha beta gamma")
    again = [line for line in text if '"l4"' in line or '"dump"' in line]
    assert await loaded(new, again) == {"loaded": 1}
    assert (await new.lookup("alpha beta gamma", "ann")).rag_results == [DOCUMENT]


async def test_private_answers_are_dumped_only_on_demand(cache_of: CacheFactory) -> None:
    """Without `private` neither a user's answer nor their question is in the file."""
    cache = await cache_of("one")
    await fill(cache)
    await cache.put("my secret question", "ann", "secret answer", "label")
    found: list[str] = []
    counts = await cache.operator.dump(found.append, author="test")
    assert counts["private"] >= 4
    assert counts["dumped"] == len(found) - 2
    assert "ann's own" not in "".join(found)
    assert "secret" not in "".join(found)
    assert "for all" in "".join(found)


async def test_what_was_invalidated_does_not_come_back(cache_of: CacheFactory) -> None:
    """By its message, a similar one, a document, a tag, its user or its writer."""
    cache = await cache_of("one")
    await cache.tune({"guards": ["numbers"]}, author="test")
    for words in ("alpha red green", "beta red green", "gamma red green", "delta red green",
                  "zeta red green"):  # fmt: skip
        user = "eve" if words[0] == "d" else "ann"
        await cache.put(words, user, words, shared=True, tags=[f"t{words[0]}"],
                        document_ids=[f"d{words[0]}"])  # fmt: skip
        await cache.put(f"{words} own", "bob", words)
    text = await dumped(cache, private=True)
    assert await loaded(cache, text) == {"present": 20}
    await cache.invalidate("alpha red green")
    await cache.invalidate("green red beta")
    await cache.invalidate("alpha red green own", "bob")
    await cache.invalidate_tag("tg")
    await cache.forget_user("eve")
    await cache.invalidate_document("dz")

    found = await loaded(cache, text)
    assert found == {"present": 8, "invalidated": 12}
    for words in ("alpha", "beta", "gamma", "delta", "zeta"):
        assert (await cache.lookup(f"{words} red green", "ann")).response is None
    assert (await cache.lookup("delta red green own", "bob")).response == "delta red green"


async def test_a_lost_answer_comes_back_and_a_newer_one_stays(
    cache_of: CacheFactory, kind: str
) -> None:
    """A dump restores what the cache lost, and replaces nothing that was put since."""
    if kind == "server":
        pytest.skip("it is about the keyed store")
    cache = await cache_of("one")
    await cache.put("alpha beta", "ann", "old", shared=True)
    await cache.put("gamma delta", "ann", "lost", shared=True)
    text = await dumped(cache)
    await cache.put("alpha beta", "ann", "new", shared=True)
    parts = cache._parts
    tag = parts.keys.tag("gamma delta")
    await parts.store.delete(list(await parts.store.row_names(parts.keys.index("message", tag))))
    assert (await loaded(cache, text))["loaded"] >= 1
    assert (await cache.lookup("alpha beta", "cid")).response == "new"
    assert (await cache.lookup("gamma delta", "cid")).response == "lost"


async def test_another_key_takes_what_is_known_by_its_text(
    cache_of: CacheFactory, kind: str
) -> None:
    """Shared answers move; contexts and tags only where the dump was given their text."""
    old = await cache_of("old")
    await fill(old)
    text = await dumped(old, private=True)
    new = await cache_of("new")
    found = await loaded(new, text)
    assert found["loaded"] == 4
    assert set(found) == {"loaded", "unnamed"}
    assert (await new.lookup("alpha beta gamma", "cid")).response == "for all"
    await new.invalidate_document("doc")
    assert (await new.lookup("alpha beta gamma", "cid")).response is None
    assert (await new.lookup("theta beta gamma", "cid")).response is None

    text = await dumped(old, known=Known.of([{"shop": 1}], ["faq"]))
    found = await loaded(new, text)
    assert "unnamed" not in found
    assert (await new.lookup("kappa beta gamma", "cid", context={"shop": 1})).response
    assert (await new.lookup("theta beta gamma", "cid")).response == "by an operator"
    await new.invalidate_tag("faq")
    assert (await new.lookup("theta beta gamma", "cid")).response is None


@pytest.fixture
def embedded(make_cache: CacheFactory, tmp_path: Path) -> CacheFactory:
    """Make a cache in a directory of a name, beside no server."""

    async def make(name: str, **settings: Any) -> MultiLevelCache:
        fixed = {**KEY, "dir": tmp_path / name, "redis_url": None, **settings}
        made: MultiLevelCache = await make_cache(settings=fixed)
        return made

    return make


def edited(text: list[str], **changes: Any) -> list[str]:
    """Return a dump in which each entry has other values."""
    return [
        text[0],
        *(json.dumps({**json.loads(line), **changes}) for line in text[1:-1]),
        text[-1],
    ]


@pytest.mark.parametrize("store_kind", ["embedded"])
class TestLimits:
    """Limits on what is loaded, and on its life."""

    async def test_no_answer_gets_older_by_a_move(self, embedded: CacheFactory) -> None:
        """It keeps its age, and a longer TTL of the other cache does not extend its life."""
        old = await embedded("old")
        await old.tune({"l1_ttl": 100}, author="test")
        await old.put("alpha beta", "ann", "x", shared=True)
        text = [line for line in await dumped(old) if '"l2"' not in line]
        created = json.loads(text[1])["created"]
        new = await embedded("new")
        assert await loaded(new, edited(text, created=created - 40)) == {"loaded": 1}
        found = await new.lookup("alpha beta", "ann")
        assert found.age_seconds == pytest.approx(40, abs=20)
        assert json.loads((await dumped(new))[1])["life"] == 100
        newest = await embedded("newest")
        assert await loaded(newest, edited(text, created=created - 101)) == {"expired": 1}

    async def test_what_was_promoted_elsewhere_can_be_taken_back(
        self, embedded: CacheFactory
    ) -> None:
        """Its votes stay where they are: here one user who got another answer suffices."""
        old, new = await embedded("old"), await embedded("new")
        for cache in (old, new):
            await cache.tune({"sharing": "auto", "promote_after": 2}, author="test")
        await vote(old, "alpha beta", "ann bob", "x")
        await loaded(new, await dumped(old))
        assert await new.get_multilevel("alpha beta", "eve") == "x"
        await new.put("alpha beta", "cid", "y")
        assert await new.get_multilevel("alpha beta", "eve") is None
        assert await new.get_multilevel("alpha beta", "cid") == "y"

    async def test_what_was_promoted_elsewhere_is_not_stored_against_votes(
        self, embedded: CacheFactory
    ) -> None:
        """One user who got another answer here, before, suffices, too; they keep theirs."""
        old, new = await embedded("old"), await embedded("new")
        for cache in (old, new):
            await cache.tune({"sharing": "auto", "promote_after": 2}, author="test")
        await vote(old, "alpha beta", "ann bob", "x")
        await new.put("alpha beta", "cid", "y", shared=False)
        assert await loaded(new, await dumped(old)) == {"invalidated": 2}
        for asked in ("alpha beta", "beta alpha"):
            assert await new.get_multilevel(asked, "eve") is None
            assert await new.get_multilevel(asked, "cid") == "y"

    async def test_what_this_version_rejects_is_counted(self, embedded: CacheFactory) -> None:
        """A refusal, what looks personal and is shared by a policy only, and a tier that is off."""
        old = await embedded("old")
        await old.put("alpha beta", "ann", "x", shared=True)
        text = [line for line in await dumped(old) if '"l2"' not in line]
        new = await embedded("new")
        for change, reason in (
            ({"response": "I'm sorry, but I can't help with that."}, "refused"),
            ({"response": "Write to ann.smith@example.org.", "by_policy": True}, "personal"),
            ({"response": "x" * 2_000_000}, "too_large"),
            ({"level": "l3", "response": None, "intent": "i" * 5_000}, "too_large"),
        ):
            done = await new.operator.load(edited(text, **change), author="test")
            assert (done.fates["rejected"], done.rejected) == (1, {reason: 1})
        exact = await embedded("third", tiers=frozenset({"l3"}))
        done = await exact.operator.load(text, author="test")
        assert done.rejected == {"disabled": 1}

    async def test_damaged_lines_and_a_cut_file(self, embedded: CacheFactory) -> None:
        """Each damaged line is counted, the others are stored, and the missing end is reported."""
        old = await embedded("old")
        await old.put("alpha beta", "ann", "x", shared=True)
        text = await dumped(old)
        new = await embedded("new")
        broken = [text[0], "{", '{"level": "l1"}', *text[1:-1],
                  *edited(text, response=None)[1:2], *edited(text, tagged=True, documents=[{"$": 1}])[1:2]]  # fmt: skip
        done = await new.operator.load(broken, author="test")
        assert (done.fates["damaged"], done.fates["loaded"]) == (4, 2)
        assert not done.whole
        (record,) = await new.operator.audit_trail()
        assert not record.complete
        with pytest.raises(ValueError, match="first line"):
            await new.operator.load(text[1:], author="test")

    async def test_lines_are_encrypted_with_the_caches_keys(self, embedded: CacheFactory) -> None:
        """A cache with the key reads them, whatever key it writes with; `plain` leaves it out."""
        keys = [secrets.token_urlsafe(32) + "=" for _ in range(2)]
        old = await embedded("old", encryption_keys=keys[:1])
        await old.put("alpha beta", "ann", "readable", shared=True)
        text = await dumped(old)
        assert "readable" not in "".join(text)
        without = await embedded("without")
        with pytest.raises(ValueError, match="add that key"):
            await loaded(without, text)
        both = await embedded("both", encryption_keys=keys[::-1])
        assert await loaded(both, text) == {"loaded": 2}
        assert (await both.lookup("alpha beta", "cid")).response == "readable"
        plain = await dumped(old, plain=True)
        assert "readable" in "".join(plain)
        assert await loaded(without, plain) == {"loaded": 2}
        other = await embedded("old", encryption_keys=keys[1:])
        counts = await other.operator.dump([].append, author="test")
        assert counts["locked"] == 2

    async def test_a_sealed_dump_does_not_show_its_contexts(self, embedded: CacheFactory) -> None:
        """Contexts are in the first line, which is sealed with the others; a load reads them."""
        old = await embedded("old", encryption_keys=SEALED, key="another key")
        await old.put("alpha beta", "ann", "x", shared=True, context="You are Rosebud.")
        text = await dumped(old, known=Known.of(["You are Rosebud."]))
        assert all(list(json.loads(line)) == ["sealed"] for line in text)
        assert "Rosebud" not in "".join(text)
        new = await embedded("new", encryption_keys=SEALED)
        assert await loaded(new, text) == {"loaded": 2}
        assert (await new.lookup("alpha beta", "cid", context="You are Rosebud.")).response == "x"

    async def test_a_line_that_anybody_can_write_is_rejected(self, embedded: CacheFactory) -> None:
        """Readable lines, first and last ones too, are not loaded beside keys, unless `plain`."""
        old = await embedded("old", encryption_keys=SEALED)
        await old.put("alpha beta", "ann", "x", shared=True)
        text, plain = await dumped(old), await dumped(old, plain=True)
        forged = edited(plain, response="forged")
        new = await embedded("new", encryption_keys=SEALED)
        done = await new.operator.load([text[0], *forged[1:]], author="test")
        assert (done.fates["rejected"], done.rejected) == (3, {"not_encrypted": 3})
        assert not done.whole
        with pytest.raises(ValueError, match="--plain"):
            await loaded(new, [plain[0], *text[1:]])
        assert (await new.lookup("alpha beta", "cid")).response is None
        assert await loaded(new, plain, plain=True) == {"loaded": 2}
        assert (await new.lookup("alpha beta", "cid")).response == "x"

    async def test_a_line_belongs_to_one_dump(self, embedded: CacheFactory) -> None:
        """Lines of another dump or namespace, and those in the place of another, do not open."""
        old = await embedded("old", encryption_keys=SEALED)
        await old.put("alpha beta", "ann", "x", shared=True)
        text, again = await dumped(old), await dumped(old)
        new = await embedded("new", encryption_keys=SEALED)
        assert await loaded(new, [text[0], *again[1:-1], text[-1]]) == {"damaged": 2}
        with pytest.raises(ValueError, match="first line"):
            await loaded(new, text[1:])
        sealer = old._parts.keys.sealer
        moved = dataclasses.replace(format_.header(text[0], sealer), namespace="other")
        assert await loaded(new, [format_.first(moved, sealer), *text[1:]]) == {"damaged": 3}
        assert await loaded(new, text) == {"loaded": 2}

    async def test_a_sealed_dump_stays_readable(self, embedded: CacheFactory) -> None:
        """One of version 2; one of version 1, whose first line is readable, if it is trusted."""
        folder, new = ROOT / "tests/formats", await embedded("new", encryption_keys=[worlds.KEY])
        text = (folder / "dump-2-sealed.jsonl").read_text(encoding="utf-8").splitlines()
        assert await loaded(new, text) == {"expired": len(text) - 2}
        sealer = new._parts.keys.sealer
        first, *lines, last = (folder / "dump-1.jsonl").read_text(encoding="utf-8").splitlines()
        older = [json.loads(line) | {"created": 1.0} for line in lines]
        seal = [json.dumps({"sealed": sealer.seal(json.dumps(line), "glasscache dump")})
                for line in older]  # fmt: skip
        assert await loaded(new, [first, *seal, last], plain=True) == {"expired": len(lines)}

    async def test_a_dump_of_this_release_stays_readable(self, embedded: CacheFactory) -> None:
        """The fields of a line are those of the first version: a new one needs a default."""
        text = (ROOT / "tests/formats/dump-1.jsonl").read_text(encoding="utf-8").splitlines()
        new = await embedded("new")
        found = await loaded(new, edited(text, created=new._parts.store.now()))
        assert found == {"loaded": len(text) - 2}
        names = [field.name for field in dataclasses.fields(format_.Line)]
        assert set(json.loads(text[1])) <= set(names)


@pytest.mark.server
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_cluster_is_dumped_whole(make_cache: CacheFactory, tmp_path: Path) -> None:
    """Entries of all masters are found."""
    with servers.redis_cluster(tmp_path) as nodes:
        cache = await make_cache(
            settings={**PATIENT, "redis_url": nodes[0].url, "dir": tmp_path / "c", "tiers": {"l1"}}
        )
        for number in range(40):
            await cache.put(f"question {number}", None, f"answer {number}", shared=True)
        text = await dumped(cache)
        answers = {json.loads(line)["response"] for line in text[1:-1]}
        assert answers == {f"answer {number}" for number in range(40)}
        await cache.close()


@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_a_user_who_may_not_list_keys(make_cache: CacheFactory, empty_redis: str) -> None:
    """The agents' user cannot dump: the error names the right."""
    cache = await make_cache(settings={**PATIENT, "redis_url": empty_redis, "tiers": {"l1"}})
    with pytest.raises(BackendError, match="scan"):
        await dumped(cache)
