"""`glasscache doctor` on a good set-up and on broken ones, with real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from cache_core.backends.redis import examine
from cache_core.cli import console
from cache_core.cli.app import app
from cache_core.cli.doctor.finding import CHECKS
from cache_core.cli.doctor.monitoring import ask_prometheus, check_prometheus
from cache_core.model.exceptions import BackendError
from cache_core.testing import ChaosProxy
from tests.support import servers
from tests.support.paths import ROOT
from tests.support.patience import PATIENT
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give it time, as a busy machine must not turn into a finding; without L2 it loads no model."""
    for name, seconds in PATIENT.items():
        monkeypatch.setenv(f"CACHE_{name.upper()}", str(seconds))
    monkeypatch.setenv("CACHE_TIERS", "l1,l3,l4")
    for name in ("_SECONDS", "_PROBE_SECONDS"):
        monkeypatch.setattr(examine, name, 100.0)


def doctor(*arguments: str, exit_code: int | None = None) -> dict[str, dict[str, str]]:
    """Run the command; return its findings by name."""
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    assert result.exit_code in ({0, 1} if exit_code is None else {exit_code}), result.output
    findings = json.loads(result.stdout)["findings"]
    assert [item["name"] for item in findings] == list(CHECKS), "each check has one finding"
    failed = any(item["level"] == "failure" for item in findings)
    if "--strict" not in arguments:
        assert result.exit_code == int(failed)
    for item in findings:
        assert item["found"]
        assert bool(item["fix"]) == (item["level"] not in {"ok", "skipped"}), item
    return {item["name"]: item for item in findings}


def finding(name: str, level: str, *arguments: str) -> str:
    """Run the command; return the texts of a finding, which has this level."""
    found = doctor(*arguments)[name]
    assert found["level"] == level, found
    return f"{found['found']} {found['fix']}"


# --------------------------------------------------------------------------------- Redis


