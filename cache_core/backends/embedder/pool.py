"""Text to vectors, off the event loop: a bounded queue, worker threads, a cache of vectors."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from cache_core.backends.base import Usage, Vector
from cache_core.backends.embedder.encoder import ClosingEncoder, Encoder
from cache_core.backends.forking import leave_to_parent
from cache_core.model.batches import batched
from cache_core.model.exceptions import BackendError, ConfigurationError, ErrorReason

log = logging.getLogger("glasscache")

QUEUE_LIMIT = 256
"""Texts that may wait; a full queue raises `overloaded` immediately."""

_AHEAD = 32
"""Texts submitted together by `embed_all`."""

_VECTORS_KEPT = 4_096
_CLOSE_SECONDS = 5.0

_embedders: WeakSet[ThreadEmbedder] = WeakSet()


class Meter:
    """Counts the usage of a model that is paid for; may be used in any thread.

    Without a lock, which a forked child might inherit locked.
    """

    def __init__(self) -> None:
        self._usages: deque[Usage] = deque()

    def add(self, texts: int = 0, tokens: int = 0) -> None:
        """Count some texts, or the tokens of some."""
        self._usages.append(Usage(texts, tokens))

    def take(self) -> Usage:
        """Return what was counted since the last call."""
        texts = tokens = 0
        with contextlib.suppress(IndexError):
            while True:
                usage = self._usages.popleft()
                texts += usage.texts
                tokens += usage.tokens
        return Usage(texts, tokens)


@dataclass(slots=True, eq=False)
class _Item:
    """A text that is waiting or being encoded, and the futures of its callers."""

    text: str
    futures: list[Future[Vector]] = field(default_factory=list)

    def cancelled(self) -> bool:
        return all(future.cancelled() for future in self.futures)

    def fail(self, error: BackendError) -> None:
        for future in self.futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error.copy())

    def succeed(self, vector: Vector) -> None:
        for future in self.futures:
            if future.set_running_or_notify_cancel():
                future.set_result(vector)


class ThreadEmbedder:
    """Embedder with worker threads, a bounded queue and a cache of vectors.

    Equal texts are encoded once, whichever workers they reach. A text whose callers were all
    cancelled, as the end of their time does, is not encoded. The first worker loads the model; each
    further one starts when a text finds no idle worker.

    Args:
        model: Name of the model.
        load: Makes the encoder; called in a worker thread.
        identify: Returns the identity of the model; may read its files. Default: its name.
        workers: Threads that encode at the same time.
        batch: Texts that a worker encodes together.
        meter: Counts what the encoder uses, of a model that is paid for by use. Nothing is encoded
            then before the first text.
    """

    def __init__(
        self,
        model: str,
        load: Callable[[str], Encoder],
        *,
        identify: Callable[[], str] | None = None,
        workers: int = 1,
        batch: int = 1,
        meter: Meter | None = None,
    ) -> None:
        self._model = model
        self._meter = meter
        self._load = load
        self._identify = identify
        self._identity: str | None = None
        self._workers = workers
        self._batch = batch
        self._encoder: Encoder | None = None
        self._inherited: Encoder | None = None
        self._vectors: OrderedDict[str, Vector] = OrderedDict()
        self._kept = _VECTORS_KEPT
        self._closed = False
        self._start_over()
        _embedders.add(self)

    def _start_over(self) -> None:
        """Set what only this process and its threads have."""
        self._wake = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._items: dict[str, _Item] = {}
        self._threads: list[threading.Thread] = []
        self._loaded: Future[None] = Future()
        self._idle = 0
        self._busy = 0

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._model

    @property
    def identity(self) -> str:
        """Identity of the model, constant while this embedder lives; may read its files once."""
        if self._identity is None:
            self._identity = self._model if self._identify is None else self._identify()
        return self._identity

    @property
    def is_metered(self) -> bool:
        """True if the model is paid for by use."""
        return self._meter is not None

    def take_usage(self) -> Usage:
        """Return the usage since the last call; empty for a model that is not metered."""
        return Usage() if self._meter is None else self._meter.take()

    @property
    def ready(self) -> bool:
        """True once the model is loaded."""
        return self._encoder is not None

    @property
    def failed(self) -> bool:
        """True once loading has failed for good."""
        return self._loaded.done() and self._loaded.exception() is not None

    def start(self) -> None:
        """Start loading in the background."""
        with self._wake:
            if not self._threads:
                self._add_worker()

    async def wait_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            ConfigurationError: If it cannot be loaded.
        """
        self.start()
        await asyncio.shield(asyncio.wrap_future(self._loaded))

    def fits(self, text: str) -> bool:
        """Return whether the model reads the whole *text*; False while it is loading."""
        return self._encoder is not None and self._encoder.fits(text)

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text*: unknown parts are all alike."""
        return self._encoder is not None and self._encoder.knows(text)

    async def embed(self, text: str) -> Vector:
        """Return the unit vector of *text*, shape (dimension,).

        Raises:
            BackendError: `overloaded` with a full queue, `backend_error` if the model failed.
        """
        kept = self._vectors.get(text)
        if kept is not None:
            with contextlib.suppress(KeyError):
                self._vectors.move_to_end(text)
            return kept
        return await asyncio.wrap_future(self._submit(text))

    async def embed_all(self, texts: Sequence[str], progress: Any = None) -> None:
        """Encode *texts* ahead of time, so that `embed` finds them.

        Args:
            texts: Texts to encode, in any order.
            progress: Called with the number of texts done after each batch.
        """
        # Sorted by length: padding to the longest is most of a mixed batch's cost.
        unique = sorted(set(texts) - self._vectors.keys(), key=lambda text: (len(text), text))
        self._kept = max(self._kept, len(unique) + len(self._vectors))
        for batch in batched(unique, _AHEAD):
            futures = [self._submit(text) for text in batch]
            await asyncio.gather(*map(asyncio.wrap_future, futures))
            if progress is not None:
                progress(len(futures))

    def forget(self) -> None:
        """Drop all vectors, including those of texts being encoded now."""
        self._vectors = OrderedDict()

    def _submit(self, text: str) -> Future[Vector]:
        future: Future[Vector] = Future()
        with self._wake:
            if self._closed:
                raise BackendError("backend_error", "Closed")
            item = self._items.get(text)
            if item is not None:
                item.futures.append(future)
                return future
            # Its worker may have finished since the caller looked.
            kept = self._vectors.get(text)
            if kept is not None:
                future.set_result(kept)
                return future
            if len(self._queue) >= QUEUE_LIMIT:
                raise BackendError("overloaded", "QueueFull")
            item = self._items[text] = _Item(text, [future])
            self._queue.append(item)
            self._wake.notify()
            self._grow()
        return future

    def _grow(self) -> None:
        """Start one more worker if a text has no idle one; under the lock."""
        unserved = len(self._queue) > self._idle
        able = self.ready and len(self._threads) < self._workers
        if not self._threads or (unserved and able):
            self._add_worker()

    def _add_worker(self) -> None:
        work = self._work if self._threads else self._load_and_work
        thread = threading.Thread(target=work, name="glasscache-embedder", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop the workers; pending texts fail."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
            loading = not (self._busy or self.ready)
        # An event loop should not stand still for a load.
        if not loading:
            self.join()

    def join(self) -> None:
        """Wait until the workers of a closed embedder have ended, at most 5 seconds."""
        end = time.monotonic() + _CLOSE_SECONDS
        for thread in list(self._threads):
            thread.join(timeout=max(0.0, end - time.monotonic()))
        if isinstance(self._encoder, ClosingEncoder):
            self._encoder.close()

    def _load_and_work(self) -> None:
        try:
            encoder = self._inherited or self._load(self._model)
            if self._meter is None:
                self._vectors_of(encoder, ["warm up"])
        except Exception as error:  # noqa: BLE001 - raised to each caller of `wait_ready`
            failure = _as_configuration_error(self._model, error)
            log.error("l2 is without its embedding model: %s", failure)
            self._loaded.set_exception(failure)
            self._fail_waiting()
            return
        self._encoder = encoder
        self._loaded.set_result(None)
        self._work()

    def _work(self) -> None:
        encoder = self._encoder
        assert encoder is not None  # noqa: S101 - the first worker loads it
        while items := self._take():
            self._encode(encoder, items)
            # Otherwise the texts stay in memory until the next batch.
            del items
        self._fail_waiting()

    def _take(self) -> list[_Item]:
        """Return the next texts that callers wait for; waits for one. Empty once closed."""
        with self._wake:
            while not self._closed:
                taken: list[_Item] = []
                while self._queue and len(taken) < self._batch:
                    item = self._queue.popleft()
                    if item.cancelled():
                        del self._items[item.text]
                    else:
                        taken.append(item)
                if taken:
                    self._grow()
                    return taken
                self._idle += 1
                self._wake.wait()
                self._idle -= 1
        return []

    def _encode(self, encoder: Encoder, items: list[_Item]) -> None:
        # Of before the encoding, because `forget` replaces it.
        kept = self._vectors
        found: list[Vector | BackendError]
        try:
            found = list(self._vectors_of(encoder, [item.text for item in items]))
        except BackendError as error:
            found = [error] * len(items)
        except Exception as error:  # noqa: BLE001 - every waiter gets it
            reason: ErrorReason = "timeout" if isinstance(error, TimeoutError) else "backend_error"
            found = [BackendError(reason, type(error).__name__, str(error))] * len(items)
        with self._wake:
            self._remove(items)
            for item, vector in zip(items, found, strict=True):
                if not isinstance(vector, BackendError):
                    vector.setflags(write=False)
                    kept[item.text] = vector
            while len(kept) > self._kept:
                kept.popitem(last=False)
        for item, vector in zip(items, found, strict=True):
            if isinstance(vector, BackendError):
                item.fail(vector)
            else:
                item.succeed(vector)

    def _remove(self, items: list[_Item]) -> None:
        for item in items:
            self._items.pop(item.text, None)

    def _vectors_of(self, encoder: Encoder, texts: list[str]) -> Iterable[Vector | BackendError]:
        # Less again before a result is set: its caller may fork immediately.
        with self._wake:
            self._busy += 1
        try:
            return encoder.encode(texts)
        finally:
            with self._wake:
                self._busy -= 1

    def _fail_waiting(self) -> None:
        with self._wake:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            self._remove(waiting)
        for item in waiting:
            item.fail(BackendError("backend_error", "ModelUnavailable"))

    def forked(self) -> None:
        """Start over in a forked child, which inherits the model but not the threads.

        A model that was encoding during the fork is loaded again: its state is unknown.
        """
        self._inherited = None if self._busy else self._encoder
        leave_to_parent(self._encoder)
        self._encoder = None
        self._start_over()
        # The tokenizers' own threads would print a warning after a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _as_configuration_error(model: str, error: Exception) -> ConfigurationError:
    if isinstance(error, ConfigurationError):
        return error
    return ConfigurationError(f"embedding model {model!r} failed: {type(error).__name__}: {error}")


@atexit.register
def _stop() -> None:
    """Stop all workers: a thread in native code at the interpreter's exit aborts the process."""
    for embedder in list(_embedders):
        embedder.close()
        embedder.join()


def _forked() -> None:
    for embedder in list(_embedders):
        embedder.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
