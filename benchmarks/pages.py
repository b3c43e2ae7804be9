"""Speed of the dashboard's pages on a long decision log, 30 days of history and many entries.

    python -m benchmarks.pages                     10,000 lookups, 20,000 answers, embedded store
    python -m benchmarks.pages --lookups 100000    a log ten times as long as the default
    python -m benchmarks.pages --redis             the same on a real redis-server

The cache puts the answers; vectors are random, and lookups are written into the log like an
agent's. The history has 30 days of two replicas, merged as a replica merges it. Then
`glasscache dashboard` is started, and every page is opened in a real browser: the first time,
when the log is unread, and again, the median of five. A page counts as loaded when its last
part is. At the end a threshold is changed, and pairs are judged by key.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from benchmarks.growth import StoredVectors, _word
from benchmarks.support.servers import free_port, redis_server
from cache_core import MultiLevelCache, Settings
from cache_core.backends.base import RowWrite
from cache_core.observability.decisions import VERSION, Decision
from cache_core.observability.history import DAY, LIVE
from cache_core.observability.hours import HOUR
from cache_core.observability.sums import FORMAT, LATENCIES, IntentSums, StoredSums, Sums

TOKEN = "only-for-this-benchmark"
AGAIN = 5
LAST_PART = {
    "Overview": "Replicas and backends",
    "History": "Compared with the time before",
    "Tuning": "What happened after the last changes",
    "Review": "Undecided",
    "Entries": "Invalidate answers",
    "Alerts": "What the store itself shows",
    "Audit": "Invalidations and reviews",
}
"""Last part that a page draws."""

_INTENTS = ("orders", "returns", "shipping", "payment", "account", "products")
_REPLICAS = ("a", "b")
DAYS = 30
_TOGETHER = 16
_CHUNK = 1_000
_VERDICTS = 2_000
_WAIT_MS = 120_000

progress = Console(stderr=True)


async def fill(directory: Path, url: str | None, lookups: int, answers: int) -> None:
    """Put answers, write history, lookups and verdicts."""
    random = np.random.default_rng(0)
    texts = [f"question {_word(number)}" for number in range(answers)]
    vectors = random.standard_normal((answers, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    settings = Settings(
        dir=directory, redis_url=url, max_entries=100 * answers, max_bytes=1 << 36, put_budget=60.0
    )
    cache = MultiLevelCache(
        settings=settings, instruments=(),
        embedding_model=StoredVectors(dict(zip(texts, vectors, strict=True))),
    )  # fmt: skip
    async with cache:
        waiting = iter(enumerate(texts))

        async def work() -> None:
            for number, text in waiting:
                user = f"user-{number % 5_000}"
                await cache.put(text, user, f"the answer to {text}", _INTENTS[number % 6],
                                shared=number % 2 == 0)  # fmt: skip

        await asyncio.gather(*(work() for _ in range(_TOGETHER)))
        progress.print(f"{answers:,} answers put")
        rows = {name: FORMAT.text(StoredSums(sums)) for name, sums in _history(time.time())}
        live = RowWrite(cache._parts.keys.own(LIVE), rows, DAYS * DAY, newest=len(rows))
        await cache._parts.store.put_rows([live])
        # the replica that was started here has just looked for rows to merge
        await cache._parts.store.delete([cache._parts.keys.own("history-merging")])
        await cache._parts.history.merge()
        progress.print(f"{DAYS} days of history written")
        decisions = _decisions(lookups)
        for start in range(0, lookups, _CHUNK):
            lines = [
                json.dumps([VERSION, *item], separators=(",", ":"))
                for item in decisions[start : start + _CHUNK]
            ]
            await cache._parts.store.append(cache._parts.keys.own("decisions"), lines, keep=lookups)
        near = [item for item in decisions if item.unvetoed is not None]
        for item in islice(near, _VERDICTS):
            correct = (item.unvetoed or 0) > 0.8
            source = "verify" if item.outcome == "hit" else "review"
            await cache.judge(item, correct=correct, source=source)  # type: ignore[arg-type]
        await cache.tune({"semantic_threshold": 0.93}, author="benchmark")
        progress.print(f"{lookups:,} lookups written")


def _history(now: float) -> Iterator[tuple[str, Sums]]:
    """Yield the rows of the last days: one for each replica and hour."""
    chance, end = Random(2), int(now // HOUR * HOUR)
    for start in range(end - DAYS * DAY, end + HOUR, HOUR):
        for replica in _REPLICAS:
            hits, misses = chance.randint(2_000, 4_000), chance.randint(800, 1_600)
            share = hits // len(_INTENTS)
            yield f"{start}-{replica}", Sums(
                outcomes={"hit": hits, "miss": misses}, reasons={"below_threshold": misses},
                hits={"l1": hits // 2, "l2": hits - hits // 2},
                misses={"l1": {"cold": misses}, "l2": {"below_threshold": misses}},
                saved={"l1": 0.018 * hits, "l2": 0.018 * hits}, spent_usd=0.0001 * misses,
                unanswered_usd=0.036 * misses, prices={"0.036": hits},
                hit_latency=(0, hits) + (0,) * (len(LATENCIES) - 1),
                other_latency=(0, misses) + (0,) * (len(LATENCIES) - 1), seconds=0.001 * hits,
                verdicts={"verify": {"correct": hits // 100, "wrong": hits // 4_000}},
                intents={
                    name: IntentSums(l1=share // 2, l2=share // 2, computed=misses // 6,
                                     other_scope=misses // 40, correct=share // 100,
                                     saved_usd=0.036 * share)
                    for name in _INTENTS
                },
            )  # fmt: skip


def _decisions(count: int) -> list[Decision]:
    """Return lookups of one day: a third exact, a third by similarity, a third not answered."""
    chance, now = Random(1), time.time()
    found = []
    for number in range(count):
        kind = chance.random()
        level = "l1" if kind < 0.33 else "l2" if kind < 0.66 else ""
        message = f"m{int(chance.paretovariate(0.8)) % 20_000}"
        similarity = None if level == "l1" else min(1.0, chance.gauss(0.97 if level else 0.8, 0.03))
        if level == "l2" and similarity is not None:
            similarity = max(0.95, similarity)
        found.append(
            Decision(
                at=now - 86_400 * (1 - number / count), lookup_id=f"bench-{number}",
                outcome="hit" if level else "miss", level=level,
                reason="" if level else "below_threshold", reasons=() if level else
                ("cold", chance.choice(("below_threshold", "other_scope"))),
                similarity=similarity, unvetoed=similarity, threshold=0.95,
                age_seconds=chance.uniform(0, 3_600) if level else None,
                seconds=chance.uniform(0.0002, 0.02), saved_usd=0.036 if level else 0.0,
                message=message, matched=message if level == "l1" else
                f"m{int(chance.paretovariate(0.8)) % 20_000}", user=f"u{number % 5_000}",
                intent=chance.choice(_INTENTS), tuning_version=0, scope="shared", context="c",
                message_text=f"question {number}", matched_text="another question",
            )
        )  # fmt: skip
    return found


@contextlib.contextmanager
def dashboard(directory: Path, url: str | None, lookups: int) -> Iterator[str]:
    """Yield the address of the app; it knows that the log keeps so many *lookups*."""
    port = free_port()
    environment = {
        **os.environ, "CACHE_DIR": str(directory), "CACHE_DASHBOARD_TOKEN": TOKEN,
        "CACHE_DECISIONS": str(lookups),
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
    }  # fmt: skip
    environment.pop("REDIS_URL", None)
    if url is not None:
        environment["REDIS_URL"] = url
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("glasscache")), "dashboard", "--write",
         "--port", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address + "/_stcore/health", timeout=2)
                break
            time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


def seconds_until(page: Page, act: Callable[[], None], text: str) -> float:
    """Return the seconds from *act* until the page says *text*."""
    started = time.perf_counter()
    act()
    page.wait_for_function(
        "text => document.body.innerText.includes(text)", arg=text, polling="raf", timeout=_WAIT_MS
    )
    return time.perf_counter() - started


def measure(address: str) -> list[dict[str, Any]]:
    """Open every page, and act on two of them."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--headless=new"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.get_by_role("textbox", name="Your name").fill("ada")
        page.get_by_role("textbox", name="Token").fill(TOKEN)

        def opens(title: str) -> Callable[[], None]:
            return page.get_by_role("link", name=title, exact=True).first.click

        log_in = page.get_by_role("button", name="Log in")
        first = {"Overview": seconds_until(page, log_in.click, LAST_PART["Overview"])}
        again: dict[str, list[float]] = {title: [] for title in LAST_PART}
        for title in islice(LAST_PART, 1, None):
            first[title] = seconds_until(page, opens(title), LAST_PART[title])
        for _ in range(AGAIN):
            for title, text in LAST_PART.items():
                again[title].append(seconds_until(page, opens(title), text))
        rows = [
            {"page": title, "first_s": round(first[title], 2),
             "again_s": round(statistics.median(again[title]), 2)}
            for title in LAST_PART
        ]  # fmt: skip
        opens("History")()
        chosen = []
        for days in (30, 7) * 3:
            first_day = datetime.fromtimestamp(time.time() - (days - 1) * DAY, UTC).date()
            option = page.get_by_role("radio", name=f"{days} days", exact=True)
            took = seconds_until(page, option.click, f"Now: {first_day} 00:00")
            chosen += [took] if days == DAYS else []
        opens("Tuning")()
        slider = page.get_by_role("slider", name="Similarity threshold")
        slider.wait_for()
        moved = [
            seconds_until(page, lambda: slider.press("ArrowLeft"), f"0.93 → {value:g}")
            for value in (0.925, 0.92, 0.915)
        ]
        opens("Review")()
        page.get_by_role("button", name="Undecided").wait_for()
        judged = []
        for count in (1, 2, 3):
            # a key pressed while the next pair is being drawn is lost
            page.locator("[data-test-script-state=notRunning]").wait_for()
            page.wait_for_timeout(500)
            said = f"yours just now: {count}."
            judged.append(seconds_until(page, lambda: page.keyboard.press("s"), said))
        browser.close()
    rows.append({"page": f"History: {DAYS} days are chosen", "first_s": round(chosen[0], 2),
                 "again_s": round(statistics.median(chosen), 2)})  # fmt: skip
    rows.append({"page": "Tuning: a threshold is moved", "first_s": round(moved[0], 2),
                 "again_s": round(statistics.median(moved), 2)})  # fmt: skip
    rows.append({"page": "Review: a pair is judged", "first_s": round(judged[0], 2),
                 "again_s": round(statistics.median(judged), 2)})  # fmt: skip
    return rows


def main() -> None:
    """Fill the store, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lookups", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--redis", action="store_true", help="on a real redis-server")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(redis_server(directory)) if chosen.redis else None
        asyncio.run(fill(directory / "cache", url, chosen.lookups, chosen.answers))
        address = stack.enter_context(dashboard(directory / "cache", url, chosen.lookups))
        rows = measure(address)
    if chosen.json:
        print(json.dumps({"lookups": chosen.lookups, "answers": chosen.answers,
                          "redis": chosen.redis, "pages": rows}, indent=2))  # fmt: skip
        return
    for row in rows:
        print(f"{row['page']:32} first {row['first_s']:6.2f} s   again {row['again_s']:6.2f} s")


if __name__ == "__main__":
    main()
