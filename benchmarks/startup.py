"""Time and memory of a fresh process until its first semantic answer.

    python -m benchmarks.startup                 five processes of each kind, in turns
    python -m benchmarks.startup --write-docs    and the table in docs/performance.md

The index has entries already. The clock begins before the process is started and ends when it has
the answer to a rephrased question; so the start of Python and all imports count. The baseline is a
process that imports sentence-transformers and embeds one text: it searches nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.support.docs_table import PERFORMANCE, machine, markdown, write
from benchmarks.support.questions import pairs
from benchmarks.support.servers import redis_server

ENTRIES = 1_000
HEADER = ["a fresh process", "first answer, s", "from - to", "x baseline", "MB resident"]
BASELINE = "sentence-transformers, one embedding"
CHROMA, VECTOR_SETS = "embedded Chroma", "Redis vector sets"

_ASKS = """
import asyncio, json, sys
from pathlib import Path

async def main():
    from glasscache import MultiLevelCache
    async with MultiLevelCache(sharing="all") as cache:
        await cache.ready()
        found = await cache.lookup(sys.argv[1], "bob")
        assert found.tier == "l2", found

asyncio.run(main())
status = Path("/proc/self/status").read_text()
print(json.dumps(int(status.split("VmRSS:")[1].split()[0]) / 1024))
"""

_EMBEDS = """
import json, sys
from pathlib import Path
from sentence_transformers import SentenceTransformer
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.sentence_transformers import packaged_weights

weights = packaged_weights(PACKAGED_MODEL) or PACKAGED_MODEL
SentenceTransformer(str(weights), device="cpu").encode(sys.argv[1])
status = Path("/proc/self/status").read_text()
print(json.dumps(int(status.split("VmRSS:")[1].split()[0]) / 1024))
"""


def _first_answer(program: str, question: str, environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds and megabytes of a process that runs *program* for a *question*."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", program, question],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"a process ended with {process.returncode}")
    return seconds, json.loads(line)


async def _fill(environment: dict[str, str]) -> str:
    """Put entries, and return a question that is answered by one of another wording."""
    from cache_core import MultiLevelCache, Settings

    settings = Settings(
        dir=Path(environment["CACHE_DIR"]),
        redis_url=environment.get("REDIS_URL"),
        put_budget=60.0,
        embedding_budget=60.0,
    )
    async with MultiLevelCache(settings=settings, sharing="all", instruments=()) as cache:
        await cache.ready()
        rows = [(question, None, "an answer") for question, _ in pairs()[:ENTRIES]]
        await cache.warm_cache(rows)
        await asyncio.sleep(2.0)  # the last rows are written out
        for _, question in pairs()[:ENTRIES]:
            if (await cache.lookup(question, "bob")).tier == "l2":
                return question
    sys.exit("no question was answered by similarity")


def measure(runs: int) -> dict[str, list[tuple[float, float]]]:
    """Return seconds and megabytes of each process, by kind."""
    found: dict[str, list[tuple[float, float]]] = {BASELINE: [], CHROMA: [], VECTOR_SETS: []}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "redis").mkdir()
        url = stack.enter_context(redis_server(place / "redis", vectors=True))
        environments = {
            CHROMA: {"CACHE_DIR": str(place / "chroma")},
            VECTOR_SETS: {"CACHE_DIR": str(place / "files"), "REDIS_URL": url},
        }
        questions = {}
        for kind, environment in environments.items():
            print(f"{kind}: storing {ENTRIES:,} entries", file=sys.stderr)
            questions[kind] = asyncio.run(_fill(environment))
        for run in range(runs):
            print(f"round {run + 1} of {runs}", file=sys.stderr)
            found[BASELINE].append(_first_answer(_EMBEDS, pairs()[0][1], {}))
            for kind, environment in environments.items():
                found[kind].append(_first_answer(_ASKS, questions[kind], environment))
    return found


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    """Return the results as a Markdown table."""
    seconds = {kind: [item[0] for item in items] for kind, items in found.items()}
    base = statistics.median(seconds[BASELINE])
    rows = [
        [
            kind,
            f"{statistics.median(times):.2f}",
            f"{min(times):.2f} - {max(times):.2f}",
            f"{statistics.median(times) / base:.2f}",
            f"{statistics.median(item[1] for item in found[kind]):.0f}",
        ]
        for kind, times in seconds.items()
    ]
    return markdown(HEADER, rows)


def main() -> None:
    """Print the table, and write it into the documentation if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5, help="processes of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON, and progress on stderr")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table into docs/performance.md"
    )
    given = parser.parse_args()
    found = measure(given.runs)
    body = (
        f"{table(found)}\n\n{given.runs} processes of each kind; {ENTRIES:,} entries; {machine()}."
    )
    print(json.dumps(found) if given.json else body)
    if given.write_docs:
        write(PERFORMANCE, "startup", body)


if __name__ == "__main__":
    main()
