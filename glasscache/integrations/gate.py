"""Gate between an adapter and the cache: asks it for a request, and gives it the reply."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from cache_core import LookupResult, MultiLevelCache
from cache_core.operations.arguments import NO_WISHES, Wants, wishes
from cache_core.runtime.hosting import start_hosted, wait_hosted
from glasscache.integrations.contract import Reply, Request, cut_short

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

_acting: ContextVar[str | None] = ContextVar("glasscache_user", default=None)
_wants: ContextVar[Wants] = ContextVar("glasscache_wants", default=NO_WISHES)


@contextlib.contextmanager
def as_user(user_id: str | None) -> Iterator[None]:
    """Make the requests within for a user, whose identity the application has verified."""
    token = _acting.set(user_id)
    try:
        yield
    finally:
        _acting.reset(token)


def acting_user() -> str | None:
    """Return the user of `as_user`; `None` outside of it."""
    return _acting.get()


@contextlib.contextmanager
def control(
    *,
    max_age: float | None = None,
    max_wrong: float | None = None,
    no_lookup: bool = False,
    no_store: bool = False,
) -> Iterator[None]:
    """Let the requests within say what they want of the cache.

    Args:
        max_age, max_wrong: As for `MultiLevelCache.lookup`.
        no_lookup: Ask the model, whatever is stored, and store what it says: a "regenerate" button.
        no_store: Store no reply.

    Raises:
        TypeError, ValueError: As `MultiLevelCache.lookup`.
    """
    token = _wants.set(wishes(max_age, max_wrong, no_lookup, no_store))
    try:
        yield
    finally:
        _wants.reset(token)


def controlled() -> dict[str, Any]:
    """Return the arguments of the `control` around the caller, for a method of the cache."""
    return _wants.get()._asdict()


class Found(NamedTuple):
    """Result of a gate's lookup.

    Attributes:
        text: The stored answer; `None` without one.
        request: The request.
        user_id: Its user.
        result: Result of the lookup; `None` if none was made.
        no_store: Whether its reply is not to be stored.
    """

    text: str | None
    request: Request
    user_id: str | None
    result: LookupResult | None
    no_store: bool = False

    def shown(self) -> dict[str, Any]:
        """Return what an adapter shows of a hit beside the answer."""
        found = self.result
        if found is None or found.response is None:
            return {}
        return {
            "outcome": found.outcome,
            "tier": found.tier,
            "similarity": found.similarity,
            "age_seconds": found.age_seconds,
            "lookup_id": found.lookup_id,
        }


class Gate:
    """The cache as adapters use it, with what the application says of all answers.

    Without a user only answers shared by all users are read and stored. No parameter of a request
    is taken for a user: it is not verified.

    Args:
        cache: The cache.
        user: Returns the verified user of the current request; default: that of `as_user`.
        intent, shared, ttl, tags: As for `MultiLevelCache.put`.
    """

    def __init__(
        self,
        cache: MultiLevelCache,
        *,
        user: Callable[[], str | None] = acting_user,
        intent: str | None = None,
        shared: bool | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self.cache = cache
        self.user = user
        self.shared = shared
        self._how: dict[str, Any] = {
            "intent": intent, "shared": shared, "ttl": ttl, "tags": tuple(tags),
        }  # fmt: skip

    def tagged(self, tag: str) -> Gate:
        """Return the same gate, whose answers have one tag more."""
        tags = (*self._how["tags"], tag)
        return Gate(self.cache, user=self.user, **{**self._how, "tags": tags})

    def unasked(self, request: Request) -> Found:
        """Return a request as a result, for frameworks that store without what they found."""
        return Found(None, request, self.user(), None, _wants.get().no_store)

    async def find(self, request: Request) -> Found:
        """Return what is stored for a request; one that is not cacheable is counted as a bypass."""
        return await self._find(request, self.user(), controlled())

    async def _find(self, request: Request, user: str | None, wants: Mapping[str, Any]) -> Found:
        if request.why_not is not None:
            await self.cache.bypass(request.why_not)
            return Found(None, request, user, None)
        result = await self.cache.lookup(
            request.question, user, context=request.context, history=request.history, **wants
        )
        return Found(result.response, request, user, result, wants["no_store"])

    async def store(self, found: Found, reply: Reply) -> None:
        """Store the reply to a request that was not answered, or count why it is not stored."""
        if found.text is not None or not found.request.cacheable:
            return
        why_not = "declined" if found.no_store else reply.why_not
        if why_not is not None:
            await self.cache.bypass(why_not, of="put")
            return
        request = found.request
        await self.cache.put(
            request.question, found.user_id, reply.text, context=request.context,
            history=request.history, lookup=found.result, **self._how,
        )  # fmt: skip

    def now(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of *work*, for callers without an event loop."""
        return wait_hosted(work, self.cache)

    def find_now(self, request: Request) -> Found:
        """Return the same as `find`, for callers without an event loop."""
        return self.now(self._find(request, self.user(), controlled()))

    def store_now(self, found: Found, reply: Reply) -> None:
        """Store as `store`, for callers without an event loop."""
        self.now(self.store(found, reply))

    async def taped(
        self, found: Found, chunks: AsyncIterator[Chunk], reply: Callable[[list[Chunk]], Reply]
    ) -> AsyncIterator[Chunk]:
        """Yield the chunks of a stream; once it is complete, store the reply that they make."""
        seen: list[Chunk] = []
        complete = False
        try:
            async for chunk in chunks:
                seen.append(chunk)
                yield chunk
            complete = True
        finally:
            if not complete:
                await self.store(found, cut_short())
        await self.store(found, reply(seen))

    def taped_now(
        self, found: Found, chunks: Iterator[Chunk], reply: Callable[[list[Chunk]], Reply]
    ) -> Iterator[Chunk]:
        """Yield the chunks of a stream as `taped`, for callers without an event loop."""
        seen: list[Chunk] = []
        complete = False
        try:
            for chunk in chunks:
                seen.append(chunk)
                yield chunk
            complete = True
        finally:
            if not complete:
                # not waited for: a generator may be dropped anywhere
                start_hosted(self.store(found, cut_short()))
        self.store_now(found, reply(seen))
