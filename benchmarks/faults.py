"""Cost per lookup of each fault of a backend, on real processes.

For every fault it starts a redis-server, a `chroma run` and chaos proxies before them, and a
cache with the real model, which already knows the questions' vectors. Four agents ask for stored
answers, pausing only 5 ms: exact repetitions of private answers (L1) and rephrased
questions with a shared answer (L2). A calm phase is the baseline of the row. Then the fault
is caused, and repaired. Each answer names its question and user.

    python -m benchmarks.faults                              all faults, about 6 minutes
    python -m benchmarks.faults --only 'redis: stopped' --json
    python -m benchmarks.faults --write-docs                 and the table in docs/reliability.md
    python -m benchmarks.faults --vectors redis              faults of a Redis 8 with the vectors

Ends with 1 if a lookup raised or an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.support.docs_table import RELIABILITY, machine, markdown, write
from benchmarks.support.fault_scenarios import SCENARIOS, Scenario, Site
from benchmarks.support.proxies import proxies
from benchmarks.support.questions import pairs
from benchmarks.support.servers import chroma_process, redis_process
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.model.values import Level
from cache_core.observability.instruments import CacheState
from cache_core.observability.records import LookupRecord, Record, SearchRecord

_AGENTS = 4
_PAUSE = 0.005
_QUESTIONS = 40
_USERS = 4
_TRIES = 3
_WAIT = 20.0

HEADER = (
    "fault", "lookups", "exceptions", "wrong", "calm p50 / p99", "until open p50 / p99", "tries",
    "skipped p50 / p99", "during p50 / p99", "recovery",
)  # fmt: skip
"""Columns of the table in the documentation; times in ms, the recovery in s."""

console = Console(stderr=True, width=None if sys.stderr.isatty() else 170)


@dataclass(slots=True)
class Lookup:
    """One lookup: its time, duration and result."""

    at: float
    seconds: float
    outcome: str
    reasons: tuple[str, ...]
    open: bool
    tier: str | None


class Watch:
    """Instrument that records the time of the failing backend's calls.

    Args:
        backend: `redis` for L1's calls, `chroma` for searches.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.skipped: list[float] = []
        """Seconds of calls that the breaker rejected."""

    def scope(self, operation: str, level: Level | None) -> None:
        """Do nothing: scopes are not measured."""

    def report(self, state: CacheState) -> None:
        """Do nothing: states are read elsewhere."""

    def record(self, record: Record) -> None:
        """Record a finished call."""
        if self._backend == "chroma" and isinstance(record, SearchRecord):
            if "breaker_open" in {record.error_type, record.reason}:
                self.skipped.append(record.seconds)
        elif self._backend == "redis" and isinstance(record, LookupRecord):
            self.skipped += [
                part.seconds
                for part in record.calls
                if part.level == "l1" and part.reason == "breaker_open"
            ]


@dataclass(slots=True)
class Measured:
    """Figures of one fault.

    Attributes:
        calm, during, after: Lookups before it, during it, and after the repair.
        exceptions, wrong: Exceptions and wrong answers of all lookups.
        skipped: See `Watch`.
        mended: Time when the backend answered again, in `time.perf_counter` seconds.
        faults: Number of failures until the breaker opened; 0 if it did not.
    """

    scenario: Scenario
    calm: list[Lookup] = field(default_factory=list)
    during: list[Lookup] = field(default_factory=list)
    after: list[Lookup] = field(default_factory=list)
    exceptions: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    skipped: list[float] = field(default_factory=list)
    mended: float = 0.0
    opened: bool = False

    def recovery(self) -> float | None:
        """Return the seconds from the backend's first answer to its first use in a lookup.

        `None` if no lookup used it: the backend is not back.
        """
        for lookup in sorted(self.after, key=lambda lookup: lookup.at):
            used = lookup.tier == ("l1" if self.scenario.backend == "redis" else "l2")
            if lookup.at >= self.mended and used and not lookup.reasons:
                return lookup.at + lookup.seconds - self.mended
        return None


