"""The right to compute one answer, among the processes that share a store.

A lease is a key in the store with the token of whoever took it, which ends by itself some seconds
after its holder's last sign of life. It saves computations; it does not keep two of them from
overlapping: a process that stood still for longer than its lease goes on when another one has
taken over. Its token tells it so (`Lease.renew`), and then the other's answer stays. What must
never be stored, an answer from before an invalidation, is kept out by generations, lease or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cache_core.exceptions import BackendError
from cache_core.stores.base import KeyValueStore

Found = TypeVar("Found")

_RENEWALS = 3
"""Signs of life within the time of a lease."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
_PAUSE_GROWS = 1.5

_FAILURES = 3
"""Times in a row that the store does not answer before it is not asked any more."""

_HOLDERS = 2
"""Holders to wait for that end without an answer: after the second, each computes for itself. One
may have died; if two did not leave an answer, waiting for all the others in turn helps nobody."""


class Lease:
    """A lease that this process took; renewed in the background until it is released."""

    __slots__ = ("_leases", "_renewing", "key", "lost", "token")

    def __init__(self, leases: Leases, key: str, token: str) -> None:
        self._leases = leases
        self.key = key
        self.token = token
        self.lost = False
        """Whether it is known to have ended."""
        # In no context: no trace lasts as long as it is held.
        self._renewing = asyncio.get_running_loop().create_task(
            self._keep(), context=contextvars.Context()
        )

    async def renew(self) -> bool:
        """Let it last from now; return whether it is still held. False when nobody can tell."""
        if self.lost:
            return False
        try:
            self.lost = not await self._leases.renew(self)
        except BackendError:
            return False
        return not self.lost

    async def _keep(self) -> None:
        while not self.lost:
            await asyncio.sleep(self._leases.seconds / _RENEWALS)
            await self.renew()

    def release(self) -> None:
        """Give it back, in nobody's time; idempotent."""
        self._renewing.cancel()
        self._leases.release(self)


class Leases:
    """The leases of one open cache.

    Args:
        store: Where they are.
        seconds: How long one lasts after its holder's last sign of life; 0: there are none.
        wait: Seconds to wait at most for what others compute.
    """

    def __init__(self, store: KeyValueStore, seconds: float, wait: float) -> None:
        self._store = store
        self.seconds = seconds
        self._wait = wait
        self._held: set[Lease] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def held(self) -> int:
        """How many this process holds."""
        return len(self._held)

    async def take(self, key: str) -> Lease | str:
        """Return the lease *key*, or the token of its holder.

        Raises:
            BackendError: If the store is away, or the cache was closed.
        """
        if self._closed:
            raise BackendError("backend_error", "Closed")
        token = secrets.token_hex(8)
        try:
            holder = await self._store.take_lease(key, token, self.seconds)
        except BaseException:
            # Whoever is cancelled, or gets no reply, may have it all the same.
            self._let_go(key, token)
            raise
        if holder != token:
            return holder
        if self._closed:
            raise BackendError("backend_error", "Closed")
        lease = Lease(self, key, token)
        self._held.add(lease)
        return lease

    async def turn(self, key: str, look: Callable[[], Awaitable[Found | None]]) -> Found | Lease:
        """Wait until somebody's answer is there, or it is this process's turn to compute it.

        While another one holds the lease, the answer and the lease are looked at: soon at first,
        then every quarter of a second, each process at times of its own.

        Args:
            key: Of the lease.
            look: Returns the answer, if it is there.

        Returns:
            The answer, or the lease.

        Raises:
            BackendError: If there is neither: the store is away, or others had their time.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._wait
        holders: set[str] = set()
        while len(holders) <= _HOLDERS and clock() < deadline:
            taken = await self.take(key)
            if isinstance(taken, Lease):
                return await self._unless_there(taken, look)
            if taken:
                holders.add(taken)
            found = await self._wait_for(key, taken, look, deadline)
            if found is not None:
                return found
        raise BackendError("timeout", "LeaseHeld")

    async def _wait_for(
        self,
        key: str,
        holder: str,
        look: Callable[[], Awaitable[Found | None]],
        deadline: float,
    ) -> Found | None:
        """Return the answer of *holder*; `None` once it holds the lease no longer."""
        clock = asyncio.get_running_loop().time
        pause, failed = _FIRST_PAUSE, 0
        while clock() < deadline:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LONGEST_PAUSE, pause * _PAUSE_GROWS)
            # Asked for in one turn of the event loop, they share a round trip.
            found, now = await asyncio.gather(look(), self._holder(key))
            if found is not None:
                return found
            if isinstance(now, BackendError):
                failed += 1
                if failed == _FAILURES or now.reason == "breaker_open":
                    raise now
                continue
            failed = 0
            if now != holder:
                return None
        return None

    async def _holder(self, key: str) -> str | BackendError:
        try:
            return (await self._store.read([key]))[0] or "nobody"
        except BackendError as error:
            return error

    @staticmethod
    async def _unless_there(
        lease: Lease, look: Callable[[], Awaitable[Found | None]]
    ) -> Found | Lease:
        """Return what the holder before left, giving the lease back, or else the lease."""
        found: Found | None = None
        try:
            found = await look()
        except BaseException:
            lease.release()
            raise
        if found is None:
            return lease
        lease.release()
        return found

    async def renew(self, lease: Lease) -> bool:
        """Return whether *lease* is held, and for how long it was made for again."""
        if self._closed:
            return False
        return await self._store.renew_lease(lease.key, lease.token, self.seconds)

    def release(self, lease: Lease) -> None:
        """Give *lease* back."""
        if lease in self._held:
            self._held.remove(lease)
            self._let_go(lease.key, lease.token)

    def _let_go(self, key: str, token: str) -> None:
        # In a task of its own: whoever gives it back may be about to be cancelled.
        task = asyncio.get_running_loop().create_task(
            self._end(key, token), context=contextvars.Context()
        )
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _end(self, key: str, token: str) -> None:
        # What cannot be given back ends by itself.
        with contextlib.suppress(BackendError):
            await self._store.release_lease(key, token)

    async def close(self) -> None:
        """Give all of them back: what is computed now is not stored any more."""
        self._closed = True
        for lease in tuple(self._held):
            lease.release()
        await asyncio.gather(*self._releasing, return_exceptions=True)
