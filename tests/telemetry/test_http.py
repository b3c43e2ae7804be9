"""The ASGI application: in a real uvicorn, mounted in real frameworks, asked by real clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from starlette.applications import Starlette
from starlette.routing import Mount

from cache_core import MultiLevelCache, close_cache, get_cache
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder
from telemetry import PrometheusInstrument, TracingInstrument, asgi_app, names
from telemetry.registry import current_registry
from tests.support import servers
from tests.support.patience import PATIENT


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve *app* by uvicorn in this event loop; yield a client of it."""
    port = servers.free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    server.config.setup_event_loop = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        await task


@pytest.fixture(autouse=True)
def _signals_stay() -> Any:
    """Give back the signals of the process, which uvicorn takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[MultiLevelCache]:
    """A cache that is watched as an unconfigured one is, with spans that are sampled."""
    cache = MultiLevelCache(
        namespace="mounted",
        embedding_model=HashEmbedder(),
        settings=Settings(dir=tmp_path / "cache", **PATIENT),
        instruments=[
            PrometheusInstrument("mounted"),
            TracingInstrument("mounted", TracerProvider(shutdown_on_exit=False)),
        ],
    )
    async with cache:
        await cache.ready()
        yield cache


def in_fastapi(app: Any) -> Any:
    outer = FastAPI()

    @outer.get("/ask")
    async def ask() -> dict[str, str]:
        return {"answer": "yes"}

    outer.mount("/ops", app)
    return outer


def behind_a_proxy(app: Any) -> Any:
    """FastAPI that a proxy reaches with a prefix, which it strips."""
    outer = FastAPI()
    outer.root_path = "/api/agent"
    outer.mount("/ops", app)
    return outer


def in_starlette(app: Any) -> Any:
    return Starlette(routes=[Mount("/ops", app=app)])


def in_two(app: Any) -> Any:
    return Starlette(routes=[Mount("/api", app=in_starlette(app))])


def alone(app: Any) -> Any:
    return app


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        (alone, ""),
        (behind_a_proxy, "/ops"),
        (behind_a_proxy, "/api/agent/ops"),
        (in_fastapi, "/ops"),
        (in_starlette, "/ops"),
        (in_two, "/api/ops"),
    ],
)
async def test_it_works_under_any_prefix(
    watched: MultiLevelCache, host: Callable[[Any], Any], prefix: str
) -> None:
    """Alone and mounted, once and twice, every path answers, and others are not found."""
    await watched.lookup("is it raining", "ann")
    async with serving(host(asgi_app(watched))) as client:
        for path in ("/metrics", "/cache/metrics", "/health/live", "/health/ready"):
            answer = await client.get(prefix + path)
            assert answer.status_code == 200, (path, answer.text)
            head = await client.head(prefix + path)
            assert (head.status_code, head.content) == (200, b"")
            assert (await client.post(prefix + path)).status_code == 405
        assert (await client.get(prefix + "/other")).status_code == 404
        if host is in_fastapi:
            assert (await client.get("/ask")).json() == {"answer": "yes"}


async def test_metrics_come_as_they_are_asked_for(watched: MultiLevelCache) -> None:
    """Text by default; OpenMetrics, with exemplars, for who accepts it; gzip likewise."""
    await watched.lookup("is it raining", "ann")
    labels = {"cache": "mounted", "outcome": "miss"}
    counted = current_registry().get_sample_value(names.LOOKUPS.name, labels)
    async with serving(asgi_app(watched)) as client:
        text = await client.get("/metrics", headers={"accept-encoding": "identity"})
        assert text.headers["content-type"].startswith("text/plain")
        assert "content-encoding" not in text.headers
        found = {
            sample.value
            for family in plain_text(text.text)
            for sample in family.samples
            if sample.name == names.LOOKUPS.name and sample.labels == labels
        }
        assert found == {counted}

        wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
        modern = await client.get("/metrics", headers=wanted)
        assert modern.headers["content-type"].startswith("application/openmetrics-text")
        assert modern.headers["content-encoding"] == "gzip"
        exemplars = [
            sample.exemplar.labels
            for family in openmetrics(modern.text)
            for sample in family.samples
            if sample.exemplar and sample.name == f"{names.LOOKUP_SECONDS.name}_bucket"
        ]
        assert exemplars
        assert all(set(labels) == {"trace_id", "span_id"} for labels in exemplars)


async def test_the_caches_own_counts_come_as_json(watched: MultiLevelCache) -> None:
    """`/cache/metrics` is `get_metrics()`."""
    await watched.put("is it raining", "ann", "yes")
    await watched.lookup("is it raining", "ann")
    async with serving(asgi_app(watched)) as client:
        answer = await client.get("/cache/metrics")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["hit_rates"]["l1"] == 100.0
        assert set(answer.json()) == set(watched.get_metrics())


async def test_the_shared_cache_is_opened_by_the_first_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without an argument it shows `get_cache()`; readiness opens that, and never waits for it."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l3,l4")
    try:
        async with serving(asgi_app()) as client:
            assert (await client.get("/cache/metrics")).status_code == 503
            first = await client.get("/health/ready")
            assert first.status_code in {200, 503}
            deadline = time.monotonic() + 20
            while (await client.get("/health/ready")).status_code != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert (await client.get("/cache/metrics")).status_code == 200
            ready = (await client.get("/health/ready")).json()
            assert ready == {
                "ready": True, "cache": "default", "replica": (await get_cache()).replica,
            }  # fmt: skip
    finally:
        await close_cache()


@pytest.mark.server
async def test_not_ready_says_which_backend_and_what_to_do(tmp_path: Path) -> None:
    """Without Redis: 503 immediately, alive anyway; ready when Redis comes; 503 when it hangs."""
    program = servers.require("redis-server")
    port = servers.free_port()
    cache = MultiLevelCache(
        f"redis://:secret-password@127.0.0.1:{port}/0",
        embedding_model=HashEmbedder(),
        instruments=(),
        settings=Settings(dir=tmp_path),
    )
    command = [
        program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path),
        "--requirepass", "secret-password",
    ]  # fmt: skip

    async def until(client: httpx.AsyncClient, status: int) -> httpx.Response:
        deadline = time.monotonic() + 20
        while True:
            started = time.monotonic()
            answer = await client.get("/health/ready")
            assert time.monotonic() - started < 5, "it waited"
            if answer.status_code == status:
                return answer
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.1)

    async with serving(asgi_app(cache)) as client:
        try:
            await client.get("/health/ready")
            do = ""
            while not do or do == "wait: it is being opened":
                answer = await until(client, 503)
                (problem,) = answer.json()["problems"]
                assert problem["backend"] == "redis"
                do = problem["do"]
            assert "Connect call failed" in do
            assert "Check that Redis runs and that redis_url= names it" in do
            assert "secret-password" not in answer.text
            assert (await client.get("/health/live")).status_code == 200
            with servers.running(command, port) as process:
                await until(client, 200)
                os.kill(process.pid, signal.SIGSTOP)
                try:
                    stopped = await until(client, 503)
                finally:
                    os.kill(process.pid, signal.SIGCONT)
                assert [p["backend"] for p in stopped.json()["problems"]] == ["redis"]
                await until(client, 200)
        finally:
            await cache.close()


async def test_a_model_that_is_loading_is_not_ready(tmp_path: Path) -> None:
    """503 names the embedder until the model is loaded; its state is loading, not down."""
    model = HashEmbedder()
    model.ready = False
    cache = MultiLevelCache(
        embedding_model=model, instruments=(), settings=Settings(dir=tmp_path, **PATIENT)
    )
    async with cache, serving(asgi_app(cache)) as client:
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        (problem,) = answer.json()["problems"]
        assert problem == {"backend": "embedder", "do": "wait: the embedding model is loading"}
        assert up_of(cache) == set(cache.state.backends) - {"embedder"}
        with pytest.MonkeyPatch.context() as later:
            later.setattr("cache_core.runtime.state._LOADING_SECONDS", -1.0)
            assert up_of(cache) == set(cache.state.backends), "after five minutes it is down"
        model.ready = True
        assert up_of(cache) == set(cache.state.backends)
        assert (await client.get("/health/ready")).status_code == 200


def up_of(cache: MultiLevelCache) -> set[str]:
    """Return the backends that have a value of `cache_backend_up`."""
    registry = CollectorRegistry()
    metrics = PrometheusInstrument("loading", registry)
    assert cache.state is not None
    metrics.report(cache.state)
    samples = [one for metric in registry.collect() for one in metric.samples]
    return {one.labels["backend"] for one in samples if one.name == "cache_backend_up"}


async def test_a_closed_cache_stays_closed(tmp_path: Path) -> None:
    """Readiness opens a cache that never was open; one that was closed it leaves closed."""
    cache = MultiLevelCache(
        embedding_model=HashEmbedder(), instruments=(), settings=Settings(dir=tmp_path)
    )
    async with serving(asgi_app(cache)) as client:
        await client.get("/health/ready")
        deadline = time.monotonic() + 20
        while not cache.is_open:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await cache.close()
        assert (await client.get("/health/ready")).status_code == 503
        await asyncio.sleep(0.1)
        assert not cache.is_open


@pytest.mark.server
def test_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    """The live exposition of a working cache passes `promtool check metrics`."""
    promtool = servers.require("promtool")

    async def scrape() -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        cache = MultiLevelCache(
            embedding_model=HashEmbedder(),
            instruments=[PrometheusInstrument("default", registry)],
            settings=Settings(dir=tmp_path, **PATIENT),
        )
        async with cache:
            await cache.put("is it raining", "ann", "yes")
            await cache.lookup("is it raining", "ann")
            await cache.lookup("is it snowing", "ann")
            live = {family.name for family in registry.collect() if family.samples}
            told = generate_latest(registry)
        declared = {metric.name.removesuffix("_total") for metric in names.METRICS}
        assert live <= declared
        assert declared - live <= {
            names.ENTRIES.name,
            names.REDIS_SERVER.name,
            names.VERIFICATION_SECONDS.name,
            names.INTENT_ANSWERS.name.removesuffix("_total"),
            names.APPROVAL_SECONDS.name,
            names.APPROVALS.name.removesuffix("_total"),
        }, "declared, and never shown"
        return told

    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=asyncio.run(scrape()),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
