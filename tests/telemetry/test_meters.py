"""Metrics through an application's MeterProvider: the same numbers as in Prometheus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from cache_core.testing import HashEmbedder
from telemetry import PrometheusInstrument, names
from telemetry.meters import Meters
from tests.support import processes
from tests.support.caches import CacheFactory
from tests.support.observing import NAMESPACE


def _points(reader: InMemoryMetricReader) -> dict[tuple[str, tuple[tuple[str, str], ...]], Any]:
    data = reader.get_metrics_data()
    return {
        (metric.name, tuple(sorted(point.attributes.items()))): point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


@pytest.mark.parametrize("store_kind", ["embedded"], indirect=True)
async def test_a_provider_of_the_application_gets_what_prometheus_gets(
    make_cache: CacheFactory, store_kind: str
) -> None:
    """Counters, sums, histograms with our buckets and gauges: each point equals its series."""
    reader, registry = InMemoryMetricReader(), CollectorRegistry()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument = PrometheusInstrument(NAMESPACE, registry, Meters(provider))
    cache = await make_cache(
        namespace=NAMESPACE, instruments=[instrument], embedding_model=HashEmbedder()
    )
    await cache.put("is it raining", "ann", "yes")
    for message in ("is it raining", "is it raining", "something else"):
        await cache.lookup(message, "ann")
    async with asyncio.timeout(20):
        while not registry.get_sample_value(names.BACKEND_UP.name, _labels(backend="embedded")):
            await asyncio.sleep(0.02)  # reported once a second
    instrument.count()
    found = _points(reader)

    seen = set()
    for (name, attributes), point in found.items():
        labels = dict(attributes)
        seen.add(name)
        if hasattr(point, "bucket_counts"):
            assert point.count == registry.get_sample_value(f"{name}_count", labels)
            assert point.sum == pytest.approx(registry.get_sample_value(f"{name}_sum", labels))
        elif name != names.EVENT_LOOP_LAG.name:
            assert point.value == pytest.approx(registry.get_sample_value(name, labels)), name
    assert seen >= {
        metric.name
        for metric in (
            names.LOOKUPS, names.HITS, names.LATENCY, names.COST_SAVED, names.PUTS,
            names.SEMANTIC_THRESHOLD, names.TTL_SECONDS, names.BUILD_INFO, names.SEARCH_SECONDS,
            names.BACKEND_UP, names.EVENT_LOOP_LAG,
        )
    }  # fmt: skip
    hits = found[names.LOOKUPS.name, tuple(sorted(_labels(outcome="hit").items()))]
    assert hits.value == 2
    latency = found[names.LATENCY.name, tuple(sorted(_labels(level="l1").items()))]
    assert latency.explicit_bounds[0] == 0.0001
    await cache.close()
    provider.shutdown()


def _labels(**more: str) -> dict[str, str]:
    return {"cache": NAMESPACE, **more}


LATE = """
import asyncio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

reader = InMemoryMetricReader()

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        await cache.lookup("is it raining", "ann")
        metrics.set_meter_provider(MeterProvider([reader]))
        await cache.lookup("is it raining", "ann")
    data = reader.get_metrics_data()
    print(sorted({
        metric.name for resource in data.resource_metrics if data
        for scope in resource.scope_metrics for metric in scope.metrics
    } & {"cache_lookups_total", "cache_latency_seconds"}) if data else [])

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("on", [True, False])
def test_the_global_provider_is_found_whenever_it_is_set(on: bool, tmp_path: Path) -> None:
    """Without any call to us, also after the cache was opened; a setting switches it off."""
    setting = {} if on else {"CACHE_OTEL_METRICS": "false"}
    expected = ["cache_latency_seconds", "cache_lookups_total"] if on else []
    assert processes.run(LATE, tmp_path, **setting) == f"{expected}\n"


def test_what_is_in_the_registry_already_is_not_added_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With OpenTelemetry's Prometheus exporter every number would be there twice: one line says so."""
    monkeypatch.setattr("telemetry.meters._is_in_prometheus", lambda: True)
    monkeypatch.setattr("telemetry.meters.metrics.get_meter_provider", MeterProvider)
    meters = Meters()
    with caplog.at_level("INFO"):
        for _ in range(3):
            meters.count(names.LOOKUPS, _labels(outcome="hit"), 1)
    assert len([line for line in caplog.messages if "already" in line]) == 1
    assert meters._made == {}


def test_a_provider_that_fails_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_PYTHON_METER_PROVIDER that names nothing costs no metric, and no line a second."""
    asked = []

    def fail() -> None:
        asked.append(1)
        raise StopIteration

    monkeypatch.setattr("telemetry.meters.metrics.get_meter_provider", fail)
    meters = Meters()
    for _ in range(3):
        meters.count(names.LOOKUPS, _labels(outcome="hit"), 1)
    assert asked == [1]
