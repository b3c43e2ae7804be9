"""The servers around the demo, as plain processes: Redis, its exporter, Prometheus, Alertmanager.

Each listens on a free port of the loopback address and writes into the directory that it is given.
None outlives the process that started it, however that one ends.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cache_core.demo.board import Place
from cache_core.exceptions import ConfigurationError

ALERTS = Path(__file__).parents[2] / "alerts"
"""The rules and Alertmanager's configuration, in the project's folder; no wheel has them."""

_SCRAPE = "5s"
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_MAX_BODY = 1_048_576

_GUARD = "cat >/dev/null; kill -KILL 0"
"""Waits until its input ends, which it does with this process; then ends its process group."""

Told = Callable[[str, str, str], None]
"""Is called with the status, the name and the summary of an alert, in another thread."""


@dataclass(frozen=True, slots=True)
class Part:
    """A server that may be installed.

    Attributes:
        name: What it is.
        programs: What its program may be called; the first is Debian's.
        ready: The path that answers 200 once it works; empty if listening is enough.
    """

    name: str
    programs: tuple[str, ...]
    ready: str = ""

    @property
    def program(self) -> str | None:
        """The path of its program; `None` if it is not installed."""
        return next(filter(None, map(shutil.which, self.programs)), None)

    @property
    def missing(self) -> str:
        """What to say if it is not installed."""
        return f"{self.name} is not installed: apt-get install {self.programs[0]}"


REDIS = Part("redis", ("redis-server",))
EXPORTER = Part("redis_exporter", ("prometheus-redis-exporter", "redis_exporter"))
ALERTMANAGER = Part("alertmanager", ("prometheus-alertmanager", "alertmanager"), "/-/ready")
PROMETHEUS = Part("prometheus", ("prometheus",), "/-/ready")
PARTS = (REDIS, EXPORTER, ALERTMANAGER, PROMETHEUS)


@dataclass(slots=True)
class Stack:
    """What was started.

    Attributes:
        metrics_port: Where Prometheus looks for the demo's `/metrics`.
        redis_url: Of the Redis; `None` without one.
        places: What listens where.
        missing: What is not there, and how to install it.
        told: Alerts that arrived, as (status, name), in their order.
        tell: What hears of alerts, once it is set.
    """

    metrics_port: int
    redis_url: str | None = None
    places: list[Place] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    tell: Told | None = None


@contextmanager
def stack(directory: Path, metrics_port: int, scrape: str = _SCRAPE) -> Iterator[Stack]:
    """Run the servers that are installed; they end with the block, or with this process.

    Args:
        directory: For their data, their configurations and their logs.
        metrics_port: Where the demo will serve `/metrics`.
        scrape: How often Prometheus looks, and evaluates the rules.

    Raises:
        ConfigurationError: If the rules are not here, or a server does not start.
    """
    if not (ALERTS / "rules.yml").is_file():
        raise ConfigurationError(
            f"--stack needs the project's folder: {ALERTS} is not there. Clone the project and run "
            "it from there; an installed package comes without the rules"
        )
    directory.mkdir(parents=True, exist_ok=True)
    made = Stack(metrics_port, missing=[part.missing for part in PARTS if not part.program])
    with ExitStack() as running:
        servers = running.enter_context(_Servers.guarded(directory))
        exporter = alertmanager = None
        if REDIS.program:
            port = _redis(servers, REDIS.program, directory)
            made.redis_url = f"redis://127.0.0.1:{port}/0"
            made.places.append(Place(REDIS.name, made.redis_url))
            if EXPORTER.program:
                exporter = _exporter(servers, EXPORTER.program, made.redis_url)
                made.places.append(Place(EXPORTER.name, _url(exporter, "/metrics")))
        if ALERTMANAGER.program:
            receiver = running.enter_context(_receiver(made))
            alertmanager = _alertmanager(servers, ALERTMANAGER.program, directory, receiver)
            made.places.append(Place(ALERTMANAGER.name, _url(alertmanager)))
        if PROMETHEUS.program:
            targets = {"agent": metrics_port} | ({"redis": exporter} if exporter else {})
            config = _prometheus_config(targets, alertmanager, scrape)
            port = _prometheus(servers, PROMETHEUS.program, directory, config)
            made.places.append(Place(PROMETHEUS.name, _url(port)))
        yield made


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _url(port: int, path: str = "") -> str:
    return f"http://127.0.0.1:{port}{path}"


# ---------------------------------------------------------------------------------- the servers


def _redis(servers: _Servers, program: str, directory: Path) -> int:
    port = free_port()
    options = ("--save", "", "--appendonly", "no", "--dir", str(directory))
    # As much as a demo needs, so that memory and evictions have something to show.
    limit = ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    servers.start(
        REDIS, port, [program, "--port", str(port), "--bind", "127.0.0.1", *options, *limit]
    )
    return port


def _exporter(servers: _Servers, program: str, redis_url: str) -> int:
    port = free_port()
    where = ("-redis.addr", redis_url, "-web.listen-address", f"127.0.0.1:{port}")
    servers.start(EXPORTER, port, [program, *where, "-include-system-metrics"])
    return port


def _alertmanager(servers: _Servers, program: str, directory: Path, receiver: str) -> int:
    port = free_port()
    config = directory / "alertmanager.yml"
    config.write_text(for_one_receiver(ALERTS / "alertmanager.yml", receiver), encoding="utf-8")
    servers.start(
        ALERTMANAGER,
        port,
        [
            program,
            f"--config.file={config}",
            f"--storage.path={directory / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
    )
    return port


def _prometheus_config(
    targets: dict[str, int], alertmanager: int | None, scrape: str
) -> dict[str, Any]:
    often = ("scrape_interval", "scrape_timeout", "evaluation_interval")
    return {
        "global": dict.fromkeys(often, scrape),
        "rule_files": [str(ALERTS / "recording.yml"), str(ALERTS / "rules.yml")],
        "alerting": {"alertmanagers": [] if alertmanager is None else [_static(alertmanager)]},
        "scrape_configs": [{"job_name": job, **_static(to)} for job, to in targets.items()],
    }


def _prometheus(servers: _Servers, program: str, directory: Path, config: dict[str, Any]) -> int:
    port = free_port()
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML
    servers.start(
        PROMETHEUS,
        port,
        [
            program,
            f"--config.file={path}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ],
    )
    return port


def _static(port: int) -> dict[str, Any]:
    return {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}


def for_one_receiver(source: Path, url: str) -> str:
    """Return Alertmanager's configuration with its routes and inhibitions, all to one webhook.

    Args:
        source: The shipped configuration: its receivers need accounts and secrets.
        url: Of the webhook.
    """
    # Top-level keys begin a line; PyYAML is no dependency of the command.
    text = source.read_text(encoding="utf-8")
    parts = re.split(r"^(?=[a-z_]+:)", text, flags=re.MULTILINE)
    blocks = {part.split(":", 1)[0]: part for part in parts}
    names = re.findall(r"^  - name: (\w+)", blocks["receivers"], flags=re.MULTILINE)
    told = [
        {"name": name, "webhook_configs": [{"url": url, "send_resolved": True}]}
        if name != "nobody"
        else {"name": name}
        for name in names
    ]
    receivers = json.dumps(told)
    return f"{blocks['route']}\n{blocks['inhibit_rules']}\nreceivers: {receivers}\n"


@contextmanager
def _receiver(made: Stack) -> Iterator[str]:
    """Take what Alertmanager sends, as a pager would; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            try:
                alerts = json.loads(self.rfile.read(min(length, _MAX_BODY)))["alerts"]
                found = [
                    (one["status"], one["labels"]["alertname"], one["annotations"]["summary"])
                    for one in alerts
                ]
            except (ValueError, KeyError, TypeError):
                self.send_error(400)
                return
            for status, name, summary in found:
                made.told.append((status, name))
                if made.tell is not None:
                    made.tell(status, name, summary)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
    thread.start()
    try:
        yield _url(server.server_port, "/alerts")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=_STOP_SECONDS)


