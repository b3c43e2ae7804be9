"""Faults of the soak: a schedule that depends only on the seed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import redis

from benchmarks.support.proxies import Proxies
from benchmarks.support.servers import Server

SERVERS = (
    "redis stopped", "redis killed", "redis connections closed", "redis full", "redis read-only",
    "redis slow", "redis replies broken", "garbage in redis", "chroma stopped", "chroma killed",
    "chroma slow", "chroma replies broken",
    "redis and chroma killed", "replica killed", "replica paused",
)  # fmt: skip
EMBEDDED = ("database locked", "garbage in database", "replica killed", "replica paused")

BROKEN = ("black_hole", "refuse", "reset", "truncate", "garbage", "lose_reply")

_T = TypeVar("_T")

SETTLE = 3.0
"""Seconds after a fault that the figures still count as part of it."""


@dataclass(slots=True)
class Window:
    """Fault that was caused.

    Attributes:
        name: Name of the fault.
        start, end: Times in seconds since the epoch; at *end* the backend answers again.
        replica: The only affected replica; `None` for all.
        backends: Backends whose breakers it may open.
    """

    name: str
    start: float
    end: float = 0.0
    replica: int | None = None
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """Fault to come.

    Attributes:
        name: Name of the fault.
        calm: Seconds of calm before it.
        seconds: Duration in seconds.
    """

    name: str
    calm: float
    seconds: float


def schedule(names: Sequence[str], seconds: float, seed: int) -> list[Planned]:
    """Return the faults of a run: each once in every round, in an order of the round's own.

    Args:
        names: Names of the faults.
        seconds: Length of the run after the warm-up. In short runs faults are short, too.
        seed: Seed of everything.
    """
    chance = Random(seed)
    scale = min(1.0, seconds / (len(names) * 24.0))
    planned: list[Planned] = []
    spent = 0.0
    while True:
        for name in chance.sample(list(names), len(names)):
            calm = max(4.0, chance.uniform(12, 24) * scale)
            lasts = max(2.0, chance.uniform(4, 10) * scale)
            spent += calm + lasts + SETTLE
            if spent > seconds:
                return planned
            planned.append(Planned(name, calm, lasts))


@dataclass(slots=True)
class Site:
    """Targets of the faults.

    Attributes:
        redis, chroma: Servers; `None` in the embedded mode.
        proxies: Proxies before the servers, used by half of the replicas; `None` when embedded.
        database: The embedded store's file.
        replicas: Process of each replica, by number.
        revive: Restarts a replica.
        chance: Source of the garbage.
    """

    redis: Server | None
    chroma: Server | None
    proxies: Proxies | None
    database: Path
    replicas: dict[int, Any]
    revive: Callable[[int], None]
    chance: Random
    pause: Callable[[float], None] = field(default=time.sleep)

    # ------------------------------------------------------------------------------ the faults

    def make(self, planned: Planned) -> Window:
        """Cause a planned fault, for the planned time, and repair it."""
        work: dict[str, Callable[[Window, float], None]] = {
            "redis stopped": lambda w, s: self._stopped([self.redis], w, s),
            "chroma stopped": lambda w, s: self._stopped([self.chroma], w, s),
            "redis killed": lambda w, s: self._killed([self.redis], w, s),
            "chroma killed": lambda w, s: self._killed([self.chroma], w, s),
            "redis and chroma killed": lambda w, s: self._killed([self.redis, self.chroma], w, s),
            "redis connections closed": self._connections_closed,
            "redis full": self._full,
            "redis read-only": self._read_only,
            "redis slow": lambda w, s: self._slow("redis", w, s),
            "chroma slow": lambda w, s: self._slow("chroma", w, s),
            "redis replies broken": lambda w, s: self._broken("redis", w, s),
            "chroma replies broken": lambda w, s: self._broken("chroma", w, s),
            "garbage in redis": self._garbage_in_redis,
            "replica killed": self._replica_killed,
            "replica paused": self._replica_paused,
            "database locked": self._database_locked,
            "garbage in database": self._garbage_in_database,
        }
        backends = tuple(name for name in ("redis", "chroma") if name in planned.name)
        window = Window(planned.name, time.time(), backends=backends)
        work[planned.name](window, planned.seconds)
        window.end = window.end or time.time()
        return window

    def _stopped(self, servers: Sequence[Server | None], window: Window, seconds: float) -> None:
        for server in servers:
            _there(server).stop()
        self.pause(seconds)
        for server in servers:
            _there(server).go_on()
            window.end = _there(server).wait()

    def _killed(self, servers: Sequence[Server | None], window: Window, seconds: float) -> None:
        for server in servers:
            _there(server).kill()
        self.pause(seconds)
        for server in servers:
            window.end = _there(server).restart()

    def _client(self) -> redis.Redis:  # type: ignore[name-defined]
        return redis.Redis(port=_there(self.redis).port, socket_timeout=5)

    def _connections_closed(self, window: Window, seconds: float) -> None:
        with contextlib.closing(self._client()) as client:
            while time.time() < window.start + seconds:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
                self.pause(0.5)

    def _full(self, _: Window, seconds: float) -> None:
        with contextlib.closing(self._client()) as client:
            client.config_set("maxmemory", 1)
            self.pause(seconds)
            client.config_set("maxmemory", 0)

    def _read_only(self, _: Window, seconds: float) -> None:
        with contextlib.closing(self._client()) as client:
            # a master that does not exist: data stays, read-only
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            self.pause(seconds)
            client.execute_command("REPLICAOF", "NO", "ONE")

    def _slow(self, backend: str, _: Window, seconds: float) -> None:
        proxies = _there(self.proxies)
        proxies.say(backend, "jitter", self.chance.choice([0.01, 0.1]))
        proxies.say(backend, "latency", self.chance.choice([0.02, 0.1, 0.3]))
        self.pause(seconds)
        proxies.say(backend, "latency", 0)
        proxies.say(backend, "jitter", 0)

    def _broken(self, backend: str, window: Window, seconds: float) -> None:
        proxies = _there(self.proxies)
        while time.time() < window.start + seconds:
            proxies.say(backend, "mode", self.chance.choice(BROKEN))
            self.pause(0.5)
        proxies.say(backend, "mode", "pass")

    def _garbage_in_redis(self, window: Window, seconds: float) -> None:
        with contextlib.closing(self._client()) as client:
            while time.time() < window.start + seconds:
                keys = [key for key in client.scan_iter("gc1:*", count=1000) if _is_spoiled(key)]
                for key in self.chance.sample(keys, min(30, len(keys))):
                    _spoil(client, key, self.chance.choice(keys), self.chance)
                self.pause(1.0)

    def _replica_killed(self, window: Window, seconds: float) -> None:
        # always the last one: the others live through the whole run, and are watched for leaks
        window.replica = number = max(self.replicas)
        self.replicas[number].kill()
        self.replicas[number].wait()
        self.pause(seconds)
        self.revive(number)

    def _replica_paused(self, window: Window, seconds: float) -> None:
        window.replica = number = self.chance.choice(sorted(self.replicas))
        os.kill(self.replicas[number].pid, signal.SIGSTOP)
        self.pause(seconds)
        os.kill(self.replicas[number].pid, signal.SIGCONT)

    def _database_locked(self, _: Window, seconds: float) -> None:
        with _database(self.database) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            self.pause(seconds)
            connection.execute("ROLLBACK")

    def _garbage_in_database(self, window: Window, seconds: float) -> None:
        with _database(self.database) as connection:
            while time.time() < window.start + seconds:
                query = "SELECT key FROM entries WHERE key LIKE '%:l_:%' ORDER BY random() LIMIT 60"
                keys = [row[0] for row in connection.execute(query)]
                for key in keys[:30]:
                    value = self.chance.choice(["", "{", "null", "\x00\ufffd" * 50, "[" * 3000])
                    connection.execute("UPDATE entries SET value = ? WHERE key = ?", (value, key))
                self.pause(1.0)


def _there(server: _T | None) -> _T:
    if server is None:
        msg = "there is no such server in this mode"
        raise RuntimeError(msg)
    return server


def _is_spoiled(key: bytes) -> bool:
    """Return whether a key is an entry, a marker, an index or vectors, but no token.

    Writing tokens can bring back invalidated answers: that is no accident, but an attack.
    """
    return not (key.endswith(b":g") or b":g:" in key or b"{tuning}" in key)


def _spoil(client: redis.Redis, key: bytes, other: bytes, chance: Random) -> None:
    """Overwrite a key with noise, half of itself, another type, or another key's value."""
    kind = chance.randrange(4)
    with contextlib.suppress(redis.ResponseError):
        if kind == 0:
            client.set(key, chance.randbytes(chance.randrange(2000)), keepttl=True)
        elif kind == 1:
            value = client.get(key) or b""
            client.set(key, value[: len(value) // 2], keepttl=True)
        elif kind == 2:
            client.delete(key)
            client.rpush(key, "garbage")
            client.expire(key, 600)
        else:
            client.set(key, client.get(other) or b"", keepttl=True)


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
