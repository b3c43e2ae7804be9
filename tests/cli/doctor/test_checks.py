"""Checks of the doctor on facts: servers and monitoring that a test cannot have."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache_core.backends.redis.examine import ServerFacts, commands
from cache_core.cli.doctor.finding import CHECKS, LEVELS, Finding
from cache_core.cli.doctor.monitoring import (
    Prometheus,
    check_dashboards,
    check_prometheus,
    check_receiver,
    shipped_rules,
)
from cache_core.cli.doctor.parts import Disk, Semantic, check_disk, check_semantic, check_settings
from cache_core.cli.doctor.servers import NAMES, Use, check_redis
from cache_core.cli.doctor.traffic import check_traffic
from cache_core.cli.doctor.troubles import Room, check_memory
from cache_core.config.settings import Settings
from cache_core.config.tuning import Tuning
from cache_core.model.exceptions import BackendError
from cache_core.observability.fleet import InForce, parse
from tests.support import servers
from tests.support.paths import ROOT

USE = Use("redis://cache:secret@127.0.0.1/0", "gc1", 0.05, replicas=2)
INFO: dict[str, Any] = {
    "redis_version": "7.2.4", "role": "master", "connected_slaves": 1, "used_memory": 1_000_000,
    "maxmemory": 10_000_000, "maxmemory_policy": "allkeys-lru", "aof_enabled": 1,
    "connected_clients": 12, "maxclients": 10_000, "uptime_in_seconds": 86_400,
}  # fmt: skip
GOOD = ServerFacts("127.0.0.1:6379", INFO, {}, round_trip=0.0002, skew=0.1)


def on(server: ServerFacts, use: Use = USE, *more: ServerFacts) -> dict[str, Finding]:
    """Return the findings on a Redis of these servers, by name."""
    return {item.name: item for item in check_redis(use, [server, *more])}


def informed(**info: Any) -> ServerFacts:
    return replace(GOOD, info={**INFO, **info})


def test_a_good_redis_has_nothing_worse_than_a_note() -> None:
    """The append-only file, whose fsync the user may not read, is noted."""
    levels = {name: item.level for name, item in on(GOOD).items()}
    assert levels.pop("redis-persistence") == "note"
    assert set(levels.values()) == {"ok"}
    assert set(levels) | {"redis-persistence"} == {
        name for name, check in CHECKS.items() if check.subject == "Redis"
    }


@pytest.mark.parametrize(
    ("server", "name", "level", "said"),
    [
        (informed(redis_version="4.0.9"), "redis-version", "failure", "4.0.9; 5.0 or later"),
        (replace(GOOD, skew=-90.0), "clock", "warning", "1.5 min behind"),
        (replace(GOOD, skew=5.0), "clock", "note", "5 s ahead"),
        (replace(GOOD, round_trip=0.03), "redis-latency", "warning", "30.0 ms"),
        (replace(GOOD, uncovered=5_461), "redis-topology", "failure", "5,461 slots"),
        (replace(GOOD, down="ConnectionError"), "redis-topology", "failure", "ConnectionError"),
        (informed(connected_clients=9_000), "redis-connections", "warning", "9,000 of 10,000"),
        (informed(rejected_connections=3), "redis-connections", "note", "3 were rejected"),
        (informed(aof_enabled=0, rdb_saves=0), "redis-persistence", "note", "nothing is kept"),
        (informed(aof_enabled=0), "redis-persistence", "note", "not known"),
        (replace(GOOD, config={"appendfsync": "no"}), "redis-persistence", "note", "30 s"),
        (informed(rdb_last_bgsave_status="err"), "redis-persistence", "failure", "disk"),
        (informed(maxmemory_policy="noeviction", used_memory=9_500_000), "redis-memory", "warning", "9.5 MB of 10 MB"),
    ],
)  # fmt: skip
def test_a_redis_in_trouble(server: ServerFacts, name: str, level: str, said: str) -> None:
    """Each trouble has its finding, and the others stay as they were."""
    found = on(server)
    assert found[name].level == level
    assert said in found[name].found
    assert found[name].fix


def test_a_cluster_without_a_master_that_answers() -> None:
    """Every check has a finding: what no master could say is skipped."""
    found = on(ServerFacts("a:1", down="x"))
    assert {"redis-reachable", *NAMES} == set(found)
    assert found["redis-topology"].level == "failure"
    assert found["redis-memory"].level == "skipped"


def test_the_worst_master_of_a_cluster_counts() -> None:
    """Its finding names it; the others' are dropped."""
    full = replace(informed(maxmemory=0), address="10.0.0.2:6379")
    found = on(GOOD, USE, full)
    assert found["redis-memory"].found.startswith("10.0.0.2:6379: ")
    assert found["redis-reachable"].found.endswith("2 masters")


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("redis://u:p@cache.example.com/0", "warning"),
        ("redis://u:p@8.8.8.8/0", "warning"),
        ("redis://u:p@10.0.0.7/0", "note"),
        ("redis://u:p@redis:6379/0", "note"),
        ("rediss://u:p@cache.example.com/0", "ok"),
        ("rediss://u:p@cache.example.com/0?ssl_cert_reqs=none", "warning"),
        ("rediss://u:p@cache.example.com/0?ssl_check_hostname=False&db=1", "warning"),
        ("redis+sentinel://u:p@s1.example.com,s2.example.com/mymaster/0", "warning"),
        ("unix:///run/redis.sock", "ok"),
    ],
)
def test_a_connection_that_can_be_read(url: str, level: str) -> None:
    """Without TLS only this machine is safe, and a private network is a note."""
    assert on(GOOD, replace(USE, url=url))["redis-tls"].level == level


