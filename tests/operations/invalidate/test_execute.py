"""Each kind of step, executed on a store and an index without a cache around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cache_core.backends.base import Row, Write
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.model.exceptions import BackendError
from cache_core.model.generations import origin
from cache_core.model.keys import APART
from cache_core.operations.invalidate import execute
from cache_core.operations.invalidate.retries import Done
from cache_core.operations.invalidate.steps import (
    AnnounceRows,
    AwaitSearch,
    ConfirmSearch,
    DeleteEntries,
    DropListed,
    Erase,
    FindListed,
    FindSimilar,
    GiveTokens,
    Job,
    RemoveRows,
    RemoveVectors,
    Step,
    of_messages,
    of_own,
    of_similar,
)
from cache_core.tiers.journal import Broad
from cache_core.tiers.semantic.replication import IndexFeed
from cache_core.tiers.semantic.similar import OwnVector
from tests.support.bench import LIFE, Bench


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(tmp_path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def bench(store: EmbeddedStore) -> Bench:
    return Bench(store)


# -------------------------------------------------------------------------- tokens and entries


@pytest.mark.parametrize("whose", ["everybody", "own", "user"])
async def test_give_tokens(bench: Bench, whose: str) -> None:
    """One write for all of them; the journal holds the token before."""
    tag, user = bench.query("alpha").tag, bench.keys.user("ann")
    names = {
        "everybody": bench.keys.generation(tag),
        "own": bench.keys.own_generation(tag, user),
        "user": bench.keys.user_generation(user),
    }
    job = Job()
    job.unlogged.append(Broad(job.token))
    tags = () if whose == "user" else (tag,)
    await bench.do(GiveTokens(job, tags, "" if whose == "everybody" else user))
    values = {name: await bench.value(key) for name, key in names.items()}
    assert values == {name: job.token if name == whose else None for name in names}
    known, _ = await bench.journal.since("")
    assert [item.token for item in known or ()] == [job.token]


async def test_tokens_are_not_given_before_they_are_logged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was logged is not logged again."""
    job = Job()
    job.unlogged += [Broad(job.token, ["label"]), Broad(job.token)]
    step, name = GiveTokens(job, (bench.query("alpha").tag,)), bench.token("alpha")
    with monkeypatch.context() as patch:
        note = bench.journal.note

        async def fail_second(item: Broad) -> None:
            if not item.labels:
                raise BackendError("timeout")
            await note(item)

        patch.setattr(bench.journal, "note", fail_second)
        with pytest.raises(BackendError):
            await bench.do(step)
    assert await bench.value(name) is None
    await bench.do(step, again=True)
    assert origin(await bench.value(name) or "") == job.token
    assert await bench.logged("invalidations") == 2


async def test_tokens_that_arrived_are_not_given_again(bench: Bench) -> None:
    """Tokens replaced by others since get another value: the same one would restore their answers."""
    job = Job()
    step = GiveTokens(job, (bench.query("alpha").tag, bench.query("beta").tag))
    await bench.do(step)
    await bench.store.write([Write(bench.token("beta"), "i-other", LIFE)])
    await bench.do(step, again=True)
    assert await bench.value(bench.token("alpha")) == job.token
    other = await bench.value(bench.token("beta"))
    assert (other != job.token, origin(other or "")) == (True, job.token)


async def test_delete_entries(bench: Bench) -> None:
    """Entries of every user and scope are counted; shared ones where the index is."""
    names = [
        await bench.fill("alpha", user="ann"),
        await bench.fill("alpha", user="bob"),
        await bench.fill("alpha", "shared"),
        await bench.fill("beta"),
    ]
    done = await bench.do(DeleteEntries(Job(), (bench.query("alpha").tag,)))
    assert (done.removed, done.more) == (2, ())
    left = [await bench.value(name) for name in names]
    assert [value is None for value in left] == [True, True, True, False]


async def test_delete_own_entries(bench: Bench) -> None:
    """Entries of one user are deleted, and those of others stay."""
    own, other = await bench.fill("alpha", user="ann"), await bench.fill("alpha", user="bob")
    step = DeleteEntries(Job(), (bench.query("alpha").tag,), bench.keys.user("ann"))
    assert (await bench.do(step)).removed == 1
    assert (await bench.value(own) is None, await bench.value(other) is None) == (True, False)


# -------------------------------------------------------------------------- the vector index


async def test_remove_rows(bench: Bench) -> None:
    """Rows of the given messages are removed from the index."""
    await bench.fill("alpha", "shared")
    tag = bench.query("alpha").tag
    assert (await bench.do(RemoveRows(Job(), (tag,)))).removed == 1
    assert await bench.index.count() == 0


async def test_remove_rows_of_one_writer_only(bench: Bench) -> None:
    """Another user's answer stays, also where it replaced the writer's; a damaged row does not."""
    context = bench.query("alpha").context
    for message, users in (("alpha", ["ann"]), ("beta", ["ann", "bob"]), ("gamma", ["bob"])):
        for user in users:
            await bench.fill(message, "shared", user)
    tags = tuple(bench.query(message).tag for message in ("alpha", "beta", "gamma", "delta"))
    vector = await bench.embedder.embed("delta")
    await bench.index.add(context, Row(tags[3], vector, "no envelope", 1e12))
    done = await bench.do(RemoveRows(Job(), tags, writer=bench.keys.user("ann")))
    assert done.removed == 2
    assert set(await bench.index.texts(context, tags)) == {tags[1], tags[2]}


