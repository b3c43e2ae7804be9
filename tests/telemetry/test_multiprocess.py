"""Several worker processes, one figure: Prometheus multiprocess mode in real uvicorn and gunicorn."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from telemetry import names
from tests.support import processes, servers

APP = """
import os
from fastapi import FastAPI
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder
from telemetry import asgi_app

cache = MultiLevelCache(namespace="many", embedding_model=HashEmbedder())
app = FastAPI()
app.mount("/ops", asgi_app(cache))

@app.get("/ask")
async def ask(message: str):
    answer = await cache.get_multilevel(message, "ann")
    if answer is None:
        await cache.put(message, "ann", "yes")
    return {"worker": os.getpid(), "hit": answer is not None}

@app.get("/close")
async def close():
    await cache.close()
    return {"worker": os.getpid()}
"""

UVICORN = ["-m", "uvicorn", "app:app", "--workers", "2", "--log-level", "warning"]
GUNICORN = ["-m", "gunicorn", "app:app", "-k", "asgi", "--workers", "2", "--log-level", "warning"]


@contextlib.contextmanager
def workers(
    directory: Path, command: list[str], port: int, redis_url: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the application in two workers that share a multiprocess directory."""
    (directory / "app.py").write_text(APP)
    shared = directory / "prometheus"
    shared.mkdir()
    bind = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in command else ["--port", str(port)]
    environment = {
        **os.environ, **processes.ENVIRONMENT,
        "PROMETHEUS_MULTIPROC_DIR": str(shared),
        "REDIS_URL": redis_url,
        "CACHE_TIERS": "l1,l3,l4",
        "CACHE_DIR": str(directory / "cache"),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *command, *bind], cwd=directory, env=environment, start_new_session=True
    )
    try:
        servers.wait_for_port(port, process, 60)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


class Scraped:
    """Values of one scrape."""

    def __init__(self, url: str) -> None:
        answer = httpx.get(f"{url}/ops/metrics", timeout=10)
        assert answer.status_code == 200, answer.text
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(answer.text)
        }

    def value(self, metric: names.Metric, *labels: str, suffix: str = "") -> float | None:
        wanted = {"cache": "many", **dict(zip(metric.labels, labels, strict=True))}
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == metric.name + suffix and sample.labels == wanted
        ]
        assert len(found) <= 1, f"{metric.name} is there {len(found)} times"
        return found[0] if found else None


def ask_both(url: str, questions: int) -> dict[int, int]:
    """Ask over new connections until both workers have answered; return how often each did."""
    asked: dict[int, int] = {}
    deadline = time.monotonic() + 60
    while len(asked) < 2 or sum(asked.values()) < questions:
        number = sum(asked.values())
        answer = httpx.get(f"{url}/ask", params={"message": f"question {number}"}, timeout=20)
        worker = answer.json()["worker"]
        asked[worker] = asked.get(worker, 0) + 1
        assert time.monotonic() < deadline, f"only {asked} answered"
    return asked


Expected = Sequence[tuple[names.Metric, tuple[str, ...], str, float]]


def scraped_until(url: str, expected: Expected) -> Scraped:
    """Scrape until every sample has its expected value.

    Workers write once a second, one file after the other, so one scrape may see some of a
    worker's counters before and some after its write: no counter vouches for another.
    """
    deadline = time.monotonic() + 20
    while True:
        found = Scraped(url)
        seen = [found.value(metric, *labels, suffix=end) for metric, labels, end, _ in expected]
        if seen == [pytest.approx(value) for *_, value in expected]:
            return found
        assert time.monotonic() < deadline, list(zip(expected, seen, strict=True))
        time.sleep(0.2)


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
def test_two_workers_are_one_service(command: list[str], empty_redis: str, tmp_path: Path) -> None:
    """Counters are sums, gauges make sense, and what a dead worker knew of itself is gone."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    before = time.time()
    with workers(tmp_path, command, port, empty_redis):
        asked = ask_both(url, 40)
        total = sum(asked.values())

        found = scraped_until(
            url,
            [
                (names.LOOKUPS, ("miss",), "", total),
                (names.MISSES, ("l1",), "", total),
                (names.HITS, ("l1",), "", 0),
                (names.PUTS, ("l1", "stored"), "", total),
                (names.LOOKUP_SECONDS, ("miss",), "_count", total),
            ],
        )
        assert found.value(names.BACKEND_UP, "redis") == 1
        assert found.value(names.BREAKER_STATE, "redis") == 0
        assert found.value(names.SEMANTIC_THRESHOLD) == 0.95
        assert found.value(names.TTL_SECONDS, "l1") == 3_600
        assert found.value(names.HIT_RATE_OBJECTIVE) == 0.6
        assert found.value(names.TUNING_VERSION) == 0
        assert found.value(names.INVALIDATIONS_PENDING) == 0
        started = found.value(names.START_TIME)
        assert started is not None
        assert before - 1 <= started <= time.time() + 1
        from cache_core import __version__

        assert found.value(names.BUILD_INFO, __version__) == 1

        # Hits save money; the net of both workers is one figure.
        for number in range(20):
            httpx.get(f"{url}/ask", params={"message": f"question {number}"}, timeout=20)
        scraped_until(
            url,
            [
                (names.HITS, ("l1",), "", 20),
                (names.SAVED, ("l1",), "", 20 * 0.036),
                (names.COST_SAVED, (), "", 20 * 0.036),
            ],
        )

        # One worker dies. What it counted stays; its gauges no longer speak.
        victim = min(asked)
        os.kill(victim, signal.SIGKILL)
        shared = tmp_path / "prometheus"
        deadline = time.monotonic() + 30
        while list(shared.glob(f"gauge_live*_{victim}.db")):
            assert time.monotonic() < deadline, "its gauges stay"
            with contextlib.suppress(httpx.HTTPError):
                Scraped(url)
            time.sleep(0.2)
        found = Scraped(url)
        assert found.value(names.HITS, "l1") == 20
        assert found.value(names.COST_SAVED) == pytest.approx(20 * 0.036)
        assert found.value(names.BACKEND_UP, "redis") == 1


def test_a_worker_that_ends_well_has_counted_everything(empty_redis: str, tmp_path: Path) -> None:
    """Counts of the last second before `close` are in the files."""
    code = """
