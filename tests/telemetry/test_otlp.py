"""Spans as they arrive: over real OTLP/HTTP, at collectors that work and at collectors that don't."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_core import MultiLevelCache, __version__
from cache_core.config.settings import Settings, load_settings
from cache_core.observability.decisions import FORMAT
from cache_core.testing import HashEmbedder
from telemetry import names
from tests.support import processes, servers
from tests.support.collector import Collector, collector
from tests.support.paths import ROOT
from tests.support.patience import PATIENT
from tests.support.waiting import wait_until

AGENT = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
import telemetry
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

async def main():
    sent = telemetry.configure("shop-agent")
    RedisInstrumentor().instrument()
    HTTPXClientInstrumentor().instrument()
    agent = trace.get_tracer("agent")
    async with MultiLevelCache(
        namespace="shop", sharing="all", embedding_model=HashEmbedder()
    ) as cache:
        await cache.ready()
        with agent.start_as_current_span("remember"):
            await cache.put("how do I reset my password", "ann", "Click the link.")
        chroma = cache._parts.semantic.engine
        while chroma.collection is None or not await chroma.collection.count():
            await asyncio.sleep(0.05)
        with agent.start_as_current_span("invoke_agent"):
            similar = await cache.lookup("my password, how do I reset", "bob")
        with agent.start_as_current_span("exact"):
            await cache.lookup("how do I reset my password", "ann")
    assert sent.ours and telemetry.configure() is sent
    assert sent.shutdown()
    print(json.dumps({"id": similar.lookup_id, "tier": similar.tier, "age": similar.age_seconds}))

asyncio.run(main())
"""

OTLP = {
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,team=search",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=acme",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
}


