"""The end of background tasks that go on by themselves whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN = 0.5
"""Seconds that a cancelled task has for its clean-up before it is cancelled again."""


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* and return when all have ended.

    They may be cancelled more than once: `asyncio.gather` that is cancelled in the moment in which
    something in it fails raises that failure instead, and what outlives failures goes on.
    """
    ending = list(tasks)
    left = {task for task in ending if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)
    await asyncio.gather(*ending, return_exceptions=True)
