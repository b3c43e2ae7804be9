"""Worker: one cache in a process of its own that stores and looks up what it is asked to.

    python -m benchmarks.peers.lookup_worker NAME PLACE

PLACE is a `Place` as JSON. Requests and responses are JSON lines on stdin and stdout. The first
response has the versions of the packages, or the reason why the cache cannot be run. Each call is
timed here, so that the pipe between the processes costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SIMILARITY = 0.95
"""Lowest cosine similarity of a hit, the same for every cache."""


@dataclass(frozen=True, slots=True)
class Place:
    """Servers and files of a worker.

    Attributes:
        redis_port: Port of a Redis without modules.
        search_port: Port of a Redis with a search module; `None` without one.
        vectors_port: Port of a Redis with vector sets.
        directory: Empty directory of the worker.
        model: Directory of the model's files.
    """

    redis_port: int
    search_port: int | None
    vectors_port: int
    directory: str
    model: str

    def search_url(self) -> str:
        """Return the URL of the Redis with a search module.

        Raises:
            LookupError: If there is none.
        """
        if self.search_port is None:
            raise LookupError("there is no Redis with a search module")
        return f"redis://127.0.0.1:{self.search_port}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Cache as its caller sees it.

    Attributes:
        put: Stores the answer to a question.
        get: Returns the answer to a question, or `None`.
        embeds: Whether it returns vectors instead of answers: the baseline.
    """

    put: Callable[[str, str], Awaitable[Any]]
    get: Callable[[str], Awaitable[Any]]
    embeds: bool = False


def _encoder(place: Place) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(place.model, device="cpu")


async def bare_embedding(place: Place) -> Peer:
    """Set up the baseline: one embedding of the question by sentence-transformers."""
    model = _encoder(place)

    async def get(question: str) -> list[float]:
        vector: list[float] = model.encode(question, show_progress_bar=False)
        return vector

    async def put(question: str, _: str) -> None:
        model.encode(question, show_progress_bar=False)

    return Peer(put, get, embeds=True)


async def glasscache(place: Place) -> Peer:
    """Set up this cache on Redis and the embedded Chroma, with everything else as it comes."""
    return await _ours(place, place.redis_port, "chroma")


async def glasscache_vectors(place: Place) -> Peer:
    """Set up this cache with a Redis that keeps the vectors, too."""
    return await _ours(place, place.vectors_port, "redis")


async def _ours(place: Place, port: int, vectors: Literal["chroma", "redis"]) -> Peer:
    from cache_core import MultiLevelCache
    from cache_core.config.settings import Settings

    url = f"redis://127.0.0.1:{port}/0"
    settings = Settings(redis_url=url, dir=Path(place.directory), vectors=vectors)
    cache = MultiLevelCache(settings=settings)
    await cache.ready()

    async def put(question: str, answer: str) -> None:
        await cache.put(question, None, answer, shared=True)

    async def get(question: str) -> str | None:
        found = await cache.lookup(question, "ann")
        return found.response if found.outcome == "hit" else None

    return Peer(put, get)


async def redisvl(place: Place) -> Peer:
    """Set up redisvl's SemanticCache; its sync methods, which are the faster ones."""
    from redisvl.extensions.cache.llm import SemanticCache
    from redisvl.utils.vectorize import HFTextVectorizer

    cache = SemanticCache(
        name="redisvl",
        redis_url=place.search_url(),
        distance_threshold=1 - SIMILARITY,
        vectorizer=HFTextVectorizer(model=place.model),
    )

    async def put(question: str, answer: str) -> None:
        cache.store(prompt=question, response=answer)

    async def get(question: str) -> str | None:
        found = cache.check(prompt=question)
        return found[0]["response"] if found else None

    return Peer(put, get)


