"""Event loop of the app's caches, in one thread.

Streamlit runs a page in a thread of its own for each browser; a cache belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """Event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="glasscache-dashboard", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout: float) -> Result:
        """Return the result of *work*.

        Args:
            work: Coroutine for the loop's thread.
            timeout: Seconds after which it is cancelled.

        Raises:
            TimeoutError: If it took too long.
            Exception: Any error of *work*.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            future.cancel()
            raise TimeoutError(f"no answer within {timeout:g} s") from None

    def close(self) -> None:
        """Stop the thread; idempotent."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()
