"""Soak test: agents behind the cache for hours, while everything around them breaks.

Some replicas (processes of their own, each with its agents, twelve users and two contexts) look up,
compute, put, invalidate, forget, tune and are cancelled, over one real redis-server and one real
`chroma run`. On a schedule that the seed determines, servers are stopped, killed, filled, slowed,
cut off and written full of garbage, replicas are killed and paused, with calm periods between.

Every answer names its question, its user and the generations it was computed under, so each answer
that the cache serves is judged: wrong, another user's, or from before a confirmed
invalidation. Memory, files, tasks, threads, connections and sizes are sampled; slopes are taken
over the calm samples of the second half, when everything bounded is full.

    python -m benchmarks.soak                                  3 minutes, 4 replicas
    python -m benchmarks.soak --minutes 30 --chart soak.png --json > soak.json
    python -m benchmarks.soak --embedded --minutes 5           the SQLite file and embedded Chroma
    python -m benchmarks.soak --vectors redis                  one Redis 8 holds the vectors, too

Exits with 1 if an answer was wrong, another user's, or served after its invalidation, if something
raised, or if the counts do not balance.

"In time" is within the 500 ms budget of a lookup; "but for a busy machine" subtracts the lateness
of the replica's event loop. Give the run a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.soak.faults import EMBEDDED, SERVERS, Site, schedule
from benchmarks.soak.report import Run, report, show
from benchmarks.support.proxies import Proxies, proxies
from benchmarks.support.servers import Server, chroma_process, redis_process

_READY_SECONDS = 300.0
_CLOSE_SECONDS = 45.0
_SAMPLE_SECONDS = 5.0

console = Console(stderr=True, width=None if sys.stderr.isatty() else 170)


@dataclass(slots=True)
class Fleet:
    """Replicas of a run.

    Attributes:
        plan: Plan for all of them.
        urls: URLs of Redis and Chroma for a replica, by its number.
        directory: Directory of their events and logs.
        running: Process of each, by number.
    """

    plan: dict[str, Any]
    urls: list[dict[str, str | None]]
    directory: Path
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    lives: dict[int, int] = field(default_factory=dict)

    def start(self, number: int) -> None:
        """Start or restart a replica."""
        life = self.lives[number] = self.lives.get(number, -1) + 1
        events = self.directory / f"events-{number}-{life}.jsonl"
        plan = {
            **self.plan, **self.urls[number], "number": number, "life": life, "events": str(events),
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.soak.replica"]
        with (self.directory / f"log-{number}.txt").open("ab") as out:
            self.running[number] = subprocess.Popen(
                [*command, json.dumps(plan)], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def wait(self, seconds: float) -> None:
        """Wait until every replica is ready.

        Raises:
            SystemExit: If one is not; the message names its log.
        """
        deadline = time.monotonic() + seconds
        for number, process in self.running.items():
            events = self.directory / f"events-{number}-0.jsonl"
            while not (events.exists() and events.stat().st_size):
                if process.poll() is not None or time.monotonic() > deadline:
                    log = (self.directory / f"log-{number}.txt").read_text(errors="replace")
                    sys.exit(f"replica {number} did not start:\n{log[-2000:]}")
                time.sleep(0.1)

    def close(self) -> list[str]:
        """Stop all replicas gracefully; return any errors."""
        found = []
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for number, process in self.running.items():
            try:
                code = process.wait(max(0.1, deadline - time.monotonic()))
                if code:
                    found.append(f"replica {number} ended with {code}")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                found.append(f"replica {number} did not end within {_CLOSE_SECONDS:.0f} s")
        return found

    def kill(self) -> None:
        """Kill all replicas immediately."""
        for process in self.running.values():
            process.kill()
            process.wait()


@dataclass(slots=True)
class Servers:
    """Servers of a run, and their own figures."""

    redis: Server | None
    chroma: Server | None
    proxies: Proxies | None
    data: Path

    def urls(self, replicas: int) -> list[dict[str, str | None]]:
        """Return the URLs for each replica: every other one goes through the proxies."""
        if self.redis is None or self.proxies is None:
            return [{"redis_url": None, "chroma_url": None}] * replicas
        direct = {"redis": self.redis.port}
        if self.chroma is not None:
            direct["chroma"] = self.chroma.port
        return [
            _urls(direct if number % 2 == 0 else self.proxies.ports) for number in range(replicas)
        ]

    def sample(self) -> dict[str, Any]:
        """Return their current sizes, without those that cannot be read."""
        found: dict[str, Any] = {"t": time.time(), "disk": _size(self.data)}
        if self.redis is not None:
            with (
                contextlib.suppress(redis.RedisError, OSError),
                contextlib.closing(
                    redis.Redis(
                        port=self.redis.port, socket_timeout=0.3, socket_connect_timeout=0.3
                    )
                ) as client,
            ):
                info = client.info()
                found["connections"] = info["connected_clients"]
                found["redis_memory"] = info["used_memory"]
                found["keys"] = client.dbsize()
        if self.chroma is not None:
            with contextlib.suppress(OSError, IndexError):
                pages = Path(f"/proc/{self.chroma.process.pid}/statm").read_text().split()[1]
                found["chroma_rss"] = int(pages) * os.sysconf("SC_PAGE_SIZE")
        return found


def _urls(ports: Mapping[str, int]) -> dict[str, str | None]:
    chroma = f"http://127.0.0.1:{ports['chroma']}" if "chroma" in ports else None
    return {"redis_url": f"redis://127.0.0.1:{ports['redis']}/0", "chroma_url": chroma}


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextlib.contextmanager
def servers(directory: Path, *, embedded: bool, vectors: str) -> Iterator[Servers]:
    """Start the servers for the replicas."""
    data = directory / "data"
    data.mkdir()
    if embedded:
        yield Servers(None, None, None, data)
        return
    with contextlib.ExitStack() as stack:
        keyed = stack.enter_context(redis_process(directory, vectors=vectors == "redis"))
        ports = {"redis": keyed.port}
        index = None
        if vectors == "chroma":
            index = stack.enter_context(chroma_process(data))
            ports["chroma"] = index.port
        yield Servers(keyed, index, stack.enter_context(proxies(ports)), data)


def soak(options: argparse.Namespace, directory: Path) -> Run:
    """Run the soak and return its recordings."""
    seconds = options.minutes * 60.0
    run = Run(seed=options.seed, minutes=options.minutes, replicas=options.replicas,
              embedded=options.embedded, embedder=options.embedder,
              vectors=options.vectors)  # fmt: skip
    with contextlib.ExitStack() as stack:
        around = stack.enter_context(
            servers(directory, embedded=options.embedded, vectors=options.vectors)
        )
        plan = {
            "seed": options.seed, "directory": str(around.data), "world": str(directory / "world"),
            "embedder": options.embedder, "rate": options.rate, "ttl": max(10.0, seconds / 15),
            "key": None if options.no_key else secrets.token_hex(16),
            "vectors": options.vectors,
        }  # fmt: skip
        fleet = Fleet(plan, around.urls(options.replicas), directory)
        stack.callback(fleet.kill)
        for number in range(options.replicas):
            fleet.start(number)
        fleet.wait(_READY_SECONDS)
        bar = stack.enter_context(_bar())
        task = bar.add_task("warming up", total=seconds)
        run.start = time.time()
        sampled = 0.0

        def pause(lasts: float) -> None:
            """Wait, while samples are taken and the bar moves."""
            nonlocal sampled
            until = time.monotonic() + lasts
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(0.25, left))
                bar.update(task, completed=time.time() - run.start)
                if time.monotonic() >= sampled:
                    sampled = time.monotonic() + _SAMPLE_SECONDS
                    run.servers.append(around.sample())
                for number, process in fleet.running.items():
                    if process.poll() not in {None, -9}:
                        run.troubles.append(f"replica {number} ended with {process.returncode}")
                        fleet.start(number)

        site = Site(around.redis, around.chroma, around.proxies, around.data / "glasscache.db",
                    fleet.running, fleet.start, Random(options.seed), pause)  # fmt: skip
        run.warm_up = seconds * options.warm_up
        names = EMBEDDED if options.embedded else SERVERS
        if options.vectors == "redis":
            names = tuple(name for name in names if "chroma" not in name)
        names = [name for name in names if not options.only or name in options.only]
        pause(run.warm_up)
        for planned in schedule(names, seconds - run.warm_up, options.seed):
            bar.update(task, description="calm")
            pause(planned.calm)
            bar.update(task, description=planned.name)
            run.windows.append(site.make(planned))
        bar.update(task, description="calm")
        pause(max(5.0, run.start + seconds - time.time()))
        run.end = time.time()
        bar.update(task, description="closing")
        run.troubles += fleet.close()
        run.servers.append(around.sample())
        run.read(directory)
    return run


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:26}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(), console=console, transient=True,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the soak, and print its report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="of the run (%(default)s)")
    parser.add_argument("--replicas", type=int, default=4, help="processes (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of schedule and agents (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=12.0, help="actions a second of each replica (%(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=float, default=0.15, metavar="SHARE",
        help="share of the run without faults at its beginning, in no figure (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--embedded", action="store_true", help="no servers: one SQLite file, embedded Chroma"
    )
    parser.add_argument(
        "--vectors", choices=["chroma", "redis"], default="chroma",
        help="engine of the shared answers: Chroma, or vector sets of a Redis 8 (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--embedder", choices=["real", "hash"], default="real",
        help="all-MiniLM-L6-v2, or words only: faster, for many replicas on few cores",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", metavar="FAULT",
        help=f"only this fault, again and again; may be repeated: {', '.join(SERVERS)}; "
        f"embedded: {', '.join(EMBEDDED)}",
    )  # fmt: skip
    parser.add_argument(
        "--no-key", action="store_true",
        help="give the replicas no common CACHE_KEY: the store keeps the secret",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it (needs matplotlib)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep events and logs there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not outlive this
    if unknown := set(options.only or ()) - set(SERVERS) - set(EMBEDDED):
        parser.error(f"there is no fault {', '.join(unknown)}")
    if options.embedded and options.vectors == "redis":
        parser.error("--embedded has no Redis for --vectors redis")
    with contextlib.ExitStack() as stack:
        if options.keep:
            options.keep.mkdir(parents=True)
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = soak(options, directory.resolve())
    found = report(run)
    if options.chart:
        from benchmarks.soak.chart import draw

        draw(run, found, options.chart)
    if options.json:
        print(json.dumps(found, indent=2))
    show(found, console)
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()