async def langchain_redis(place: Place) -> Peer:
    """Set up langchain-redis' RedisSemanticCache; its sync methods, which are the faster ones."""
    from langchain_core.embeddings import Embeddings
    from langchain_core.outputs import Generation
    from langchain_redis import RedisSemanticCache

    model = _encoder(place)

    class Encoder(Embeddings):  # type: ignore[misc]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            vectors: list[list[float]] = model.encode(texts, show_progress_bar=False).tolist()
            return vectors

        def embed_query(self, text: str) -> list[float]:
            vector: list[float] = model.encode(text, show_progress_bar=False).tolist()
            return vector

    cache = RedisSemanticCache(
        embeddings=Encoder(),
        redis_url=place.search_url(),
        distance_threshold=1 - SIMILARITY,
        name="langchain",
    )

    async def put(question: str, answer: str) -> None:
        cache.update(question, "model", [Generation(text=answer)])

    async def get(question: str) -> str | None:
        found = cache.lookup(question, "model")
        return found[0].text if found else None

    return Peer(put, get)


async def litellm(place: Place) -> Peer:
    """Set up LiteLLM's redis-semantic cache.

    Without its proxy installed it tries to import that at each lookup, for 15 to 25 ms; an empty
    module in the place of the proxy spares it that.
    """
    import types

    proxy: Any = types.ModuleType("litellm.proxy.proxy_server")
    proxy.llm_router, proxy.llm_model_list = None, None
    sys.modules["litellm.proxy.proxy_server"] = proxy
    import litellm as library
    from litellm.caching.caching import Cache

    encoder = _encoder(place)

    def respond(*, model_response: Any, **asked: Any) -> Any:
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        vectors = [encoder.encode(text, show_progress_bar=False).tolist() for text in texts]
        model_response.data = [
            {"object": "embedding", "embedding": vector, "index": number}
            for number, vector in enumerate(vectors)
        ]
        return model_response

    async def respond_async(**asked: Any) -> Any:
        return respond(**asked)

    handler = library.CustomLLM()
    handler.embedding, handler.aembedding = respond, respond_async
    library.custom_provider_map = [{"provider": "local", "custom_handler": handler}]
    cache = Cache(
        type="redis-semantic",
        redis_url=place.search_url(),
        similarity_threshold=SIMILARITY,
        redis_semantic_cache_embedding_model="local/minilm",
        redis_semantic_cache_index_name="litellm",
    )

    def asked(question: str) -> dict[str, Any]:
        return {"model": "gpt-4o", "messages": [{"role": "user", "content": question}]}

    async def put(question: str, answer: str) -> None:
        await cache.async_add_cache({"answer": answer}, **asked(question))

    async def get(question: str) -> str | None:
        found = await cache.async_get_cache(**asked(question))
        return found if found is None else str(found["answer"])

    return Peer(put, get)


async def gptcache(place: Place) -> Peer:
    """Set up GPTCache on SQLite and faiss."""
    from gptcache import Cache, Config
    from gptcache.adapter.api import get as read
    from gptcache.adapter.api import put as write
    from gptcache.embedding import SBERT
    from gptcache.manager import CacheBase, VectorBase, get_data_manager
    from gptcache.processor.pre import get_prompt
    from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation

    model = SBERT(place.model)
    directory = Path(place.directory)
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=model.to_embeddings,
        data_manager=get_data_manager(
            CacheBase("sqlite", sql_url=f"sqlite:///{directory}/answers.db"),
            VectorBase("faiss", dimension=model.dimension, index_path=str(directory / "index")),
        ),
        similarity_evaluation=SearchDistanceEvaluation(),
        # it compares squared distances, from 0 to 4, of vectors of length 1
        config=Config(similarity_threshold=1 - 2 * (1 - SIMILARITY) / 4),
    )

    async def put(question: str, answer: str) -> None:
        write(question, answer, cache_obj=cache)

    async def get(question: str) -> str | None:
        found: str | None = read(question, cache_obj=cache)
        return found

    return Peer(put, get)


