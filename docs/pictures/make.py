"""Makes the pictures of the dashboard: `python docs/pictures/make.py`, in a few minutes.

A day of the demo's customers in front of a real cache with the real model, the clock running ahead;
half of the answers are judged by what is true. Then customers go on in real time, Prometheus'
Alertmanager has an alert, `glasscache dashboard` runs on the same store, and a browser looks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from cache_core import MultiLevelCache, Settings
from cache_core.cli.stack import ALERTMANAGER, free_port
from cache_core.demo import load_knowledge
from cache_core.demo.agent import Agent, SimulatedLLM
from cache_core.demo.traffic import Request, Traffic
from cache_core.embedder import ThreadEmbedder

HERE = Path(__file__).parent
NAMESPACE = "shop"
DAY = 2 * 86_400.0
LOOKUPS = 7_000
KEPT = 5_000
CHANGES = (
    (0.5, {"semantic_threshold": 0.95}, "ada", "no wrong hit in 300 reviews down to 0.95"),
    (0.8, {"l1_ttl": 21_600.0}, "ben", "answers about orders change a few times a day"),
)
"""After which part of the day, what, by whom, why."""

QUESTION = "How long does delivery take?"
LIVE_PER_SECOND = 4.0
PATIENT = {
    name: 30.0
    for name in (
        "exact_budget", "embedding_budget", "search_budget", "lookup_budget", "put_budget",
        "hedge_delay",
    )
}  # fmt: skip


class DayClock:
    """Runs ahead through the last day, then is the machine's clock."""

    def __init__(self) -> None:
        self.now: float | None = time.time() - DAY

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
        self._cache = cache
        self._agent = Agent(cache, SimulatedLLM(knowledge, 1, 1e6), share_documents=True)
        self._requests: Iterator[Request] = iter(Traffic(knowledge, 11))
        self._knowledge = knowledge
        self._asked: list[tuple[Request, str]] = []
        self._random = Random(5)

    def messages(self, count: int) -> list[str]:
        """Return what the first *count* customers will ask."""
        requests = islice(Traffic(self._knowledge, 11), count)
        return sorted({item.message for item in requests if not item.history})

    async def serve(self) -> None:
        """Answer one customer."""
        request = next(self._requests)
        served = await self._agent.answer(request)
        self._asked.append((request, served.result.lookup_id))

    async def judge(self) -> None:
        """Judge the newest: what was served, at random; what nearly was, as in a review."""
        await self._cache.parts.decisions.flush()
        decisions = {
            item.lookup_id: item for item in await self._cache.decisions(len(self._asked) + 500)
        }
        truth: dict[str, str] = {}
        for request, lookup_id in self._asked:
            item = decisions.get(lookup_id)
            if item is None:
                continue
            if item.matched and item.matched != item.message and item.unvetoed is not None:
                hit = item.outcome == "hit"
                known = truth.get(item.matched)
                near = hit or item.unvetoed >= 0.6
                if known is not None and near and self._random.random() < 0.9:
                    await self._cache.judge(
                        item, correct=known == request.answer_id,
                        source="verify" if hit else "review",
                    )  # fmt: skip
            truth.setdefault(item.message, request.answer_id)
        self._asked = []


async def play(
    directory: Path, embedder: ThreadEmbedder, live: threading.Event, end: threading.Event
) -> None:
    """Let a day pass, then serve in real time until *end*."""
    again = directory.is_dir()
    clock = DayClock()
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
            clock.now = began + DAY * _hour(part)
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
    """Return how much of the day has passed after a part of its lookups: nights are quiet."""
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
    alerts = [
        {
            "labels": {"alertname": "CacheHitRateLow", "severity": "warning", "cache": NAMESPACE, "job": "agent"},
            "annotations": {
                "summary": f"Cache {NAMESPACE}: the hit rate is 52 %, below its objective of 60 %",
                "description": "Fewer lookups than wanted are answered from the cache for ten minutes.",
                "runbook_url": "https://example.com/runbooks/CacheHitRateLow",
            },
        }
    ]  # fmt: skip
    try:
        _until(lambda: _post(url + "/api/v2/alerts", alerts))
        yield url
    finally:
        process.kill()
        process.wait()


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


# ---------------------------------------------------------------------------------- the browser


