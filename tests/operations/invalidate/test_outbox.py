"""The files of invalidations that wait for a backend: sealed, of one store, never lost silently."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cache_core.model.logs import RateLimited
from cache_core.model.sealing import Sealer
from cache_core.operations.invalidate import outbox
from cache_core.operations.invalidate.outbox import Outbox, Request, StoreName
from tests.security.test_encryption import KEYS
from tests.support import servers
from tests.support.caches import opened
from tests.support.faults import Asker, fill, question
from tests.support.waiting import until


async def _made_by(unconfirmed: Outbox) -> list[Any]:
    made: list[Any] = []

    async def make(request: Any) -> None:
        made.append(request)

    await unconfirmed.adopt(make)
    return made


HERE = StoreName("here", "secret")
ODD = Request("message", 'sur\ud800 "quotes"\n\0')
ANN = Request("user", "ann")


@pytest.mark.parametrize("sealer", [None, Sealer(KEYS[:1])], ids=["readable", "sealed"])
async def test_the_file_takes_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sealer: Sealer | None
) -> None:
    """Odd requests come back as they were; what cannot be read is kept, and logged once."""
    first = Outbox(tmp_path, "a", "one", HERE, sealer)
    for request in (ODD, ODD, ANN):
        first.add(request)
    (one,) = tmp_path.iterdir()
    assert ("ann" in one.read_text()) is (sealer is None)
    Outbox(tmp_path, "a-b", "two", HERE, sealer).add(Request("tag", "other"))
    three = tmp_path / "unconfirmed-a-three.jsonl"
    good = json.dumps(HERE._asdict())
    for text in (
        "",
        '{"not": 1}\n[1]\n',
        f'{good}\n["tag", "t"]\n["later", "x"]\n["tag", "t", "u"]\n[1]\nnull\n[[\n',
    ):
        three.write_text(text)
        last = Outbox(tmp_path, "a", "four", HERE, sealer)
        expected = [ODD, ANN] if one.exists() else []
        if good in text:
            expected.append(Request("tag", "t"))
        assert await _made_by(last) == expected
        assert await _made_by(last) == []
        assert three.read_text() == text
        assert not one.exists()
        assert caplog.text.count("three.jsonl has invalidations") == 1
        caplog.clear()
    assert (tmp_path / "unconfirmed-a-b-two.jsonl").exists()
    first.clear()
    assert await _made_by(Outbox(tmp_path / "nowhere", "a", "five", HERE)) == []
    # Without a directory to write to it still must not raise.
    blocked = tmp_path / "file"
    blocked.write_text("")
    last = Outbox(blocked, "a", "six", HERE)
    last.add(ANN)
    assert last.lost == 1


async def test_a_sealed_file_opens_with_its_key_only_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys rotate; a file whose key is gone, or that was moved, is kept and nothing of it made."""
    Outbox(tmp_path, "a", "one", HERE, Sealer(KEYS[:1])).add(ODD)
    (file,) = tmp_path.iterdir()
    for sealer in (None, Sealer(KEYS[1:2])):
        caplog.clear()
        assert await _made_by(Outbox(tmp_path, "a", "two", HERE, sealer)) == []
        assert "CACHE_ENCRYPTION_KEYS" in caplog.text
    text = file.read_text()
    moved = tmp_path / "unconfirmed-a-other.jsonl"
    file.rename(moved)
    assert await _made_by(Outbox(tmp_path, "a", "two", HERE, Sealer(KEYS[:1]))) == []
    moved.rename(file)
    file.write_text(text.replace('"here"', '"there"'))
    there = StoreName("there")
    assert await _made_by(Outbox(tmp_path, "a", "two", there, Sealer(KEYS[:1]))) == []
    file.write_text(text)
    rotated = Outbox(tmp_path, "a", "two", HERE, Sealer([KEYS[1], KEYS[0]]))
    assert await _made_by(rotated) == [ODD]
    assert not file.exists()


