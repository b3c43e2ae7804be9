"""Live tuning among processes: what stores promise for it, and the command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from cache_core.backends.base import KeyValueStore
from cache_core.backends.redis.client import connect
from cache_core.backends.redis.store import RedisStore
from cache_core.backends.sqlite.store import EmbeddedStore
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from tests.support import servers
from tests.support.patience import PATIENT
from tests.support.tuning import SOON
from tests.support.waiting import until

# ------------------------------------------------------------------------------------ the store


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("redis", marks=pytest.mark.server),
        pytest.param("redis-decoded", marks=pytest.mark.server),
    ]
)
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[KeyValueStore, KeyValueStore]]:
    """The same store, opened twice, as by two processes."""
    pools: list[Any] = []
    made: list[KeyValueStore] = []
    for _ in range(2):
        if request.param == "embedded":
            made.append(EmbeddedStore(tmp_path))
            continue
        url = servers.any_key(request.getfixturevalue("empty_redis"))
        client = connect(url, timeout=5)
        if request.param == "redis-decoded":
            # An application's pool without a connection to spare.
            pools.append(
                redis.ConnectionPool.from_url(url, decode_responses=True, max_connections=3)
            )
            client = redis.Redis(connection_pool=pools[-1])
        owned = not pools
        made.append(RedisStore(client, read_timeout=5, write_timeout=5, owned=owned))
    for store in made:
        await store.open()
    yield made[0], made[1]
    for store in made:
        await store.close()
    for pool in pools:
        await pool.aclose()


async def test_one_of_many_claims_a_row(stores: tuple[KeyValueStore, KeyValueStore]) -> None:
    """One of forty claims on a row, through two stores, succeeds, and its value is stored."""
    claims = await asyncio.gather(
        *(stores[number % 2].claim_row("h", "7", f"value {number}") for number in range(40))
    )
    assert sum(claims) == 1
    assert await stores[0].some_rows("h", ["7"]) == [f"value {claims.index(True)}"]
    assert not await stores[1].claim_row("h", "7", "late")
    assert await stores[1].rows("h") == {"7": f"value {claims.index(True)}"}


async def test_rows_are_asked_for_by_name(stores: tuple[KeyValueStore, KeyValueStore]) -> None:
    """Names come without values, values come in the order asked, and what is not there is None."""
    one, other = stores
    assert list(await one.row_names("h")) == []
    assert list(await one.some_rows("h", ["1"])) == [None]
    assert list(await one.some_rows("h", [])) == []
    for name in ("1", "2", "10"):
        await one.claim_row("h", name, f"value {name}")
    assert sorted(await other.row_names("h")) == ["1", "10", "2"]
    assert list(await other.some_rows("h", ["10", "no", "1"])) == ["value 10", None, "value 1"]


async def test_every_listener_is_woken(stores: tuple[KeyValueStore, KeyValueStore]) -> None:
    """A listener is woken once it listens, and then when another process wrote and published."""
    one, other = stores
    heard = 0

    async def listen() -> None:
        nonlocal heard
        async for _ in one.listen("news"):
            heard += 1

    task = asyncio.create_task(listen())
    try:
        await until(lambda: heard == 1, SOON)
        await other.claim_row("h", "1", "value")
        await other.publish("news")
        await until(lambda: heard >= 2, SOON)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cut_subscription_is_an_error(empty_redis: str) -> None:
    """A subscriber whose connection the server closes learns it, instead of waiting for ever."""
    store = RedisStore(connect(servers.any_key(empty_redis), timeout=5))
    await store.open()
    async with contextlib.aclosing(store.listen("news")) as news:  # type: ignore[type-var]
        await anext(news)
        with servers.admin(empty_redis) as client:
            assert client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
        with pytest.raises(BackendError):
            await asyncio.wait_for(anext(news), 5)
    await store.close()


# ------------------------------------------------------------------------------------ processes

_AGENT = """
import asyncio, json, sys, time
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder

