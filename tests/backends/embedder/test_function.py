"""An application's own function as the model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from cache_core import ConfigurationError, FunctionEmbedder, MultiLevelCache
from cache_core.backends.embedder.identity import identity_of
from cache_core.model.exceptions import BackendError
from cache_core.testing import HashEmbedder
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

WORDS = HashEmbedder()


def one(text: str) -> list[float]:
    return asyncio.run(WORDS.embed(text)).tolist()


def many(texts: Sequence[str]) -> list[list[float]]:
    return [one(text) for text in texts]


async def later(text: str) -> Any:
    await asyncio.sleep(0)
    return await WORDS.embed(text)


async def many_later(texts: Sequence[str]) -> Any:
    return np.stack([await WORDS.embed(text) for text in texts])


@pytest.fixture
def store_kind() -> str:
    """The embedded store alone: how the model is asked does not depend on it."""
    return "embedded"


@pytest.mark.parametrize(
    ("function", "batch"), [(one, None), (many, 8), (later, None), (many_later, 8)]
)
async def test_a_function_makes_the_vectors(
    make_cache: CacheFactory, function: Any, batch: int | None
) -> None:
    """Plain or a coroutine function, of a text or a list: a rephrased question is found."""
    embedder = FunctionEmbedder(function, name="words", version=function.__name__, batch=batch)
    cache: MultiLevelCache = await make_cache(
        embedding_model=embedder, settings=PATIENT, sharing="all"
    )
    await cache.ready()
    await cache.put("when do you open", "ann", "at nine")
    assert (await cache.lookup("do you open when", "bob")).tier == "l2"
    embedder.close()


async def test_it_never_runs_in_the_loop_of_the_application() -> None:
    """A plain function may wait, and a coroutine function always has the same loop."""
    threads: list[threading.Thread] = []
    loops: set[asyncio.AbstractEventLoop] = set()

    def plain(text: str) -> list[float]:
        threads.append(threading.current_thread())
        return [1.0, 2.0]

    async def waiting(text: str) -> list[float]:
        loops.add(asyncio.get_running_loop())
        return [1.0, 2.0]

    for function in (plain, waiting):
        embedder = FunctionEmbedder(function, name="where", version=function.__name__)
        await asyncio.gather(*(embedder.embed(f"text {number}") for number in range(10)))
        embedder.close()
    assert threading.main_thread() not in threads
    assert len(loops) == 1
    assert asyncio.get_running_loop() not in loops


@pytest.mark.parametrize(
    "given",
    [None, "vector", {"a": 1}, [], 5, [[1.0]], [[1.0, 2.0], [1.0, float("nan")]],
     [[1.0, 2.0], [1.0]], [[1.0, 2.0], ["a", "b"]], [[0.0, 0.0], [1.0, 2.0]]],
    ids="none text mapping empty number fewer nan shorter words zeros".split(),
)  # fmt: skip
async def test_what_is_no_vector_is_an_error_of_its_text_alone(given: Any) -> None:
    """Nothing of it is kept; the next call is made anew."""
    good = False
    busy, queued = threading.Event(), threading.Event()

    def function(texts: list[str]) -> Any:
        if texts == ["first"]:
            busy.set()
            assert queued.wait(30)
        elif not good:
            return given
        return [[1.0, 2.0] for _ in texts]

    embedder = FunctionEmbedder(function, name="odd", version="1", batch=2, workers=1)
    first = asyncio.ensure_future(embedder.embed("first"))
    assert await asyncio.to_thread(busy.wait, 30)
    texts = [asyncio.ensure_future(embedder.embed(text)) for text in "ab"]
    await asyncio.sleep(0)
    # The only worker was busy, so it takes both texts together.
    queued.set()
    found = await asyncio.gather(*texts, return_exceptions=True)
    await first
    failed = [item for item in found if isinstance(item, BackendError)]
    assert failed
    assert {item.error_type for item in failed} == {"InvalidVectorError"}
    good = True
    for text, item in zip("ab", found, strict=True):
        if isinstance(item, BackendError):
            assert (await embedder.embed(text)).shape == (2,)
    embedder.close()


async def test_a_failing_function_fails_open(make_cache: CacheFactory) -> None:
    """Whatever it raises, and a coroutine that takes too long, is an error of L2 with its reason."""

    async def hangs(text: str) -> list[float]:
        await asyncio.sleep(60)
        return [1.0]

    def raises(text: str) -> list[float]:
        raise LookupError(text)

    for function, reason in ((raises, "backend_error"), (hangs, "timeout")):
        embedder = FunctionEmbedder(function, name="failing", version=reason, timeout=0.05)
        cache = await make_cache(embedding_model=embedder, settings=PATIENT)
        await cache.ready()
        for number in range(6):
            assert (await cache.lookup(f"question {number}", "ann")).outcome == "error"
        assert cache.metrics.error_reasons == {("l2", reason): 5, ("l2", "breaker_open"): 1}
        embedder.close()


def test_a_function_needs_a_name_of_its_own() -> None:
    """Without one, and with that of another function, nothing is made: vectors would be mixed."""
    with pytest.raises(ConfigurationError, match=r"FunctionEmbedder\(function, name="):
        MultiLevelCache(embedding_model=one)
    with pytest.raises(TypeError, match="name"):
        FunctionEmbedder(one)  # type: ignore[call-arg]
    for name in ("", " ", "a\nb", "x" * 201):
        with pytest.raises(ConfigurationError, match="name="):
            FunctionEmbedder(one, name=name, version="1")
    FunctionEmbedder(one, name="taken", version="1")
    FunctionEmbedder(partial(one), name="taken", version="1")
    with pytest.raises(ConfigurationError, match=r"another embedding function.*\.one"):
        FunctionEmbedder(many, name="taken", version="1", batch=2)
    made = [("a", "b"), ("b", "a"), ("a@b", ""), ("all-MiniLM-L6-v2", "1")]
    identities = {
        identity_of(FunctionEmbedder(one, name=name, version=version or "0"))
        for name, version in made
    }
    assert len(identities) == len(made)
    assert "all-MiniLM-L6-v2" not in identities


@pytest.mark.parametrize(
    ("argument", "value"),
    [("batch", 0), ("batch", True), ("batch", "8"), ("window", -1), ("workers", 0),
     ("workers", 1.5), ("timeout", 0), ("timeout", "1s"), ("function", 5), ("version", 2)],
)  # fmt: skip
def test_wrong_arguments_are_refused(argument: str, value: Any) -> None:
    """By type or range, naming the argument."""
    given = {"function": one, "name": "n", "version": "1", argument: value}
    with pytest.raises((TypeError, ConfigurationError), match=argument):
        FunctionEmbedder(given.pop("function"), **given)
