"""Faults of a Redis, survived by this cache and by others.

Each cache runs in a process of its own, set up as in its documentation, with no option
changed, and looks up stored answers, one lookup after the other. All run concurrently, over
one real redis-server, which is then stopped, killed, cut off, filled, locked and written full of
garbage. The caller's view is counted: the worst lookup, exceptions, and the time until its
answers are back.

Only caches for a plain Redis take part: redisvl's SemanticCache and LiteLLM's redis-semantic
need a search module. So redisvl is represented by its EmbeddingsCache, the others by their exact
caches; this cache has all its tiers, Chroma included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import redis
from rich.console import Console
from rich.progress import track

from benchmarks.peers.fault_worker import PEERS
from benchmarks.support.docs_table import RELIABILITY, machine, markdown, write
from benchmarks.support.fault_scenarios import SCENARIOS, Scenario, Site
from benchmarks.support.proxies import proxies
from benchmarks.support.servers import chroma_process, redis_process

ROOT = Path(__file__).parents[2]
_OURS = "glasscache"
_READY = 300.0

console = Console(stderr=True)


def _spoil(site: Site) -> None:
    """Overwrite every string with half of itself, and every field of every hash with noise."""
    with contextlib.closing(redis.Redis(port=site.redis.port)) as client:
        for key in client.scan_iter(count=1000):
            if client.type(key) == b"string":
                value = client.get(key) or b""
                client.set(key, value[: len(value) // 2], keepttl=True)
            elif client.type(key) == b"hash":
                client.hset(key, mapping=dict.fromkeys(client.hkeys(key), b"\xff\x00{"))


def _nothing(_: Site) -> None:
    """Do nothing: damaged values stay, and a cache that notices puts them again."""


_GARBAGE = Scenario("redis: garbage stored", "redis", _spoil, _nothing,
                    what="every value cut in half or overwritten")  # fmt: skip
_NAMES = (
    "redis: stopped", "redis: killed", "redis: 500 ms late", "redis: black hole",
    "redis: garbage", "redis: connections closed", "redis: full", "redis: wrong password",
    "redis: too many clients",
)  # fmt: skip
COMPARED = (*(one for one in SCENARIOS if one.name in _NAMES), _GARBAGE)
"""Faults to compare."""

HEADER = ("fault", "cache", "lookups", "raised", "wrong", "p50 / worst ms", "answers again after")


@dataclass(slots=True)
class Line:
    """Result of one lookup of a worker."""

    at: float
    seconds: float
    outcome: str


def versions(python: str, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of the others that are installed for *python*.

    Raises:
        SystemExit: If there are none; the message says how to install them.
    """
    ask = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [python, "-c", ask, *names], check=True, capture_output=True, text=True, timeout=60
    )
    found: dict[str, str] = json.loads(done.stdout)
    if not found:
        sys.exit(f"{python} has none of {', '.join(names)}: see python -m benchmarks.peers --help")
    return found


@contextlib.contextmanager
def workers(
    names: Sequence[str], python: str, ports: tuple[int, int], directory: Path
) -> Iterator[Callable[[], dict[str, list[Line]]]]:
    """Run the workers; yield a function that ends them and returns their lookups, by name."""
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            program = sys.executable if name == _OURS else python
            out = (directory / f"{name}.jsonl").open("w")
            running[name] = subprocess.Popen(
                [program, "-m", "benchmarks.peers.fault_worker", name, *map(str, ports)],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            )  # fmt: skip
        for name, process in running.items():
            _wait(name, process, directory / f"{name}.jsonl")

        def end() -> dict[str, list[Line]]:
            for process in running.values():
                assert process.stdin is not None
                process.stdin.close()
            found = {}
            for name, process in running.items():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                lines = (directory / f"{name}.jsonl").read_text().splitlines()[1:]
                found[name] = [Line(*json.loads(line)) for line in lines if line.endswith("]")]
            return found

        yield end
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _wait(name: str, process: subprocess.Popen[str], path: Path) -> None:
    deadline = time.monotonic() + _READY
    while not path.read_text().startswith("ready"):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{name} did not start")
        time.sleep(0.1)


