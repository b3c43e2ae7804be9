"""A shop's customers in front of a real cache, and the servers around it, to take pictures of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from cache_core import MultiLevelCache, Settings
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.cli.demo.agent import Agent, SimulatedLLM
from cache_core.cli.demo.shop import load_knowledge
from cache_core.cli.demo.stack import ALERTMANAGER, free_port
from cache_core.cli.demo.traffic import Request, Traffic
from cache_core.cli.demo.truth import Truth

NAMESPACE = "shop"
RULES = Path(__file__).parents[2] / "alerts" / "rules.yml"
TWO_DAYS = 2 * 86_400.0
LOOKUPS = 7_000
KEPT = 5_000
CHANGES = (
    (0.5, {"semantic_threshold": 0.95}, "ada", "no wrong hit in 300 reviews down to 0.95"),
    (0.8, {"l1_ttl": 21_600.0}, "ben", "answers about orders change a few times a day"),
)
"""After which part of the time, what, by whom, why."""

LIVE_PER_SECOND = 4.0
_BUDGETS = ("exact", "embedding", "search", "lookup", "put")
PATIENT = {"hedge_delay": 30.0, **{f"{name}_budget": 30.0 for name in _BUDGETS}}


class FastClock:
    """Runs ahead through the last two days, then is the machine's clock."""

    def __init__(self) -> None:
        self.now: float | None = time.time() - TWO_DAYS

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time() if self.now is None else self.now


class Shop:
    """Customers, their agent, and who judges the answers.

    Args:
        cache: In front of the agent.
    """

    def __init__(self, cache: MultiLevelCache) -> None:
        knowledge = load_knowledge()
        self._agent = Agent(cache, SimulatedLLM(knowledge, 1, 1e6), share_documents=True)
        self._requests: Iterator[Request] = iter(Traffic(knowledge, 11))
        self._knowledge = knowledge
        self._truth = Truth(cache)

    def messages(self, count: int) -> list[str]:
        """Return what the first *count* customers will ask."""
        requests = islice(Traffic(self._knowledge, 11), count)
        return sorted({item.message for item in requests if not item.history})

    async def serve(self) -> None:
        """Answer one customer."""
        request = next(self._requests)
        await self._truth.add(await self._agent.answer(request))

    async def judge(self) -> None:
        """Judge the newest: what was served, and what nearly was, as in a review."""
        await self._truth.judge()


async def play(
    directory: Path, embedder: ThreadEmbedder, live: threading.Event, end: threading.Event
) -> None:
    """Let two days pass, then serve in real time until *end*."""
    again = directory.is_dir()
    clock = FastClock()
    if again:
        clock.now = None
    settings = Settings(
        dir=directory, capture_message_content=True, decisions=KEPT, redis_url=None, **PATIENT
    )
    known = load_knowledge().public_intents
    cache = MultiLevelCache(
        namespace=NAMESPACE, settings=settings, embedding_model=embedder, clock=clock,
        semantic_threshold=0.97, sharing="intents",
        shared_intents=[name for name in known if name not in known[-2:]], instruments=(),
    )  # fmt: skip
    async with cache:
        await cache.ready()
        shop = Shop(cache)
        if not again:
            await embedder.embed_all(shop.messages(LOOKUPS), lambda _: None)
        began = clock.now or 0.0
        waiting = list(CHANGES)
        for number in range(0 if again else LOOKUPS):
            part = number / LOOKUPS
            clock.now = began + TWO_DAYS * _hour(part)
            if waiting and part >= waiting[0][0]:
                _, values, author, note = waiting.pop(0)
                await shop.judge()
                await cache.tune(values, author=author, note=note)
            await shop.serve()
            if number % 500 == 499:
                print(f"{number + 1:,} lookups", file=sys.stderr)
        if not again:
            await shop.judge()
        clock.now = None
        live.set()
        while not end.is_set():
            await shop.serve()
            await asyncio.sleep(1 / LIVE_PER_SECOND)


def _hour(part: float) -> float:
    """Return how much of the time has passed after a part of its lookups; nights are quiet."""
    return part + math.sin(2 * math.pi * part) / (2 * math.pi) * 0.6


@contextlib.contextmanager
def alertmanager(directory: Path) -> Iterator[str | None]:
    """Yield the URL of an Alertmanager that has one alert of the shipped rules."""
    if ALERTMANAGER.program is None:
        yield None
        return
    port = free_port()
    config = directory / "alertmanager.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n", encoding="utf-8")
    process = subprocess.Popen(
        [ALERTMANAGER.program, f"--config.file={config}", f"--storage.path={directory}/am",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    alerts = [_alert("CacheHitRateLow")]
    try:
        _until(lambda: _post(url + "/api/v2/alerts", alerts))
        yield url
    finally:
        process.kill()
        process.wait()


def _alert(name: str) -> dict[str, Any]:
    """Return an alert of the shipped rules, with what needs no figures."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rule = next(one for group in groups for one in group["rules"] if one["alert"] == name)
    labels = {"alertname": name, "job": "agent", "cache": NAMESPACE, **rule["labels"]}
    # The parts for labels that this shop has not.
    summary = re.sub(r"{{ with .*?}}.*?{{ end }}", "", rule["annotations"]["summary"])
    for label in ("job", "cache"):
        summary = summary.replace(f"{{{{ $labels.{label} }}}}", labels[label])
    runbook = rule["annotations"]["runbook_url"]
    return {"labels": labels, "annotations": {"summary": summary, "runbook_url": runbook}}


def _post(url: str, document: Any) -> bool:
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(done: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            sys.exit("a server did not start in time")
        time.sleep(0.1)


@contextlib.contextmanager
def dashboard(directory: Path, alerts: str | None) -> Iterator[tuple[str, str]]:
    """Yield the address of the dashboard, and its token."""
    port, token = free_port(), "for-these-pictures-only"
    environment = {
        **os.environ,
        "CACHE_DASHBOARD_TOKEN": token,
        "CACHE_DIR": str(directory),
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
        **({"ALERTMANAGER_URL": alerts} if alerts else {}),
    }
    for name in ("REDIS_URL", "CHROMA_URL"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("glasscache")), "dashboard", "--write", "--namespace",
         NAMESPACE, "--port", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(address))
        yield address, token
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address + "/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
