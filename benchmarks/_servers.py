"""Real servers for the benchmarks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 20.0


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """Yield the URL of a redis-server on a free loopback port that keeps nothing on disk.

    Args:
        directory: Its working directory.

    Raises:
        SystemExit: If redis-server is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", str(directory),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            msg = f"redis-server ended with {process.returncode}"
            raise RuntimeError(msg)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    msg = f"redis-server does not listen on port {port}"
    raise TimeoutError(msg)


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keep every core from halting with a busy process of the lowest priority.

    On a virtual machine an idle core takes 35 to 45 us to wake up, at every hop between client and
    server: sequential calls then measure the hypervisor.
    """
    command = [sys.executable, "-c", "import os\nos.nice(19)\nwhile True: pass"]
    spinners = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