def compare(
    scenario: Scenario, names: Sequence[str], python: str, seconds: float, after: float
) -> list[dict[str, Any]]:
    """Return the effect of a fault on each cache."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keyed = stack.enter_context(redis_process(directory))
        index = stack.enter_context(chroma_process(directory / "chroma"))
        between = stack.enter_context(proxies({"redis": keyed.port, "chroma": index.port}))
        site = Site(keyed, index, between)
        port = between.ports["redis"] if scenario.through_proxy else keyed.port
        end = stack.enter_context(workers(names, python, (port, index.port), directory))
        time.sleep(2.0)
        began = time.time()
        scenario.make(site)
        time.sleep(seconds)
        scenario.mend(site)
        mended = time.time()
        time.sleep(after)
        found = end()
        over = time.time()
    return [_figures(scenario, name, found[name], began, mended, over) for name in names]


def _figures(
    scenario: Scenario, name: str, lines: Sequence[Line], began: float, mended: float, over: float
) -> dict[str, Any]:
    felt = [line for line in lines if line.at + line.seconds >= began]
    raised = Counter(line.outcome for line in felt if "raised" in line.outcome)
    seconds = sorted(line.seconds for line in felt)
    calm = sorted(line.seconds for line in lines if line.at + line.seconds < began)
    answered = [
        line.at + line.seconds - mended
        for line in felt
        if line.outcome == "right" and line.at + line.seconds >= mended
    ]
    # an unfinished lookup leaves no line: the silence is at least that long
    silence = over - max((line.at + line.seconds for line in lines), default=began)
    return {
        "fault": scenario.name,
        "cache": name,
        "calm_p50_ms": round(1000 * calm[len(calm) // 2], 2) if calm else None,
        "lookups": len(felt),
        "raised": dict(raised),
        "wrong": sum(line.outcome == "wrong" for line in felt),
        "p50_ms": round(1000 * seconds[len(seconds) // 2], 2) if seconds else None,
        "worst_ms": round(1000 * max([*seconds, silence if silence > 1 else 0.0]), 1),
        "recovery_s": round(min(answered), 2) if answered else None,
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the comparison for the documentation."""
    return markdown(HEADER, [_row(each) for each in found])


def _row(each: dict[str, Any]) -> list[str]:
    raised = sum(each["raised"].values())
    kinds = ", ".join(sorted(kind.split()[-1] for kind in each["raised"]))
    again = each["recovery_s"]
    return [
        each["fault"] if each["cache"] == _OURS else "",
        f"**{each['cache']}**" if each["cache"] == _OURS else each["cache"],
        str(each["lookups"]),
        f"{raised} ({kinds})" if raised else "0",
        str(each["wrong"]),
        f"{each['p50_ms']} / {each['worst_ms']:,.0f}",
        "not seen" if again is None else f"{again} s",
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this comparison."""
    names = ", ".join(one.name for one in COMPARED)
    parser.add_argument("--only", action="append", metavar="FAULT", help=f"one of: {names}")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="that each fault lasts (%(default)s)"
    )
    parser.add_argument(
        "--after", type=float, default=10.0, help="seconds watched once it is mended (%(default)s)"
    )


def run(options: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """Compare and print one table.

    Args:
        options: Options of the command.
        error: Ends the program with a message about a wrong option.
    """
    known = [one.name for one in COMPARED]
    if options.only and (unknown := set(options.only) - set(known)):
        error(f"there is no fault {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if options.write_docs and options.only:
        error("the table in the documentation has every fault: leave --only out")
    logging.getLogger("glasscache").setLevel(logging.CRITICAL)
    others = versions(options.python, [name for name in PEERS if name != _OURS])
    wanted = [one for one in COMPARED if not options.only or one.name in options.only]
    found: list[dict[str, Any]] = []
    for scenario in track(wanted, "faults", console=console, transient=True):
        found += compare(scenario, [_OURS, *others], options.python, options.seconds, options.after)
    if options.write_docs:
        installed = ", ".join(f"{name} {version}" for name, version in others.items())
        times = f"each fault lasted {options.seconds:g} s, and was watched {options.after:g} s more"
        body = f"{table(found)}\n\n{installed}; {times}; {machine()}."
        write(RELIABILITY, "peers", body)
    print(json.dumps(found, indent=2) if options.json else table(found))