class Agents:
    """Agents that ask one cache for stored answers."""

    def __init__(self, cache: MultiLevelCache, backend: str) -> None:
        self._cache = cache
        self._backend = backend
        self._questions = pairs()[:_QUESTIONS]
        self.into: list[Lookup] = []
        self.exceptions: Counter[str] = Counter()
        self.wrong = 0

    async def store(self) -> None:
        """Put the answers, and embed every question once."""
        for number, (first, second) in enumerate(self._questions):
            await asyncio.gather(
                *(
                    self._cache.put(
                        f"{first} ({_word(user)})", f"user-{user}", f"user-{user} {number}"
                    )
                    for user in range(_USERS)
                ),
                self._cache.put(first, None, f"all {number}", shared=True),
            )
            await self._cache.lookup(second, "user-0")
        # the index is written in the background; it is measured, not the buffer before it
        await asyncio.sleep(1.5)

    async def ask(self, ended: asyncio.Event, agent: int) -> None:
        """Ask until *ended*."""
        number = agent
        user = f"user-{agent % _USERS}"
        while not ended.is_set():
            number += 1
            first, second = self._questions[number % _QUESTIONS]
            exact = number % 2 == 0
            message = f"{first} ({_word(agent % _USERS)})" if exact else second
            await self._look_up(message, user, number % _QUESTIONS)
            await asyncio.sleep(_PAUSE)

    async def _look_up(self, message: str, user: str, number: int) -> None:
        state = self._cache.state
        is_open = state is not None and state.breakers.get(self._backend) != "closed"
        started = time.perf_counter()
        try:
            result = await self._cache.lookup(message, user)
        except Exception as error:  # noqa: BLE001 - that is what is counted
            self.exceptions[type(error).__name__] += 1
            return
        seconds = time.perf_counter() - started
        # a private answer to the same question may also serve the rephrased one
        if result.response not in {None, f"{user} {number}", f"all {number}"}:
            self.wrong += 1
        errors = tuple(
            reason
            for reason in result.reasons
            if reason in {"timeout", "backend_error", "breaker_open", "overloaded"}
        )
        self.into.append(Lookup(started, seconds, result.outcome, errors, is_open, result.tier))


def _word(user: int) -> str:
    return ("red", "green", "blue", "white")[user]


async def measure(scenario: Scenario, site: Site, options: argparse.Namespace) -> Measured:
    """Return the effect of a fault on the lookups."""
    found = Measured(scenario)
    ports = {"redis": site.redis.port}
    if site.chroma is not None:
        ports["chroma"] = site.chroma.port
    if scenario.through_proxy:
        ports[scenario.backend] = site.proxies.ports[scenario.backend]
    watch = Watch(scenario.backend)
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            redis_url=f"redis://127.0.0.1:{ports['redis']}/0",
            chroma_url=f"http://127.0.0.1:{ports['chroma']}" if "chroma" in ports else None,
            vectors=options.vectors,
            dir=Path(directory),
            key="a key of the benchmark",
        )
        async with MultiLevelCache(settings=settings, instruments=(watch,)) as cache:
            await cache.ready()
            agents = Agents(cache, scenario.backend)
            await agents.store()
            ended = asyncio.Event()
            asking = [asyncio.create_task(agents.ask(ended, n)) for n in range(_AGENTS)]
            await asyncio.sleep(0.5)
            agents.into = found.calm
            await asyncio.sleep(options.seconds)
            agents.into = found.during
            watch.skipped = found.skipped
            await asyncio.to_thread(scenario.make, site)
            await asyncio.sleep(options.seconds)
            found.opened = any(lookup.open for lookup in found.during)
            # it lasts until the repair is done
            await asyncio.to_thread(scenario.mend, site)
            found.mended = time.perf_counter()
            agents.into = found.after
            watch.skipped = []
            await _restored(agents, found, scenario)
            ended.set()
            await asyncio.gather(*asking)
    found.exceptions, found.wrong = agents.exceptions, agents.wrong
    return found


async def _restored(agents: Agents, found: Measured, scenario: Scenario) -> None:
    """Wait until the backend is used again; restore the data it lost with its process."""
    until = time.perf_counter() + _WAIT
    stored = 0.0
    while found.recovery() is None and time.perf_counter() < until:
        await asyncio.sleep(0.05)
        if scenario.name == "redis: killed" and time.perf_counter() > stored + 0.25:
            stored = time.perf_counter()
            first = agents._questions[0][0]
            await agents._cache.put(f"{first} (red)", "user-0", "user-0 0")
    await asyncio.sleep(1.0)


