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


_COLLECTOR = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port, status, hangs = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
asked = 0

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        global asked
        asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(hangs)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        body = str(asked).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def collector(status: int = 200, hangs: float = 0.0) -> Iterator[str]:
    """Yield the URL of an OTLP/HTTP receiver in a process of its own; GET tells its requests.

    Args:
        status: It answers each request with.
        hangs: Seconds until it answers.
    """
    port = free_port()
    command = [sys.executable, "-c", _COLLECTOR, str(port), str(status), str(hangs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


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
    port = free_port()
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
            msg = f"the server ended with {process.returncode}"
            raise RuntimeError(msg)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    msg = f"nobody listens on port {port}"
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
