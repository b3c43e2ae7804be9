"""Leases: the right to compute one answer, among the processes that share a store.

A lease is a key in the store with its holder's token, which expires some seconds after the holder's
last renewal. It saves computations; it does not prevent overlapping ones: a process that was
suspended for longer than its lease continues after another one has taken over. Its token shows this
(`Lease.renew`), and then the other's answer stays. Answers computed before an invalidation are
rejected by generations, with or without a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias, TypeVar

from cache_core.backends import base
from cache_core.model.exceptions import BackendError
from cache_core.model.tasks import background, traced_by
from cache_core.observability.records import ComputeRecord

Found = TypeVar("Found")

Waiting: TypeAlias = Callable[[str], AbstractContextManager[ComputeRecord]]
"""Surrounds the wait for a holder, given the trace of its computation as far as it is known."""

_RENEWALS = 3
"""Renewals within the duration of a lease."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
_PAUSE_GROWS = 1.5

_SEPARATOR = "-"
"""Between a holder's random token and the trace of its computation, which others link to."""

_FAILURES = 3
"""Failures of the store in a row after which waiting is abandoned."""

_HOLDERS = 2
"""Holders to wait for that end without an answer: after the second, each process computes for
itself. One may have crashed; after two, waiting for all the others in turn is pointless."""


class LeaseStore(base.Leases, base.Values, Protocol):
    """Store of leases; each can be read by its key."""


class Lease:
    """Lease held by this process; renewed in the background until it is released."""

    __slots__ = ("_leases", "_renewing", "key", "lost", "since", "token")

    def __init__(self, leases: Turns, key: str, token: str, since: float) -> None:
        self._leases = leases
        self.key = key
        self.token = token
        self.since = since
        """Time at which it was taken, by the store's clock."""
        self.lost = False
        """True once it is known to have ended."""
        # Detached from the caller's context: no span lasts as long as a lease.
        self._renewing = asyncio.get_running_loop().create_task(self._keep(), context=background())

    async def renew(self) -> bool:
        """Renew it; return whether it is still held, False if that is unknown."""
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
        """Release it in the background; idempotent."""
        self._renewing.cancel()
        self._leases.release(self)


class Turns:
    """Leases of one open cache.

    Args:
        store: Store of the leases.
        seconds: Duration of a lease after its last renewal; 0 switches leases off.
        wait: Seconds to wait at most for the answers of other processes.
    """

    def __init__(self, store: LeaseStore, seconds: float, wait: float) -> None:
        self._store = store
        self.seconds = seconds
        self._wait = wait
        self._held: set[Lease] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def take(self, key: str) -> Lease | str:
        """Return the lease *key*, or the token of its holder.

        Raises:
            BackendError: If the store is unavailable, or the cache was closed.
        """
        if self._closed:
            raise BackendError("backend_error", "Closed")
        token = f"{secrets.token_hex(8)}{_SEPARATOR}{traced_by()}"
        try:
            holder = await self._store.take_lease(key, token, self.seconds)
        except BaseException:
            # After a cancellation or a lost reply, the lease may have been taken anyway.
            self._let_go(key, token)
            raise
        if holder != token:
            return holder
        if self._closed:
            raise BackendError("backend_error", "Closed")
        lease = Lease(self, key, token, self._store.now())
        self._held.add(lease)
        return lease

    async def turn(
        self, key: str, look: Callable[[], Awaitable[Found | None]], waiting: Waiting
    ) -> Found | Lease:
        """Wait for another process's answer, or for this process's turn to compute it.

        While another process holds the lease, the answer and the lease are polled: often at first,
        then about every quarter of a second, with jitter.

        Args:
            key: The lease's key.
            look: Returns the answer, if it exists.
            waiting: Surrounds each wait; its record becomes `unanswered` if there is no answer.

        Returns:
            The answer, or the lease.

        Raises:
            BackendError: If there is neither: the store is unavailable, or the time is over.
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
            with waiting(taken.partition(_SEPARATOR)[2]) as record:
                found = await self._wait_for(key, taken, look, deadline)
                if found is not None:
                    return found
                record.outcome = "unanswered"
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
            # Sent in one turn of the event loop, they share a round trip.
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
        """Return the previous holder's answer and release the lease, or else return the lease."""
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
        """Renew *lease* for its whole duration; return whether it is held."""
        if self._closed:
            return False
        return await self._store.renew_lease(lease.key, lease.token, self.seconds)

    def release(self, lease: Lease) -> None:
        """Release *lease*."""
        if lease in self._held:
            self._held.remove(lease)
            self._let_go(lease.key, lease.token)

    def _let_go(self, key: str, token: str) -> None:
        # In a task of its own, because the caller may be about to be cancelled.
        task = asyncio.get_running_loop().create_task(self._end(key, token), context=background())
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _end(self, key: str, token: str) -> None:
        # If this fails, the lease expires.
        with contextlib.suppress(BackendError):
            await self._store.release_lease(key, token)

    async def close(self) -> None:
        """Release all leases: running computations are not stored any more."""
        self._closed = True
        for lease in tuple(self._held):
            lease.release()
        await asyncio.gather(*self._releasing, return_exceptions=True)
