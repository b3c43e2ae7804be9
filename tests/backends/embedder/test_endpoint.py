"""An OpenAI-compatible endpoint as the model, served by a real HTTP server that fails on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from cache_core import ConfigurationError, MultiLevelCache, Settings
from cache_core.backends.embedder.choosing import make_embedder, shared_embedder
from cache_core.backends.embedder.endpoint import Endpoint
from cache_core.backends.embedder.identity import identity_of
from cache_core.backends.endpoint import url_below
from cache_core.config.settings import load_settings
from cache_core.model.exceptions import BackendError
from cache_core.testing import ChaosProxy, RecordingInstrument
from tests.support.caches import CacheFactory
from tests.support.certificates import Authority
from tests.support.endpoint import EmbeddingServer, embedding_server
from tests.support.patience import PATIENT
from tests.support.waiting import until

KEY = "sk-very-secret"


@pytest.fixture
async def endpoint() -> AsyncIterator[EmbeddingServer]:
    async with embedding_server() as made:
        yield made


@pytest.fixture
def store_kind() -> str:
    """The embedded store alone: how the model is asked does not depend on it."""
    return "embedded"


@pytest.fixture
def make_remote(make_cache: CacheFactory, endpoint: EmbeddingServer) -> CacheFactory:
    """Make open caches whose model is behind the endpoint."""

    async def make(**settings: Any) -> MultiLevelCache:
        instruments = settings.pop("instruments", ())
        fixed = {**PATIENT, "embedding_url": endpoint.url, "embedding_model": "words", **settings}
        made: MultiLevelCache = await make_cache(
            embedding_model=None, settings=fixed, sharing="all", instruments=instruments
        )
        await made.ready()
        return made

    return make


async def test_the_endpoint_makes_the_vectors(
    make_remote: CacheFactory, endpoint: EmbeddingServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A rephrased question is found; model and key are sent, and the key is in no log."""
    caplog.set_level(logging.DEBUG)
    cache = await make_remote(embedding_api_key=SecretStr(KEY))
    await cache.put("when do you open", "ann", "at nine")
    found = await cache.lookup("do you open when", "bob")
    assert (found.response, found.tier) == ("at nine", "l2")
    assert {request["model"] for request in endpoint.requests} == {"words"}
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text
    assert KEY not in repr(cache.settings)
    assert KEY not in repr(cache.settings.endpoint)


async def test_equal_texts_are_sent_once_and_others_together(endpoint: EmbeddingServer) -> None:
    """Texts that wait while all connections are busy share requests; a kept vector needs none."""
    embedder = make_embedder("words", endpoint=Endpoint(endpoint.url, timeout=20))
    await embedder.wait_ready()
    try:
        texts = [f"text {number % 50}" for number in range(200)]
        await asyncio.gather(*(embedder.embed(text) for text in texts))
        assert sorted(endpoint.texts) == sorted(set(texts))
        assert len(endpoint.requests) < 50
        await embedder.embed("text 7")
        assert len(endpoint.texts) == 50
        assert embedder.take_usage() == (0, 150)
    finally:
        embedder.close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", "timeout"),
        ("trickle", "timeout"),
        ("drop", "backend_error"),
        ("500", "backend_error"),
        ("401", "backend_error"),
        ("redirect", "backend_error"),
        ("429", "overloaded"),
        ("text", "backend_error"),
        ("fewer", "backend_error"),
        ("short", "backend_error"),
        ("nan", "backend_error"),
        ("words", "backend_error"),
    ],
)
async def test_whatever_the_endpoint_does_the_agent_goes_on(
    make_remote: CacheFactory, endpoint: EmbeddingServer, fault: str, reason: str
) -> None:
    """The lookup ends in time, counted as an error of L2 with a reason; nothing wrong is kept."""
    cache = await make_remote(embedding_budget=0.5, put_budget=3.0, lookup_budget=5.0)
    await cache.put("when do you open", "ann", "at nine")
    endpoint.do = fault
    found = await asyncio.wait_for(cache.lookup("do you close when", "bob"), 10)
    assert (found.outcome, found.response) == ("error", None)
    assert set(cache.metrics.error_reasons) == {("l2", reason)}
    await asyncio.wait_for(cache.put("what is closed", "bob", "the shop"), 10)
    endpoint.do = "answer"
    if fault != "429":

        async def answered() -> bool:
            return (await cache.lookup("do you open when", "bob")).response == "at nine"

        # At first the breaker may be open.
        await until(answered)


async def test_a_refused_rate_is_respected(
    make_remote: CacheFactory, endpoint: EmbeddingServer
) -> None:
    """While the pause lasts that the endpoint asked for, it is not asked again."""
    cache = await make_remote()
    endpoint.do = "429"
    for number in range(5):
        await cache.lookup(f"question {number}", "ann")
    assert len(endpoint.requests) == 1
    assert cache.metrics.error_reasons == {("l2", "overloaded"): 5}
    assert cache.state.breakers["embedder"] == "closed"


