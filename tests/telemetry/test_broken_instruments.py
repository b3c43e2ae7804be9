"""Instruments and servers of metrics that break, and what that does to a lookup: nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cache_core import MultiLevelCache
from cache_core.observability.instruments import CacheState
from cache_core.observability.records import Record, ScopedRecord, TierRecord
from telemetry import names, serve_metrics
from tests.support import processes
from tests.support.observing import NAMESPACE, CacheFactory, Watch
from tests.support.paths import ROOT
from tests.support.patience import PATIENT


class _Broken:
    """An instrument that breaks wherever it can."""

    detailed = True

    def __init__(self, *, opens: bool) -> None:
        self._opens = opens

    def scope(self, operation: str, level: str | None) -> Any:
        if self._opens:
            return self
        raise RuntimeError("cannot open")

    def close(self, record: ScopedRecord | TierRecord) -> None:
        raise RuntimeError("cannot close")

    def record(self, record: Record) -> None:
        raise RuntimeError("cannot record")

    def report(self, state: CacheState) -> None:
        raise RuntimeError("cannot report")


@pytest.mark.parametrize("opens", [True, False])
async def test_a_broken_instrument_hurts_nobody(
    make_cache: CacheFactory, watch: Watch, caplog: pytest.LogCaptureFixture, opens: bool
) -> None:
    """Lookups answer, the other instruments go on, and the log has a line or two, not hundreds."""
    cache = await make_cache(
        namespace=NAMESPACE,
        instruments=[_Broken(opens=opens), *watch.instruments],
        settings={**PATIENT, "hedge_delay": 5.0},
    )
    with caplog.at_level(logging.WARNING, "glasscache"):
        await cache.put("is it raining", "ann", "yes")
        for _ in range(100):
            assert await cache.get_multilevel("is it raining", "ann") == "yes"
    assert cache.metrics.l1_hits == 100
    assert watch.value(names.HITS, "l1") == 100
    assert len(watch.named("cache.lookup")) == 100
    lines = [record for record in caplog.records if "is broken" in record.getMessage()]
    assert len(lines) <= 5
    if lines:
        assert "_Broken" in lines[0].getMessage()


async def test_metrics_are_served_on_loopback(watched: MultiLevelCache, watch: Watch) -> None:
    """`serve_metrics` answers with the text format, on 127.0.0.1 alone."""
    await watched.lookup("is it raining", "ann")
    port, stop = serve_metrics(0, registry=watch.registry)
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=1)
    finally:
        stop()
    assert f'cache_lookups_total{{cache="{NAMESPACE}",outcome="miss"}} 1.0' in text
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)


IMPORT = """
import sys, threading, time, socket, json

sockets = []
class Noted(socket.socket):
    def __init__(self, *args, **kwargs):
        sockets.append(args)
        super().__init__(*args, **kwargs)
socket.socket = Noted

started = time.process_time()
import cache_core
seconds = time.process_time() - started

from opentelemetry import trace
from prometheus_client import REGISTRY

heavy = ("torch", "sentence_transformers", "chromadb", "numpy", "onnxruntime", "telemetry",
         "opentelemetry.sdk", "streamlit", "pandas", "redis")
print(json.dumps({
    "seconds": seconds,
    "loaded": [name for name in heavy if name in sys.modules],
    "threads": threading.active_count(),
    "sockets": len(sockets),
    "provider": type(trace.get_tracer_provider()).__name__,
    "ours": [family.name for family in REGISTRY.collect() if family.name.startswith("cache_")],
}))
"""


@pytest.mark.slow
def test_import_has_no_side_effects(tmp_path: Path) -> None:
    """`import cache_core` loads nothing heavy, opens nothing, registers nothing."""
    found = json.loads(processes.run(IMPORT, tmp_path))
    # 0.25 s of CPU; the limit leaves room for a busy core.
    assert found.pop("seconds") < 3
    assert found == {
        "loaded": [],
        "threads": 1,
        "sockets": 0,
        "provider": "ProxyTracerProvider",
        "ours": [],
    }


APPLICATION = """
import asyncio, json
import telemetry, dashboard
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, generate_latest
import glasscache.integrations
from glasscache import MultiLevelCache
from glasscache.telemetry import asgi_app, current_registry
from glasscache.testing import HashEmbedder

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        await cache.put("is it raining", "ann", "yes")
        with trace.get_tracer("agent").start_as_current_span("agent"):
            answer = await cache.get_multilevel("is it raining", "ann")
        sent = []
        async def send(message):
            sent.append(message)
        await asgi_app(cache)(
            {"type": "http", "method": "GET", "path": "/health/live", "headers": []}, None, send)
        return answer, sent[0]["status"]

answer, alive = asyncio.run(main())
spans = {span.name: span for span in exporter.get_finished_spans()}
print(json.dumps({
    "answer": answer,
    "own": [telemetry.OWN, dashboard.OWN],
    "hits": REGISTRY.get_sample_value("cache_hits_total", {"cache": "default", "level": "l1"}),
    "served": b"cache_build_info" in generate_latest(),
    "nested": spans["cache.lookup"].parent.span_id == spans["agent"].context.span_id,
    "alive": alive,
    "one_registry": current_registry() is REGISTRY,
}))
"""


@pytest.mark.slow
def test_an_application_may_have_modules_of_our_names(tmp_path: Path) -> None:
    """With a telemetry.py and a dashboard package of its own all of glasscache can be used."""
    (tmp_path / "telemetry.py").write_text("OWN = True\n")
    (tmp_path / "dashboard").mkdir()
    (tmp_path / "dashboard" / "__init__.py").write_text("OWN = True\n")
    assert json.loads(processes.run(APPLICATION, tmp_path)) == {
        "answer": "yes",
        "own": [True, True],
        "hits": 1,
        "served": True,
        "nested": True,
        "alive": 200,
        "one_registry": True,
    }


def test_telemetry_imports_no_sdk() -> None:
    """No module of ours imports the OpenTelemetry SDK by itself: that is up to the application."""
    pattern = re.compile(r"^\s*(from|import)\s+opentelemetry\.(sdk|exporter)", re.MULTILINE)
    folders = ("glasscache", "cache_core", "telemetry")
    modules = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]
    found = [path.relative_to(ROOT) for path in modules if pattern.search(path.read_text())]
    assert {*found} == {Path("telemetry/exporters.py"), Path("telemetry/reported.py")}
    # There it is inside of what the application calls, and for type checkers.
    source = (ROOT / found[0]).read_text()
    at_top = re.compile(r"^(from|import)\s+opentelemetry\.(sdk|exporter)", re.MULTILINE)
    assert not at_top.search(source)