def go(page: Page, title: str) -> None:
    """Open a page of the app, and wait until it is drawn."""
    narrow = page.get_by_test_id("stExpandSidebarButton")
    if narrow.is_visible():
        narrow.click()
    page.get_by_role("link", name=title, exact=True).first.click()
    expect(page.get_by_role("heading", name=title, level=1, exact=True)).to_be_visible(
        timeout=60_000
    )
    settle(page)


def settle(page: Page) -> None:
    """Wait until nothing is being drawn any more."""
    idle = ("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stApp")).to_have_attribute(*idle, timeout=60_000)
    page.wait_for_timeout(2_000)
    expect(page.get_by_test_id("stApp")).to_have_attribute(*idle, timeout=60_000)


def shoot(page: Page, path: Path) -> None:
    """Take a picture of the whole page, as long as it is."""
    page.mouse.move(2, 2)
    width = page.viewport_size["width"] if page.viewport_size else 1280
    height = page.evaluate(
        "() => { const m = document.querySelector('[data-testid=stMainBlockContainer]');"
        " return Math.ceil(m.getBoundingClientRect().height + 56) }"
    )
    page.set_viewport_size({"width": width, "height": max(700, height)})
    page.wait_for_timeout(1_200)
    page.screenshot(path=path)
    page.set_viewport_size({"width": width, "height": 1000})


def look(browser: Browser, address: str, token: str, width: int, theme: Any, into: Path) -> None:
    """Take a picture of every page."""
    context = browser.new_context(
        viewport={"width": width, "height": 1000}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(address)

    def name(what: str) -> Path:
        return into / f"dashboard-{what}-{theme}{'' if width > 500 else '-narrow'}.png"

    page.get_by_role("textbox", name="Your name").fill("ada")
    shoot(page, name("login"))
    page.get_by_role("textbox", name="Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible(timeout=60_000)
    page.get_by_text("All recorded").click()
    settle(page)
    shoot(page, name("overview"))

    go(page, "Tuning")
    if page.get_by_role("button", name="Try 0").is_enabled():
        page.get_by_role("button", name="Try 0").click()
    settle(page)
    shoot(page, name("tuning"))
    for tab in ("TTLs", "Sharing", "Single intents", "Everything else"):
        page.get_by_role("tab", name=tab).click()
        settle(page)
        shoot(page, name("tuning-" + tab.lower().replace(" ", "-")))

    go(page, "Review")
    if width > 500 and theme == "light":
        for key in "ssds":
            page.keyboard.press(key)
            page.wait_for_timeout(1_500)
    shoot(page, name("review"))

    go(page, "Entries")
    page.get_by_role("textbox", name="Message").first.fill(QUESTION)
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_text("Stored for this message")).to_be_visible(timeout=120_000)
    if width > 500 and theme == "light":
        page.get_by_role("textbox", name="Message").last.fill(QUESTION)
        page.get_by_role("button", name="How many?").click()
        expect(page.get_by_text("Would take")).to_be_visible(timeout=60_000)
    settle(page)
    shoot(page, name("entries"))
    if width > 500 and theme == "light":
        page.get_by_role("textbox", name="Why").fill("the carrier changed")
        page.get_by_role("button", name="Invalidate").click()
        expect(page.get_by_text("out of service on")).to_be_visible(timeout=60_000)

    go(page, "Alerts")
    shoot(page, name("alerts"))
    go(page, "Audit")
    shoot(page, name("audit"))
    context.close()


def main() -> None:
    """Play, look, end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=HERE, help="folder for the pictures")
    parser.add_argument("--data", type=Path, help="where the day is kept, and found again")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = options.data or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        live, end = threading.Event(), threading.Event()
        player = threading.Thread(
            target=lambda: asyncio.run(
                play(directory / "cache", ThreadEmbedder("all-MiniLM-L6-v2"), live, end)
            )
        )
        player.start()
        while not live.wait(1):
            if not player.is_alive():
                sys.exit("the customers never came")
        with (
            alertmanager(directory) as alerts,
            dashboard(directory / "cache", alerts) as (address, token),
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--headless=new"]
            )
            if os.environ.get("PICTURES_WAIT"):
                print(address, token, flush=True)
                end.wait(float(os.environ["PICTURES_WAIT"]))
            else:
                for width in (1280, 400):
                    for theme in ("light", "dark"):
                        look(browser, address, token, width, theme, options.into)
            browser.close()
        end.set()
        player.join()


if __name__ == "__main__":
    main()
