"""The whole chain of alerts on real servers: agent, Redis, redis_exporter, Prometheus, Alertmanager.

Redis dies, questions never repeat, memory runs out: the webhook is told the right thing, and only
that; it is told when it is over; and meanwhile no lookup failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.alerts.test_rules import RULES, metrics, queries
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.patience import PATIENT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

ALERTS = ROOT / "alerts"
RUNBOOKS = "https://github.com/glasscache/glasscache/blob/main/docs/runbooks/"

AGENT = """
import asyncio, sys
from pathlib import Path
from cache_core import MultiLevelCache
from telemetry import serve_metrics

async def main(port, flood, characters):
    answer = "a" * int(characters)
    async with MultiLevelCache(namespace="shop") as cache:
        serve_metrics(int(port))
        for number in range(1_000_000):
            unique = Path(flood).exists()
            message, user = f"question {number if unique else number % 10}", "ann"
            if (await cache.lookup(message, user)).response is None:
                await cache.put(message, user, answer, "shipping", [{"id": "doc-1"}])
            await asyncio.sleep(0.004)

asyncio.run(main(*sys.argv[1:]))
"""
"""An agent that asks all the time, what nobody asked before while a file exists. It ends if a lookup
or a put raises."""


@dataclass
class Webhook:
    """Alerts that Alertmanager sent, as (status, alert)."""

    url: str = ""
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def names(self, status: str) -> set[str]:
        return {alert["labels"]["alertname"] for of, alert in self.received if of == status}

    def alerts(self, status: str, name: str) -> list[dict[str, Any]]:
        return [
            alert
            for of, alert in self.received
            if of == status and alert["labels"]["alertname"] == name
        ]

    def jobs(self, status: str, name: str) -> set[str]:
        return {alert["labels"]["job"] for alert in self.alerts(status, name)}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A server that takes what Alertmanager sends."""
    found = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.received += [(alert["status"], alert) for alert in json.loads(body)["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def fast_rules(directory: Path) -> None:
    """Copy the shipped rules, with every `for:` a hundredth of what it is: minutes become seconds.

    Not where there is no data: Prometheus takes more than seconds to look for its targets. And a
    new process is judged at once, not after an hour.
    """
    seconds = {"s": 1, "m": 60, "h": 3_600}
    for name in ("recording.yml", "rules.yml"):
        document = yaml.safe_load((ALERTS / name).read_text(encoding="utf-8"))
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            if rule.get("labels", {}).get("limit") == "warm_up_seconds":
                rule["expr"] = "vector(1)"
            if rule.get("alert") != "CacheNoData":
                for key in {"for", "keep_firing_for"} & rule.keys():
                    number, unit = int(rule[key][:-1]), rule[key][-1]
                    rule[key] = f"{max(1, number * seconds[unit] // 100)}s"
        (directory / name).write_text(yaml.safe_dump(document), encoding="utf-8")


def fast_alertmanager(directory: Path, url: str) -> Path:
    """Copy the shipped configuration: same routes and inhibitions, without waits, all to *url*."""
    config = yaml.safe_load((ALERTS / "alertmanager.yml").read_text(encoding="utf-8"))
    config["global"] = {"resolve_timeout": "1m"}
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "2s", "group_interval": "1s", "repeat_interval": "1h"}
    config["receivers"] = [
        {"name": receiver["name"], "webhook_configs": [{"url": url, "send_resolved": True}]}
        if len(receiver) > 1
        else receiver
        for receiver in config["receivers"]
    ]
    path = directory / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def prometheus_config(directory: Path, targets: dict[str, int], alertmanager: int) -> Path:
    """Write a configuration that scrapes *targets*, by job, every second."""
    config = {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"grafana_url": "https://grafana.example.com"},
        },
        "rule_files": ["recording.yml", "rules.yml"],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
        },
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in targets.items()
        ],
    }
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


SOON = 20.0
"""Seconds in which an alert reaches the webhook, from when its cause begins."""


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=2) as response:
        return json.load(response)