async def test_the_breaker_opens_and_closes(
    make_remote: CacheFactory, endpoint: EmbeddingServer
) -> None:
    """A failing endpoint is probed only, and lookups use it again once it answers."""
    cache = await make_remote()
    endpoint.do = "500"
    for number in range(20):
        await cache.lookup(f"question {number}", "ann")
    assert len(endpoint.requests) < 12
    assert cache.metrics.error_reasons["l2", "breaker_open"] > 0
    (problem,) = cache.problems
    assert (problem.backend, problem.error) == ("embedder", "HTTP 500")
    endpoint.do = "answer"

    async def recovered() -> bool:
        return (await cache.lookup("another question", "ann")).outcome == "miss"

    await until(recovered)
    assert cache.problems == []


async def test_a_refused_connection_and_a_kept_one_that_was_closed(
    make_cache: CacheFactory, endpoint: EmbeddingServer
) -> None:
    """No server: an error in time. A connection that ended meanwhile: the request is repeated."""
    async with ChaosProxy("127.0.0.1", int(endpoint.url.split(":")[2].partition("/")[0])) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/v1"
        embedder = make_embedder("words", endpoint=Endpoint(url, timeout=20))
        await embedder.wait_ready()
        try:
            await embedder.embed("first")
            await proxy.cut()
            await embedder.embed("second")
            assert endpoint.texts == ["first", "second"]
            await proxy.switch("refuse")
            await proxy.cut()
            with pytest.raises(BackendError) as refused:
                await embedder.embed("third")
            assert refused.value.reason == "backend_error"
        finally:
            embedder.close()


async def test_tokens_and_their_price_are_counted(
    make_remote: CacheFactory, endpoint: EmbeddingServer
) -> None:
    """Tokens come from the response; without them each text has its price; a kept vector is free."""
    seen = RecordingInstrument()
    cache = await make_remote(instruments=[seen])
    await cache.tune({"embedding_tokens_usd": 100, "embedding_usd": 0.5}, author="test")
    for _ in range(3):
        await cache.lookup("when do you open", "ann")
    assert sum(record.tokens for record in seen.of("embed")) == 3
    assert cache.metrics.spent_usd == pytest.approx(3 * 100 / 1e6)
    endpoint.do = "no usage"
    await cache.lookup("when do you close", "ann")
    assert cache.metrics.spent_usd == pytest.approx(3 * 100 / 1e6 + 0.5)
    assert cache.get_metrics()["embedding_tokens"] == 3


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        ("short and plain", {}, "cold"),
        ("word " * 60, {}, "truncated"),
        ("word " * 60, {"embedding_window": 400}, "cold"),
        ("is the café open", {"embedding_window": 400}, "unreadable"),
        ("is the café open", {"embedding_tokenizer": "bytes"}, "cold"),
        # Its normal form has 18 characters.
        ("\ufdfa" * 14, {"embedding_tokenizer": "bytes"}, "truncated"),
    ],
)
async def test_without_a_tokenizer_only_the_certain_is_matched(
    make_remote: CacheFactory, text: str, settings: dict[str, Any], reason: str
) -> None:
    """A byte counts as a token, and only ASCII is known to every model."""
    cache = await make_remote(**settings)
    await cache.tune({"guards": ["numbers"]}, author="test")
    found = await cache.lookup(text, "ann")
    assert found.outcome == "miss"
    assert cache.metrics.miss_reasons["l2", reason] == 1


