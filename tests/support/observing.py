"""A tracer provider and a registry of a test's own, and caches that they watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Sampler,
)
from prometheus_client import CollectorRegistry

from cache_core import MultiLevelCache
from telemetry import PrometheusInstrument, TracingInstrument, names
from tests.support.caches import CacheFactory
from tests.support.patience import PATIENT

NAMESPACE = "watched"


@dataclass
class Watch:
    """A tracer provider and a metrics registry of a test's own, and the cache's instruments."""

    sampler: Sampler = ALWAYS_ON
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.agent = self.provider.get_tracer("agent")
        self.instruments = (
            PrometheusInstrument(NAMESPACE, self.registry),
            TracingInstrument(NAMESPACE, self.provider),
        )

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def value(self, metric: names.Metric, *labels: str, suffix: str = "") -> float | None:
        """Return a sample; `None` without one."""
        found = dict(zip(metric.labels, labels, strict=True))
        return self.registry.get_sample_value(metric.name + suffix, {"cache": NAMESPACE, **found})

    def samples(self, *kinds: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        """Return name and labels of every sample of metrics of these kinds."""
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in self.registry.collect()
            if family.type in kinds
            for sample in family.samples
        }


@pytest.fixture
def watch() -> Watch:
    return Watch()


MakeWatched = Callable[..., Any]


@pytest.fixture
def make_watched(make_cache: CacheFactory) -> MakeWatched:
    """Make a cache that a `Watch` watches; without a hedge, so that what happens is what is said."""

    async def make(watch: Watch, settings: dict[str, Any] | None = None, **more: Any) -> Any:
        fixed = {**PATIENT, "hedge_delay": 5.0, **(settings or {})}
        return await make_cache(
            namespace=NAMESPACE, instruments=watch.instruments, settings=fixed, **more
        )

    return make


@pytest.fixture
async def watched(watch: Watch, make_watched: MakeWatched) -> MultiLevelCache:
    found: MultiLevelCache = await make_watched(watch)
    return found


def parents(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """Return the ancestors of *span*, nearest first."""
    by_id = {other.context.span_id: other for other in spans}
    found: list[ReadableSpan] = []
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        found.append(span)
    return found