# ---------------------------------------------------------------------------------- processes


class _Servers:
    """Processes of one group, with a guard in it that ends them all if this process is gone."""

    def __init__(self, directory: Path, guard: subprocess.Popen[bytes]) -> None:
        self._directory = directory
        self._guard = guard
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    @contextmanager
    def guarded(cls, directory: Path) -> Iterator[_Servers]:
        # A group of their own, so that a terminal's Ctrl-C reaches this process alone.
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
        """Start a server and wait until it works.

        Raises:
            ConfigurationError: With its last words, if it does not.
        """
        log = self._directory / f"{part.name}.log"
        with log.open("wb") as words:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                process_group=self._guard.pid,
            )
        self._processes.append(process)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if _works(port, part.ready):
                return
            time.sleep(0.05)
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise ConfigurationError(f"{part.name} did not start: {' / '.join(last) or 'no word'}")

    def stop(self) -> None:
        """End them: first by asking."""
        for process in reversed(self._processes):
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        if self._guard.stdin is not None:
            self._guard.stdin.close()  # it ends its group, itself included
        for process in (*self._processes, self._guard):
            process.wait(_STOP_SECONDS)


def _works(port: int, path: str) -> bool:
    """Whether something listens, and answers 200 if there is a path to ask for."""
    with contextlib.suppress(OSError, HTTPException):
        if path:
            asked = HTTPConnection("127.0.0.1", port, timeout=1)
            with contextlib.closing(asked):
                asked.request("GET", path)
                return asked.getresponse().status == HTTPStatus.OK
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    return False