@contextlib.contextmanager
def configured(url: str, **values: str) -> Iterator[None]:
    """Change the server's configuration meanwhile."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    with servers.admin(url) as client:
        before = {name: client.config_get(name)[name] for name in names}
        for name, value in names.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                client.config_set(name, value)


@contextlib.contextmanager
def user(url: str, *rights: str) -> Iterator[str]:
    """Yield the URL for a user with other rights than the shipped one."""
    (own,) = re.findall(r"^user glasscache .*?(~gc1.*)$", servers.ACL.read_text(), re.MULTILINE)
    with servers.admin(url) as client:
        allowed = own.split()
        client.execute_command(
            "ACL", "SETUSER", "other", "reset", "on", ">secret", *allowed, *rights
        )
        try:
            yield servers.redis_url(servers.port_of(url), "other", "secret")
        finally:
            client.acl_deluser("other")


def test_a_wrong_password(empty_redis: str) -> None:
    """Redis counts as unreachable, by its password, and what hangs on it is not checked."""
    found = doctor("--redis-url", empty_redis.replace(servers.PASSWORD, "wrong"))
    reached = found["redis-reachable"]
    assert reached["level"] == "failure"
    assert "WRONGPASS" in reached["found"] or "username-password" in reached["found"]
    assert "password in --redis-url" in reached["fix"]
    assert found["redis-memory"]["level"] == found["memory"]["level"] == "skipped"
    assert found["hit-rate"]["found"] == "the store is not reached: see redis-reachable"


def test_a_user_that_lacks_commands(empty_redis: str) -> None:
    """Each missing command is named, with the rights to add, and nothing is executed."""
    with user(empty_redis, "-xadd", "-hset", "-watch") as url:
        text = finding("redis-commands", "failure", "--redis-url", url)
    assert "WATCH, HSET, XADD" in text
    assert "+watch +hset +xadd" in text


def test_a_user_without_transactions(empty_redis: str) -> None:
    """Without MULTI nothing else is tried, because it would be executed."""
    with user(empty_redis, "-multi", "-xadd", "+keys") as url:
        text = finding("redis-commands", "failure", "--redis-url", url)
        assert "may not run MULTI; what else" in text
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            assert not [key for key in client.keys("gc1:*") if b"doctor" in key]


def test_a_user_of_another_prefix(empty_redis: str) -> None:
    """Keys that the user may not use are one finding, not a list of all commands."""
    with user(empty_redis, "resetkeys", "~app:*") as url:
        text = finding("redis-commands", "failure", "--redis-url", url)
    assert "may not use the keys that begin with gc1:" in text
    assert "CACHE_PREFIX" in text


def test_an_administrators_login(empty_redis: str) -> None:
    """A user without a password, or with too many rights, is noted."""
    port = servers.port_of(empty_redis)
    assert "no password is needed" in finding(
        "redis-login", "note", "--redis-url", f"redis://127.0.0.1:{port}"
    )
    with user(empty_redis, "+@all") as url:
        assert "CONFIG" in finding("redis-login", "note", "--redis-url", url)


def test_a_redis_that_is_full_and_may_not_evict(empty_redis: str) -> None:
    """Memory fails, the policy is named, and the trouble has its cause."""
    with configured(empty_redis, maxmemory="1", maxmemory_policy="noeviction"):
        found = doctor("--redis-url", empty_redis, exit_code=1)
    assert found["redis-memory"]["level"] == "failure"
    assert found["redis-eviction"]["level"] == "warning"
    assert found["memory"]["level"] == "failure"
    assert "allkeys-lru" in found["memory"]["fix"]


def test_a_redis_without_a_limit(empty_redis: str) -> None:
    """It is a warning, which fails only a strict run; with a limit there is none."""
    found = doctor("--redis-url", empty_redis, "--strict", exit_code=1)
    assert found["redis-memory"]["level"] == "warning"
    with configured(empty_redis, maxmemory="64mb", maxmemory_policy="allkeys-lru"):
        doctor("--redis-url", empty_redis, "--strict", exit_code=0)


def test_what_restoring_brings_back(empty_redis: str) -> None:
    """Snapshots are a warning; an append-only file written with every command is none."""
    admin = f"redis://127.0.0.1:{servers.port_of(empty_redis)}/0"
    with configured(empty_redis, save="3600 1"):
        text = finding("redis-persistence", "warning", "--redis-url", admin)
        assert "brings back answers that were invalidated" in text
    with configured(empty_redis, appendonly="yes", appendfsync="always"):
        assert finding("redis-persistence", "ok", "--redis-url", admin)


def test_a_url_with_tls_and_a_server_without(
    empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mismatch is named, not the timeout that it causes."""
    monkeypatch.setenv("CACHE_PUT_BUDGET", "1")
    url = empty_redis.replace("redis://", "rediss://")
    text = finding("redis-reachable", "failure", "--redis-url", url)
    assert "answers without TLS" in text
    assert "Write redis://" in text


def test_a_replica(empty_redis: str) -> None:
    """A server that takes no writes is named with its master."""
    with servers.admin(empty_redis) as client:
        client.replicaof("127.0.0.1", 1)
        try:
            text = finding("redis-topology", "failure", "--redis-url", empty_redis)
        finally:
            client.replicaof("NO", "ONE")
    assert "a replica of 127.0.0.1:1, which it has lost" in text
    assert "redis+sentinel://" in text


@pytest.mark.server
def test_a_cluster_without_slots(tmp_path: Path) -> None:
    """A server that was never joined to a Cluster serves no key: all slots are uncovered."""
    with servers.redis_server(tmp_path, "--cluster-enabled", "yes") as url:
        assert "16,384 slots" in finding("redis-topology", "failure", "--redis-url", url)


