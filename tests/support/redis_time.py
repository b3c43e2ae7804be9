"""Time of a Redis that a test moves instead of waiting for it."""

from __future__ import annotations

from typing import Any

from tests.support import servers


def age(store: Any, seconds: float) -> None:
    """Move the clock of a `RedisStore` forward, as if its server had said so."""
    store._clock.set(store.now() + seconds)


def pass_time(store: Any, url: str, seconds: float) -> None:
    """Move a `RedisStore`'s clock forward, and take as much from the life of its server's keys."""
    age(store, seconds)
    with servers.admin(url) as client:
        for key in client.scan_iter():
            left = client.pttl(key)
            if left >= 0:
                client.pexpire(key, left - int(seconds * 1000))
