"""Blocking interface to the cache, and a decorator: for code without an event loop of its own.

One background thread with an event loop serves all threads of the process. It works in threads, in
forked children, and where an event loop is already running, as in a notebook.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from cache_core import MultiLevelCache
from cache_core.runtime.hosting import wait_hosted
from glasscache.integrations.contract import Request, request_of
from glasscache.integrations.gate import acting_user, controlled

P = ParamSpec("P")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

_Method = Callable[Concatenate[MultiLevelCache, P], Coroutine[Any, Any, Result]]


def _blocking(method: _Method[P, Result]) -> Callable[Concatenate[BlockingCache, P], Result]:
    """Return a method that waits for one of the cache's, with the same arguments."""

    def call(self: BlockingCache, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return wait_hosted(method(self.cache, *args, **kwargs), self.cache)

    functools.update_wrapper(call, method)
    return call


class BlockingCache:
    """A cache whose methods wait for their result instead of returning a coroutine.

    Every method has the arguments of that of `MultiLevelCache`. Writes that wait are made when the
    process ends, if `close` was not called.

    Args:
        cache: The cache; default: one that the environment configures.
    """

    def __init__(self, cache: MultiLevelCache | None = None) -> None:
        self.cache = MultiLevelCache() if cache is None else cache

    lookup = _blocking(MultiLevelCache.lookup)
    get_multilevel = _blocking(MultiLevelCache.get_multilevel)
    get_or_compute = _blocking(MultiLevelCache.get_or_compute)
    put = _blocking(MultiLevelCache.put)
    warm_cache = _blocking(MultiLevelCache.warm_cache)
    invalidate = _blocking(MultiLevelCache.invalidate)
    invalidate_document = _blocking(MultiLevelCache.invalidate_document)
    invalidate_tag = _blocking(MultiLevelCache.invalidate_tag)
    invalidate_writer = _blocking(MultiLevelCache.invalidate_writer)
    forget_user = _blocking(MultiLevelCache.forget_user)
    feedback = _blocking(MultiLevelCache.feedback)
    explain = _blocking(MultiLevelCache.explain)
    bypass = _blocking(MultiLevelCache.bypass)
    initialize = _blocking(MultiLevelCache.initialize)
    ready = _blocking(MultiLevelCache.ready)
    close = _blocking(MultiLevelCache.close)

    def get_metrics(self) -> dict[str, Any]:
        """Return what the cache counted."""
        return self.cache.get_metrics()

    def __enter__(self) -> Self:
        self.initialize()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def cached(
    cache: MultiLevelCache | BlockingCache,
    message: str | None = None,
    *,
    user: str | Callable[[], str | None] = acting_user,
    history: str | None = None,
    ignore: tuple[str, ...] = (),
    **how: Any,
) -> Callable[[Function], Function]:
    """Decorator for a function that answers a question, asynchronous or plain: it is called once.

    Every other argument belongs to the context: another value is another answer. A call with an
    argument that cannot be compared is made as it is, and counted as a bypass.

    Args:
        cache: The cache.
        message: Parameter with the question; default: the first one.
        user: Parameter with the verified user, or a function that returns it; default: the user of
            `as_user`.
        history: Parameter with the earlier turns.
        ignore: Parameters that do not change the answer, such as a client or a trace id.
        **how: What `get_or_compute` takes besides: `intent`, `shared`, `ttl`, `tags`.
    """
    engine = cache.cache if isinstance(cache, BlockingCache) else cache
    waiting = BlockingCache(engine)

    def decorate(function: Function) -> Function:
        read = _Reader(function, message, user, history, frozenset(ignore))

        @functools.wraps(function)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            request, user_id = read(args, kwargs)
            if request.why_not is not None:
                await engine.bypass(request.why_not)
                return await function(*args, **kwargs)
            return await engine.get_or_compute(
                request.question, user_id, functools.partial(function, *args, **kwargs),
                context=request.context, history=request.history, **how, **controlled(),
            )  # fmt: skip

        @functools.wraps(function)
        def answer_now(*args: Any, **kwargs: Any) -> Any:
            request, user_id = read(args, kwargs)
            if request.why_not is not None:
                waiting.bypass(request.why_not)
                return function(*args, **kwargs)
            return waiting.get_or_compute(
                request.question, user_id, functools.partial(function, *args, **kwargs),
                context=request.context, history=request.history, **how, **controlled(),
            )  # fmt: skip

        return cast("Function", answer if inspect.iscoroutinefunction(function) else answer_now)

    return decorate


class _Reader:
    """Reader of a decorated function's arguments.

    Args:
        function: The function.
        message, user, history, ignore: As for `cached`.

    Raises:
        TypeError: If the function has no such parameter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        message: str | None,
        user: str | Callable[[], str | None],
        history: str | None,
        ignore: frozenset[str],
    ) -> None:
        self._signature = inspect.signature(function)
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._message = message or next(iter(self._signature.parameters), "")
        self._user = user
        self._history = history
        self._ignore = ignore
        named = {self._message, *ignore} | {
            item for item in (user, history) if isinstance(item, str)
        }
        unknown = sorted(named - set(self._signature.parameters))
        if unknown:
            msg = f"{self._name} has no parameter {', '.join(map(repr, unknown))}"
            raise TypeError(msg)

    def __call__(self, args: Any, kwargs: Any) -> tuple[Request, str | None]:
        """Return the request that a call stands for, and its user."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        question = given.pop(self._message)
        user_id = given.pop(self._user) if isinstance(self._user, str) else self._user()
        earlier = given.pop(self._history) if self._history is not None else None
        context = {name: value for name, value in given.items() if name not in self._ignore}
        if not isinstance(question, str):
            msg = f"{self._name}: {self._message} must be a str, not {type(question).__name__}"
            raise TypeError(msg)
        request = request_of(question, {"arguments": context}, provider=self._name)
        return request._replace(history=list(earlier) if earlier else None), user_id
