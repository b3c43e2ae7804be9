"""Blocking interface and decorator."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from glasscache import MultiLevelCache, Settings
from glasscache.integrations.blocking import BlockingCache, cached
from glasscache.integrations.gate import as_user
from tests.support.patience import PATIENT


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    settings = Settings(dir=tmp_path, tiers={"l1"}, **PATIENT)
    with BlockingCache(MultiLevelCache(settings=settings, instruments=())) as made:
        yield made


def test_a_thread_waits_for_its_result(cache: BlockingCache) -> None:
    """Lookups and puts of many threads are those of one cache."""
    cache.put("When?", "ann", "At nine.")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.get_multilevel("When?", "ann"), range(20)))
    assert found == ["At nine."] * 20
    assert cache.get_metrics()["outcomes"]["hit"] == 20


async def test_it_works_beside_a_running_loop(cache: BlockingCache) -> None:
    """In a notebook, whose loop runs, a call waits as elsewhere; in the cache's own loop it raises."""
    cache.put("When?", "ann", "At nine.")
    assert cache.get_multilevel("When?", "ann") == "At nine."

    async def inside() -> None:
        cache.get_multilevel("When?", "ann")

    with pytest.raises(RuntimeError, match="own event loop"):
        cache.get_or_compute("Where?", "ann", inside)


def test_a_forked_child_has_its_own(cache: BlockingCache) -> None:
    """A child of a process that used it reads what the parent stored."""
    cache.put("When?", "ann", "At nine.")
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get_multilevel("When?", "ann") == "At nine." else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_plain_function_is_called_once(cache: BlockingCache) -> None:
    """A decorated function is called for each question, user, history and argument once."""
    calls: list[Any] = []

    @cached(cache, user="user_id", history="earlier", ignore=("client",))
    def answer(
        question: str, user_id: str | None, locale: str = "en", earlier: Any = None,
        client: object = None,
    ) -> str:  # fmt: skip
        calls.append(question)
        return f"{len(calls)} for {user_id}"

    assert answer("When?", "ann") == answer("When?", "ann", client=object()) == "1 for ann"
    assert answer("When?", "bob") == "2 for bob"
    assert answer("When?", "ann", "de") == "3 for ann"
    assert answer("When?", "ann", earlier=["Hello"]) == "4 for ann"
    assert answer("When?", None) == "5 for None"
    assert answer("When?", None) == "6 for None"


async def test_an_asynchronous_function_is_called_once(cache: BlockingCache) -> None:
    """Concurrent calls share one; an argument that cannot be compared bypasses, and is counted."""
    calls: list[str] = []

    @cached(cache)
    async def answer(question: str, tool: object = None) -> str:
        calls.append(question)
        await asyncio.sleep(0)
        return "At nine."

    with as_user("ann"):
        assert set(await asyncio.gather(*(answer("When?") for _ in range(5)))) == {"At nine."}
        assert len(calls) == 1
        assert await answer("When?", tool=object()) == "At nine."
    assert len(calls) == 2
    assert cache.get_metrics()["bypass_reasons"] == {"opaque": 1}


def test_a_wrong_decoration_raises(cache: BlockingCache) -> None:
    """A parameter that the function does not have is named, and a question must be a text."""
    with pytest.raises(TypeError, match="no parameter 'user'"):
        cached(cache, user="user")(lambda question: "")
    with pytest.raises(TypeError, match="must be a str"):
        cached(cache)(lambda question: "")(3)
