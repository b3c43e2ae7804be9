"""Names that leave the process: in one place, valid, and free of clashes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from cache_core.model.values import LEVELS
from cache_core.observability.records import Operation
from telemetry import PrometheusInstrument, names
from tests.support.paths import ROOT

ELSEWHERE = sorted(
    path
    for folder in ("glasscache", "cache_core", "telemetry")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "telemetry" / "names.py"
)

DOCUMENTED = """
    cache_hits_total{level} cache_misses_total{level} cache_latency_seconds{level}
    cache_judged_misses_total{verdict} cache_compared_answers_total{verdict}
    cache_intent_answers_total{intent,origin}
    cache_verdicts_total{verdict,source}
    cache_cost_saved_usd cache_lookups_total{outcome} cache_lookup_seconds{outcome}
    cache_errors_total{level,reason} cache_miss_reasons_total{level,reason}
    cache_bypass_reasons_total{reason} cache_cancelled_total{level} cache_saved_usd_total{level} cache_spent_usd_total{kind}
    cache_puts_total{level,outcome} cache_put_reasons_total{level,reason}
    cache_put_outcomes_total{outcome} cache_put_losses_total{reason}
    cache_dropped_total{queue} cache_invalidations_total{kind}
    cache_invalidations_pending cache_backend_up{backend} cache_breaker_state{backend}
    cache_breaker_transitions_total{backend,state}
    cache_similarity{outcome} cache_entry_age_seconds{level} cache_stale_hits_total
    cache_embedding_seconds cache_embedding_tokens_total cache_guard_vetoes_total{guard}
    cache_isolation_violations_total
    cache_flight_joins_total cache_refreshes_total{outcome} cache_entries{level} cache_semantic_threshold cache_ttl_seconds{level}
    cache_hit_rate_objective cache_tuning_version cache_build_info{version}
    cache_tuning_changes_total cache_tuning_rejected_total cache_start_time_seconds cache_redis_server{run_id}
    cache_search_seconds cache_compute_seconds{outcome} cache_verification_seconds{outcome}
    cache_approvals_total{verdict} cache_approval_seconds cache_event_loop_lag_seconds
""".split()
"""Every metric with its labels, besides `cache`."""

ATTRIBUTES = [
    value
    for name, value in vars(names).items()
    if name.startswith(("ATTRIBUTE_", "EVENT_")) and isinstance(value, str)
]


def _strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every string literal of a module that is not documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_every_documented_metric_is_there() -> None:
    """Exactly the documented metrics are declared, with the same labels."""
    declared = {
        metric.name + ("{" + ",".join(metric.labels) + "}" if metric.labels else "")
        for metric in names.METRICS
    }
    assert declared == set(DOCUMENTED)


@pytest.mark.slow
def test_metric_names_are_written_once() -> None:
    """No module but `telemetry.names` has a metric's name in a string."""
    metrics = [metric.name for metric in names.METRICS]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in ELSEWHERE
        for line, text in _strings(path)
        if any(re.search(rf"\b{name}\b", text) for name in metrics)
        or re.search(r"\bcache_[a-z0-9_]+_total\b", text)
    ]
    assert found == []


@pytest.mark.slow
def test_attribute_names_are_written_once() -> None:
    """No module but `telemetry.names` has the name of a span, an attribute or an event."""
    operations = ("lookup", "get", "embed", "search", "compute", "put", "invalidate")
    taken = {*ATTRIBUTES, *(names.SPAN_PREFIX + operation for operation in operations)}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in ELSEWHERE
        for line, text in _strings(path)
        if text in taken
    ]
    assert found == []


@pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_asks(metric: names.Metric) -> None:
    """Lower case, base units, `_total` on counters and on nothing else, a sentence of help."""
    assert re.fullmatch(r"cache_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(
        r"_(ms|millis|milliseconds|minutes|hours|percent|cents|kb|mb)\b", metric.name
    )
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_created"))
    if metric.kind == "histogram" and metric is not names.SIMILARITY:
        assert metric.name.endswith("_seconds")
    assert ("in USD" in metric.help) == ("_usd" in metric.name)
    assert ("in seconds" in metric.help) == metric.name.endswith("_seconds")
    if metric.kind == "counter" and "_usd" not in metric.name:
        # What is counted is the first word: the unit of a counter without another.
        assert re.match(r"[A-Z][a-z]+s\b", metric.help), metric.help
    if metric.kind == "gauge" and not metric.name.endswith(("_seconds", "_usd")):
        assert re.search(r"\b0\b|\b1\b|^[A-Z][a-z]+s\b|^Version\b", metric.help), metric.help
    assert metric.help.endswith(".")
    labels = (names.CACHE_LABEL, *metric.labels)
    assert len(set(labels)) == len(labels)
    for label in labels:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", label)
        assert label not in {
            "le",
            "quantile",
            "job",
            "instance",
            "user",
            "user_id",
            "message",
            "key",
        }


def test_no_name_twice() -> None:
    """Metrics, attributes and queues are each named once."""
    for found in ([metric.name for metric in names.METRICS], ATTRIBUTES, [*names.QUEUES]):
        assert len(found) == len(set(found))


def test_no_two_metrics_share_a_series() -> None:
    """All fit into one registry; the gauge `cache_cost_saved_usd` is no counter's stem."""
    suffixes = {
        "counter": ("", "_total", "_created"),
        "gauge": ("",),
        "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    }
    series = [
        metric.name.removesuffix("_total") + suffix
        for metric in names.METRICS
        for suffix in suffixes[metric.kind]
    ]
    assert len(series) == len(set(series))
    assert names.COST_SAVED[:3] == ("cache_cost_saved_usd", "gauge", ())

    registry = CollectorRegistry()
    PrometheusInstrument("names", registry)
    # The parser of OpenMetrics is strict: it refuses clashes, wrong suffixes and wrong types.
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert {family.name for family in families} == {
        metric.name.removesuffix("_total") for metric in names.METRICS
    }
    kinds = {metric.name.removesuffix("_total"): metric.kind for metric in names.METRICS}
    assert {family.name: family.type for family in families} == kinds


def test_the_published_names_are_the_documented_ones() -> None:
    """The four documented metrics have their names, kinds and levels."""
    assert {(metric.name, metric.kind, metric.labels) for metric in names.PUBLISHED} == {
        ("cache_hits_total", "counter", ("level",)),
        ("cache_misses_total", "counter", ("level",)),
        ("cache_latency_seconds", "histogram", ("level",)),
        ("cache_cost_saved_usd", "gauge", ()),
    }
    assert LEVELS == ("l1", "l2", "l3", "l4")


def test_attributes_are_namespaced() -> None:
    """Our attributes are ours, besides OpenTelemetry's own `error.type`; `gen_ai` is for texts."""
    for name in ATTRIBUTES:
        assert re.fullmatch(r"cache\.[a-z_]+", name) or name == "error.type"
    captured = {value for name, value in vars(names).items() if name.startswith("CAPTURED_")}
    assert captured == {"gen_ai.input.messages", "gen_ai.output.messages"}


def test_the_reference_lists_every_metric_as_it_is() -> None:
    """The table in the documentation has each metric's kind, labels, help and mode, and no other."""
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    table = text.partition("<!-- metrics -->\n")[2].partition("<!-- /metrics -->")[0]
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} "
        f"| {metric.help} | {metric.workers if metric.kind == 'gauge' else 'sum'} |"
        for metric in names.METRICS
    ]
    assert table.splitlines()[2:] == rows


def test_the_reference_names_every_span_and_attribute() -> None:
    """Every attribute that a trace may show is documented."""
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    without_span = {"verdict", "verify", "approve", "label", "change", "tune"}
    operations = {*get_args(Operation)} - without_span
    for name in [*ATTRIBUTES, *(names.SPAN_PREFIX + operation for operation in operations)]:
        assert f"`{name}`" in text or name in text.partition("```\ninvoke_agent")[2], name
