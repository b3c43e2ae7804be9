"""Chaos proxies in a process of their own, so that no client pays for them.

    python -m benchmarks.support.proxies redis=6379 chroma=8000

prints the ports as JSON, then obeys lines such as `redis latency 0.1` and `redis mode black_hole`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping

from cache_core.testing import ChaosProxy


class Proxies:
    """Handle of a benchmark on its proxies.

    Args:
        process: Process that runs this file.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.ports: dict[str, int] = json.loads(process.stdout.readline())

    def say(self, name: str, what: str, value: object) -> None:
        """Change a proxy: *what* is `mode`, `latency` or `jitter`; return when it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {what} {value}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()


@contextlib.contextmanager
def proxies(servers: Mapping[str, int]) -> Iterator[Proxies]:
    """Yield proxies before servers, by their names and ports."""
    command = [sys.executable, __file__, *(f"{name}={port}" for name, port in servers.items())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Proxies(process)
    finally:
        process.kill()
        process.communicate()


async def serve(servers: Mapping[str, int]) -> None:
    """Run a proxy before each of *servers*, and obey standard input until it ends."""
    made = {name: ChaosProxy("127.0.0.1", port) for name, port in servers.items()}
    for proxy in made.values():
        await proxy.start()
    print(json.dumps({name: proxy.port for name, proxy in made.items()}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, what, value = line.split()
        if what == "mode":
            await made[name].switch(value)  # type: ignore[arg-type]
        else:
            setattr(made[name], what, float(value))
        print("done", flush=True)


if __name__ == "__main__":
    given = (argument.split("=") for argument in sys.argv[1:])
    asyncio.run(serve({name: int(port) for name, port in given}))
