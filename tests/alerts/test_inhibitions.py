"""Inhibitions of alerts, by a real Alertmanager with the shipped configuration."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cache_core.cli.demo.stack import for_one_receiver
from tests.alerts.test_rules import ALERTS, RULES_THAT_ALERT
from tests.support import servers

Labels = dict[str, str]

ON_REDIS = (
    "CacheRedisExporterDown", "CacheRedisMemoryFull", "CacheRedisMemoryUnlimited",
    "CacheRedisDown warning redis",
)  # fmt: skip
"""Alerts that have an instance, and no cache."""

BY_REDIS = {
    "CacheHitRateLow", "CacheHitRateDropped", "CacheLatencyHigh", "CacheTierErrors l1",
    "CacheTierErrors l2", "CacheAvailability 1h", "CacheAvailability 6h", "CacheAvailability 1d",
    "CacheAvailability 3d", "CacheRedisTooSmall", "CacheTuningDisagrees", "CacheBreakerOpen redis",
    "CacheRedisNotMonitored",
}  # fmt: skip
BY_L2 = {
    "CacheHitRateLow", "CacheLatencyHigh", "CacheAvailability 1d", "CacheAvailability 3d",
    "CacheTierErrors l2",
}  # fmt: skip
SILENCED: dict[str, set[str]] = {
    "CacheRedisDown critical redis": BY_REDIS,
    "CacheBackendRecovering redis": BY_REDIS,
    "CacheChromaDown chroma": BY_L2 | {"CacheBreakerOpen chroma"},
    "CacheBackendRecovering chroma": BY_L2 | {"CacheBreakerOpen chroma"},
    "CacheEmbedderDown embedder": BY_L2 | {"CacheBreakerOpen embedder"},
    "CacheBackendRecovering embedder": BY_L2 | {"CacheBreakerOpen embedder"},
    "CacheHitRateDropped": {"CacheHitRateLow"},
    "CacheRedisTooSmall": {"CacheHitRateLow"},
    "CacheAvailability 1h": {
        "CacheAvailability 6h", "CacheAvailability 1d", "CacheAvailability 3d",
    },
    "CacheAvailability 6h": {"CacheAvailability 1d", "CacheAvailability 3d"},
    "CacheRedisMemoryFull": {"CacheRedisMemoryUnlimited"},
}  # fmt: skip
"""Alerts that each alert silences; all others silence nothing."""


def shipped() -> dict[str, Labels]:
    """Return every alert with the labels that it has, by name and what tells it apart."""
    found: dict[str, Labels] = {}
    for rule in RULES_THAT_ALERT:
        name, labels = rule["alert"], {"alertname": rule["alert"], **rule["labels"]}
        if name == "CacheTierErrors":
            variants = [{"level": level} for level in ("l1", "l2")]
        elif name in {"CacheBreakerOpen", "CacheBackendRecovering"}:
            variants = [{"backend": backend} for backend in ("redis", "chroma", "embedder")]
        else:
            variants = [{}]
        found |= {named(labels | variant): labels | variant for variant in variants}
    return found


def named(labels: Labels) -> str:
    """Return an alert's name, with what tells it from others of that name."""
    tells = [labels.get(key, "") for key in ("window", "level", "backend")]
    if labels["alertname"] in {"CacheRedisDown", "CacheNoData"}:
        tells = [labels["severity"], *tells]
    return " ".join([labels["alertname"], *filter(None, tells)])


def placed(name: str, labels: Labels, job: str, cache: str) -> Labels:
    """Return an alert of one cache; those on Redis are of a server instead."""
    where = {"instance": "redis-1", "pod": "redis-0"} if name in ON_REDIS else {"cache": cache}
    return {**labels, "cluster": "eu", "namespace": "prod", "job": job, **where}


@pytest.fixture(scope="module")
def suppressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[tuple[str, str, str]]]:
    """Fire every pair of alerts, each in a job of its own; yield what was silenced by what.

    As (source, target, cache of the target): the source is of the cache `shop`.
    """
    program = servers.require("prometheus-alertmanager")
    directory = tmp_path_factory.mktemp("alertmanager")
    config = directory / "alertmanager.yml"
    text = for_one_receiver(ALERTS / "alertmanager.yml", "http://127.0.0.1:9/")
    config.write_text(text, encoding="utf-8")
    port = servers.free_port()
    command = [
        program, f"--config.file={config}", f"--storage.path={directory}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    alerts, fired = shipped(), []
    for source, target in itertools.permutations(alerts, 2):
        for cache in ("shop", "other"):
            job = f"{source}|{target}|{cache}"
            fired.append(placed(source, alerts[source], job, "shop"))
            fired.append(placed(target, alerts[target], job, cache))
    with servers.running(command, port):
        url = f"http://127.0.0.1:{port}/api/v2/alerts"
        ends = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
        body = json.dumps([{"labels": labels, "endsAt": ends} for labels in fired]).encode()
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(asked, timeout=30).close()
        yield _silenced(url)


def _silenced(url: str) -> set[tuple[str, str, str]]:
    deadline, before = time.monotonic() + 40, -1
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}?active=false&unprocessed=false", timeout=30) as answer:
            told: list[dict[str, Any]] = json.load(answer)
        if told and len(told) == before:
            return set(_pairs([one["labels"] for one in told]))
        before = len(told)
        time.sleep(1)
    raise TimeoutError("the number of silenced alerts goes on changing")


def _pairs(silenced: list[Labels]) -> Iterator[tuple[str, str, str]]:
    for labels in silenced:
        source, target, cache = labels["job"].split("|")
        if named(labels) == target:
            yield source, target, cache


@pytest.mark.server
@pytest.mark.timeout(120)
def test_a_cause_silences_what_follows_from_it_and_nothing_else(
    suppressed: set[tuple[str, str, str]],
) -> None:
    """Every pair of alerts of one cache, or of one server."""
    found: dict[str, set[str]] = {}
    for source, target, cache in suppressed:
        if cache == "shop":
            found.setdefault(source, set()).add(target)
    assert found == SILENCED


@pytest.mark.server
def test_an_outage_of_one_cache_hides_nothing_of_another(
    suppressed: set[tuple[str, str, str]],
) -> None:
    """A server has no cache: only what is about a server may be silenced then."""
    others = {target for _, target, cache in suppressed if cache == "other"}
    assert others <= set(ON_REDIS)


@pytest.mark.server
def test_alerts_about_wrong_answers_are_never_silenced(
    suppressed: set[tuple[str, str, str]],
) -> None:
    """Nor what says that nothing is known."""
    never = {
        "CacheIsolationViolation", "CacheWrongHits", "CacheInvalidationsPending", "CacheNoData critical",
        "CacheNoData warning",
        "CacheRedisMemoryFull", "CacheRedisDown critical redis", "CacheRulesIncomplete",
    }  # fmt: skip
    assert never <= set(shipped())
    assert not never & {target for _, target, _ in suppressed}


def test_the_configuration_is_the_shipped_one() -> None:
    """The tested configuration differs from the shipped one in its receivers alone."""
    text = for_one_receiver(ALERTS / "alertmanager.yml", "http://127.0.0.1:9/")
    original = Path(ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    assert text.partition("inhibit_rules:")[2].partition("\nreceivers:")[0].strip() in original