def test_vectors_that_redis_may_evict() -> None:
    """A vector set is one key, so that eviction takes all of its context."""
    assert on(GOOD, replace(USE, vectors=True))["redis-eviction"].level == "note"


def test_the_examined_commands_are_those_of_the_shipped_user() -> None:
    """Every right in compose/redis.acl is tried, and nothing else."""
    (line,) = [row for row in servers.ACL.read_text().splitlines() if "user glasscache " in row]
    rights = {right[1:] for right in line.split() if right.startswith("+")}
    tried = {*commands("key", clustered=True), "watch", "multi", "exec"}
    assert tried == rights


def test_a_redis_too_small_for_its_ttls() -> None:
    """More evictions than expirations are the trouble of memory; a few are none."""
    small = informed(evicted_keys=90_000, expired_keys=10_000)
    found = check_memory(Room((small,)))
    assert found.level == "warning"
    assert "90,000 keys were evicted in 1 d" in found.found
    assert check_memory(Room((informed(evicted_keys=10, expired_keys=10_000),))).level == "ok"
    assert check_memory(Room(used=95, limit=100)).level == "note"
    assert check_memory(Room((replace(GOOD, info={}),))).level == "skipped"


# ------------------------------------------------------------------------ parts, traffic


def test_a_disk_without_room(tmp_path: Path) -> None:
    """Too little for the embedded store's limit warns, next to nothing fails."""
    settings = Settings(dir=tmp_path)
    levels = [
        check_disk(settings, Disk(tmp_path, "", free)).level for free in (10**7, 10**9, 10**10)
    ]
    assert levels == ["failure", "warning", "ok"]
    full = settings.max_bytes - 10**6
    assert check_disk(settings, Disk(tmp_path, "", 10**9), full).level == "ok"
    assert check_disk(settings, Disk(tmp_path, "", 10**7), full).level == "failure"


def test_a_secret_that_only_redis_has(tmp_path: Path) -> None:
    """CACHE_KEY is asked for where a Redis is shared."""
    (_, with_redis) = check_settings(Settings(dir=tmp_path, redis_url="redis://h"), (), {})
    (_, embedded) = check_settings(Settings(dir=tmp_path), (), {})
    assert (with_redis.level, embedded.level) == ("note", "ok")


