"""Loading the model: once per process, with as many threads as set, or a clear error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_core import ConfigurationError, MultiLevelCache, Settings
from cache_core.backends.embedder.choosing import make_embedder, shared_embedder
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.backends.embedder.sentence_transformers import SentenceTransformerEncoder
from tests.support import servers
from tests.support.caches import CacheFactory
from tests.support.modules import require
from tests.support.patience import PATIENT


def test_event_loops_in_many_threads_load_one_model() -> None:
    """Concurrent calls of `start` from several threads make one worker, which loads once."""
    loads: list[str] = []
    together = threading.Barrier(9)

    class Ones:
        def encode(self, texts: Sequence[str]) -> Any:
            return np.ones((len(texts), 1), dtype=np.float32)

        def knows(self, text: str) -> bool:
            return True

        def fits(self, text: str) -> bool:
            return True

    def load(model: str) -> Ones:
        loads.append(model)
        return Ones()

    embedder = ThreadEmbedder("one", load=load)

    def starts() -> None:
        together.wait()
        asyncio.run(embedder.wait_ready())

    threads = [threading.Thread(target=starts) for _ in range(8)]
    # A thread that is slow to be made would let the others in.
    made = threading.Thread.__init__
    with pytest.MonkeyPatch.context() as patch:
        for thread in threads:
            thread.start()

        def slow(self: threading.Thread, *args: Any, **named: Any) -> None:
            time.sleep(0.05)
            made(self, *args, **named)

        patch.setattr(threading.Thread, "__init__", slow)
        together.wait()
        for thread in threads:
            thread.join()
    embedder.close()
    assert loads == ["one"]


@pytest.mark.parametrize(("threads", "after"), [(1, 1), (2, 2), (0, 3)])
@pytest.mark.slow
def test_torch_threads_are_a_setting(threads: int, after: int) -> None:
    """CACHE_TORCH_THREADS is what torch gets; 0 leaves the application's own number."""
    require("sentence_transformers")
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        SentenceTransformerEncoder(PACKAGED_MODEL, threads=threads)
        assert torch.get_num_threads() == after
    finally:
        torch.set_num_threads(before)


def test_the_setting_reaches_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared embedder hands the number of threads on; one is the default."""
    asked: list[tuple[str, int]] = []

    def encoder(name: str, threads: int) -> Any:
        asked.append((name, threads))
        raise ConfigurationError("enough seen")

    monkeypatch.setattr(
        "cache_core.backends.embedder.sentence_transformers.SentenceTransformerEncoder", encoder
    )
    for made in (
        shared_embedder("threads-of-torch", torch_threads=4),
        make_embedder(backend="torch"),
    ):
        with pytest.raises(ConfigurationError, match="enough"):
            asyncio.run(made.wait_ready())
    assert asked == [("threads-of-torch", 4), (PACKAGED_MODEL, 1)]
    assert Settings().torch_threads == 1


@pytest.fixture
async def cache(make_cache: CacheFactory) -> MultiLevelCache:
    made: MultiLevelCache = await make_cache(settings=PATIENT)
    return made


@pytest.mark.slow
async def test_an_unknown_embedding_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ready() says what is wrong with the model and what to do; lookups go on without L2."""
    require("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = str(tmp_path / "no-such-model")
    settings = Settings(dir=tmp_path / "cache", embedding_model=model)
    async with MultiLevelCache(settings=settings, instruments=()) as cache:
        with pytest.raises(ConfigurationError) as refused:
            await cache.ready()
        told = str(refused.value)
        assert "no-such-model" in told
        assert "EMBEDDING_MODEL" in told
        await cache.put("alpha", "ann", "answer")
        assert (await cache.lookup("alpha", "ann")).response == "answer"
        assert (await cache.lookup("beta", "ann")).response is None


async def test_an_unknown_model_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the loader does not retry for minutes: the hub is asked once."""
    require("sentence_transformers")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{servers.free_port()}")
    embedder = make_embedder("no-such-owner/no-such-model")
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"'no-such-owner/no-such-model'.*EMBEDDING_MODEL"):
        await embedder.wait_ready()
    assert time.monotonic() - started < 15, "most of it is importing torch"