async def test_a_redis_far_away(empty_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip longer than the budget of a call fails."""
    monkeypatch.setenv("CACHE_EXACT_BUDGET", "0.02")
    async with ChaosProxy("127.0.0.1", servers.port_of(empty_redis)) as proxy:
        proxy.latency = 0.05
        url = proxy.url(empty_redis)
        text = await asyncio.to_thread(finding, "redis-latency", "failure", "--redis-url", url)
    assert "a lookup waits 20 ms" in text


def test_a_server_that_is_not_there() -> None:
    """A rejected connection is reported, with the setting to correct."""
    url = f"redis://127.0.0.1:{servers.free_port()}"
    assert "--redis-url" in finding("redis-reachable", "failure", "--redis-url", url)


# ------------------------------------------------------------------------- settings, model


def test_variables_that_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt name is a warning, an invalid value a failure; others' names are theirs."""
    monkeypatch.setenv("CACHE_VOLUME", "of another program")
    monkeypatch.setenv("CACHE_SHARED_INTENT", "faq")
    text = finding("settings", "warning")
    assert "CACHE_SHARED_INTENT (did you mean CACHE_SHARED_INTENTS?)" in text
    assert "CACHE_VOLUME" not in text
    monkeypatch.setenv("CACHE_L1_TTL", "soon")
    assert "CACHE_L1_TTL='soon'" in finding("settings", "failure")


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """With the embedded store it fails; beside a Redis it would be a warning."""
    (tmp_path / "file").write_text("")
    text = finding("disk", "failure", "--dir", str(tmp_path / "file" / "cache"))
    assert "Not a directory" in text
    assert "CACHE_DIR" in text
    long = str(tmp_path / ("x" * 300))
    assert "File name too long" in finding("disk", "failure", "--dir", long)


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """It fails by the directory, and what hangs on it is not checked."""
    (tmp_path / "glasscache.db").mkdir()
    found = doctor("--dir", str(tmp_path), exit_code=1)
    assert "unable to open database file" in found["disk"]["found"]
    assert found["memory"]["found"] == "the store is not reached: see disk"


def test_a_misspelt_directory(tmp_path: Path) -> None:
    """A directory that did not exist is noted, as are values that nobody chose."""
    found = doctor("--dir", str(tmp_path / "typo"))
    assert "did not exist" in found["disk"]["found"]
    assert {found[name]["level"] for name in ("disk", "ttls", "threshold")} == {"note"}


def test_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model fails with its reason, and L2's trouble names it."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l2")
    monkeypatch.setenv("EMBEDDING_BACKEND", "onnx")
    monkeypatch.setenv("EMBEDDING_MODEL", "nobodys-model")
    found = doctor(exit_code=1)
    assert found["model"]["level"] == "failure"
    assert "nobodys-model" in found["model"]["found"]
    assert found["embedding-time"]["level"] == "skipped"
    assert found["l2-never-hits"]["found"] == "L2 cannot answer: see model"


@pytest.mark.slow
@pytest.mark.usefixtures("real_embedder")
def test_a_chroma_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors fail, and so does L2."""
    monkeypatch.setenv("CACHE_TIERS", "l1,l2")
    found = doctor("--chroma-url", f"http://127.0.0.1:{servers.free_port()}", exit_code=1)
    assert found["vectors"]["level"] == "failure"
    assert found["model"]["level"] == "ok"
    assert found["l2-never-hits"]["found"] == "L2 cannot answer: see vectors"


def test_values_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold that is too low, and a TTL without an end, are warnings."""
    monkeypatch.setenv("SEMANTIC_THRESHOLD", "0.6")
    monkeypatch.setenv("CACHE_L1_TTL", "30d")
    found = doctor()
    assert found["threshold"]["level"] == found["ttls"]["level"] == "warning"
    assert "0.6 is low" in found["threshold"]["found"]
    assert "answers hardly ever expire" in found["ttls"]["found"]


# ----------------------------------------------------------------------------- monitoring

AGENT = """
import asyncio, sys
from cache_core import MultiLevelCache
from telemetry import serve_metrics

ASKED = ["How long does delivery take?", "Can I return a bicycle?"]
SIMILAR = "How long does the delivery take?"

async def main(port):
    async with MultiLevelCache(namespace="shop", sharing="all") as cache:
        await cache.ready()
        for number in range(80):
            message = SIMILAR if number % 10 == 9 else ASKED[number % 2]
            if (await cache.lookup(message, "ann")).response is None:
                await cache.put(message, "ann", "Three days.", "faq", [{"id": "doc"}])
        serve_metrics(int(port))
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.contextmanager
def agent(**environment: str) -> Iterator[int]:
    """Yield the port of the metrics of an agent that has answered its users."""
    port = servers.free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(port)], stdout=subprocess.PIPE, text=True,
        cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def monitoring(directory: Path, target: int) -> Iterator[tuple[str, str]]:
    """Yield the URLs of a Prometheus with the shipped rules, and of its Alertmanager."""
    ports = [servers.free_port(), servers.free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    receivers = [{"name": "team", "webhook_configs": [{"url": "http://127.0.0.1:9/"}]}]
    places: list[dict[str, Any]] = [
        {"targets": [f"127.0.0.1:{port}"]} for port in (target, ports[1])
    ]
    configs = {
        "prometheus": {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "rule_files": [str(ROOT / "alerts" / name) for name in ("rules.yml", "recording.yml")],
            "alerting": {"alertmanagers": [{"static_configs": places[1:]}]},
            "scrape_configs": [{"job_name": "agent", "static_configs": places[:1]}],
        },
        "alertmanager": {"route": {"receiver": "team"}, "receivers": receivers},
    }
    for name, config in configs.items():
        (directory / f"{name}.yml").write_text(json.dumps(config))  # JSON is YAML
    commands = [
        [servers.require("prometheus"), f"--config.file={directory / 'prometheus.yml'}",
         f"--storage.tsdb.path={directory / 'tsdb'}", f"--web.listen-address=127.0.0.1:{ports[0]}"],
        [servers.require("prometheus-alertmanager"),
         f"--config.file={directory / 'alertmanager.yml'}", "--cluster.listen-address=",
         f"--storage.path={directory / 'am'}", f"--web.listen-address=127.0.0.1:{ports[1]}"],
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for command, port in zip(commands, ports, strict=True):
            stack.enter_context(servers.running(command, port))
        wait_until(lambda: _is_scraped(urls[0]), "Prometheus has scraped the agent", seconds=90)
        yield urls[0], urls[1]


def _is_scraped(url: str) -> bool:
    try:
        found = ask_prometheus(url, "shop")
    except BackendError:
        return False
    return bool(found.scraped and found.alertmanagers)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("real_embedder")
def test_a_good_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a failure nor a warning: a strict run passes, and everything was checked."""
    chosen = {"CACHE_KEY": "a key of the tests", "CACHE_L1_TTL": "2h", "SEMANTIC_THRESHOLD": "0.94"}
    for name, value in {**chosen, "CACHE_TIERS": "l1,l2,l3,l4"}.items():
        monkeypatch.setenv(name, value)
    memory = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "yes")
    with servers.redis_server(tmp_path, *memory) as url:
        monkeypatch.setenv("REDIS_URL", url)
        with agent() as port, monitoring(tmp_path, port) as (prometheus, alertmanager):
            where = ("--prometheus", prometheus, "--alertmanager", alertmanager)
            found = doctor("--namespace", "shop", "--strict", *where, exit_code=0)
            other = list(check_prometheus(ask_prometheus(prometheus, "elsewhere"), "elsewhere", 0))
    levels = {name: item["level"] for name, item in found.items()}
    assert {name for name, level in levels.items() if level == "skipped"} == {"dashboards"}
    noted = {"redis-persistence": "append-only file", "vectors": ""}
    for name, level in levels.items():
        assert level in {"ok", "skipped"} or name in noted, found[name]
    assert "1 replica alive" in found["replicas"]["found"]
    assert found["metrics"]["found"] == "1 of 1 running replicas of 'shop' are scraped"
    assert "rules are loaded" in found["alert-rules"]["found"]
    assert "L2 answered" in found["l2-never-hits"]["found"]
    assert [item.level for item in other] == ["warning", "ok"]


def test_a_prometheus_that_is_not_there() -> None:
    """It fails, because it was named; the URL is shown without its password."""
    url = f"http://ann:secret@127.0.0.1:{servers.free_port()}"
    text = finding("metrics", "failure", "--prometheus", url)
    assert "cannot be asked" in text
    assert "secret" not in text


# ------------------------------------------------------------------------------- report


def test_the_report_fits_a_terminal_of_60_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finding is shown whole, with why and how; the page shows a real part of it."""
    port = servers.free_port()
    monkeypatch.setattr(console.out, "width", 60)
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert max(map(len, result.stdout.splitlines())) <= 60
    printed = " ".join(result.stdout.split())
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert " ".join(sample.split()).replace("6379", str(port)) in printed
    assert "1 failure (redis-reachable)" in printed
