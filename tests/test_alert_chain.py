"""The whole chain of alerts on real servers: Redis dies, the right webhook is called, and only that."""

from __future__ import annotations

import contextlib
import json
import os
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

import pytest
import yaml

from tests import servers

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "alerts"
RUNBOOK = "https://github.com/glasscache/glasscache/blob/main/docs/runbooks/CacheRedisDown.md"

AGENT = """
import asyncio, sys
from cache_core import MultiLevelCache
from telemetry import serve_metrics

async def main():
    async with MultiLevelCache(namespace="shop") as cache:
        serve_metrics(int(sys.argv[1]))
        for number in range(1_000_000):
            message, user = f"question {number % 10}", "ann"
            if (await cache.lookup(message, user)).response is None:
                await cache.put(message, user, "answer", "shipping", [{"id": "doc-1"}])
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
"""An agent that asks all the time, and ends if a lookup or a put raises."""


@dataclass
class Webhook:
    """What Alertmanager sent, as (status, alert)."""

    url: str = ""
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def names(self, status: str) -> set[str]:
        return {alert["labels"]["alertname"] for of, alert in self.received if of == status}

    def jobs(self, status: str, name: str) -> set[str]:
        return {
            alert["labels"]["job"]
            for of, alert in self.received
            if of == status and alert["labels"]["alertname"] == name
        }


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
    """Copy the shipped rules, with every `for:` a sixtieth of what it is: minutes become seconds.

    Not where there is no data: Prometheus takes more than seconds to look for its targets.
    """
    seconds = {"s": 1, "m": 60, "h": 3_600}
    for name in ("recording.yml", "rules.yml"):
        document = yaml.safe_load((ALERTS / name).read_text(encoding="utf-8"))
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            if rule.get("alert") != "CacheNoData":
                for key in {"for", "keep_firing_for"} & rule.keys():
                    number, unit = int(rule[key][:-1]), rule[key][-1]
                    rule[key] = f"{max(1, number * seconds[unit] // 60)}s"
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


def wait_until(holds: Callable[[], object], what: str, seconds: float = 20.0) -> float:
    """Wait until something holds; return how long it took."""
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        with contextlib.suppress(OSError):
            if holds():
                return time.monotonic() - started
        time.sleep(0.1)
    pytest.fail(f"not within {seconds:.0f} s: {what}")


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=2) as response:
        return json.load(response)


def agent(directory: Path, port: int, redis_url: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the agent."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": redis_url,
        "CACHE_TIERS": "l1,l3,l4",
        "CACHE_DIR": str(directory),
    }
    return [sys.executable, "-c", AGENT, str(port)], environment


@pytest.mark.timeout(120)
def test_redis_down_reaches_the_webhook_alone_and_resolves(
    webhook: Webhook, tmp_path: Path
) -> None:
    """Redis dies: its alert arrives, what follows from it does not; Redis is back: it resolves."""
    programs = {
        name: servers.require(name)
        for name in ("prometheus", "prometheus-alertmanager", "prometheus-redis-exporter")
    }
    redis, exporter, cache, manager, prometheus = (servers.free_port() for _ in range(5))
    fast_rules(tmp_path)
    am_config = fast_alertmanager(tmp_path, webhook.url)
    prom_config = prometheus_config(tmp_path, {"agent": cache, "redis": exporter}, manager)

    def suppressed() -> set[str]:
        alerts = fetch(f"http://127.0.0.1:{manager}/api/v2/alerts")
        return {
            alert["labels"]["alertname"]
            for alert in alerts
            if alert["status"]["state"] == "suppressed"
        }

    def healthy() -> bool:
        query = "job_cache:cache_hit_rate:ratio_rate5m%20and%20on()%20redis_up==1"
        found = fetch(f"http://127.0.0.1:{prometheus}/api/v1/query?query={query}")
        return bool(found["data"]["result"])

    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        first = contextlib.ExitStack()
        stack.callback(first.close)
        url = first.enter_context(servers.redis_server(tmp_path, port=redis))
        start(
            servers.running(
                [
                    programs["prometheus-redis-exporter"],
                    *("-redis.addr", f"redis://127.0.0.1:{redis}"),
                    *("-web.listen-address", f"127.0.0.1:{exporter}"),
                ],
                exporter,
            )
        )
        command, environment = agent(tmp_path / "cache", cache, url)
        asking = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
        stack.callback(asking.wait, timeout=10)
        stack.callback(asking.kill)
        servers.wait_for_port(cache, asking)
        start(
            servers.running(
                [
                    programs["prometheus-alertmanager"],
                    f"--config.file={am_config}",
                    f"--storage.path={tmp_path / 'alertmanager'}",
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
                    f"--storage.tsdb.path={tmp_path / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                ],
                prometheus,
            )
        )
        wait_until(healthy, "the rules see a hit rate and a Redis that is up")
        assert "CacheRedisDown" not in webhook.names("firing")

        first.close()
        both = {"agent", "redis"}
        took = wait_until(
            lambda: webhook.jobs("firing", "CacheRedisDown") == both, "Redis down at the webhook"
        )
        assert took < 20
        follows = {"CacheTierErrors", "CacheBreakerOpen", "CacheAvailability"}
        wait_until(lambda: follows <= suppressed(), f"{follows} suppressed")

        start(servers.redis_server(tmp_path, port=redis))
        wait_until(
            lambda: webhook.jobs("resolved", "CacheRedisDown") == both,
            "the webhook told it is over",
        )
        time.sleep(2)  # what was inhibited would arrive now: its windows still hold the outage
        assert "CacheTierErrors" in suppressed()
        assert asking.poll() is None, "a lookup failed meanwhile"

    told = webhook.names("firing") | webhook.names("resolved")
    assert told <= {"CacheRedisDown", "CacheRedisMemoryUnlimited"}
    alerts = [alert for _, alert in webhook.received]
    down = next(item for item in alerts if item["labels"]["alertname"] == "CacheRedisDown")
    assert down["annotations"]["runbook_url"] == RUNBOOK
    assert down["labels"]["severity"] == "critical"
    assert down["annotations"]["dashboard_url"].startswith("https://grafana.example.com/d/")