@pytest.mark.parametrize(
    ("store", "adopted"),
    [
        (StoreName("here"), True),
        (StoreName("here", "another"), True),
        (StoreName("there", "secret"), True),
        (StoreName("there", "another"), False),
        (StoreName("there"), False),
    ],
)
async def test_files_of_another_store_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, store: StoreName, *, adopted: bool
) -> None:
    """A store is known by where it is, or by the secret that it keeps."""
    Outbox(tmp_path, "a", "one", HERE).add(ODD)
    assert await _made_by(Outbox(tmp_path, "a", "two", store)) == [ODD] * adopted
    assert bool(list(tmp_path.iterdir())) is not adopted
    assert ("is of another store" in caplog.text) is not adopted


@pytest.mark.server
async def test_two_stores_in_one_directory(tmp_path: Path) -> None:
    """An application's invalidation is not made, and lost, by another one with its own Redis."""
    with servers.BreakableRedis(tmp_path) as one, servers.BreakableRedis(tmp_path) as other:
        directory = tmp_path / "data"
        async with opened(directory, redis_url=one.url) as cache:
            await fill(cache, 2)
        one.stop()
        try:
            async with opened(directory, redis_url=one.url) as cache:
                await cache.invalidate(question(1))
        finally:
            one.go_on()
        async with opened(directory, redis_url=other.url) as cache:
            await cache._engine.adopt()
            assert len(list(directory.glob("unconfirmed-*"))) == 1
        async with opened(directory, redis_url=one.url.replace("127.0.0.1", "localhost")) as cache:
            # Under another name it is not known to be the same: its secret was not known, either.
            await cache._engine.adopt()
            assert len(list(directory.glob("unconfirmed-*"))) == 1
        async with opened(directory, redis_url=one.url) as cache:
            await until(lambda: not list(directory.glob("unconfirmed-*")))
            assert (await Asker(cache).ask(1)).response is None


def test_beyond_its_most_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalidation that is not kept on disk is counted and reported."""
    monkeypatch.setattr(outbox, "MOST", 3)
    # The test before this one may have logged the same line, less than a second ago.
    monkeypatch.setattr(outbox, "log", RateLimited(logging.getLogger("glasscache")))
    kept = Outbox(tmp_path, "a", "one", HERE)
    for number in range(5):
        kept.add(Request("tag", str(number)))
    assert kept.lost == 2
    assert [request.value for request in kept.requests] == ["0", "1", "2"]
    assert "more than 3 invalidations are pending" in caplog.text


def test_a_request_shows_no_text_of_a_user() -> None:
    """It may be logged; what it is of may be private."""
    assert repr(Request("message", "my salary", "ann")) == "Request(kind='message')"


async def test_its_file_is_begun_again_when_another_process_has_done_what_was_in_it(
    tmp_path: Path,
) -> None:
    """The process that deleted the file may live on, and still reads later additions."""
    first = Outbox(tmp_path, "a", "one", HERE)
    other = Outbox(tmp_path, "a", "two", HERE)
    for request in (ODD, ANN, ODD):
        first.add(request)
        assert await _made_by(other) == [request]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.server
async def test_a_cache_that_is_closed_and_opened_again_does_what_it_was_asked_for(
    tmp_path: Path,
) -> None:
    """Only its owner may read its file; nothing of it is served from the first lookup on."""
    with servers.BreakableRedis(tmp_path) as redis:
        async with opened(tmp_path / "data", redis_url=redis.url) as cache:
            await fill(cache, 2)
            redis.stop()
            try:
                assert not (await cache.invalidate(question(1))).complete
                await cache.close()
            finally:
                redis.go_on()
            await cache.initialize()
            assert (await Asker(cache).ask(1)).response is None
            await until(lambda: not list((tmp_path / "data").glob("unconfirmed-*")))
            assert (await Asker(cache).ask(1)).response is None
            assert (await Asker(cache).ask(0)).response is not None