def endpoint(found: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": found.url}


def test_a_lookup_arrives_as_one_tree(redis_url: str, chroma_url: str, tmp_path: Path) -> None:
    """Spans nest: agent > cache.lookup > cache.get > embed, search > clients' spans."""
    with collector() as received:
        printed = processes.run(
            AGENT, tmp_path, REDIS_URL=redis_url, CHROMA_URL=chroma_url, CACHE_HEDGE_DELAY="5",
            **endpoint(received), **OTLP,
        )  # fmt: skip
    result = json.loads(printed)
    assert result["tier"] == "l2"

    (root,) = received.named("invoke_agent")
    mine = [span for span in received.spans if span.trace_id == root.trace_id]
    (lookup,) = (span for span in mine if span.name == "cache.lookup")
    assert lookup.parent_id == root.span_id
    ours = {span.name: received.ancestors(span) for span in mine if span.scope[0] == "glasscache"}
    above = ["cache.lookup", "invoke_agent"]
    assert ours == {
        "cache.lookup": ["invoke_agent"],
        **{f"cache.get {level}": above for level in ("l1", "l2", "l3", "l4")},
        "cache.embed": ["cache.get l2", *above],
        "cache.search": ["cache.get l2", *above],
    }
    clients = {
        span.scope[0].rpartition(".")[2]: span for span in mine if "instrument" in span.scope[0]
    }
    assert set(clients) == {"redis", "httpx"}
    assert received.ancestors(clients["httpx"])[:2] == ["cache.search", "cache.get l2"]
    assert received.ancestors(clients["redis"])[0].startswith("cache.get ")

    attributes = dict(lookup.attributes)
    assert attributes.pop("cache.similarity") == pytest.approx(1.0, abs=1e-6)
    assert attributes == {
        "cache.name": "shop",
        "cache.level": "l2",
        "cache.outcome": "hit",
        "cache.hit": True,
        "cache.age_seconds": result["age"],
        "cache.saved_usd": pytest.approx(0.036),
        "cache.lookup_id": result["id"],
        "cache.tuning_version": 0,
        **names.KINDS["lookup"],
    }
    assert {span.scope for span in mine if span.name.startswith("cache.")} == {
        ("glasscache", __version__)
    }
    assert all(not span.status and not span.events for span in mine if span.name[:6] == "cache.")
    for span in mine:
        if span.scope[0] == "glasscache" and span is not lookup:
            assert lookup.start <= span.start <= span.end <= lookup.end

    (exact,) = received.named("exact")
    under = [span.name for span in received.spans if span.trace_id == exact.trace_id]
    assert sorted(name for name in under if name.startswith("cache.")) == [
        "cache.get l1",
        "cache.lookup",
    ]
    (put,) = received.named("cache.put")
    assert received.ancestors(put) == ["remember"]


@pytest.mark.slow
def test_the_environment_says_where_and_as_whom(tmp_path: Path) -> None:
    """Endpoint, headers and resource come from OTEL_*; what it leaves open has defaults."""
    code = """
import telemetry
from opentelemetry import trace
sent = telemetry.configure()
trace.get_tracer("agent").start_span("one").end()
assert sent.flush()
print(sent.ours)
"""
    with collector() as received:
        assert processes.run(code, tmp_path, **endpoint(received), **OTLP) == "True\n"
        assert [span.name for span in received.spans] == ["one"]
        path, headers = received.requests[0]
        assert path == "/v1/traces"
        assert {name.lower(): value for name, value in headers.items()}["x-tenant"] == "acme"
        resource = received.spans[0].resource
        assert resource["service.name"] == "glasscache"
        assert resource["glasscache.version"] == __version__
        assert resource["deployment.environment.name"] == "test"

        received.spans.clear()
        processes.run(code, tmp_path, OTEL_SERVICE_NAME="shop", **endpoint(received))
        assert received.spans[0].resource["service.name"] == "shop"

        received.spans.clear()
        processes.run(code, tmp_path, OTEL_TRACES_SAMPLER="always_off", **endpoint(received))
        processes.run(code, tmp_path, OTEL_TRACES_EXPORTER="none", **endpoint(received))
        processes.run(code, tmp_path, OTEL_SDK_DISABLED="true", **endpoint(received))
        assert received.spans == []


@pytest.mark.slow
def test_a_provider_of_the_application_is_left_alone(tmp_path: Path) -> None:
    """`configure` says so, changes nothing, and the cache's spans go where the others go."""
    code = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
own = TracerProvider()
trace.set_tracer_provider(own)
import telemetry
sent = telemetry.configure()
assert not sent.ours and sent.flush() and sent.shutdown()
assert trace.get_tracer_provider() is own
assert own._active_span_processor._span_processors == ()
"""
    script = tmp_path / "app.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert "set up already (TracerProvider): left alone" in done.stderr


IMPORT = """
import json, socket, sys, threading
sockets = []
class Noted(socket.socket):
    def __init__(self, *args, **kwargs):
        sockets.append(args)
        super().__init__(*args, **kwargs)
socket.socket = Noted
import telemetry, telemetry.http, telemetry.exporters
from opentelemetry import trace
from prometheus_client import REGISTRY
print(json.dumps({
    "sdk": [name for name in sys.modules if name.startswith(
        ("opentelemetry.sdk", "opentelemetry.exporter", "starlette", "fastapi", "requests"))],
    "threads": threading.active_count(),
    "sockets": len(sockets),
    "provider": type(trace.get_tracer_provider()).__name__,
    "ours": [family.name for family in REGISTRY.collect() if family.name.startswith("cache_")],
}))
"""


@pytest.mark.slow
def test_import_of_telemetry_has_no_side_effects(tmp_path: Path) -> None:
    """Importing every module of it brings no SDK, no thread, no socket and no collector."""
    assert json.loads(processes.run(IMPORT, tmp_path)) == {
        "sdk": [],
        "threads": 1,
        "sockets": 0,
        "provider": "ProxyTracerProvider",
        "ours": [],
    }


# ------------------------------------------------------------------------------ bad collectors

BUSY = """
import asyncio, json, logging, statistics, sys, time
logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
logging.getLogger("opentelemetry").propagate = False
from opentelemetry import trace
from prometheus_client import REGISTRY
import telemetry
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

LOOKUPS = 3_000

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        await cache.put("is it raining", "ann", "yes")
        sent = telemetry.configure()
        seconds = []
        for number in range(LOOKUPS):
            started = time.perf_counter()
            with trace.get_tracer("agent").start_as_current_span("agent"):
                assert await cache.get_multilevel("is it raining", "ann") == "yes"
            seconds.append(time.perf_counter() - started)
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        counted = REGISTRY.get_sample_value("cache_hits_total", {"cache": "default", "level": "l1"})
        assert cache.metrics.l1_hits == counted == LOOKUPS, (cache.metrics.l1_hits, counted)
    started = time.perf_counter()
    ended = sent.shutdown(0.5)
    print(json.dumps({
        "median": statistics.median(seconds),
        "worst": max(seconds),
        "shutdown": time.perf_counter() - started,
        "ended": ended,
    }))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Return the time that the same lookups take with a collector that works."""
    directory = tmp_path_factory.mktemp("works")
    with collector() as received:
        found: dict[str, float] = json.loads(processes.run(BUSY, directory, **endpoint(received)))
        assert len(received.named("cache.lookup")) > 1_000
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "slow", "hanging", "failing"])
def test_a_broken_collector_costs_lookups_nothing(
    kind: str, tmp_path: Path, undisturbed: dict[str, float]
) -> None:
    """Refused, slow, hanging or answering 500: lookups answer as fast, and every one is counted."""
    refused = contextlib.nullcontext(Collector(f"http://127.0.0.1:{servers.free_port()}"))
    bad = {
        "refused": refused,
        "slow": collector(hangs=2),
        "hanging": collector(hangs=60),
        "failing": collector(status=500),
    }[kind]
    with bad as received:  # type: ignore[attr-defined]
        found = json.loads(processes.run(BUSY, tmp_path, **endpoint(received)))
    # A lookup takes some tenths of a millisecond: one that waited for a collector takes seconds.
    assert found["median"] < 5 * undisturbed["median"] + 0.001
    assert found["worst"] < 1.0
    assert found["shutdown"] < 2.0
    if kind != "refused":
        assert received.requests, "it was tried"


# ------------------------------------------------------------------------------ exemplars

EXEMPLARS = """
import asyncio, sys
from opentelemetry import trace
import telemetry
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

async def main():
    sent = telemetry.configure()
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        port, stop = telemetry.serve_metrics(int(sys.argv[1]))
        while True:
            with trace.get_tracer("agent").start_as_current_span("agent"):
                await cache.lookup("is it raining", "ann")
            sent.flush()
            await asyncio.sleep(0.2)

asyncio.run(main())
"""


@contextlib.contextmanager
def prometheus(directory: Path, target: int) -> Iterator[str]:
    """Yield the URL of a Prometheus that scrapes a port every second."""
    program = servers.require("prometheus")
    config = directory / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: agent, static_configs: "
        f"[{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    port = servers.free_port()
    command = [
        program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
    ]  # fmt: skip
    with servers.running(command, port):
        yield f"http://127.0.0.1:{port}"


def _exemplars(url: str) -> list[dict[str, str]]:
    query = urllib.parse.urlencode(
        {"query": "cache_lookup_seconds_bucket", "start": time.time() - 60, "end": time.time() + 60}
    )
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query_exemplars?{query}", timeout=5) as answer:
            found = json.load(answer)["data"]
    except urllib.error.URLError:
        return []  # it is still starting
    return [item["labels"] for series in found for item in series["exemplars"]]


@pytest.mark.server
def test_an_exemplar_in_prometheus_names_a_received_trace(tmp_path: Path) -> None:
    """From a latency in Prometheus one comes to the very lookup's span at the collector."""
    servers.require("prometheus")
    script = tmp_path / "agent.py"
    script.write_text(EXEMPLARS)
    port = servers.free_port()
    with collector() as received:
        environment = {
            **os.environ, **processes.ENVIRONMENT, **endpoint(received),
            "CACHE_DIR": str(tmp_path / "cache"),
        }  # fmt: skip
        agent = subprocess.Popen([sys.executable, str(script), str(port)], env=environment)
        try:
            with prometheus(tmp_path, port) as url:
                wait_until(lambda: _exemplars(url), seconds=40)
                found = _exemplars(url)
        finally:
            agent.kill()
            agent.wait(timeout=10)
    assert found
    lookups = {(span.trace_id, span.span_id) for span in received.named("cache.lookup")}
    for labels in found:
        assert (labels["trace_id"], labels["span_id"]) in lookups


# ------------------------------------------------------------------------------ capture, privacy

CANARIES = {
    "message": "canary-message-7f3a",
    "answer": "canary-answer-91bc",
    "user": "canary-user-55de",
    "password": "canary-password-2e8f",
    "key": "canary-key-c0ffee",
}

SECRETIVE = """
import asyncio, json, logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="LOG %(name)s %(message)s")
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
import redis.asyncio
from prometheus_client import generate_latest
import telemetry
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

MESSAGE, ANSWER, USER, WRONG = sys.argv[1:]

async def main():
    sent = telemetry.configure()
    RedisInstrumentor().instrument()
    HTTPXClientInstrumentor().instrument()
    agent = trace.get_tracer("agent")
    embedder = HashEmbedder()
    async with MultiLevelCache(namespace="canary", embedding_model=embedder) as cache:
        await cache.ready()
        with agent.start_as_current_span("agent"):
            await cache.put(f"where is {MESSAGE} today please", USER, ANSWER, rag_results=[{"id": MESSAGE}])
            await cache.put(f"where is {MESSAGE} today please", USER, ANSWER, shared=True)
            await cache.lookup(f"where is {MESSAGE} today please", USER)
            await cache.lookup(f"please where is {MESSAGE} today", USER)
            await cache.lookup(f"please where is {MESSAGE} today or else 5", "eve", history=[MESSAGE])
            await cache.lookup(f"other {MESSAGE} question", USER, context={"prompt": MESSAGE})
            try:
                await cache.get_or_compute(f"compute {MESSAGE}", USER, lambda: 1 / 0)
            except ZeroDivisionError:
                pass
            embedder.failure = OSError("the model fell over")
            await cache.lookup(f"broken {MESSAGE}", USER)
            embedder.failure = None
            await cache.explain(f"where is {MESSAGE}", USER)
            await cache.invalidate_document(MESSAGE)
            await cache.invalidate(f"where is {MESSAGE} today please")
        await asyncio.sleep(1.5)
        # The cache's own user may not look around.
        client = redis.asyncio.Redis.from_url(os.environ["ADMIN_URL"])
        kept = []
        async for key in client.scan_iter(match="gc1:canary:*"):
            name = key if isinstance(key, str) else key.decode()
            kept.append(name)
            if "{decisions}" in name or "{replica-" in name:
                kind = await client.type(key)
                kind = kind if isinstance(kind, str) else kind.decode()
                read = {
                    "string": client.get, "hash": client.hgetall,
                    "stream": client.xrange, "list": lambda k: client.lrange(k, 0, -1),
                    "zset": lambda k: client.zrange(k, 0, -1),
                }[kind]
                kept.append(f"STORED {name} {await read(key)!r}")
        print("\\n".join(kept))
        # Caches that are refused, with the wrong password, or find nobody.
        nobody = os.environ["REDIS_URL"].rpartition(":")[0] + ":1/0"
        for number, url in enumerate((WRONG, nobody)):
            name = f"refused-{number}"
            async with MultiLevelCache(url, namespace=name, embedding_model=embedder) as refused:
                with agent.start_as_current_span("agent"):
                    await refused.lookup(f"where is {MESSAGE}", USER)
                    await refused.put(f"where is {MESSAGE}", USER, ANSWER)
                    await refused.invalidate(f"where is {MESSAGE}", USER)
            try:
                MultiLevelCache(WRONG.replace("redis://", "rediss//"))
            except Exception as error:
                print("REFUSED", error)
        print("METRICS", generate_latest().decode())
        print("JSON", json.dumps(cache.get_metrics(), default=str))
    assert sent.shutdown()

asyncio.run(main())
"""


def _secretive(tmp_path: Path, received: Collector, chroma_url: str, **more: str) -> str:
    """Run an agent full of canaries on a Redis with a password; return all that it sent and logged."""
    with servers.redis_server(tmp_path, password=CANARIES["password"]) as url:
        script = tmp_path / "agent.py"
        script.write_text(SECRETIVE)
        wrong = url.replace(CANARIES["password"], f"{CANARIES['password']}-wrong")
        given = [CANARIES[name] for name in ("message", "answer", "user")]
        environment = {
            **os.environ, **processes.ENVIRONMENT, **endpoint(received),
            "REDIS_URL": url,
            "ADMIN_URL": f"redis://127.0.0.1:{servers.port_of(url)}/0",
            "CHROMA_URL": chroma_url,
            "CACHE_KEY": CANARIES["key"],
            "CACHE_DIR": str(tmp_path / "cache"),
            **more,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(script), *given, wrong],
            env=environment, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return done.stdout + done.stderr


@pytest.mark.server
def test_no_canary_gets_out(tmp_path: Path, chroma_url: str) -> None:
    """Message, answer, user, password and key are in no span, metric, log, key or decision."""
    with collector() as received:
        told = _secretive(tmp_path, received, chroma_url)
    for part in (
        "LOG glasscache",
        "STORED",
        "{decisions}",
        "{replica-",
        "cache_hits_total",
        "JSON",
    ):
        assert part in told, part
    names = {span.name for span in received.spans}
    assert names >= {"agent", "cache.lookup", "cache.get l2", "cache.put", "cache.invalidate"}
    assert any("redis" in span.scope[0] for span in received.spans)
    assert any("httpx" in span.scope[0] for span in received.spans)
    wire = b"".join(received.raw)
    boards = "".join(path.read_text() for path in (ROOT / "grafana").rglob("*.json"))
    for what, canary in CANARIES.items():
        assert canary not in told, f"{what}: {_around(told, canary)}"
        assert canary.encode() not in wire, what
        assert canary not in boards, what


def _around(text: str, found: str) -> str:
    at = text.index(found)
    return text[max(0, at - 300) : at + 100]


CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@pytest.mark.server
def test_capture_puts_texts_where_they_are_wanted(tmp_path: Path, chroma_url: str) -> None:
    """Switched on, lookups' spans and decisions have the texts; nothing else gets them."""
    with collector() as received:
        told = _secretive(tmp_path, received, chroma_url, **{CAPTURE: "true"})
    message, answer = CANARIES["message"], CANARIES["answer"]
    exact, similar, *_ = received.named("cache.lookup")
    asked = json.loads(exact.attributes["gen_ai.input.messages"])
    assert asked == [
        {"role": "user", "parts": [{"type": "text", "content": f"where is {message} today please"}]}
    ]
    for span in (exact, similar):
        assert json.loads(span.attributes["gen_ai.output.messages"]) == [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": answer}],
                "finish_reason": "stop",
            }
        ]
    for span in received.spans:
        if span.name != "cache.lookup":
            assert message not in str(span.attributes), span.name
    assert any(message in line for line in told.splitlines() if "STORED" in line)
    elsewhere = [line for line in told.splitlines() if "STORED" not in line]
    for canary in CANARIES.values():
        assert canary not in "\n".join(elsewhere)
    for canary in ("user", "password", "key"):
        assert CANARIES[canary].encode() not in b"".join(received.raw)
        assert CANARIES[canary] not in told


