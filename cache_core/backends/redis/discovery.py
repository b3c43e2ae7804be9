"""Discovery of a master through its Sentinels."""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel


class Sentinels(Sentinel):
    """Sentinels that are asked in turn; if none answers, the error is what one of them said.

    redis-py reports in that case that it found no master, and leaves the others out after a server
    that is no Sentinel.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master.

        Raises:
            redis.RedisError: If no Sentinel answers, or none knows a master of this name.
        """
        failures: list[redis.RedisError] = []
        known = False
        for sentinel in list(self.sentinels):
            try:
                masters: Any = await sentinel.sentinel_masters()
            except (redis.RedisError, OSError) as error:
                failures.append(_of_sentinel(sentinel, error))
                continue
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):
                self._ask_first(sentinel)
                return state["ip"], state["port"]
            known = known or bool(state)
        if len(failures) < len(self.sentinels):
            why = "is down for its Sentinels" if known else "is unknown to its Sentinels"
            raise MasterNotFoundError(f"the master {service_name!r} {why}")
        unreachable = (redis.ConnectionError, redis.TimeoutError)
        raise next((it for it in failures if type(it) not in unreachable), failures[0])

    def _ask_first(self, sentinel: Any) -> None:
        """Ask the one that answered first from now on."""
        self.sentinels.remove(sentinel)
        self.sentinels.insert(0, sentinel)


def _of_sentinel(sentinel: Any, error: Exception) -> redis.RedisError:
    """Return *error* with the address of *sentinel*, and its type where a remedy depends on it."""
    at = sentinel.connection_pool.connection_kwargs
    words = f"Sentinel {at['host']}:{at['port']}: {error or type(error).__name__}".rstrip(".")
    if isinstance(error, redis.AuthenticationError):
        return redis.AuthenticationError(f"{words} (sentinel_password= in the URL)")
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)) or not isinstance(
        error, redis.RedisError
    ):
        return redis.ConnectionError(words)
    return type(error)(words)
