"""Servers as child processes that never outlive this one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from cache_core.model.exceptions import ConfigurationError

_START_SECONDS = 20.0
STOP_SECONDS = 5.0
"""Longest wait in seconds for a process to end."""

_GUARD = "cat >/dev/null; kill -KILL 0"
"""Guard command: when its input ends, which it does with this process, kill the group."""


@dataclass(frozen=True, slots=True)
class Part:
    """Server that may be installed.

    Attributes:
        name: The server's name.
        programs: Possible names of its program; the first is Debian's.
        ready: Path that answers 200 when it is ready; empty if listening is enough.
    """

    name: str
    programs: tuple[str, ...]
    ready: str = ""

    @property
    def program(self) -> str | None:
        """Path of its program; `None` if it is not installed."""
        return next(filter(None, map(shutil.which, self.programs)), None)

    @property
    def missing(self) -> str:
        """Message if it is not installed."""
        return f"{self.name} is not installed: apt-get install {self.programs[0]}"


class Servers:
    """Process group with a guard that kills it if this process is gone."""

    def __init__(self, directory: Path, guard: subprocess.Popen[bytes]) -> None:
        self._directory = directory
        self._guard = guard
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextmanager
    def guarded(cls, directory: Path) -> Iterator[Servers]:
        """Yield a group with its guard; *directory* is for the logs."""
        # a group of their own, so that a terminal's Ctrl-C reaches this process only
        guard = subprocess.Popen(  # noqa: S603 - our own command
            ["sh", "-c", _GUARD],  # noqa: S607 - wherever the system has it
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        servers = cls(directory, guard)
        try:
            yield servers
        finally:
            servers.stop()

    def start(self, part: Part, port: int, command: Sequence[str]) -> None:
        """Start a server and wait until it is ready.

        Raises:
            ConfigurationError: If it does not start, with its last output.
        """
        process = self.launch(part.name, command)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if _works(port, part.ready):
                return
            time.sleep(0.05)
        log = self._log(part.name)
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise ConfigurationError(f"{part.name} did not start: {' / '.join(last) or 'no word'}")

    def launch(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to a file of that name; do not wait for it."""
        with self._log(name).open("wb") as words:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=self._guard.pid,
            )
        self._processes.append(process)
        return process

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def stop(self) -> None:
        """End all processes: terminate, then kill."""
        for process in reversed(self._processes):
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        if self._guard.stdin is not None:
            self._guard.stdin.close()  # it ends its group, itself included
        for process in (*self._processes, self._guard):
            process.wait(STOP_SECONDS)


def _works(port: int, path: str) -> bool:
    """Return whether the port accepts connections, and *path*, if any, answers 200."""
    with contextlib.suppress(OSError, HTTPException):
        if path:
            asked = HTTPConnection("127.0.0.1", port, timeout=1)
            with contextlib.closing(asked):
                asked.request("GET", path)
                return asked.getresponse().status == HTTPStatus.OK
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    return False


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def url_of(port: int, path: str = "") -> str:
    """Return a URL on the loopback address."""
    return f"http://127.0.0.1:{port}{path}"
