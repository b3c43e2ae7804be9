"""Faults that `faults.py` measures: their cause and repair."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import redis

from benchmarks.support.proxies import Proxies
from benchmarks.support.servers import Server


@dataclass(slots=True)
class Site:
    """Targets of a scenario.

    Attributes:
        redis, chroma: Real servers; no Chroma with the vectors in Redis.
        proxies: Proxies before them, with the same names.
        held: Connection to Redis that a scenario keeps.
    """

    redis: Server
    chroma: Server | None
    proxies: Proxies
    held: redis.Redis | None = None  # type: ignore[name-defined]

    def say(self, *commands: str) -> None:
        """Send commands to Redis, on a connection that no fault affects."""
        with contextlib.closing(redis.Redis(port=self.redis.port)) as client:
            for command in commands:
                client.execute_command(*command.split())


Action = Callable[[Site], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Fault with its repair.

    Attributes:
        name: Name in the table.
        backend: Affected backend: `redis` or `chroma`.
        make, mend: Cause and repair it; after *mend* the backend answers again.
        through_proxy: Whether the cache reaches the backend through the proxy.
        what: Description in a few words.
    """

    name: str
    backend: str
    make: Action
    mend: Action
    through_proxy: bool = False
    what: str = ""


def _process(backend: str, action: str) -> Action:
    def act(site: Site) -> None:
        server: Server = getattr(site, backend)
        getattr(server, action)()
        if action == "go_on":
            server.wait()

    return act


def _proxy(backend: str, what: str, value: object) -> Action:
    return lambda site: site.proxies.say(backend, what, value)


def _broken(backend: str, mode: str, what: str) -> Scenario:
    return Scenario(
        f"{backend}: {mode.replace('_', ' ')}", backend, _proxy(backend, "mode", mode),
        _proxy(backend, "mode", "pass"), through_proxy=True, what=what,
    )  # fmt: skip


def _slow(backend: str, milliseconds: int) -> Scenario:
    return Scenario(
        f"{backend}: {milliseconds} ms late", backend,
        _proxy(backend, "latency", milliseconds / 1000), _proxy(backend, "latency", 0),
        through_proxy=True, what=f"every reply is {milliseconds} ms late",
    )  # fmt: skip


def _redis(name: str, what: str, make: tuple[str, ...], mend: tuple[str, ...]) -> Scenario:
    return Scenario(
        f"redis: {name}", "redis", lambda site: site.say(*make), lambda site: site.say(*mend),
        what=what,
    )  # fmt: skip


_CUT = "CLIENT KILL TYPE normal SKIPME yes"


def _locked(site: Site) -> None:
    site.say("CONFIG SET requirepass other", _CUT)


def _unlocked(site: Site) -> None:
    with contextlib.closing(redis.Redis(port=site.redis.port, password="other")) as client:
        client.config_set("requirepass", "")


def _crowd(site: Site) -> None:
    # held until the end: a later client would be one too many
    site.held = redis.Redis(port=site.redis.port, single_connection_client=True)
    site.held.config_set("maxclients", 1)
    site.held.execute_command(*_CUT.split())


def _no_crowd(site: Site) -> None:
    if site.held is not None:
        site.held.config_set("maxclients", 1000)
        site.held.close()


SCENARIOS = (
    Scenario("redis: stopped", "redis", _process("redis", "stop"), _process("redis", "go_on"),
             what="SIGSTOP: connected, and silent"),
    Scenario("redis: killed", "redis", _process("redis", "kill"), _process("redis", "restart"),
             what="SIGKILL, connections refused, restarted empty"),
    _slow("redis", 20),
    _slow("redis", 100),
    _slow("redis", 500),
    _broken("redis", "black_hole", "connections are accepted, nothing is answered"),
    _broken("redis", "reset", "replies are cut in half, then the connection is reset"),
    _broken("redis", "truncate", "replies end in half"),
    _broken("redis", "garbage", "replies are random bytes"),
    _broken("redis", "lose_reply", "requests are done, replies lost"),
    _broken("redis", "dribble", "replies come byte by byte, 10 ms each"),
    _redis("connections closed", "CLIENT KILL of all, once", (_CUT,), ("PING",)),
    _redis("full", "maxmemory reached under noeviction",
           ("CONFIG SET maxmemory 1",), ("CONFIG SET maxmemory 0",)),
    _redis("read-only", "a replica whose master is unavailable",
           ("REPLICAOF 127.0.0.1 1",), ("REPLICAOF NO ONE",)),
    Scenario("redis: wrong password", "redis", _locked, _unlocked,
             what="the password was changed, connections closed"),
    _redis("forbidden", "the ACL takes all commands on data",
           ("ACL SETUSER default -@read -@write",), ("ACL SETUSER default +@all",)),
    Scenario("redis: too many clients", "redis", _crowd, _no_crowd,
             what="maxclients reached, connections closed"),
    Scenario("chroma: stopped", "chroma", _process("chroma", "stop"), _process("chroma", "go_on"),
             what="SIGSTOP: connected, and silent"),
    Scenario("chroma: killed", "chroma", _process("chroma", "kill"), _process("chroma", "restart"),
             what="SIGKILL, connections refused, restarted"),
    _slow("chroma", 100),
    _slow("chroma", 500),
    _broken("chroma", "black_hole", "connections are accepted, nothing is answered"),
    _broken("chroma", "reset", "replies are cut in half, then the connection is reset"),
    _broken("chroma", "garbage", "replies are random bytes"),
)  # fmt: skip
"""All faults, in the order of the table."""
