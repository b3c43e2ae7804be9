"""Storm of lookups on a real Redis, half of them cancelled or timed out: is any answer wrong?

    python -m benchmarks.storm [--lookups 50000] [--tasks 200] [--redis-url URL] [--json]

Every lookup asks for one of 500 messages, each with its own answer, and half are stopped, unless
done, after a random time of up to 5 ms: cancelled, or by a timeout. Then the same is
done to GETs of redis-py on a pool of its own. A wrong answer is that of another message; a leaked
connection is one still in use after everything has ended. Opened connections are what the storm
costs the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from benchmarks.support.servers import redis_server
from cache_core import MultiLevelCache
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder

MESSAGES = 500
_LONGEST = 0.005


async def storm(
    ask: Callable[[int], Awaitable[str | None]], lookups: int, tasks: int, seed: int
) -> Counter[str]:
    """Ask for random messages, stopping half of the lookups; count how each ended.

    Args:
        ask: Returns the answer to the message with a number.
        lookups: Number of lookups.
        tasks: Number of concurrent tasks.
        seed: Seed of the messages and stops.
    """
    counts: Counter[str] = Counter()
    chance = random.Random(seed)
    waiting = iter(range(lookups))

    async def one() -> None:
        number = chance.randrange(MESSAGES)
        how = chance.choice(("to the end", "to the end", "cancel", "timeout"))
        seconds = chance.random() * _LONGEST
        counts["asked"] += 1
        try:
            if how == "timeout":
                async with asyncio.timeout(seconds):
                    found = await ask(number)
            elif how == "cancel":
                task = asyncio.ensure_future(ask(number))
                await asyncio.wait([task], timeout=seconds)
                task.cancel()
                found = await task
            else:
                found = await ask(number)
        except (TimeoutError, asyncio.CancelledError):
            counts["stopped"] += 1
            return
        except Exception as error:  # noqa: BLE001 - counted
            counts["raised"] += 1
            counts[f"raised {type(error).__name__}"] += 1
            return
        if found is None:
            counts["missed"] += 1
        else:
            counts["answered" if found == f"answer {number}" else "wrong"] += 1

    async def worker() -> None:
        for _ in waiting:
            await one()

    await asyncio.gather(*(worker() for _ in range(tasks)))
    return counts


def in_use(client: Any) -> int:
    """Return the number of a client's connections in use."""
    return len(client.connection_pool._in_use_connections)


async def opened(url: str) -> int:
    """Return the number of connections that the server has accepted so far."""
    async with redis.Redis.from_url(url) as client:
        return int((await client.info("stats"))["total_connections_received"])


async def tasks_beyond(number: int) -> int:
    """Return the number of tasks beyond *number* that stay, as a periodic duty may be running."""
    for _ in range(20):
        if len(asyncio.all_tasks()) <= number:
            break
        await asyncio.sleep(0.1)
    return max(0, len(asyncio.all_tasks()) - number)


async def ours(url: str, lookups: int, tasks: int, seed: int) -> dict[str, Any]:
    """Run the storm on a cache; afterwards every answer must be right."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(
            redis_url=url, dir=Path(directory), tiers=frozenset({"l1", "l3", "l4"}),
            exact_budget=5, lookup_budget=5,
        )  # fmt: skip
        cache = MultiLevelCache(settings=settings, embedding_model=HashEmbedder(), instruments=())
        async with cache:
            for number in range(MESSAGES):
                await cache.put(f"message number{number}", f"user {number % 7}", f"answer {number}")

            async def ask(number: int) -> str | None:
                return await cache.get_multilevel(f"message number{number}", f"user {number % 7}")

            before, tasks_before = await opened(url), len(asyncio.all_tasks())
            held = in_use(cache.redis_client)
            began = time.perf_counter()
            counts = await storm(ask, lookups, tasks, seed)
            seconds = time.perf_counter() - began
            await asyncio.sleep(0.2)
            found = [await ask(number) for number in range(MESSAGES)]
            counts["wrong"] += sum(text != f"answer {n}" for n, text in enumerate(found))
            return _result(
                counts, seconds, lookups,
                # first, because it waits until the duties, which use connections, are done
                leaked_tasks=await tasks_beyond(tasks_before),
                leaked_connections=max(0, in_use(cache.redis_client) - held),
                opened_connections=await opened(url) - before - 1,
                counted_cancelled=cache.metrics.cancelled,
            )  # fmt: skip


async def theirs(url: str, lookups: int, tasks: int, seed: int) -> dict[str, Any]:
    """Run the storm on redis-py itself."""
    async with redis.Redis.from_url(
        url, decode_responses=True, protocol=2, max_connections=2 * tasks
    ) as client:
        for number in range(MESSAGES):
            await client.set(f"storm:{number}", f"answer {number}")

        async def ask(number: int) -> str | None:
            found = await client.get(f"storm:{number}")
            return None if found is None else str(found)

        before = await opened(url)
        began = time.perf_counter()
        counts = await storm(ask, lookups, tasks, seed)
        seconds = time.perf_counter() - began
        return _result(
            counts, seconds, lookups,
            leaked_connections=in_use(client),
            opened_connections=await opened(url) - before - 1,
        )  # fmt: skip


def _result(counts: Counter[str], seconds: float, lookups: int, **more: Any) -> dict[str, Any]:
    names = ("asked", "answered", "missed", "stopped", "raised", "wrong")
    return {
        **{name: counts[name] for name in names},
        **more,
        "errors": {name: n for name, n in counts.items() if name.startswith("raised ")},
        "per_second": round(lookups / seconds),
    }


async def measure(url: str, lookups: int, tasks: int, seed: int) -> dict[str, Any]:
    """Return both results, and their ratios."""
    found: dict[str, Any] = {
        "glasscache": await ours(url, lookups, tasks, seed),
        "redis-py": await theirs(url, lookups, tasks, seed),
    }
    one, other = found["glasscache"], found["redis-py"]
    found["opened_ratio"] = round(
        one["opened_connections"] / max(1, other["opened_connections"]), 4
    )
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lookups", type=int, default=50_000, help="how many; default 50000")
    parser.add_argument("--tasks", type=int, default=200, help="how many at once; default 200")
    parser.add_argument("--seed", type=int, default=1, help="of the storm; default 1")
    parser.add_argument("--redis-url", help="use this Redis, and write to it; default: start one")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, nothing else")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = given.redis_url
        if url is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(redis_server(Path(directory)))
        found = asyncio.run(measure(url, given.lookups, given.tasks, given.seed))
    if given.json:
        print(json.dumps(found))
        return
    names = [name for name in found["glasscache"] if name not in {"errors", "per_second"}]
    print(f"{'':24}{'glasscache':>12}{'redis-py':>12}")
    for name in names:
        other = found["redis-py"].get(name, "")
        print(f"{name.replace('_', ' '):24}{found['glasscache'][name]:>12}{other:>12}")
    print(f"connections opened, of those that redis-py opened: {found['opened_ratio']:.2%}")


if __name__ == "__main__":
    main()