async def main():
    cache = MultiLevelCache(
        settings=Settings(**json.loads(sys.argv[1])), embedding_model=HashEmbedder(),
        semantic_threshold=0.99, instruments=(), shared_intents=["returns"],
    )
    await cache.initialize()
    await cache.put("alpha beta gamma delta", "ann", "the answer")
    before = await cache.lookup("alpha beta gamma epsilon", "ann")
    print(json.dumps({"outcome": before.outcome, "similarity": before.similarity}), flush=True)
    while True:
        result = await cache.lookup("alpha beta gamma epsilon", "ann")
        if result.outcome == "hit":
            break
        await asyncio.sleep(0.005)
    print(json.dumps({"at": time.time(), "similarity": result.similarity,
                      "intents": sorted(cache.tuning.shared_intents)}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await cache.close()

asyncio.run(main())
"""


def _glasscache(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("glasscache")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def where(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Options of the command line for the store of this run."""
    if store_kind == "redis":
        return ["--redis-url", str(request.getfixturevalue("empty_redis"))]
    return ["--dir", str(tmp_path / "cache")]


@pytest.mark.slow
def test_the_command_changes_an_agent_in_another_process(
    store_kind: str, where: list[str], tmp_path: Path
) -> None:
    """`glasscache tune set` makes a running agent answer what it did not answer before."""
    url = where[1] if store_kind == "redis" else None
    fixed = {"redis_url": url, "dir": str(tmp_path / "cache"), **PATIENT}
    agent = subprocess.Popen(
        [sys.executable, "-c", _AGENT, json.dumps(fixed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert agent.stdin is not None
    assert agent.stdout is not None
    try:
        assert json.loads(agent.stdout.readline())["outcome"] == "miss"
        done = _glasscache(
            "tune", "set", "semantic_threshold=0.5", "shared_intents=+faq", "--note", "more hits",
            "--json", *where,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        change = json.loads(done.stdout)
        hit = json.loads(agent.stdout.readline())
        assert hit["at"] - change["at"] < SOON
        assert hit["intents"] == ["faq", "returns"], "what the agent shared is still shared"
        assert change["before"] == {"semantic_threshold": 0.99, "shared_intents": ["returns"]}
        # The replica reports itself every second.
        deadline = time.monotonic() + 10
        while True:
            shown = json.loads(_glasscache("tune", "show", "--json", *where).stdout)
            reported = [item["tuning_version"] for item in shown["replicas"]]
            if reported == [1] or time.monotonic() > deadline:
                break
        assert reported == [1]
        assert shown["version"] == 1
        assert shown["values"]["shared_intents"] == ["faq", "returns"]
        assert shown["origins"]["semantic_threshold"] == "tuned"
    finally:
        agent.communicate("\n", timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["redis"])
def test_the_command_shows_undoes_and_refuses(where: list[str]) -> None:
    """History and revert work as printed; what is refused changes nothing and exits with 2."""
    run = _glasscache
    assert "Nobody tuned" in run("tune", "history", *where).stdout
    done = run("tune", "set", "l1_ttl=2h", "guards=none", "intent.a.b.shared=yes", *where)
    assert "Now version 1" in done.stdout
    assert "l1_ttl 1 h -> 2 h" in done.stdout
    dry = run("tune", "set", "l1_ttl=default", "--dry-run", *where)
    assert "Would be version 2" in dry.stdout
    assert "no longer tuned" in dry.stdout
    refused = run("tune", "set", "l1_ttl=99d", *where)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "30 d" in refused.stderr
    stale = run("tune", "set", "l1_ttl=90", "--expected-version", "0", *where)
    assert stale.returncode == 2
    assert "at version 1, not 0" in stale.stderr
    assert run("tune", "set", "l1_ttl", *where).returncode == 2
    assert run("tune", "set", "shared_intents=+a,b", *where).returncode == 2
    assert run("tune", "revert", "7", *where).returncode == 2
    assert "Now version 2" in run("tune", "revert", "0", "--author", "ben", *where).stdout
    history = run("tune", "history", *where).stdout
    assert "ben" in history
    assert "back to version 0" in history
    values = json.loads(run("tune", "show", "--json", *where).stdout)["values"]
    assert (values["l1_ttl"], values["guards"]) == (3_600.0, list(Tuning().guards))


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
def test_the_command_stages_and_confirms(where: list[str]) -> None:
    """A staged change is shown with its end, keeps others out, and is confirmed by command."""
    run = _glasscache
    done = run("tune", "set", "l1_ttl=2h", "--stage", "30m", "--max-wrong", "0.02", *where)
    assert "Version 1 is staged until" in done.stdout
    assert "2.00% of the hits" in " ".join(done.stdout.split())
    staged = json.loads(run("tune", "show", "--json", *where).stdout)["staged"]
    assert staged["stage"] == {"seconds": 1_800.0, "max_wrong": 0.02, "max_errors": 0.01}
    assert staged["until"] == staged["at"] + 1_800
    other = run("tune", "set", "l1_ttl=3h", *where)
    assert (other.returncode, other.stdout) == (2, "")
    assert "glasscache tune confirm" in other.stderr
    assert run("tune", "set", "l1_ttl=3h", "--stage", "1s", *where).returncode == 2
    assert "version 1 is confirmed: fine" in run("tune", "confirm", "--note", "fine", *where).stdout
    assert json.loads(run("tune", "show", "--json", *where).stdout)["staged"] is None
    assert run("tune", "confirm", *where).returncode == 2
    assert "prices none -> small=0.15/0.6" in run(
        "tune", "set", "prices=+small=0.15/0.6", *where
    ).stdout  # fmt: skip
    shown = json.loads(run("tune", "show", "--json", *where).stdout)["values"]
    assert shown["prices"] == ["small=0.15/0.6"]


@pytest.mark.slow
def test_the_command_loads_no_model(tmp_path: Path) -> None:
    """Tuning needs neither torch nor Chroma: it starts immediately."""
    code = (
        "import sys\nfrom cache_core.cli.app import app\n"
        f"try: app(['tune', 'show', '--dir', {str(tmp_path)!r}])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'chromadb', 'sentence_transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