async def betterdb(place: Place) -> Peer:
    """Set up betterdb-semantic-cache on a Redis with a search module."""
    import betterdb_semantic_cache as library
    import valkey.asyncio

    model = _encoder(place)

    async def embed(text: str) -> list[float]:
        vector: list[float] = model.encode(text, show_progress_bar=False).tolist()
        return vector

    cache = library.SemanticCache(
        library.SemanticCacheOptions(
            client=valkey.asyncio.Valkey.from_url(place.search_url(), protocol=2),
            embed_fn=embed,
            name="betterdb",
            default_threshold=1 - SIMILARITY,
        )
    )
    await cache.initialize()

    async def put(question: str, answer: str) -> None:
        await cache.store(question, answer)

    async def get(question: str) -> str | None:
        found = await cache.check(question)
        answer: str | None = found.response if found.hit else None
        return answer

    return Peer(put, get)


@dataclass(frozen=True, slots=True)
class Contender:
    """Cache that can take part.

    Attributes:
        title: Name in the table.
        start: Sets it up.
        packages: Packages whose versions the table names, the cache's own first.
        ours: Whether it is this project's.
    """

    title: str
    start: Callable[[Place], Awaitable[Peer]]
    packages: tuple[str, ...]
    ours: bool = False


BASELINE = "embedding"
CONTENDERS = {
    BASELINE: Contender("bare embedding", bare_embedding, ("sentence-transformers", "torch")),
    "glasscache": Contender("glasscache, Redis and Chroma", glasscache, ("chromadb",), ours=True),
    "glasscache-vectors": Contender(
        "glasscache, Redis vector sets", glasscache_vectors, ("redis",), ours=True
    ),
    "redisvl": Contender("redisvl SemanticCache", redisvl, ("redisvl",)),
    "langchain": Contender(
        "langchain-redis RedisSemanticCache", langchain_redis, ("langchain-redis",)
    ),
    "litellm": Contender("LiteLLM redis-semantic", litellm, ("litellm",)),
    "gptcache": Contender("GPTCache, SQLite and faiss", gptcache, ("gptcache", "faiss-cpu")),
    "betterdb": Contender(
        "betterdb-semantic-cache", betterdb, ("betterdb-semantic-cache", "valkey")
    ),
}
"""All contenders, each set up as in its documentation, with the same model and threshold."""


async def work(name: str, place: Place) -> None:
    """Set a cache up and serve requests until stdin ends."""
    contender = CONTENDERS[name]
    peer = await contender.start(place)
    found = {}
    for package in contender.packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    _respond({"versions": found})
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        if "embed" in request:
            vectors = [await peer.get(text) for text in request["embed"]]
            _respond({"vectors": [[float(x) for x in vector] for vector in vectors]})
            continue
        started = time.perf_counter()
        try:
            if "answer" in request:
                answer = await peer.put(request["question"], request["answer"])
            else:
                answer = await peer.get(request["question"])
            error = None
        except Exception as raised:  # noqa: BLE001 - it is counted
            answer, error = None, type(raised).__name__
        seconds = time.perf_counter() - started
        answered = answer if isinstance(answer, str) else None
        _respond({"seconds": seconds, "answer": answered, "error": error})


def _respond(document: dict[str, Any]) -> None:
    print(json.dumps(document), file=_STDOUT, flush=True)


_STDOUT = sys.stdout


def main() -> None:
    """Run one worker; libraries that print must not disturb its responses."""
    sys.stdout = sys.stderr
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(work(sys.argv[1], Place(**json.loads(sys.argv[2]))))
    except ModuleNotFoundError as error:
        _respond({"reason": f"{error.name} is not installed"})
    except Exception as error:  # noqa: BLE001 - the driver lists it
        _respond({"reason": f"{type(error).__name__}: {error}".splitlines()[0]})
    os._exit(0)  # a client that hangs must not hold up the others


if __name__ == "__main__":
    main()