import asyncio, json
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder
from telemetry import names, scraped_registry

async def main():
    async with MultiLevelCache(namespace="many", embedding_model=HashEmbedder()) as cache:
        for number in range(7):
            await cache.lookup(f"question {number}", "ann")
    found = scraped_registry()
    print(json.dumps({
        "lookups": found.get_sample_value("cache_lookups_total", {"cache": "many", "outcome": "miss"}),
        "up": found.get_sample_value("cache_backend_up", {"cache": "many", "backend": "redis"}),
    }))

asyncio.run(main())
"""
    shared = tmp_path / "shared"
    shared.mkdir()
    printed = processes.run(
        code, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(shared), REDIS_URL=empty_redis
    )
    # A closed cache has no backend; this mode cannot take a value back, only lower it.
    assert json.loads(printed) == {"lookups": 7.0, "up": 0.0}


REFUSED = """
import os, sys
{before}
from prometheus_client import Counter
{after}
from cache_core.model.exceptions import ConfigurationError
from telemetry import asgi_app, serve_metrics
for make in (asgi_app, lambda: serve_metrics(0)):
    try:
        make()
    except ConfigurationError as error:
        print(error)
"""


@pytest.mark.slow
def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    """A directory that is not there, or named too late, is an error that says what to do."""
    missing = str(tmp_path / "missing")
    setting = f"os.environ['PROMETHEUS_MULTIPROC_DIR'] = {missing!r}"
    absent = processes.run(REFUSED.format(before=setting, after=""), tmp_path).splitlines()
    assert len(absent) == 2
    assert all(missing in line and "make an empty one" in line for line in absent)
    late = processes.run(REFUSED.format(before="", after=setting), tmp_path).splitlines()
    assert len(late) == 2
    assert all("was set after" in line for line in late)


@pytest.mark.slow
def test_without_the_directory_the_cache_works_unseen(tmp_path: Path) -> None:
    """A cache in a worker with a wrong directory answers; one line in the log says why."""
    code = """
import asyncio, logging
logging.basicConfig(format="%(message)s", force=True, stream=__import__("sys").stdout)
from cache_core import MultiLevelCache
from cache_core.testing import HashEmbedder

async def main():
    async with MultiLevelCache(embedding_model=HashEmbedder()) as cache:
        await cache.put("is it raining", "ann", "yes")
        print(await cache.get_multilevel("is it raining", "ann"))

asyncio.run(main())
"""
    missing = str(tmp_path / "missing")
    told = processes.run(code, tmp_path, PROMETHEUS_MULTIPROC_DIR=missing).splitlines()
    assert "yes" in told
    (line,) = (line for line in told if "metrics are off" in line)
    assert "PROMETHEUS_MULTIPROC_DIR" in line
    assert "make an empty one" in line


def test_every_gauge_says_how_workers_become_one() -> None:
    """Each gauge has a mode, and the modes that need `set` are on gauges that are only set."""
    modes = {metric.name: metric.workers for metric in names.METRICS if metric.kind == "gauge"}
    assert modes == {
        "cache_cost_saved_usd": "sum",
        "cache_invalidations_pending": "livesum",
        "cache_backend_up": "livemin",
        "cache_redis_server": "livemax",
        "cache_event_loop_lag_seconds": "livemax",
        "cache_breaker_state": "livemax",
        "cache_entries": "livemax",
        "cache_semantic_threshold": "livemostrecent",
        "cache_ttl_seconds": "livemostrecent",
        "cache_hit_rate_objective": "livemostrecent",
        "cache_tuning_version": "livemin",
        "cache_start_time_seconds": "livemin",
        "cache_build_info": "livemax",
    }
