"""Faults to inject into backends: their probabilities and counts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from cache_core.backends.breaker import Breaker

Fault = Literal["throw", "hang", "corrupt", "lose_reply"]
"""`throw`: the call fails immediately, without effect. `hang`: it has no effect and no answer.
`corrupt`: a read value differs from the written one. `lose_reply`: a write takes effect, and fails.
"""

_OTHERS = 50
_T = TypeVar("_T")


class ChaosError(Exception):
    """An injected failure."""


class Faults:
    """Faults for `ChaosStore` and `ChaosVectors`; may be changed at any time.

    Args:
        throw, hang, corrupt, lose_reply: Probability of each, 0..1: see `Fault`. For `corrupt` per
            value, for the others per call; `lose_reply` is for calls that write.
        delay: Minimal and maximal delay of every call, in seconds.
        only: Names of the affected methods; `None` for all.
        seed: The same seed and the same calls give the same faults.

    Attributes:
        calls: Number of calls of each method.
        injected: Number of occurrences of each fault.
    """

    def __init__(
        self,
        *,
        throw: float = 0.0,
        hang: float = 0.0,
        corrupt: float = 0.0,
        lose_reply: float = 0.0,
        delay: tuple[float, float] = (0.0, 0.0),
        only: frozenset[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.throw = throw
        self.hang = hang
        self.corrupt = corrupt
        self.lose_reply = lose_reply
        self.delay = delay
        self.only = only
        self.random = random.Random(seed)
        self.calls: Counter[str] = Counter()
        self.injected: Counter[Fault] = Counter()

    def always(self, fault: Fault, *, only: frozenset[str] | None = None) -> None:
        """Inject only *fault*, in every call of the methods *only*."""
        self.never()
        setattr(self, fault, 1.0)
        self.only = only

    def never(self) -> None:
        """Inject nothing any more."""
        self.throw = self.hang = self.corrupt = self.lose_reply = 0.0
        self.delay = (0.0, 0.0)
        self.only = None

    @contextmanager
    def during(self, fault: Fault, *, only: frozenset[str] | None = None) -> Iterator[None]:
        """Inject *fault* in every call while the body runs, and nothing after it."""
        self.always(fault, only=only)
        try:
            yield
        finally:
            self.never()

    def happens(self, fault: Fault, method: str) -> bool:
        """Return whether *fault* happens now, at random; count it if so."""
        chance: float = getattr(self, fault)
        # Impossible faults draw nothing, so that they do not change the faults of a seed.
        if chance <= 0 or not self._affects(method) or self.random.random() >= chance:
            return False
        self.injected[fault] += 1
        return True

    def _affects(self, method: str) -> bool:
        return self.only is None or method in self.only

    async def around(
        self,
        method: str,
        work: Callable[[], Awaitable[_T]],
        breaker: Breaker,
        timeout: float,
        *,
        writes: bool = False,
    ) -> _T:
        """Return the result of *work*, unless a fault happens.

        Args:
            method: Name of the method.
            work: The call, guarded by *breaker* itself.
            breaker: Counts the faults, as it does real failures.
            timeout: Seconds after which a call that hangs or is delayed fails.
            writes: Whether a reply can be lost.

        Raises:
            BackendError: If a fault happened.
        """
        self.calls[method] += 1
        if breaker.state == "open":
            return await work()
        if self.happens("throw", method):
            with breaker:
                raise ChaosError(method)
        late = self._late(method)
        if late >= timeout or self.happens("hang", method):
            with breaker:
                await asyncio.sleep(timeout)
                raise TimeoutError(method)
        if late:
            await asyncio.sleep(late)
        result = await work()
        if writes and self.happens("lose_reply", method):
            with breaker:
                raise ChaosError(method)
        return result

    def _late(self, method: str) -> float:
        least, most = self.delay
        if most <= 0 or not self._affects(method):
            return 0.0
        return self.random.uniform(least, most)

    def garbled(self, text: str, method: str, others: list[str]) -> str:
        """Return *text*, or a corrupted one: cut, changed, swapped, random, or empty.

        Args:
            text: The text read.
            method: The method that read it.
            others: Values that it may be swapped with: the first that were read.
        """
        if len(others) < _OTHERS:
            others.append(text)
        if not self.happens("corrupt", method):
            return text
        kind = self.random.choice(("cut", "changed", "swapped", "random", "empty"))
        if kind == "cut":
            return text[: len(text) // 2]
        if kind == "changed" and text:
            place = self.random.randrange(len(text))
            return text[:place] + chr(33 + (ord(text[place]) - 32) % 94) + text[place + 1 :]
        if kind == "swapped" and others:
            return self.random.choice(others)
        if kind == "empty":
            return ""
        return "".join(chr(self.random.randrange(32, 127)) for _ in range(24))