@pytest.mark.parametrize(
    ("semantic", "name", "level"),
    [
        (Semantic(index="chroma", replicas=3, embedding=0.01), "vectors", "note"),
        (Semantic(index="chroma", redis_version="8.2.1", embedding=0.01), "vectors", "note"),
        (Semantic(index="vectors", embedding=0.2), "embedding-time", "warning"),
        (Semantic(index="vectors", embedding=0.9), "embedding-time", "failure"),
        (Semantic(index="vectors", embedding_error=BackendError("timeout")), "model", "failure"),
    ],
)
def test_a_semantic_tier_in_trouble(
    semantic: Semantic, name: str, level: str, tmp_path: Path
) -> None:
    """The index and the model have a finding each, and so has the time."""
    found = {item.name: item for item in check_semantic(Settings(dir=tmp_path), semantic)}
    assert set(found) == {"vectors", "model", "embedding-time"}
    assert found[name].level == level


def test_replicas_that_disagree_or_fail() -> None:
    """Different values are a warning, a backend that is down a failure."""
    beat = '{"replica": "r1", "backends": {"redis": true, "chroma": false}, "loading": []}'
    replica = parse(beat, 0)
    assert replica is not None
    (broken, *_) = check_traffic(InForce(Tuning(), {}, frozenset(), (replica,)), ())
    assert (broken.level, broken.found) == ("failure", "chroma down on r1")
    well = replace(replica, backends={"redis": True})
    (differing, *_) = check_traffic(InForce(Tuning(), {}, frozenset({"l1_ttl"}), (well, well)), ())
    assert differing.level == "warning"


# ----------------------------------------------------------------------------- monitoring


def test_replicas_that_are_not_all_scraped() -> None:
    """Fewer targets than replicas may be workers of one server; none is a warning."""
    levels = []
    for scraped in (0, 1, 4):
        (found, _) = check_prometheus(Prometheus(scraped), "shop", 4)
        levels.append(found.level)
    assert levels == ["warning", "note", "ok"]


def test_rules_that_are_missing_or_fail() -> None:
    """The report says what nothing watches; a rule that cannot be evaluated fails."""
    rules = dict.fromkeys(shipped_rules(), "")
    levels = []
    without = {name: "" for name in rules if "Redis" not in name}
    for loaded in (rules, without, {**rules, "CacheRedisDown": "parse error"}):
        _, found = check_prometheus(Prometheus(2, loaded, (), 1), "shop", 2)
        levels.append(found.level)
        if loaded is without:
            assert "nothing watches an unavailable Redis, Redis' memory" in found.found
    assert levels == ["ok", "warning", "failure"]
    _, firing = check_prometheus(Prometheus(2, rules, ("CacheNoData", "Other"), 1), "shop", 2)
    assert firing.found.endswith("firing: CacheNoData")


def test_alerts_that_nobody_gets() -> None:
    """No Alertmanager, a receiver without an address, and the shipped example addresses."""
    prometheus = Prometheus(1, {}, (), 1)
    example = (ROOT / "alerts" / "alertmanager.yml").read_text(encoding="utf-8")
    assert check_receiver(Prometheus(), None).level == "warning"
    assert check_receiver(prometheus, "receivers:\n- name: nobody\n").level == "warning"
    assert "example.com" in check_receiver(prometheus, example).found
    assert check_receiver(prometheus, None).level == "skipped"


def test_dashboards_that_are_missing() -> None:
    """The missing ones are named; all four are enough."""
    every = {path.stem for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    assert check_dashboards(every).level == "ok"
    assert "glasscache-stores" in check_dashboards(every - {"glasscache-stores"}).found
    assert check_dashboards(BackendError("backend_error", "", "401")).level == "failure"


# ------------------------------------------------------------------------- imports, page


def test_the_command_needs_no_extra() -> None:
    """Other commands import nothing of it, and it imports neither numpy nor Chroma itself."""
    code = """
import sys
import cache_core.cli.app
print("cache_core.cli.doctor.gather" in sys.modules)
import cache_core.cli.doctor.examination
print(sorted({"numpy", "chromadb", "onnxruntime", "tokenizers", "httpx"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.split("\n")[:2] == ["False", "[]"]


def test_the_documented_table_is_the_code() -> None:
    """docs/doctor.md has every check with its words, in order, and every level."""
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    wanted = [f"| `{name}` | {check.what} | {check.why} |" for name, check in CHECKS.items()]
    assert [row for row in rows if row.count("|") == 4] == wanted
    named = [row.split("`")[1] for row in rows]
    assert [name for name in named if name in LEVELS] == list(LEVELS)
