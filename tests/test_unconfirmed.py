"""The files of invalidations that wait for a backend: sealed, of one store, never lost silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cache_core import unconfirmed
from cache_core.sealing import Sealer
from cache_core.unconfirmed import StoreName, Unconfirmed
from tests import servers
from tests.faulty import Asker, fill, opened, question, until
from tests.test_encryption import KEYS


async def _made_by(unconfirmed: Unconfirmed) -> list[Any]:
    made: list[Any] = []

    async def make(request: Any) -> None:
        made.append(request)

    await unconfirmed.adopt(make)
    return made


HERE = StoreName("here", "secret")
ODD = ("message", 'sur\ud800 "quotes"\n\0', None)


@pytest.mark.parametrize("sealer", [None, Sealer(KEYS[:1])], ids=["readable", "sealed"])
async def test_the_file_takes_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sealer: Sealer | None
) -> None:
    """Odd requests come back as they were; what cannot be read is kept, and told once."""
    first = Unconfirmed(tmp_path, "a", "one", HERE, sealer)
    for request in (ODD, ODD, ("user", "ann")):
        first.note(request)
    (one,) = tmp_path.iterdir()
    assert ("ann" in one.read_text()) is (sealer is None)
    Unconfirmed(tmp_path, "a-b", "two", HERE, sealer).note(("tag", "other"))
    three = tmp_path / "unconfirmed-a-three.jsonl"
    good = json.dumps(HERE._asdict())
    for text in ("", '{"not": 1}\n[1]\n', f'{good}\n["tag", "t"]\n[1]\nnull\n[[\n'):
        three.write_text(text)
        last = Unconfirmed(tmp_path, "a", "four", HERE, sealer)
        expected = [ODD, ("user", "ann")] if one.exists() else []
        if good in text:
            expected.append(("tag", "t"))
        assert await _made_by(last) == expected
        assert await _made_by(last) == []
        assert three.read_text() == text
        assert not one.exists()
        assert caplog.text.count("three.jsonl has invalidations") == 1
        caplog.clear()
    assert (tmp_path / "unconfirmed-a-b-two.jsonl").exists()
    first.clear()
    assert await _made_by(Unconfirmed(tmp_path / "nowhere", "a", "five", HERE)) == []
    # Without a directory to write to it still must not raise.
    blocked = tmp_path / "file"
    blocked.write_text("")
    last = Unconfirmed(blocked, "a", "six", HERE)
    last.note(("user", "ann"))
    assert last.lost == 1


async def test_a_sealed_file_opens_with_its_key_only_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys rotate; a file whose key is gone, or that was moved, is kept and nothing of it made."""
    Unconfirmed(tmp_path, "a", "one", HERE, Sealer(KEYS[:1])).note(ODD)
    (file,) = tmp_path.iterdir()
    for sealer in (None, Sealer(KEYS[1:2])):
        caplog.clear()
        assert await _made_by(Unconfirmed(tmp_path, "a", "two", HERE, sealer)) == []
        assert "CACHE_ENCRYPTION_KEYS" in caplog.text
    text = file.read_text()
    moved = tmp_path / "unconfirmed-a-other.jsonl"
    file.rename(moved)
    assert await _made_by(Unconfirmed(tmp_path, "a", "two", HERE, Sealer(KEYS[:1]))) == []
    moved.rename(file)
    file.write_text(text.replace('"here"', '"there"'))
    there = StoreName("there")
    assert await _made_by(Unconfirmed(tmp_path, "a", "two", there, Sealer(KEYS[:1]))) == []
    file.write_text(text)
    rotated = Unconfirmed(tmp_path, "a", "two", HERE, Sealer([KEYS[1], KEYS[0]]))
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
    Unconfirmed(tmp_path, "a", "one", HERE).note(ODD)
    assert await _made_by(Unconfirmed(tmp_path, "a", "two", store)) == [ODD] * adopted
    assert bool(list(tmp_path.iterdir())) is not adopted
    assert ("is of another store" in caplog.text) is not adopted


async def test_two_stores_in_one_directory(tmp_path: Path) -> None:
    """What was told to one application is not made, and lost, by another with its own Redis."""
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
            running = cache._engine.running
            assert running is not None
            await cache._engine.unconfirmed.adopt(cache._engine.make)
            assert len(list(directory.glob("unconfirmed-*"))) == 1
        async with opened(directory, redis_url=one.url.replace("127.0.0.1", "localhost")) as cache:
            # Under another name it is not known to be the same: its secret was not known, either.
            await cache._engine.unconfirmed.adopt(cache._engine.make)
            assert len(list(directory.glob("unconfirmed-*"))) == 1
        async with opened(directory, redis_url=one.url) as cache:
            await until(lambda: not list(directory.glob("unconfirmed-*")))
            assert (await Asker(cache).ask(1)).response is None


def test_beyond_its_most_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not kept on disk is counted and told."""
    monkeypatch.setattr(unconfirmed, "MOST", 3)
    kept = Unconfirmed(tmp_path, "a", "one", HERE)
    for number in range(5):
        kept.note(("tag", str(number)))
    assert kept.lost == 2
    assert "more than 3 invalidations are pending" in caplog.text