@dataclass
class Chain:
    """All servers of the chain.

    Attributes:
        redis_url: Of the Redis.
        flood: While this file exists, no question repeats.
        alertmanager, prometheus: Their addresses.
        asking: The agent.
        stop_redis, start_redis: Of the Redis alone.
    """

    redis_url: str
    flood: Path
    alertmanager: str
    prometheus: str
    asking: subprocess.Popen[bytes]
    stop_redis: Callable[[], None]
    start_redis: Callable[[], None]

    def ask(self, query: str) -> list[Any]:
        """Return what Prometheus says to *query*."""
        found = fetch(f"{self.prometheus}/api/v1/query?{urlencode({'query': query})}")
        return list(found["data"]["result"])

    def suppressed(self) -> set[str]:
        """Return the alerts that are inhibited."""
        return {
            alert["labels"]["alertname"]
            for alert in fetch(f"{self.alertmanager}/api/v2/alerts")
            if alert["status"]["state"] == "suppressed"
        }


@contextlib.contextmanager
def chain(
    directory: Path, webhook: Webhook, *redis_options: str, characters: int = 10
) -> Iterator[Chain]:
    """Run all servers, with the rules seeing a hit rate and a Redis that is up.

    Args:
        directory: For what they write.
        webhook: Told by Alertmanager.
        redis_options: For redis-server.
        characters: Length of the agent's answers.
    """
    programs = {
        name: servers.require(name)
        for name in ("prometheus", "prometheus-alertmanager", "prometheus-redis-exporter")
    }
    redis_port, exporter, cache, manager, prometheus = (servers.free_port() for _ in range(5))
    fast_rules(directory)
    am_config = fast_alertmanager(directory, webhook.url)
    prom_config = prometheus_config(directory, {"agent": cache, "redis": exporter}, manager)
    flood = directory / "flood"
    environment = {
        **os.environ,
        **{f"CACHE_{name.upper()}": str(seconds) for name, seconds in PATIENT.items()},
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": servers.redis_url(redis_port),
        "CACHE_TIERS": "l1,l3,l4",
        "CACHE_DIR": str(directory / "cache"),
        "CACHE_KEY": "of this chain",
    }

    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        redis_life = start(contextlib.ExitStack())

        def start_redis() -> None:
            redis_life.enter_context(
                servers.redis_server(directory, *redis_options, port=redis_port)
            )

        start_redis()
        start(
            servers.running(
                [
                    programs["prometheus-redis-exporter"],
                    *("-redis.addr", servers.redis_url(redis_port, "exporter")),
                    *("-web.listen-address", f"127.0.0.1:{exporter}"),
                    "-include-system-metrics",
                ],
                exporter,
            )
        )
        asking = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(cache), str(flood), str(characters)],
            env=environment, cwd=directory, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(asking.wait, timeout=10)
        stack.callback(asking.kill)
        servers.wait_for_port(cache, asking)
        start(
            servers.running(
                [
                    programs["prometheus-alertmanager"],
                    f"--config.file={am_config}",
                    f"--storage.path={directory / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{manager}",
                    "--cluster.listen-address=",
                ],
                manager,
            )
        )
        start(
            servers.running(
                [
                    programs["prometheus"],
                    f"--config.file={prom_config}",
                    f"--storage.tsdb.path={directory / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                ],
                prometheus,
            )
        )
        made = Chain(
            environment["REDIS_URL"],
            flood,
            f"http://127.0.0.1:{manager}",
            f"http://127.0.0.1:{prometheus}",
            asking,
            redis_life.close,
            start_redis,
        )
        healthy = "job_cache:cache_hit_rate:ratio_rate5m > 0 and on () redis_up == 1"
        wait_until(lambda: made.ask(healthy), "the rules see hits and a Redis that is up")
        yield made
        assert asking.poll() is None, "a lookup or a put raised"


@pytest.mark.timeout(240)
def test_redis_down_reaches_the_webhook_alone_and_resolves(
    webhook: Webhook, tmp_path: Path
) -> None:
    """Redis dies: its alert arrives, what follows from it does not; Redis is back: it resolves."""
    with chain(tmp_path, webhook) as servers_:
        assert "CacheRedisDown" not in webhook.names("firing")
        servers_.stop_redis()
        both = {"agent"}
        wait_until(
            lambda: webhook.jobs("firing", "CacheRedisDown") == both, "Redis down at the webhook"
        )
        follows = {"CacheTierErrors", "CacheBreakerOpen", "CacheAvailability"}
        wait_until(lambda: follows <= servers_.suppressed(), f"{follows} suppressed")

        servers_.start_redis()
        wait_until(
            lambda: webhook.jobs("resolved", "CacheRedisDown") == both,
            "the webhook told it is over",
        )
        time.sleep(2)  # what was inhibited would arrive now: its windows still hold the outage
        assert "CacheTierErrors" in servers_.suppressed()

    told = webhook.names("firing") | webhook.names("resolved")
    assert told <= {"CacheRedisDown", "CacheRedisMemoryUnlimited"}
    down = webhook.alerts("firing", "CacheRedisDown")[0]
    assert down["annotations"]["runbook_url"] == f"{RUNBOOKS}CacheRedisDown.md"
    assert down["labels"]["severity"] == "critical"
    assert down["annotations"]["dashboard_url"].startswith("https://grafana.example.com/d/")


OF_REPLICAS = {"redis_connected_slave_offset_bytes", "redis_slave_info"}
"""Metrics of a Redis with replicas: `test_cluster.py` has one, and asks for them."""

FAILED = 'sum(cache_lookups_total{outcome="error"}) > 0'


@pytest.mark.timeout(240)
def test_questions_that_never_repeat_reach_the_webhook_with_their_reason(
    webhook: Webhook, tmp_path: Path
) -> None:
    """A flood of unique questions: a warning that says what most misses are; it ends with them.

    And every metric that a rule asks for is there, but those of a Redis with replicas.
    """
    with chain(tmp_path, webhook, "--maxmemory", "256mb") as servers_:
        servers_.flood.touch()
        wait_until(
            lambda: webhook.alerts("firing", "CacheHitRateLow"), "the hit rate at the webhook"
        )
        servers_.flood.unlink()
        recorded = re.compile(r"\b[a-z_]+(:[a-z0-9_]+)+\b")
        asked = {
            name
            for rule in RULES
            for query in queries(rule)
            for name in metrics(recorded.sub("", query))
        }
        assert len(asked) > 20
        assert {name for name in asked if not servers_.ask(f"count({name})")} == OF_REPLICAS
        wait_until(
            lambda: webhook.alerts("resolved", "CacheHitRateLow"), "told that it is over", 90
        )
        assert not servers_.ask(FAILED)

    assert webhook.names("firing") == {"CacheHitRateLow"}
    low = webhook.alerts("firing", "CacheHitRateLow")[0]
    assert low["labels"].items() >= {"job": "agent", "cache": "shop", "severity": "warning"}.items()
    said = low["annotations"]["description"]
    assert re.search(r"the objective is 60%\. The largest reason for a miss is cold \(\d", said), (
        said
    )
    assert low["annotations"]["runbook_url"] == f"{RUNBOOKS}CacheHitRateLow.md"
    assert "/d/glasscache-overview?" in low["annotations"]["dashboard_url"]


@pytest.mark.timeout(240)
def test_a_redis_that_fills_up_reaches_the_webhook_and_fails_no_lookup(
    webhook: Webhook, tmp_path: Path
) -> None:
    """Without evictions a full Redis refuses writes: critical, until there is room again."""
    limits = ("--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
    with chain(tmp_path, webhook, *limits, characters=20_000) as servers_:
        assert "CacheRedisMemoryFull" not in webhook.names("firing")
        servers_.flood.touch()
        wait_until(
            lambda: webhook.alerts("firing", "CacheRedisMemoryFull"), "memory at the webhook"
        )
        refused = 'sum(cache_puts_total{outcome="dropped"}) > 0'
        wait_until(lambda: servers_.ask(refused), "a write that was refused, and counted", 30)
        servers_.flood.unlink()
        with servers.admin(servers_.redis_url) as client:
            client.flushall()
        wait_until(
            lambda: webhook.alerts("resolved", "CacheRedisMemoryFull"), "told that it is over", 60
        )
        assert not servers_.ask(FAILED)

    full = webhook.alerts("firing", "CacheRedisMemoryFull")[0]
    assert full["labels"]["severity"] == "critical"
    assert full["annotations"]["runbook_url"] == f"{RUNBOOKS}CacheRedisMemoryFull.md"
    assert "CacheRedisDown" not in webhook.names("firing")