# ---------------------------------------------------------------------------------- figures


def figures(found: Measured) -> dict[str, Any]:
    """Return the figures of a fault, as JSON values: milliseconds, and seconds of recovery."""
    until_open = [lookup for lookup in found.during if not lookup.open]
    recovery = found.recovery()
    calm, before = _quantiles(found.calm), _quantiles(until_open)
    return {
        "fault": found.scenario.name,
        "what": found.scenario.what,
        "lookups": len(found.calm) + len(found.during) + len(found.after),
        "exceptions": dict(found.exceptions),
        "wrong": found.wrong,
        "calm_ms": calm,
        "opened": found.opened,
        "until_open": len(until_open),
        "until_open_ms": before,
        "added_p99_ms": _difference(before["p99"], calm["p99"]),
        "skipped": len(found.skipped),
        "skipped_ms": {
            "p50": _quantile(sorted(found.skipped), 0.5),
            "p99": _quantile(sorted(found.skipped), 0.99),
        },
        "during_ms": _quantiles(found.during),
        "hit_rate_during": _share(found.during),
        "recovery_s": None if recovery is None else round(recovery, 3),
    }


def _share(lookups: Sequence[Lookup]) -> float | None:
    hits = sum(lookup.outcome == "hit" for lookup in lookups)
    return round(hits / len(lookups), 4) if lookups else None


def _quantiles(lookups: Sequence[Lookup]) -> dict[str, float | None]:
    seconds = sorted(lookup.seconds for lookup in lookups)
    return {
        "p50": _quantile(seconds, 0.5), "p99": _quantile(seconds, 0.99),
        "max": _quantile(seconds, 1),
    }  # fmt: skip


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one - other, 3)


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the table for the documentation."""
    return markdown(HEADER, [_row(each) for each in found])


def _row(each: dict[str, Any]) -> list[str]:
    return [
        f"{each['fault']} ({each['what']})",
        str(each["lookups"]),
        str(sum(each["exceptions"].values())),
        str(each["wrong"]),
        _pair(each["calm_ms"]),
        _pair(each["until_open_ms"]),
        str(each["until_open"]) if each["opened"] else "stays closed",
        _pair(each["skipped_ms"]),
        _pair(each["during_ms"]),
        "none in 20 s" if each["recovery_s"] is None else f"{each['recovery_s']:.2f}",
    ]


def _pair(of: dict[str, float | None]) -> str:
    return f"{_number(of['p50'])} / {_number(of['p99'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the requested faults."""
    wanted = [one for one in SCENARIOS if not options.only or one.name in options.only]
    on_redis = options.vectors == "redis"
    if on_redis:
        wanted = [one for one in wanted if one.backend == "redis"]
    found = []
    for scenario in track(wanted, "faults", console=console, transient=True):
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            keyed = stack.enter_context(redis_process(directory, vectors=on_redis))
            ports, index = {"redis": keyed.port}, None
            if not on_redis:
                index = stack.enter_context(chroma_process(directory / "chroma"))
                ports["chroma"] = index.port
            site = Site(keyed, index, stack.enter_context(proxies(ports)))
            found.append(figures(asyncio.run(measure(scenario, site, options))))
            console.print(" | ".join(_row(found[-1])))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser.add_argument("--only", action="append", metavar="FAULT", help=f"one of: {names}")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of calm, and of each fault (%(default)s)"
    )
    parser.add_argument(
        "--vectors", choices=["chroma", "redis"], default="chroma",
        help="engine of the shared answers: a Chroma server, or vector sets (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into docs/reliability.md"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not outlive this
    if unknown := set(options.only or ()) - {scenario.name for scenario in SCENARIOS}:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; there are: {names}")
    if options.write_docs and options.vectors == "redis":
        parser.error("the table in the documentation is of a Chroma server: leave --vectors out")
    if options.write_docs and options.only:
        parser.error("the table in the documentation has every fault: leave --only out")
    logging.getLogger("glasscache").setLevel(logging.CRITICAL)
    found = run(options)
    if options.write_docs:
        write(RELIABILITY, "faults", f"{table(found)}\n\n{machine()}.")
    print(json.dumps(found, indent=2) if options.json else table(found))
    sys.exit(any(each["exceptions"] or each["wrong"] for each in found))


if __name__ == "__main__":
    main()