async def test_with_a_tokenizer_the_checks_are_exact(
    make_remote: CacheFactory, tmp_path: Path
) -> None:
    """A tokenizer.json counts tokens and knows which words are unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"is": 0, "öl": 1, "[UNK]": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    cache = await make_remote(embedding_tokenizer=str(tmp_path), embedding_window=4)
    await cache.tune({"guards": ["numbers"]}, author="test")
    for text in ("is öl is öl", "is öl is öl is", "is it öl"):
        await cache.lookup(text, "ann")
    reasons = {reason for (level, reason) in cache.metrics.miss_reasons if level == "l2"}
    assert reasons == {"cold", "truncated", "unreadable"}


async def test_a_window_is_learnt_from_the_refusal(
    make_remote: CacheFactory, endpoint: EmbeddingServer
) -> None:
    """A text that is refused for its length is `truncated`, and others as long are not sent."""
    cache = await make_remote(embedding_window=8_000)
    endpoint.do = "too long"
    long = "what do you do when it is too long for you"
    for text in (long, f"{long} again", "what is short"):
        assert (await cache.lookup(text, "ann")).outcome == "miss"
    await cache.put(long, "ann", "a short answer")
    assert cache.metrics.miss_reasons["l2", "truncated"] == 2
    assert cache.metrics.put_reasons["l2", "truncated"] == 1
    assert endpoint.texts == [long, "what is short"]
    assert cache.state.breakers["embedder"] == "closed"


async def test_one_refused_text_does_not_fail_those_beside_it(endpoint: EmbeddingServer) -> None:
    """A refused request is divided."""
    embedder = make_embedder("words", endpoint=Endpoint(endpoint.url, timeout=20, window=8_000))
    await embedder.wait_ready()
    endpoint.do = "too long"
    try:
        texts = [f"text {number}" for number in range(30)] + ["this one has far too many words"]
        found = await asyncio.gather(
            *(embedder.embed(text) for text in texts), return_exceptions=True
        )
        assert [type(item).__name__ for item in found if isinstance(item, Exception)] == [
            "InputTooLongError"
        ]
    finally:
        embedder.close()


def test_what_identifies_a_model_at_an_endpoint() -> None:
    """URL and name, or the identity that both are given; never the key, nor the query."""

    def identity(url: str, model: str = "m", **more: Any) -> str:
        return identity_of(make_embedder(model, endpoint=Endpoint(url, **more)))

    base = identity("https://a/v1")
    same = ["https://a/v1/", "https://a/v1/embeddings", "https://a/v1?api-version=3"]
    assert {identity(url, key="k", window=9) for url in same} == {base}
    assert base not in {identity("https://b/v1"), identity("https://a/v1", "n"), "m"}
    assert identity("https://a", identity="x") == identity("https://b", "n", identity="x") != base


def test_the_path_is_appended_once() -> None:
    """A base URL, with or without a slash, or the whole URL; a query is kept."""
    whole = "http://h:1/v1/embeddings"
    for base in ("http://h:1/v1", "http://h:1/v1/", whole):
        assert url_below(base, "/embeddings") == whole
    assert url_below("http://h?v=1", "/embeddings") == "http://h/embeddings?v=1"


def test_the_settings_name_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables are read, `auto` means it then, and a login in the URL is refused."""
    monkeypatch.setenv("EMBEDDING_URL", "https://h/v1")
    monkeypatch.setenv("EMBEDDING_API_KEY", KEY)
    monkeypatch.setenv("EMBEDDING_WINDOW", "8191")
    monkeypatch.setenv("EMBEDDING_TOKENIZER", "bytes")
    found = load_settings()
    assert found.endpoint == Endpoint("https://h/v1", KEY, 1.0, 8_191, "bytes")
    assert shared_embedder("m", endpoint=found.endpoint) is shared_embedder(
        "m", "http", endpoint=found.endpoint
    )
    for url in (
        "ftp://h",
        "https://u:pass@h/v1",
        "https://h?api_key=pass",
        "h/v1",
        "https://h:99999",
    ):
        with pytest.raises(ConfigurationError, match="embedding_url") as refused:
            load_settings(embedding_url=url)
        assert "pass" not in str(refused.value)


async def test_an_endpoint_that_cannot_prove_who_it_is_gets_no_text(
    make_cache: CacheFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate of an unknown authority: an error with a remedy that fits, and no request."""
    certificate = Authority(tmp_path, "unknown").issue("127.0.0.1")
    async with embedding_server(certificate) as endpoint:
        fixed = {**PATIENT, "embedding_url": endpoint.url, "embedding_model": "words"}
        cache = await make_cache(embedding_model=None, settings=fixed)
        await cache.ready()
        assert (await cache.lookup("alpha beta", "ann")).reasons == ("cold", "backend_error")
        assert not endpoint.requests
    assert "certificate is not trusted here: check EMBEDDING_URL" in caplog.text


async def test_what_cannot_work_switches_l2_off_with_its_reason(
    make_cache: CacheFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`http` without a URL, a tokenizer that is none, a missing file of authorities."""
    cache = await make_cache(embedding_model=None, settings={"embedding_backend": "http"})
    assert "EMBEDDING_URL" in cache.problems[0].do
    made = Settings(embedding_url="http://h", embedding_tokenizer=str(tmp_path / "none.json"))
    embedder = make_embedder("m", endpoint=made.endpoint)
    with pytest.raises(ConfigurationError, match=r"none\.json.*tokenizer\.json"):
        await embedder.wait_ready()
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/missing.pem")
    embedder = make_embedder("m", endpoint=Settings(embedding_url="https://h").endpoint)
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.*missing\.pem cannot be loaded"):
        await embedder.wait_ready()
    assert "missing.pem cannot be loaded" in caplog.text, "ready() need not be called to see why"
