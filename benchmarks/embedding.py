"""Compare the default embedder with `SentenceTransformer.encode`: time, memory, lateness.

    python -m benchmarks.embedding

Three parts, each in processes of their own: loading (import to first vector, resident memory); one
text after the other, in turns of both; ten texts a second beside busy processes, with the share
that takes longer than the default time of an embedding.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_QUESTION = "how do I change the delivery address of order {}, please?"
_IN_TURN = 20


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _load(backend: str) -> dict[str, float]:
    """Load in this process, and encode one text."""
    started, spent = time.perf_counter(), time.process_time()
    if backend == "bare":
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(_weights(), device="cpu").encode(_QUESTION)
    else:
        from cache_core.backends.embedder.choosing import make_embedder

        asyncio.run(make_embedder().embed(_QUESTION))
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - spent,
        "mb": _resident_mb(),
    }


def _weights() -> str:
    from cache_core.backends.embedder.encoder import PACKAGED_MODEL
    from cache_core.backends.embedder.sentence_transformers import packaged_weights

    return str(packaged_weights(PACKAGED_MODEL) or PACKAGED_MODEL)


async def _in_turns(texts: int) -> dict[str, list[float]]:
    """Return the milliseconds of each text, with both in turns of twenty."""
    import torch
    from sentence_transformers import SentenceTransformer

    from cache_core.backends.embedder.choosing import make_embedder

    torch.set_num_threads(1)
    ours, bare = make_embedder(), SentenceTransformer(_weights(), device="cpu")
    await ours.embed(_QUESTION)
    bare.encode(_QUESTION)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(0, texts, _IN_TURN):
        for number in range(turn, turn + _IN_TURN):
            started = time.perf_counter()
            await ours.embed(_QUESTION.format(number))
            found["ours"].append((time.perf_counter() - started) * 1_000)
        for number in range(turn, turn + _IN_TURN):
            started = time.perf_counter()
            bare.encode(_QUESTION.format(number), show_progress_bar=False)
            found["bare"].append((time.perf_counter() - started) * 1_000)
    return found


async def _beside(seconds: float) -> list[float]:
    """Return the milliseconds of ten embeddings a second."""
    from cache_core.backends.embedder.choosing import make_embedder

    embedder = make_embedder()
    await embedder.embed(_QUESTION)

    async def one(number: int) -> float:
        started = time.perf_counter()
        await embedder.embed(_QUESTION.format(number))
        return (time.perf_counter() - started) * 1_000

    tasks: list[asyncio.Task[float]] = []
    for number in range(round(seconds * 10)):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0.1)
    return list(await asyncio.gather(*tasks))


def _apart(*arguments: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.embedding", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=20)[0::9]
    return f"median {middle:.2f} ms (5 % {low:.2f}, 95 % {high:.2f})"


def _report(texts: int, seconds: float) -> None:
    from cache_core.config.settings import Settings

    for name in ("ours", "bare"):
        loads = [_apart("--load", name) for _ in range(3)]
        cells = {key: statistics.median(load[key] for load in loads) for key in loads[0]}
        print(
            f"{name}: import, load and first vector {cells['seconds']:.2f} s "
            f"({cells['cpu']:.2f} s of CPU), {cells['mb']:.0f} MB resident"
        )
    found = _apart("--turns", str(texts))
    for name, values in found.items():
        print(f"{name}: one text {_spread(values)}")
    ratio = statistics.median(found["ours"]) / statistics.median(found["bare"])
    print(f"ratio of the medians {ratio:.2f}, with 1 thread of torch")
    limit = Settings().embedding_budget * 1_000
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        times = _apart("--beside", str(seconds))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    late = sum(value > limit for value in times)
    print(
        f"ours, 10 texts a second beside {len(busy)} busy processes: {_spread(times)}, "
        f"longest {max(times):.1f} ms; {late} of {len(times)} over {limit:.0f} ms"
    )


def main() -> None:
    """Print the comparison, or do one part of it for it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--texts", type=int, default=200, help="texts one after the other")
    parser.add_argument("--seconds", type=float, default=20.0, help="beside busy processes")
    parser.add_argument("--load", choices=["ours", "bare"], help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--beside", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        print(json.dumps(_load(given.load)))
    elif given.turns:
        print(json.dumps(asyncio.run(_in_turns(given.turns))))
    elif given.beside:
        print(json.dumps(asyncio.run(_beside(given.beside))))
    else:
        _report(given.texts, given.seconds)


if __name__ == "__main__":
    main()