@pytest.mark.parametrize(
    ("values", "on"),
    [
        ({}, False),
        *(({CAPTURE: value}, False) for value in ("false", "no_content", "EVENT_ONLY")),
        *(({CAPTURE: value}, True) for value in ("True", "SPAN_ONLY", "span_and_event ")),
        ({"CACHE_CAPTURE_MESSAGE_CONTENT": "true"}, True),
        ({"CACHE_CAPTURE_MESSAGE_CONTENT": "false", CAPTURE: "true"}, False),
    ],
)
def test_capture_is_switched_in_the_words_of_the_convention(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], on: bool
) -> None:
    """Off by default; both variables are read, the cache's own first."""
    monkeypatch.delenv(CAPTURE, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert load_settings().capture_message_content is on


def test_a_misspelt_capture_switch_captures_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is off, and the error log names the variable and its value."""
    monkeypatch.setenv(CAPTURE, "spans")
    assert load_settings().capture_message_content is False
    assert f"{CAPTURE}='spans' is ignored" in caplog.text


async def test_the_log_has_the_pairs_that_a_reviewer_compares(tmp_path: Path) -> None:
    """Texts of an exact hit, a similar one, a vetoed and a distant miss; bounded, and valid."""
    settings = {**PATIENT, "dir": tmp_path, "capture_message_content": True}
    cache = MultiLevelCache(
        semantic_threshold=0.9,
        embedding_model=HashEmbedder(),
        instruments=(),
        settings=Settings(**settings),
    )
    async with cache:
        stored = (
            "please ship 2 of the very light red mountain bikes with the wide black tyres to me"
        )
        await cache.put(stored, "ann", "Two are on their way.")
        similar = "ship please" + stored.removeprefix("please ship")
        vetoed = stored.replace("2", "3")
        distant = "please ship the very light red mountain bikes"
        long = "\ud800" + "word " * 1_000
        for message in (stored, similar, vetoed, distant, long):
            await cache.lookup(message, "ann")
        await cache.lookup(stored, "bob")
        await cache._parts.decisions.flush()
        decisions = await cache._parts.decisions.last(10)
    exact, near, veto, far, cut, foreign = decisions
    way = "Two are on their way."
    assert (exact.message_text, exact.matched_text, exact.response_text) == (stored, "", way)
    assert (near.message_text, near.matched_text, near.response_text) == (similar, stored, way)
    assert (veto.reason, veto.message_text) == ("guard_veto", vetoed)
    assert (far.reason, far.message_text) == ("below_threshold", distant)
    for miss in (veto, far):
        assert (miss.matched_text, miss.response_text) == (stored, way)
    assert len(cut.message_text) == 2_000
    assert cut.message_text.startswith("?word")
    assert (foreign.message_text, foreign.matched_text, foreign.response_text) == (stored, "", "")


def test_a_decision_of_the_first_version_is_still_read() -> None:
    """A log written before the texts were there is no loss."""
    first = [
        1, 5.0, "id", "hit", "l1", "", ["cold"], 0.9, 0.9, 0.95, 3.0, 0.01, 0.036,
        "message", "matched", "user", "intent", 7,
    ]  # fmt: skip
    found = FORMAT.parse(json.dumps(first))
    assert found is not None
    assert (found.lookup_id, found.tuning_version) == ("id", 7)
    assert (found.message_text, found.matched_text, found.response_text) == ("", "", "")
