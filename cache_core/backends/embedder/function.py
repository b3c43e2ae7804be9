"""An application's own function as the embedding model."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

from cache_core.backends.base import Vector
from cache_core.backends.embedder.pool import Meter, ThreadEmbedder
from cache_core.backends.embedder.tokens import (
    DEFAULT_WINDOW,
    UNKNOWN_TOKENIZER,
    Counter,
    counter_for,
)
from cache_core.backends.embedder.vectors import VectorCheck
from cache_core.backends.forking import leave_to_parent
from cache_core.model.exceptions import BackendError, ConfigurationError

Function: TypeAlias = Callable[[Any], Any]
"""Returns the vector of a text, or the vectors of a list of texts; or an awaitable of it."""

_made: dict[str, tuple[str, ...]] = {}
"""Place of the function behind each identity."""


class FunctionEmbedder(ThreadEmbedder):
    """Embedder that calls a function of yours.

    The function runs in worker threads, never in an event loop of the application; equal texts that
    wait at the same time are one call, and a text whose lookups have all ended is not sent. What it
    returns is checked: real, finite values, as many as the first vector had. Whatever it raises
    ends the lookup's semantic part as an error, and five in a row open the breaker.

    Args:
        function: Takes a text and returns its vector; with *batch* it takes a list of texts and
            returns as many vectors, in their order. A coroutine function is awaited, in one event
            loop of its own thread: let it make its HTTP client there, or on first use.
        name: Name of the model, 1 to 200 characters.
        version: Changes with the model's weights. Vectors are compared with those of the same name
            and version only: two models must never have both in common.
        batch: Most texts in one call; `None`: the function takes one text.
        window: Tokens that the model reads. Default: 256.
        tokenizer: Path of the model's `tokenizer.json`, which makes the checks of a message's
            length and characters exact; `bytes` for a byte-level tokenizer. Default, `unknown`:
            only messages of ASCII characters with fewer bytes than the window are matched.
        workers: Calls at the same time.
        timeout: Seconds after which a coroutine is cancelled.

    Raises:
        ConfigurationError: Without a name and a version; for ones that another function of this
            process has.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str,
        version: str,
        batch: int | None = None,
        window: int | None = None,
        tokenizer: str | os.PathLike[str] = UNKNOWN_TOKENIZER,
        workers: int = 4,
        timeout: float = 10.0,
    ) -> None:
        if not callable(function):
            msg = f"function must be a function, not {type(function).__name__}"
            raise TypeError(msg)
        _check_texts(name=name, version=version)
        _check_numbers(batch=batch, window=window, workers=workers, timeout=timeout)
        identity = f"function\0{name}\0{version}"
        _claim(identity, function)
        meter = Meter()
        super().__init__(
            name,
            partial(
                FunctionEncoder,
                function=function,
                batched=batch is not None,
                reading=(os.fspath(tokenizer), window or DEFAULT_WINDOW),
                timeout=timeout,
                meter=meter,
            ),
            identify=lambda: identity,
            workers=workers,
            batch=batch or 1,
            meter=meter,
        )


class FunctionEncoder:
    """Encoder that calls a function.

    Args:
        model: Name of the model.
        function: See `FunctionEmbedder`.
        batched: Whether it takes a list.
        reading: Tokenizer and window.
        timeout: Seconds that an awaitable may take.
        meter: Counts the texts.
    """

    def __init__(
        self,
        model: str,
        *,
        function: Function,
        batched: bool,
        reading: tuple[str, int],
        timeout: float,
        meter: Meter,
    ) -> None:
        self._function = function
        self._batched = batched
        self._counter: Counter = counter_for(reading[0])
        self._window = reading[1]
        self._timeout = timeout
        self._meter = meter
        self._check = VectorCheck(model)

    def encode(self, texts: Sequence[str]) -> list[Vector | BackendError]:
        """Return the vectors of *texts*; raises what the function raises."""
        self._meter.add(texts=len(texts))
        if not self._batched:
            (text,) = texts
            return [self._check.or_error(self._call(text))]
        found = self._call(list(texts))
        shown = type(found).__name__
        if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
            raise BackendError(
                "backend_error", "InvalidVectorError", f"{shown}, no list of vectors"
            )
        vectors = list(found)
        if len(vectors) != len(texts):
            msg = f"{len(vectors)} vectors for {len(texts)} texts"
            raise BackendError("backend_error", "InvalidVectorError", msg)
        return [self._check.or_error(vector) for vector in vectors]

    def _call(self, given: str | list[str]) -> Any:
        found = self._function(given)
        return _loop.run(found, self._timeout) if inspect.isawaitable(found) else found

    def fits(self, text: str) -> bool:
        """Return whether *text* is within the window for certain."""
        return self._counter.fits(text, self._window)

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text* for certain."""
        return self._counter.knows(text)


class _LoopThread:
    """Event loop in a thread of its own, for awaitables of all functions; started on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any], seconds: float) -> Any:
        """Return the result of *awaitable*; raises `TimeoutError` after *seconds*."""
        waiting = asyncio.run_coroutine_threadsafe(_awaited(awaitable, seconds), self._started())
        return waiting.result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="glasscache-embedding-loop", daemon=True
                ).start()
            return self._loop


async def _awaited(awaitable: Awaitable[Any], seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


_loop = _LoopThread()


def _claim(identity: str, function: Function) -> None:
    """Record which function has *identity*.

    Raises:
        ConfigurationError: If another one has it.
    """
    place = _place(function)
    if _made.setdefault(identity, place) != place:
        _, name, version = identity.split("\0")
        msg = (
            f"name={name!r} and version={version!r} are those of another embedding function, "
            f"{'.'.join(_made[identity][:2])}: vectors of both would be compared. Give each model "
            "a name of its own, and each change of a model another version"
        )
        raise ConfigurationError(msg)


def _place(function: Function) -> tuple[str, ...]:
    """Return where *function* is defined: a reloaded module has the same function again."""
    while isinstance(function, partial):
        function = function.func
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return str(getattr(named, "__module__", "")), str(named.__qualname__)


def _check_texts(**texts: object) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            msg = f"{name} must be a str, not {type(text).__name__}"
            raise TypeError(msg)
        if not text.strip() or len(text) > 200 or not text.isprintable():
            msg = (
                f"{name}={text[:50]!r} is refused: an embedding function needs a name and a "
                "version of 1 to 200 printable characters, which no other model has"
            )
            raise ConfigurationError(msg)


def _check_numbers(**numbers: object) -> None:
    for name, number in numbers.items():
        optional = name in {"batch", "window"} and number is None
        if optional:
            continue
        kinds = (int, float) if name == "timeout" else (int,)
        if isinstance(number, bool) or not isinstance(number, kinds):
            msg = f"{name} must be a number, not {type(number).__name__}"
            raise TypeError(msg)
        if not 0 < cast("float", number) <= 1_000_000:
            msg = f"{name}={number!r} is refused: expected more than 0"
            raise ConfigurationError(msg)


def _forked() -> None:
    global _loop  # noqa: PLW0603 - its thread is the parent's alone
    leave_to_parent(_loop)
    _loop = _LoopThread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
