"""Alerts in a cluster as people have them: real agents, Redis servers, Prometheus, Alertmanager.

Targets have the labels that a ServiceMonitor gives. Two namespaces run an agent of the same name
with two caches; prod has three replicas. Prod's Redis has a replica, a foreign server is scraped by
the same exporter, and its job is not called redis.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.alerts.test_chain import OF_REPLICAS, Webhook, fast_alertmanager, fetch, webhook
from tests.alerts.test_rules import ALERTS
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.patience import PATIENT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

__all__ = ["webhook"]
"""Fixture of the other chain."""

AGENT = """
import asyncio, sys
from cache_core import MultiLevelCache
from telemetry import serve_metrics

async def main(port, tunings):
    async with MultiLevelCache(namespace="shop") as shop, MultiLevelCache(namespace="faq") as faq:
        for number in range(int(tunings)):
            await shop.tune({"l1_ttl": 600.0 + number}, author="test")
        serve_metrics(int(port))
        for number in range(1_000_000):
            for cache in (shop, faq):
                message = f"question {number % 5}"
                if (await cache.lookup(message, "ann")).response is None:
                    await cache.put(message, "ann", "an answer", "shipping", [])
            await asyncio.sleep(0.1)

asyncio.run(main(*sys.argv[1:]))
"""
"""An agent with two caches, which always asks. It ends if a lookup or a put raises."""

SECONDS = {"s": 1, "m": 60, "h": 3_600}
FASTER = 20
FOLLOWING = {"CacheTierErrors", "CacheBreakerOpen", "CacheAvailability"}
"""Consequences of a lost Redis."""


def fast_rules(directory: Path) -> None:
    """Copy the shipped rules with every wait shortened, and silence after 12 seconds."""
    for name in ("recording.yml", "rules.yml"):
        text = (ALERTS / name).read_text(encoding="utf-8")
        document = yaml.safe_load(text.replace("[1h:1m]", "[10m:1s]"))
        for rule in (rule for group in document["groups"] for rule in group["rules"]):
            if rule.get("labels", {}).get("limit") == "silence_seconds":
                rule["expr"] = rule["expr"].replace("vector(300)", "vector(12)")
            # A busy machine is slow, and that is not what is tested here.
            if rule.get("labels", {}).get("limit") == "latency_p99_seconds":
                rule["expr"] = rule["expr"].replace("vector(0.1)", "vector(10)")
            for key in {"for", "keep_firing_for"} & rule.keys():
                seconds = int(rule[key][:-1]) * SECONDS[rule[key][-1]]
                rule[key] = f"{max(2, seconds // FASTER)}s"
        (directory / name).write_text(yaml.safe_dump(document), encoding="utf-8")


class Cluster:
    """All servers; each can be stopped and started by its name."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._running: dict[str, contextlib.ExitStack] = {}
        self._starts: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {}
        self.ports: dict[str, int] = {}

    def add(self, name: str, start: Callable[[int], contextlib.AbstractContextManager[Any]]) -> int:
        """Start a server, and remember how."""
        port = self.ports[name] = servers.free_port()
        self._starts[name] = lambda: start(port)
        self.start(name)
        return port

    def start(self, *names: str) -> None:
        for name in names:
            life = self._running[name] = contextlib.ExitStack()
            self._stack.callback(life.close)
            life.enter_context(self._starts[name]())

    def stop(self, *names: str) -> None:
        for name in names:
            self._running[name].close()

    def redis(self, *options: str) -> Callable[[int], contextlib.AbstractContextManager[Any]]:
        def start(port: int) -> contextlib.AbstractContextManager[Any]:
            directory = self._directory / f"redis-{port}"
            directory.mkdir(exist_ok=True)
            return servers.redis_server(directory, *options, port=port)

        return start

    def agent(self, name: str, redis: int, tunings: int) -> None:
        """Start an agent on a Redis, with its tuning changed some times."""
        environment = {
            **os.environ,
            **{f"CACHE_{key.upper()}": str(value) for key, value in PATIENT.items()},
            "PYTHONPATH": str(ROOT),
            "REDIS_URL": servers.redis_url(redis),
            "CACHE_TIERS": "l1,l3,l4",
            "CACHE_KEY": "of this cluster",
        }

        @contextlib.contextmanager
        def running(port: int) -> Iterator[None]:
            process = subprocess.Popen(
                [sys.executable, "-c", AGENT, str(port), str(tunings)],
                env={**environment, "CACHE_DIR": str(self._directory / name)},
                cwd=self._directory, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                servers.wait_for_port(port, process)
                yield
                assert process.poll() is None, "a lookup or a put raised"
            finally:
                process.kill()
                process.wait(timeout=10)

        self.add(name, running)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return what Prometheus says to *query*."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query?"
        return list(fetch(url + urlencode({"query": query}))["data"]["result"])

    def firing(self, more: str = "") -> set[tuple[str, ...]]:
        """Return firing alerts: name, severity, namespace, and cache or instance."""
        found = self.ask(f'ALERTS{{alertstate="firing",severity=~"critical|warning"{more}}}')
        labels = [one["metric"] for one in found]
        return {
            (one["alertname"], one["severity"], one.get("namespace", ""),
             one.get("cache") or one.get("instance", ""))
            for one in labels
        }  # fmt: skip

    def suppressed(self) -> set[tuple[str, str]]:
        """Return the alerts that Alertmanager silences: name and namespace."""
        found = fetch(f"http://127.0.0.1:{self.ports['alertmanager']}/api/v2/alerts")
        return {
            (alert["labels"]["alertname"], alert["labels"].get("namespace", ""))
            for alert in found
            if alert["status"]["state"] == "suppressed"
        }


def configuration(cluster: Cluster, alertmanager: int) -> dict[str, Any]:
    """Return Prometheus' configuration, with the labels of kube-prometheus."""

    def target(address: str, job: str, namespace: str, pod: str) -> dict[str, Any]:
        labels = {"job": job, "namespace": namespace, "pod": pod, "container": job,
                  "endpoint": "metrics", "service": job}  # fmt: skip
        return {"targets": [address], "labels": labels}

    agents = [
        target(f"127.0.0.1:{port}", "agent", name.split("-")[0], name)
        for name, port in cluster.ports.items()
        if name.startswith(("prod-", "staging-"))
    ]
    exporter = f"127.0.0.1:{cluster.ports['exporter']}"
    stores = [
        {"targets": [servers.redis_url(cluster.ports[name], "exporter")],
         "labels": {"instance": f"redis://127.0.0.1:{cluster.ports[name]}", "namespace": "data"}}
        for name in ("primary", "replica", "staging", "foreign")
    ]  # fmt: skip
    often = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "2s")
    return {
        "global": {**often, "external_labels": {"prometheus": "monitoring/k8s"}},
        "rule_files": ["recording.yml", "rules.yml"],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
        },
        "scrape_configs": [
            {"job_name": "serviceMonitor/agent/0", "static_configs": agents},
            {
                "job_name": "company-redis",
                "metrics_path": "/scrape",
                "static_configs": stores,
                "relabel_configs": [
                    {"source_labels": ["__address__"], "target_label": "__param_target"},
                    {"target_label": "__address__", "replacement": exporter},
                ],
            },
        ],
    }


