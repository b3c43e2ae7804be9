"""A Prometheus that has watched the demo."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

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
      - {alert: CacheOfATest, expr: "vector(1)", labels: {severity: info}}
      - {alert: CacheInhibiting, expr: "vector(1)", labels: {severity: none}}
"""
_REDIS_OPTIONS = ("--maxmemory", "64mb", "--maxmemory-policy", "noeviction")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that has watched the demo: quiet, busy, without Redis, and tuned anew."""
    prometheus_program = servers.require("prometheus")
    exporter_program = servers.require("prometheus-redis-exporter")
    directory = tmp_path_factory.mktemp("live")
    store, agent, exporter, port = (servers.free_port() for _ in range(4))
    (directory / "rules.yml").write_text(_RULES)
    config = _CONFIG.format(directory=directory, agent=agent, exporter=exporter)
    (directory / "prometheus.yml").write_text(config)
    redis_url = servers.redis_url(store)

    def redis_server() -> contextlib.AbstractContextManager[str]:
        return servers.redis_server(directory, *_REDIS_OPTIONS, port=store)

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(redis_server())
        started = time.time()
        demo = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.dashboard_traffic",
                 str(directory / "cache"), redis_url, str(agent)],
                stdin=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        stack.callback(demo.kill)
        for command, of in (
            (
                [exporter_program, "-redis.addr", servers.redis_url(store, "exporter"),
                 "-web.listen-address", f"127.0.0.1:{exporter}"],
                exporter,
            ),
            (
                [prometheus_program, f"--config.file={directory}/prometheus.yml",
                 f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}",
                 "--enable-feature=exemplar-storage", "--log.level=error"],
                port,
            ),
        ):  # fmt: skip
            stack.enter_context(servers.running(command, of))
        prometheus = Prometheus(f"http://127.0.0.1:{port}", 1.0, started)

        def phase(name: str) -> None:
            assert demo.stdin is not None
            demo.stdin.write(f"{name}\n")
            demo.stdin.flush()

        def wait(expr: str) -> None:
            """Until a query has a result other than 0."""

            def holds() -> bool:
                found = prometheus.get("query", query=expr)["result"]
                return any(float(one["value"][1]) for one in found)

            wait_until(holds, expr, 60)

        phase("quiet")
        wait("sum(cache_lookups_total) > 3 and on () redis_up == 1")
        phase("busy")
        hits = 'sum(cache_hits_total{level="l1"}) > 20 and sum(cache_hits_total{level="l2"}) > 5'
        wait(f"{hits} and on () count(cache_entries)")
        first.close()
        wait("sum(cache_errors_total) > 20 and on () count(ALERTS)")
        stack.enter_context(redis_server())
        wait("redis_up == 1 and on () min(cache_backend_up) == 1")
        phase("tuned")
        # What counts happened before the last scrape that a range query sees.
        wait("sum(changes(cache_tuning_version[1m] offset 2s))")
        wait("sum(rate(cache_hits_total[4s] offset 2s)) and sum(rate(redis_commands_total[4s]))")
        wait('sum(rate(cache_verdicts_total{source="verify"}[4s]))')
        yield prometheus, redis_url
