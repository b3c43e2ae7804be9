"""Connection of the index to Chroma, under deadlines, with a collection per context."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from chromadb.errors import InternalError, NotFoundError

from cache_core.backends.breaker import Breaker, Queueing
from cache_core.backends.chroma.directory import Slot, close_client, open_directory
from cache_core.backends.chroma.rebuild import CONFIGURATION, COPY, REPLACED, rebuild
from cache_core.backends.chroma.server import connect_server, disconnect
from cache_core.backends.deadline import Deadline
from cache_core.model.exceptions import BackendError

DIRECTORY_SECONDS = 10.0
"""Time limit for opening a directory, and for ending a rebuild on close."""

SERVER_SECONDS = 1.0
"""Time limit for connecting to a server, so that a silent one does not delay the agent."""

PATIENT_SECONDS = 30.0
"""Time limit of a call that no lookup or put waits for."""

_NOT_YET = "Nothing found on disk"
_DELETED = "Missing metadata segment"
_MOST_REQUESTS = 256
"""Concurrent requests to a server, including those whose caller was cancelled."""

_WRITES = {"upsert", "delete"}


LEAST_FREE_BYTES = 16 * 1_048_576
"""Free disk space needed for a write. Chroma loses a database connection with every write that
fails without it; when none is left, the next write stops the whole process."""


class PanicError(Exception):
    """Chroma's native part panicked."""


class DiskFullError(Exception):
    """The disk is too full for a write; the index can still be searched."""


class NotYetError(Exception):
    """A collection exists, but its very first rows are still being written."""