@pytest.fixture
def cluster(tmp_path: Path, webhook: Webhook) -> Iterator[Cluster]:
    """All servers, with the rules seeing every cache and whose Redis is whose."""
    programs = {
        name: servers.require(name)
        for name in ("prometheus", "prometheus-alertmanager", "prometheus-redis-exporter")
    }
    fast_rules(tmp_path)
    with contextlib.ExitStack() as stack:
        made = Cluster(tmp_path, stack)
        limit = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
        primary = made.add("primary", made.redis(*limit))
        user = ("--masteruser", "operator", "--masterauth", servers.PASSWORD)
        made.add("replica", made.redis(*limit, *user, "--replicaof", "127.0.0.1", str(primary)))
        staging = made.add("staging", made.redis(*limit))
        made.add("foreign", made.redis("--maxmemory", "64mb"))
        for number in range(3):
            made.agent(f"prod-{number}", primary, 0)
        made.agent("staging-0", staging, 2)
        exporter = ("-redis.addr=", "-web.listen-address")
        made.add(
            "exporter",
            lambda port: servers.running(
                [programs["prometheus-redis-exporter"], *exporter, f"127.0.0.1:{port}"], port
            ),
        )
        config = fast_alertmanager(tmp_path, webhook.url)
        alertmanager = made.add(
            "alertmanager",
            lambda port: servers.running(
                [
                    programs["prometheus-alertmanager"], f"--config.file={config}",
                    f"--storage.path={tmp_path / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
                ],
                port,
            ),
        )  # fmt: skip
        path = tmp_path / "prometheus.yml"
        path.write_text(yaml.safe_dump(configuration(made, alertmanager)), encoding="utf-8")
        made.add(
            "prometheus",
            lambda port: servers.running(
                [
                    programs["prometheus"], f"--config.file={path}",
                    f"--storage.tsdb.path={tmp_path / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                port,
            ),
        )  # fmt: skip
        ready = "count(job_cache:cache_lookups:rate5m > 0) == 4 and on () count(max_over_time(up[20s]) == 1) == 8"
        wait_until(lambda: made.ask(ready), "all caches and targets", 120)
        yield made


@pytest.mark.timeout(400)
def test_each_fault_is_reported_once_where_it_is(cluster: Cluster, webhook: Webhook) -> None:
    """Restarts, other environments and foreign servers are silent; faults name their place."""
    where = {name: f"redis://127.0.0.1:{port}" for name, port in cluster.ports.items()}
    ours = "count(glasscache:redis_server) == 3 and on () count(glasscache:redis_primary) == 2"
    wait_until(lambda: cluster.ask(ours), "the servers that are ours", 90)
    assert not cluster.ask(f'glasscache:redis_server{{instance="{where["foreign"]}"}}')
    assert all(cluster.ask(f"count({name})") for name in OF_REPLICAS)

    # One replica of the agent restarts, a foreign server stops; staging's tuning is another.
    cluster.stop("prod-1", "foreign")
    gone = f'redis_up{{instance="{where["foreign"]}"}} == 0 and on () up{{pod="prod-1"}} == 0'
    wait_until(lambda: cluster.ask(f"count_over_time(({gone})[1m:1s]) > 8"), "eight seconds", 90)
    cluster.start("prod-1")
    tuned = 'max_over_time(cache_tuning_version{namespace="staging",cache="shop"}[1m]) == 2'
    wait_until(lambda: cluster.ask(tuned), "staging's tuning", 60)
    wait_until(lambda: cluster.ask('count(cache_build_info{namespace="prod"}) == 6'), "three", 60)
    assert cluster.firing() == set()

    # A replica of our Redis stops: a warning that names it, and no cache misses it.
    cluster.stop("replica")
    down = {("CacheRedisDown", "warning", "data", where["replica"])}
    wait_until(lambda: cluster.firing() == down, "the warning on the replica", 60)
    cluster.start("replica")
    wait_until(lambda: cluster.firing() == set(), "its end", 60)

    # The primary stops: critical for prod's two caches, and what follows is silenced there.
    cluster.stop("primary")
    lost = {("CacheRedisDown", "critical", "prod", cache) for cache in ("shop", "faq")}
    wait_until(lambda: cluster.firing(',alertname="CacheRedisDown"') == lost, "lost Redis", 60)
    follows = {(name, "prod") for name in FOLLOWING}
    wait_until(lambda: follows <= cluster.suppressed(), "what follows is silenced", 90)
    cluster.start("primary")
    back = ',alertname="CacheRedisDown"'
    wait_until(lambda: cluster.firing(back) == set(), "Redis is back", 90)

    # All of prod's agents stop, while staging's, of the same job and caches, goes on.
    cluster.stop("prod-0", "prod-1", "prod-2")
    silent = {("CacheNoData", "critical", "prod", cache) for cache in ("shop", "faq")}
    wait_until(lambda: cluster.firing(',alertname="CacheNoData"') == silent, "silence", 90)

    told = [
        (alert["labels"]["alertname"], alert["labels"].get("namespace"))
        for status, alert in webhook.received
        if status == "firing" and alert["labels"]["severity"] in {"critical", "warning"}
    ]
    assert set(told) <= {("CacheRedisDown", "data"), ("CacheRedisDown", "prod"),
                         ("CacheNoData", "prod")}  # fmt: skip
