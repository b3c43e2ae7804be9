"""What goes wrong, how often, and what went wrong so far."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from cache_core.breaker import Breaker

Fault = Literal["throw", "hang", "corrupt", "lose_reply"]
"""`throw`: the call fails at once, nothing done. `hang`: it does nothing and does not answer.
`corrupt`: a value that was read is not what was written. `lose_reply`: a write is done, and fails.
"""

_T = TypeVar("_T")


class ChaosError(Exception):
    """The failure that was asked for."""


class Faults:
    """A switchboard for `ChaosStore` and `ChaosVectors`; may be changed at any time.

    Args:
        throw, hang, corrupt, lose_reply: How probable each is, 0..1: see `Fault`. For `corrupt`
            that is per value, for the others per call; `lose_reply` is for calls that write.
        delay: Least and most seconds by which every call is late.
        only: Names of the methods that are affected; `None`: all.
        seed: The same seed and the same calls give the same faults.

    Attributes:
        calls: How often each method was called.
        injected: How often each fault happened.
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
        """Let *fault*, and nothing else, happen every time, to the methods *only*."""
        self.never()
        setattr(self, fault, 1.0)
        self.only = only

    def never(self) -> None:
        """Let nothing happen any more."""
        self.throw = self.hang = self.corrupt = self.lose_reply = 0.0
        self.delay = (0.0, 0.0)
        self.only = None

    @contextmanager
    def during(self, fault: Fault, *, only: frozenset[str] | None = None) -> Iterator[None]:
        """Let *fault* happen every time while the body runs, and nothing after it."""
        self.always(fault, only=only)
        try:
            yield
        finally:
            self.never()

    def happens(self, fault: Fault, method: str) -> bool:
        """Draw whether *fault* happens now; it is counted."""
        chance: float = getattr(self, fault)
        # Nothing is drawn for what cannot happen: other knobs do not change what a seed gives.
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
        """Return what *work* returns, unless something happens to it.

        Args:
            method: What is called.
            work: Does it, guarded by *breaker* itself.
            breaker: Counts what happens, as it does real failures.
            timeout: Seconds after which a call that hangs, or is later than that, fails.
            writes: Whether a reply can be lost.

        Raises:
            BackendError: When something happened.
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
        """Return *text*, or something that is not it: cut, changed, another value, or nothing."""
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


def kept(others: list[str], text: Any, most: int = 50) -> None:
    """Remember *text* among the *most* values that others may be swapped with."""
    if isinstance(text, str) and len(others) < most:
        others.append(text)
