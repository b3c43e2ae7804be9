"""A Prometheus that has watched the demo."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafana.live import Prometheus
from tests.support import servers
from tests.support.waiting import wait_until

_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{directory}/rules.yml]
scrape_configs:
  - job_name: agent
    static_configs: [{{targets: ["127.0.0.1:{agent}"]}}]
  - job_name: redis
    static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]
"""
_RULES = """
groups:
  - name: always
    rules:
      - {alert: CacheRedisMemoryUnlimited, expr: "vector(1)", labels: {severity: info}}
      - {alert: CacheInhibiting, expr: "vector(1)", labels: {severity: none}}
"""
_REDIS_OPTIONS = ("--maxmemory", "64mb", "--maxmemory-policy", "noeviction")
_HITS = 'sum(cache_hits_total{level="l1"}) > 20 and sum(cache_hits_total{level="l2"}) > 5'
_BEFORE_THE_LAST_SCRAPE = (
    "sum(changes(cache_tuning_version[1m] offset 2s))",
    "sum(rate(cache_hits_total[4s] offset 2s)) and sum(rate(redis_commands_total[4s]))",
    'sum(rate(cache_verdicts_total{source="verify"}[4s]))',
    "sum(rate(cache_approval_seconds_count[4s]))",
)
"""Queries of events before the last scrape, which a range query sees."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that has watched the demo: quiet, busy, without Redis, and tuned anew."""
    directory = tmp_path_factory.mktemp("live")
    store, agent, exporter, port = (servers.free_port() for _ in range(4))
    redis_url = servers.redis_url(store)
    with contextlib.ExitStack() as stack:
        with _redis_server(directory, store):
            prometheus = Prometheus(f"http://127.0.0.1:{port}", 1.0, time.time())
            demo = stack.enter_context(_demo(directory, redis_url, agent))
            stack.enter_context(_exporter(store, exporter))
            stack.enter_context(_prometheus(directory, agent, exporter, port))
            _begin(demo, "quiet")
            _wait(prometheus, "sum(cache_lookups_total) > 3 and on () redis_up == 1")
            _begin(demo, "busy")
            _wait(prometheus, f"{_HITS} and on () count(cache_entries)")
        _wait(prometheus, "sum(cache_errors_total) > 20 and on () count(ALERTS)")
        stack.enter_context(_redis_server(directory, store))
        _wait(prometheus, "redis_up == 1 and on () min(cache_backend_up) == 1")
        _begin(demo, "tuned")
        for happened in _BEFORE_THE_LAST_SCRAPE:
            _wait(prometheus, happened)
        yield prometheus, redis_url


def _redis_server(directory: Path, port: int) -> contextlib.AbstractContextManager[str]:
    return servers.redis_server(directory, *_REDIS_OPTIONS, port=port)


@contextlib.contextmanager
def _demo(directory: Path, redis_url: str, port: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.dashboard_traffic",
         str(directory / "cache"), redis_url, str(port)],
        stdin=subprocess.PIPE, text=True,
    ) as demo:  # fmt: skip
        try:
            yield demo
        finally:
            demo.kill()


def _exporter(store: int, port: int) -> contextlib.AbstractContextManager[object]:
    program = servers.require("prometheus-redis-exporter")
    return servers.running(
        [program, "-redis.addr", servers.redis_url(store, "exporter"),
         "-web.listen-address", f"127.0.0.1:{port}"],
        port,
    )  # fmt: skip


def _prometheus(
    directory: Path, agent: int, exporter: int, port: int
) -> contextlib.AbstractContextManager[object]:
    program = servers.require("prometheus")
    config = directory / "prometheus.yml"
    config.write_text(_CONFIG.format(directory=directory, agent=agent, exporter=exporter))
    (directory / "rules.yml").write_text(_RULES)
    return servers.running(
        [program, f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
         "--log.level=error"],
        port,
    )  # fmt: skip


def _begin(demo: subprocess.Popen[str], phase: str) -> None:
    assert demo.stdin is not None
    demo.stdin.write(f"{phase}\n")
    demo.stdin.flush()


def _wait(prometheus: Prometheus, expr: str) -> None:
    """Wait until a query has a result other than 0."""

    def holds() -> bool:
        found = prometheus.get("query", query=expr)["result"]
        return any(float(one["value"][1]) for one in found)

    wait_until(holds, expr, 60)