class ChromaClient:
    """Collections of one namespace and model, in a directory or on a server.

    Coroutines raise only `BackendError`.

    Args:
        prefix: Prefix of the collections' names; the rest is the context.
        default_context: Context whose collection always exists.
        directory: Directory of the embedded Chroma.
        url: URL of a server, instead of *directory*.
        timeout: Seconds for calls that are not searches; to a server, the most for any call.
        breaker: Guards every call. Must not count `NotFoundError` as a failure.
    """

    def __init__(
        self,
        prefix: str,
        default_context: str,
        directory: Path | None,
        url: str | None,
        timeout: float,
        breaker: Breaker,
    ) -> None:
        self._prefix = prefix
        self._default_context = default_context
        self._directory = directory
        self._url = url
        self._timeout = timeout
        self._breaker = breaker
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="glasscache-chroma")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Future[Any] | None = None
        self._client: Any = None
        self._slot: Slot | None = None
        self._rebuilding: concurrent.futures.Future[bool] | None = None
        self._requests: set[asyncio.Future[Any]] = set()
        self._stopped = threading.Event()
        self._broken = False
        self.connected = False
        """True once the existing collections are known."""
        self.place: str | None = None
        """Directory of the index, used by this process alone."""
        self.collections: dict[str, Any] = {}
        """The known collections by context."""
        self._others: list[Any] = []

    @property
    def embedded(self) -> bool:
        """True if the index is a directory of this process."""
        return self._url is None

    async def connect(self) -> None:
        """Connect, find the collections that exist, and make the default one."""
        if self._stopped.is_set():
            raise BackendError("backend_error", "Closed")
        self._loop = asyncio.get_running_loop()
        with self._breaker:
            async with Deadline(SERVER_SECONDS if self._url else DIRECTORY_SECONDS):
                if self._client is None:
                    self._client = await self._open()
                self._know(await self._run(self._client.list_collections))
                if self._default_context not in self.collections:
                    name = self._prefix + self._default_context
                    make = partial(_maker(self._client), name, embedding_function=None)
                    self.collections[self._default_context] = await self._run(make)
        self.connected = True

    async def _open(self) -> Any:
        if self._url:
            return await connect_server(self._url, self._timeout)
        # A thread cannot be cancelled: after a deadline the next attempt waits for the same one.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._in_thread(self._open_directory))
            self._opening.add_done_callback(self._ended)
        return await asyncio.shield(self._opening)

    def _open_directory(self) -> Any:
        if self._client is None and self._directory is not None:
            self._client, self._slot, self.place = open_directory(self._directory)
        return self._client

    def rename(self, prefix: str) -> None:
        """Use the collections whose names begin with *prefix* from now on."""
        self._prefix = prefix
        self.collections.clear()

    async def discover(self, timeout: float | None = None) -> None:
        """List the collections again: other caches and replicas make and drop them too."""
        timeout = timeout or self._timeout
        self._know(await self.call(self._required().list_collections, timeout=timeout))
        if self._default_context not in self.collections:
            await self._find(self._default_context, timeout, create=True)

    def _know(self, found: Iterable[Any]) -> None:
        whole = [one for one in found if not one.name.endswith((COPY, REPLACED))]
        own = self._prefix
        self.collections = {
            one.name.removeprefix(own): one for one in whole if one.name.startswith(own)
        }
        namespace = re.escape(own[: -len("0123456789abcdef-")])
        other = re.compile(f"{namespace}[0-9a-f]{{16}}-[0-9a-f]+")
        self._others = [
            one
            for one in whole
            if not one.name.startswith(own) and other.fullmatch(one.name) is not None
        ]

    async def of_model(self, prefix: str) -> dict[str, Any]:
        """Return the collections, by context, whose names begin with *prefix*."""
        await self.discover(timeout=PATIENT_SECONDS)
        own = [one for one in self._others if one.name.startswith(prefix)]
        return {one.name.removeprefix(prefix): one for one in own}

    async def delete(self, name: str) -> None:
        """Delete a collection; nothing happens if there is none."""
        work = partial(self._required().delete_collection, name)
        if self._slot is not None:
            work = partial(self._slot.journal.write, name, (), work)
        try:
            await self.call(work, timeout=self._timeout)
        except BackendError as error:
            if not isinstance(error.__cause__, NotFoundError):
                raise

    async def sweep_others(self, now: float, most: int) -> None:
        """Delete rows dropped by *now* of this namespace's other models, and empty collections.

        Otherwise they would stay once no process has that model. Deletes at most *most* rows of
        each collection.
        """
        for collection in self._others:
            try:
                await self._sweep_other(collection, now, most)
            except BackendError as error:
                if not isinstance(error.__cause__, NotFoundError):
                    raise

    async def _sweep_other(self, collection: Any, now: float, most: int) -> None:
        client, name, slot = self._required(), collection.name, self._slot
        get = partial(collection.get, where={"dropped": {"$lt": now}}, limit=most, include=[])
        found = (await self.call(get, timeout=self._timeout))["ids"]
        work = partial(client.delete_collection, name)
        if found:
            work = partial(collection.delete, ids=found)
        elif name.endswith(self._default_context):
            # A process with that model may be about to write its first row.
            return
        elif await self.call(collection.count, timeout=self._timeout):
            return
        elif slot is not None:
            work = partial(_drop_if_empty, client, name)
        if slot is not None:
            work = partial(slot.write, name, found, partial(_with_room, slot.path, work))
        await self.call(work, timeout=self._timeout)

    async def ask(
        self, context: str, method: str, *, timeout: float, create: bool = False, **values: Any
    ) -> Any:
        """Call a method of a context's collection; `None` if there is no collection.

        A handle is stale once any process has rebuilt, dropped or recreated its collection: then
        the collection is looked up by its name, once.
        """
        for last in (False, True):
            collection = self.collections.get(context)
            if collection is None:
                collection = await self._find(context, timeout, create=create)
            if collection is None:
                return None
            slot, name = self._slot, collection.name
            if slot is not None and method == "query" and slot.is_empty(name):
                return None
            if self._broken and method in _WRITES:
                raise BackendError("backend_error", "ReopeningError", "the index is reopened first")
            writes = slot.writes if slot is not None else 0
            work = partial(getattr(collection, method), **values)
            if slot is not None and method in _WRITES:
                work = partial(
                    slot.write, name, values["ids"], partial(_with_room, slot.path, work)
                )
            try:
                found = await self.call(work, timeout=timeout)
                if slot is not None and method == "query" and not found["ids"][0]:
                    slot.note_empty(name, writes)
                return found
            except BackendError as error:
                if not isinstance(error.__cause__, NotFoundError):
                    raise
                if self.collections.get(context) is collection:
                    del self.collections[context]
                if last:
                    raise
        return None

    async def _find(self, context: str, timeout: float, *, create: bool) -> Any:
        """Look a collection up by its name; `None` if there is none."""
        client = self._required()
        work = _maker(client) if create else client.get_collection
        work = partial(work, self._prefix + context, embedding_function=None)
        try:
            found = await self.call(work, timeout=timeout)
        except BackendError as error:
            if isinstance(error.__cause__, NotFoundError):
                return None
            raise
        self.collections[context] = found
        return found

    def _required(self) -> Any:
        if self._client is not None:
            return self._client
        # Counted, but without taking the probe that `connect` needs.
        if self._breaker.state != "closed":
            raise BackendError("breaker_open")
        error = self._breaker.again()
        self._breaker.fail(ConnectionError(str(error)))
        raise error

    async def heartbeat(self) -> None:
        """Check that Chroma answers."""
        await self.call(self._required().heartbeat, timeout=self._timeout)

    async def drop_if_empty(self, context: str) -> None:
        """Delete a context's collection unless it has rows; not the default one."""
        if context == self._default_context or await self.ask(
            context, "count", timeout=self._timeout
        ):
            return
        client, name = self._required(), self._prefix + context
        work = partial(client.delete_collection, name)
        if self._slot is not None:
            # Another cache of this process may be about to write.
            drop = partial(_drop_if_empty, client, name)
            work = partial(self._slot.journal.write, name, (), drop)
        try:
            await self.call(work, timeout=self._timeout)
        except BackendError as error:
            if not isinstance(error.__cause__, NotFoundError):
                raise
        self.collections.pop(context, None)

    async def rebuild(self, context: str) -> bool:
        """Rebuild a context's collection; return whether it was replaced.

        It has no deadline, and continues when the caller is cancelled; `close` stops it.
        """
        if self._slot is None or self._stopped.is_set():
            return False
        work = partial(
            rebuild, self._client, self._prefix + context, self._slot.journal, self._stopped
        )
        done: concurrent.futures.Future[bool] = concurrent.futures.Future()
        self._rebuilding = done
        done.set_running_or_notify_cancel()
        # Not in the pool, whose threads are for searches.
        threading.Thread(target=lambda: done.set_result(work()), name="glasscache-rebuild").start()
        return await asyncio.wrap_future(done)

    async def call(self, work: Callable[..., Any], *args: Any, timeout: float) -> Any:
        """Call Chroma under the breaker and a deadline."""
        try:
            with self._breaker, Queueing(self._breaker):
                async with Deadline(timeout):
                    return await self._run(work, *args)
        except BackendError as error:
            # Afterwards the state of its database is unknown.
            self._broken = self._broken or (
                self.embedded and isinstance(error.__cause__, (InternalError, PanicError))
            )
            raise

    async def mend(self) -> None:
        """Close an embedded index whose native part failed; `connect` opens it again."""
        slot = self._slot
        if not self._broken or slot is None:
            return
        self._broken = False
        # Other caches of this process continue to use the same client.
        if slot.alone and not (self._rebuilding is not None and not self._rebuilding.done()):
            client, self._client, self._slot = self._client, None, None
            self.connected = False
            self.collections.clear()
            with contextlib.suppress(Exception):
                await self._in_thread(partial(close_client, client))
            slot.release()

    async def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        try:
            if not self._url:
                return await self._in_thread(partial(work, *args))
            return await self._request(work, *args)
        except InternalError as error:
            if _NOT_YET in str(error):
                raise NotYetError(str(error)) from error
            if _DELETED in str(error):
                # It was deleted while this call ran: a rebuild has replaced it.
                raise NotFoundError(str(error)) from error
            raise

    async def _request(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Send a request to a server; it continues when the caller is cancelled.

        A request cancelled at the wrong moment leaves its connection in httpcore's pool for good,
        neither open nor closed (encode/httpcore#1093); one that times out by itself does not.
        """
        if len(self._requests) >= _MOST_REQUESTS:
            raise BackendError("overloaded", "TooManyRequests")
        request = asyncio.ensure_future(work(*args))
        self._requests.add(request)
        request.add_done_callback(self._ended)
        return await asyncio.shield(request)

    def _ended(self, request: asyncio.Future[Any]) -> None:
        self._requests.discard(request)
        if not request.cancelled():
            request.exception()  # asyncio logs an error that is never read

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _without_panic, work)

    async def close(self) -> None:
        """Stop a rebuild, disconnect, and release the directory; idempotent."""
        self._stopped.set()
        if self._opening is not None and not self._opening.done():
            await asyncio.wait({self._opening}, timeout=DIRECTORY_SECONDS)
        if self._rebuilding is not None and not self._rebuilding.done():
            rebuilding = asyncio.wrap_future(self._rebuilding)
            await asyncio.wait({rebuilding}, timeout=DIRECTORY_SECONDS)
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await (
                    disconnect(client)
                    if self._url
                    else self._in_thread(partial(close_client, client))
                )
        self._give_back()

    def abandon(self) -> None:
        """Do what `close` does once the event loop has ended; idempotent."""
        self._stopped.set()
        self._requests.clear()
        # Running calls still use the client; each of them is short.
        self._threads.shutdown(cancel_futures=True)
        if self._rebuilding is not None:
            concurrent.futures.wait([self._rebuilding], timeout=DIRECTORY_SECONDS)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                if self._url:
                    # Its connections ended with the loop; a later loop may get the same number.
                    client.taken()
                else:
                    _without_panic(partial(close_client, client))
        self._give_back()

    def _give_back(self) -> None:
        self.connected = False
        self.collections.clear()
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()
        self._threads.shutdown(wait=False)


def _without_panic(work: Callable[[], Any]) -> Any:
    """Return the result of *work*; a panic, which is no `Exception`, becomes a `PanicError`."""
    try:
        return work()
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise PanicError(f"{type(error).__name__}: {error}") from error


def _with_room(path: Path, work: Callable[[], Any]) -> Any:
    """Run *work*, a write, unless the disk is nearly full."""
    if shutil.disk_usage(path).free < LEAST_FREE_BYTES:
        raise DiskFullError(f"less than {LEAST_FREE_BYTES >> 20} MiB are free under {path}")
    return work()


def _maker(client: Any) -> Callable[..., Any]:
    return partial(client.get_or_create_collection, configuration=CONFIGURATION)


def _drop_if_empty(client: Any, name: str) -> None:
    if not client.get_collection(name, embedding_function=None).count():
        client.delete_collection(name)