@pytest.mark.parametrize(
    ("erased", "similar", "expected"),
    [
        (False, True, ("invalidate", "alpha", 0.9)),
        (False, False, ("invalidate", "", 0.0)),
        (True, False, ("gone", "", 0.0)),
    ],
)
async def test_announce_rows(
    bench: Bench, *, erased: bool, similar: bool, expected: tuple[str, str, float]
) -> None:
    """Another process reads it from the feed."""
    like = bench.like("alpha") if similar else None
    await bench.do(AnnounceRows(Job(), ("tag",), like, erased))
    seen = []

    async def follow(record: object) -> None:
        seen.append(record)

    other = IndexFeed(bench.store, bench.keys, bench.vectors, "", "other")
    await other.apply(follow)
    (record,) = seen
    assert (record.kind, record.text, record.threshold) == expected  # type: ignore[attr-defined]
    assert record.tags == ["tag"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [RemoveRows(Job(), ("t",)), AnnounceRows(Job(), ("t",))])
async def test_without_l2_there_is_no_index(store: EmbeddedStore, step: Step) -> None:
    """Steps for the index do nothing where L2 is off."""
    bench = Bench(store, l2=False)
    assert await bench.do(step) == Done()
    assert await bench.logged("feedm") == 0


# -------------------------------------------------------------------------- similar questions


async def test_find_similar_shared(bench: Bench) -> None:
    """Each similar message found is invalidated like the message, which has its own steps."""
    for message in ("alpha beta", "beta alpha", "gamma"):
        await bench.fill(message, "shared")
    job = Job()
    done = await bench.do(FindSimilar(job, bench.like("alpha beta"), "shared"))
    assert done.more == of_similar(job, [bench.query("beta alpha").tag])


async def test_find_similar_private(bench: Bench) -> None:
    """Everybody's; who takes over when this process ends finds them again."""
    entry = await bench.fill("beta alpha", user="bob")
    job, vector = Job(), _vector(bench, "beta alpha", "bob", entry)
    done = await bench.do(FindSimilar(job, bench.like("alpha beta"), "user"))
    assert done.more == [*of_similar(job, [vector.tag]), RemoveVectors(job, (vector,))]
    again = await bench.do(FindSimilar(job, bench.like("alpha beta"), "user"))
    assert again.more == done.more


async def test_find_similar_of_one_user(bench: Bench) -> None:
    """A search for one user's similar questions plans steps for that user alone."""
    await bench.fill("beta alpha", user="bob")
    entry = await bench.fill("beta alpha", user="ann")
    job, user = Job(), bench.keys.user("ann")
    done = await bench.do(FindSimilar(job, bench.like("alpha beta"), "user", user))
    vector = _vector(bench, "beta alpha", "ann", entry)
    assert done.more == [*of_own(job, [vector.tag], user), RemoveVectors(job, (vector,))]


async def test_remove_vectors_without_an_answer_only(bench: Bench) -> None:
    """An answer that the user has put since is still found."""
    entry = await bench.fill("alpha", user="ann")
    kept = await bench.fill("beta", user="ann")
    await bench.store.delete([entry])
    vectors = [_vector(bench, "alpha", "ann", entry), _vector(bench, "beta", "ann", kept)]
    await bench.do(RemoveVectors(Job(), tuple(vectors)))
    assert list(await bench.store.rows(vectors[0].key)) == [vectors[1].tag]


def _vector(bench: Bench, message: str, user: str, entry: str) -> OwnVector:
    query = bench.query(message, user)
    return OwnVector(bench.keys.vectors(query.scope("user"), query.context), query.tag, entry)


async def test_await_search(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only while somebody lives who would look, and the second time no longer."""
    monkeypatch.setattr(execute, "_SEARCHED_SECONDS", 0.1)
    bench, job = Bench(store, l2=False), Job()
    job.unlogged.append(Broad(job.token, (), "alpha", 0.9, "", searched=False))
    step = AwaitSearch(job, bench.query("alpha").tag, 0.9)
    await bench.do(step)
    bench.alive = True
    for again in (False, True):
        with pytest.raises(BackendError) as failure:
            await bench.do(step, again=again)
        assert failure.value.error_type == "NobodySearched"
    (asked,) = bench.journal.unsearched
    await Bench(store).do(ConfirmSearch(Job(), asked.token, asked))
    await bench.do(step, again=True)
    assert bench.journal.unsearched == []


# -------------------------------------------------------------------------- documents, users


async def test_find_and_drop_listed(bench: Bench) -> None:
    """The list is dropped last; what is put in the meantime is listed anew, and stays listed."""
    await bench.fill("alpha")
    index, tag = bench.keys.index("tag", bench.keys.label("tag", "t")), bench.query("alpha").tag
    job = Job()
    job.unlogged.append(Broad(job.token, [bench.keys.label("tag", "t")]))
    done = await bench.do(FindListed(job, index))
    *messages, drop = done.more
    assert messages == of_messages(job, [tag])
    assert drop == DropListed(job, index, (tag,), ())
    assert all(APART in name for name in await bench.store.rows(index))
    await bench.fill("alpha")
    await bench.do(drop)
    assert list(await bench.store.rows(index)) == [tag]


@pytest.mark.parametrize("l2", [True, False])
async def test_erase(store: EmbeddedStore, *, l2: bool) -> None:
    """Everything private goes; what waits for the model, too."""
    bench = Bench(store, l2=l2)
    name, user = await bench.fill("alpha"), bench.keys.user("ann")
    done = await bench.do(Erase(Job(), user, traces=True))
    assert (done.removed, done.counts["private entries"], done.more) == (1, 1, [])
    assert await bench.value(name) is None
    assert bench.forgotten == [user] * l2
